"""Rows of a source as chunks of token ids: what the preparing thread hands to the engine.

Token parts pass through untouched: an Arrow list array is one flat buffer of ids plus offsets, which
is what the engine takes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from assay.data.ahead import ahead
from assay.data.reading import RowReader
from assay.data.rows import SourceRows
from assay.runs.manifest import Manifest
from assay.runs.plan import Unit
from assay.tokenize.encode import Encoder
from assay.tokenize.settings import WINDOWS
from assay.tokenize.tokens import TOO_LONG, TokenIds, Tokens

TEXT_BATCH_ROWS = 2_048
CHUNK_ROWS = 65_536
FIRST_CHUNK_ROWS = 4_096
CHUNK_TOKENS = 32 << 20
NO_IDS = "no_ids"
"""Error code of a row of stored token ids that holds none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedChunk:
    """Consecutive rows of a unit, ready for the engine."""

    start: int
    """Row of the source that the first one is."""
    ids: pa.Array
    """What names each row in the part."""
    tokens: Tokens
    """Token ids, a row each; a row with an error is empty."""
    errors: dict[int, str]
    """Error code by row of the chunk."""

    @property
    def num_rows(self) -> int:
        """Rows, those with errors included."""
        return len(self.ids)

    @property
    def row_tokens(self) -> npt.NDArray[np.int32]:
        """Tokens of each row."""
        return self.tokens.num_tokens

    @property
    def row_truncated(self) -> npt.NDArray[np.bool_]:
        """Whether each row's text was cut."""
        return self.tokens.truncated


def max_row_tokens(encoder: Encoder) -> int | None:
    """Most ids that a row of stored ids may have; None where windows will cut them."""
    return None if encoder.on_long in WINDOWS else encoder.max_length


class ChunkRows:
    """How many rows the next chunk has: few at first, so that the device soon has something to do."""

    def __init__(self, most: int = CHUNK_ROWS) -> None:
        self.value = min(FIRST_CHUNK_ROWS, most)
        self._most = most

    def grow(self) -> None:
        """A quarter more, up to what a chunk may have: preparing it should not outlast the chunk before."""
        self.value = min(self._most, self.value + self.value // 4)


ReadChunks = Callable[[Iterable[SourceRows], ChunkRows | None], Iterator[EncodedChunk]]
"""Rows as chunks, in order; a chunk ends where a batch of rows does."""


def read_with(encoder: Encoder) -> ReadChunks:
    """What makes rows chunks of one sequence a row."""
    most = max_row_tokens(encoder)
    return lambda batches, chunk_rows: chunks(batches, encoder, max_tokens=most, chunk_rows=chunk_rows)


def chunks(
    batches: Iterable[SourceRows],
    encoder: Encoder,
    *,
    max_tokens: int | None,
    chunk_rows: ChunkRows | None = None,
) -> Iterator[EncodedChunk]:
    """The rows of `batches` as chunks of up to `chunk_rows` (65,536) rows or 32M tokens, in order.

    Rows of stored ids that have more than `max_tokens` get an error code, see `max_row_tokens`.
    """
    held: list[EncodedChunk] = []
    num_rows = num_tokens = 0
    for chunk in ahead(partial(to_chunk, encoder=encoder, max_tokens=max_tokens), batches):
        held.append(chunk)
        num_rows += chunk.num_rows
        num_tokens += len(chunk.tokens.flat_ids)
        most_rows = CHUNK_ROWS if chunk_rows is None else chunk_rows.value
        if num_rows >= most_rows or num_tokens >= CHUNK_TOKENS:
            yield join(held)
            held, num_rows, num_tokens = [], 0, 0
            if chunk_rows is not None:
                chunk_rows.grow()
    if held:
        yield join(held)


def read_unit(manifest: Manifest, reader: RowReader, unit: Unit) -> Iterator[SourceRows]:
    """The rows of a unit, in batches of a size that suits what is done to them."""
    batch_rows = CHUNK_ROWS if manifest.source_columns().input_ids else TEXT_BATCH_ROWS
    return reader.read(manifest.source(unit.source), unit.start, unit.stop, batch_rows=batch_rows)


def to_chunk(rows: SourceRows, encoder: Encoder, *, max_tokens: int | None) -> EncodedChunk:
    """One batch of rows with its token ids, tokenized here or taken as stored."""
    errors = dict(rows.errors)
    if rows.input_ids is None:
        tokens = encoder.encode(rows.texts, rows.text_pairs)
        errors = {**tokens.errors, **errors}
    else:
        tokens = stored_tokens(rows.input_ids, rows.second_starts, rows.truncated, encoder)
        no_ids = np.flatnonzero(
            rows.input_ids.value_lengths().fill_null(0).to_numpy(zero_copy_only=False) == 0
        )
        errors = {**dict.fromkeys(no_ids.tolist(), NO_IDS), **errors}
        if max_tokens is not None:
            tokens = tokens.without_rows(np.flatnonzero(tokens.num_tokens > max_tokens), TOO_LONG)
        errors = {**tokens.errors, **errors}
    return EncodedChunk(start=rows.start, ids=row_ids(rows), tokens=tokens, errors=errors)


def row_ids(rows: SourceRows) -> pa.Array:
    """What names the rows in a part: their ids, or their numbers in the source."""
    if rows.ids is not None:
        return rows.ids
    return pa.array(np.arange(rows.start, rows.start + rows.num_rows, dtype=np.int64))


def stored_tokens(
    lists: pa.Array,
    second_starts: npt.NDArray[np.int32] | None,
    truncated: npt.NDArray[np.bool_] | None,
    encoder: Encoder,
) -> Tokens:
    """The ids of an Arrow list array, without a copy where they are of the encoder's type.

    A null list is a row of no ids; a row with an id that the model has no embedding for gets an error code.
    """
    if pa.types.is_fixed_size_list(lists.type):
        lists = lists.cast(pa.large_list(lists.type.value_type))
    offsets = lists.offsets.to_numpy().astype(np.int64, copy=False)
    if lists.null_count:
        # A null may hide ids in the flat buffer; flatten() leaves these out.
        flat = lists.flatten()
        lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    else:
        flat = lists.values.slice(offsets[0], offsets[-1] - offsets[0])
        offsets = offsets - offsets[0] if offsets[0] else offsets
    tokens = Tokens(
        flat_ids=_within(flat, encoder),
        offsets=offsets,
        second_starts=second_starts,
        truncated=np.zeros(len(lists), dtype=np.bool_) if truncated is None else truncated,
        errors={},
    )
    return tokens.without_ids_from(encoder.vocab_size)


def _within(flat: pa.Array, encoder: Encoder) -> TokenIds:
    """Stored ids in the encoder's type; what does not fit it, or is missing, as the first id out of range."""
    if flat.type == pa.from_numpy_dtype(encoder.id_type) and not flat.null_count:
        return cast("TokenIds", flat.to_numpy())
    # Every integer but the largest of uint64 fits; those are out of any range.
    wide = pc.fill_null(pc.cast(flat, pa.int64(), safe=False), -1).to_numpy()
    is_out = (wide < 0) | (wide >= encoder.vocab_size)
    if not is_out.any():
        return cast("TokenIds", wide.astype(encoder.id_type))
    return np.where(is_out, np.int64(encoder.vocab_size), wide).astype(np.int32)


def join(held: Sequence[EncodedChunk]) -> EncodedChunk:
    """Consecutive chunks as one; a single one as it is."""
    if len(held) == 1:
        return held[0]
    row_starts = np.cumsum([0, *(chunk.num_rows for chunk in held)])
    token_starts = np.cumsum([0, *(len(chunk.tokens.flat_ids) for chunk in held)])
    offsets = [chunk.tokens.offsets[:-1] + start for chunk, start in zip(held, token_starts, strict=False)]
    starts = None
    if any(chunk.tokens.second_starts is not None for chunk in held):
        starts = np.concatenate([_second_starts(chunk) for chunk in held])
    flat: TokenIds = np.concatenate([chunk.tokens.flat_ids for chunk in held])
    tokens = Tokens(
        flat_ids=flat,
        offsets=np.concatenate([*offsets, token_starts[-1:]]).astype(np.int64),
        second_starts=starts,
        truncated=np.concatenate([chunk.tokens.truncated for chunk in held]),
        errors={},
    )
    return EncodedChunk(
        start=held[0].start,
        ids=pa.concat_arrays([chunk.ids for chunk in held]),
        tokens=tokens,
        errors={
            int(first) + row: code
            for first, chunk in zip(row_starts, held, strict=False)
            for row, code in chunk.errors.items()
        },
    )


def _second_starts(chunk: EncodedChunk) -> npt.NDArray[np.int32]:
    starts = chunk.tokens.second_starts
    return np.zeros(chunk.num_rows, dtype=np.int32) if starts is None else starts
