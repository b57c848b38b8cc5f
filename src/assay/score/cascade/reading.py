"""Rows of pairs as chunks for a cascade: token ids for the first model, the texts beside them for the second.

Which pairs the second model reads is known only once the first has answered, so their texts are tokenized then.
Imports no torch.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from assay.data.rows import SourceRows
from assay.tokenize.chunks import ChunkRows, EncodedChunk, ReadChunks


@dataclass(frozen=True, kw_only=True, slots=True)
class CascadeChunk(EncodedChunk):
    """Consecutive rows of pairs; tokens and errors are those of the first model."""

    inner: EncodedChunk
    """For the first model."""
    texts: pa.Array
    """The first text of each row, for the second model."""
    text_pairs: pa.Array
    """The second text."""

    @property
    def row_tokens(self) -> npt.NDArray[np.int32]:
        """Tokens of each row, as the first model reads it."""
        return self.inner.row_tokens

    @property
    def row_truncated(self) -> npt.NDArray[np.bool_]:
        """Whether the first model saw less than the whole of a row."""
        return self.inner.row_truncated


class CascadeReader:
    """Reads rows of pairs for one cascade. One thread at a time."""

    def __init__(self, read_first: ReadChunks) -> None:
        """`read_first` gives the chunks of the first model."""
        self._read_first = read_first

    def chunks(
        self, batches: Iterable[SourceRows], chunk_rows: ChunkRows | None = None
    ) -> Iterator[CascadeChunk]:
        """The rows, in order."""
        held: deque[SourceRows] = deque()

        def kept() -> Iterator[SourceRows]:
            for rows in batches:
                held.append(rows)
                yield rows

        for inner in self._read_first(kept(), chunk_rows):
            texts, text_pairs = _texts(held, inner.num_rows)
            yield CascadeChunk(
                start=inner.start,
                ids=inner.ids,
                tokens=inner.tokens,
                errors=inner.errors,
                inner=inner,
                texts=texts,
                text_pairs=text_pairs,
            )


def _texts(held: deque[SourceRows], num_rows: int) -> tuple[pa.Array, pa.Array]:
    """The texts of the first batches that are held, which have so many rows; they are let go."""
    firsts: list[pa.Array] = []
    seconds: list[pa.Array] = []
    left = num_rows
    while left > 0:
        rows = held.popleft()
        assert rows.texts is not None, "a cascade reads texts"
        assert rows.text_pairs is not None, "a cascade reads pairs"
        firsts.append(rows.texts)
        seconds.append(rows.text_pairs)
        left -= rows.num_rows
    assert left == 0, "a chunk ends where a batch does"
    return pa.concat_arrays(firsts), pa.concat_arrays(seconds)
