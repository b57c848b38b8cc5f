"""Rows of pairs as chunks in which each distinct text stands once, whatever the number of its pairs. Imports no torch.

    rows of pairs -> texts not met before -> token ids, style, words    (`TextReader`, a text at a time)
                  -> all texts met so far                               (`TextMemory`)
                  -> the texts that a chunk's pairs need, and which two each pair is    (`PairChunk`)

A memory outlives chunks and units: a worker that meets a text again reads it no more, and what is computed of it is
kept by its row. When a memory has grown past a gigabyte, the next unit begins another.

Axes: N rows of a chunk, K texts, F style features.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from assay.data.rows import NULL, SourceRows
from assay.errors import InputError
from assay.siamese.evidence import EvidenceTexts
from assay.siamese.files import Siamese
from assay.siamese.style import Features
from assay.tokenize.chunks import (
    CHUNK_ROWS,
    TEXT_BATCH_ROWS,
    ChunkRows,
    EncodedChunk,
    chunks,
    join,
    row_ids,
)
from assay.tokenize.encode import Encoder
from assay.tokenize.tokens import Tokens

MOST_BYTES = 1 << 30
"""Of a memory that goes on into the next unit."""
_CHUNK_BYTES = 32 << 20
"""Of texts that are new in a chunk."""
_KEY_BYTES = 16
_OVERHEAD_BYTES = 200
"""Of a text in a memory, beside its arrays."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class TextFeatures:
    """What of whole texts joins their vectors; a row each."""

    style_KF: Features
    """Standardised."""
    evidence: EvidenceTexts | None
    """For what words and style say, where the model was trained to see it."""

    @property
    def num_bytes(self) -> int:
        """Memory of the arrays, about."""
        total = self.style_KF.nbytes
        if self.evidence is not None:
            lexical = self.evidence.lexical
            total += self.evidence.style_NF.nbytes + sum(each.nbytes for each in lexical.dense.values())
            total += sum(each.columns.nbytes + each.weights.nbytes for each in lexical.sparse.values())
        return total

    def take(self, rows: Ints) -> "TextFeatures":
        """Those of some of the texts."""
        return TextFeatures(
            style_KF=self.style_KF[rows], evidence=None if self.evidence is None else self.evidence.take(rows)
        )

    @classmethod
    def join(cls, several: "Sequence[TextFeatures]") -> "TextFeatures":
        """Those of the texts of one or more, one after the other."""
        if len(several) == 1:
            return several[0]
        evidence = [each.evidence for each in several if each.evidence is not None]
        return cls(
            style_KF=np.concatenate([each.style_KF for each in several]),
            evidence=EvidenceTexts.join(evidence) if evidence else None,
        )


def text_features(bundle: Siamese, texts: Sequence[str]) -> TextFeatures:
    """What of texts joins their vectors, by one Siamese bundle; give each text once."""
    return TextFeatures(
        style_KF=bundle.head.style(texts),
        evidence=None if bundle.evidence is None else bundle.evidence.evidence.encode(texts),
    )


def distinct_texts(pairs: Iterable[Sequence[str]]) -> tuple[list[str], Ints, Ints]:
    """The texts of pairs, each once, and the rows of the first and of the second of each pair."""
    places: dict[str, int] = {}
    rows: list[int] = []
    for number, pair in enumerate(pairs):
        if isinstance(pair, str) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise InputError(f"pair {number} is {pair!r:.80}; two strings are needed; pass (text, text)")
        rows += (places.setdefault(text, len(places)) for text in pair)
    both_M2 = np.array(rows, dtype=np.int64).reshape(-1, 2)
    return list(places), both_M2[:, 0].copy(), both_M2[:, 1].copy()


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadTexts:
    """Texts as the encoder and the head of pairs take them; a row each."""

    tokens: EncodedChunk
    """Token ids, and the error codes of texts that have none."""
    features: TextFeatures
    """Of the whole texts."""

    @property
    def num_texts(self) -> int:
        """K."""
        return self.tokens.num_rows

    @property
    def num_bytes(self) -> int:
        """Memory of the arrays, about."""
        return self.tokens.tokens.flat_ids.nbytes + self.features.num_bytes

    def take(self, rows: Ints) -> "ReadTexts":
        """Some of the texts."""
        held = self.tokens
        taken = held.tokens.rows.take(rows)
        codes = [held.errors.get(row) for row in rows.tolist()] if held.errors else []
        return ReadTexts(
            tokens=EncodedChunk(
                start=0,
                ids=pa.array(np.arange(len(rows))),
                tokens=Tokens(
                    flat_ids=taken.flat_ids,  # type: ignore[arg-type]
                    offsets=taken.offsets,
                    second_starts=None,
                    truncated=held.tokens.truncated[rows],
                    errors={},
                ),
                errors={row: code for row, code in enumerate(codes) if code is not None},
            ),
            features=self.features.take(rows),
        )

    @classmethod
    def join(cls, several: "Sequence[ReadTexts]") -> "ReadTexts":
        """The texts of one or more, one after the other."""
        if len(several) == 1:
            return several[0]
        return cls(
            tokens=join([each.tokens for each in several]),
            features=TextFeatures.join([each.features for each in several]),
        )


class TextReader:
    """Reads texts for one Siamese bundle."""

    def __init__(self, bundle: Siamese, encoder: Encoder) -> None:
        self.bytes_beside = _OVERHEAD_BYTES + 4 * bundle.embedder.dimension
        """What a text that is kept takes beside its arrays: its key, its vector."""
        self._encoder = encoder
        self._bundle = bundle

    def read(self, texts: Sequence[str]) -> ReadTexts:
        """The texts, a row each; give each text once."""
        found = list(chunks(_batches(texts), self._encoder, max_tokens=None))
        return ReadTexts(
            tokens=join(found) if found else self._none(), features=text_features(self._bundle, texts)
        )

    def _none(self) -> EncodedChunk:
        tokens = self._encoder.encode_texts([])
        return EncodedChunk(start=0, ids=pa.array([], pa.int64()), tokens=tokens, errors={})


class TextMemory:
    """All texts that were met, each once, by rows in the order in which they came. One thread at a time."""

    def __init__(self, reader: TextReader) -> None:
        """Begin with none; `reader` reads what is new."""
        self.num_bytes = 0
        """Memory that the texts and their vectors take, about."""
        self._reader = reader
        self._rows: dict[bytes, int] = {}
        self._starts = [0]
        self._blocks: list[ReadTexts] = []

    def rows_of(self, texts: Sequence[str]) -> Ints:
        """The row of each text; those that are new are read."""
        keys = [_key(text) for text in texts]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._rows}
        first = self.add(list(new.values()))
        self._rows.update(zip(new, first.tolist(), strict=True))
        return np.fromiter((self._rows[key] for key in keys), np.int64, len(keys))

    def add(self, texts: Sequence[str]) -> Ints:
        """The rows that these texts now have, met before or not."""
        start = self._starts[-1]
        if texts:
            block = self._reader.read(texts)
            self._blocks.append(block)
            self._starts.append(start + len(texts))
            self.num_bytes += block.num_bytes + len(texts) * self._reader.bytes_beside
        return np.arange(start, start + len(texts))

    def take(self, rows: Ints) -> ReadTexts:
        """The texts of these rows, which are in order."""
        cuts = np.searchsorted(rows, self._starts).tolist()
        found = [
            block.take(rows[begin:end] - start)
            for block, start, begin, end in zip(self._blocks, self._starts, cuts, cuts[1:], strict=False)
            if end > begin
        ]
        return ReadTexts.join(found) if found else self._reader.read([])


@dataclass(frozen=True, kw_only=True, slots=True)
class PairChunk(EncodedChunk):
    """Consecutive rows of pairs; `tokens` are those of their distinct texts, a row a text."""

    texts: ReadTexts
    """The distinct texts of rows without errors of their own."""
    memory: TextMemory
    """Which memory they are rows of."""
    rows_K: Ints
    """Their rows in it, in order."""
    first_N: Ints
    """Which of `texts` is the first of each pair; -1 for a row with an error."""
    second_N: Ints
    """Which is the second, likewise."""

    @property
    def row_tokens(self) -> npt.NDArray[np.int32]:
        """Tokens of both texts of each row."""
        counts = np.append(self.tokens.num_tokens, np.int32(0))
        return counts[self.first_N] + counts[self.second_N]

    @property
    def row_truncated(self) -> npt.NDArray[np.bool_]:
        """Whether either text of each row was cut."""
        cut = np.append(self.tokens.truncated, np.False_)
        return np.asarray(cut[self.first_N] | cut[self.second_N])


@dataclass(frozen=True, kw_only=True, slots=True)
class _Batch:
    """Rows whose texts are in the memory."""

    start: int
    ids: pa.Array
    first_N: Ints
    """Rows of the memory; -1 for a row with an error."""
    second_N: Ints
    errors: dict[int, str]


class PairReader:
    """Reads rows of pairs for one Siamese bundle. One thread at a time."""

    def __init__(self, bundle: Siamese, encoder: Encoder, *, deduplicate: bool = True) -> None:
        """Without `deduplicate` nothing is remembered: both texts of each pair are read for it alone."""
        self._reader = TextReader(bundle, encoder)
        self._deduplicate = deduplicate
        self._memory = TextMemory(self._reader)

    def chunks(
        self, batches: Iterable[SourceRows], chunk_rows: ChunkRows | None = None
    ) -> Iterator[PairChunk]:
        """The rows of a unit as chunks of up to `chunk_rows` (65,536) rows or 32 MB of new texts, in order."""
        if self._memory.num_bytes > MOST_BYTES:
            self._memory = TextMemory(self._reader)
        held: list[_Batch] = []
        bytes_before = self._memory.num_bytes
        for rows in batches:
            held.append(self._read(rows))
            num_rows = sum(len(batch.ids) for batch in held)
            is_full = num_rows >= (CHUNK_ROWS if chunk_rows is None else chunk_rows.value)
            if is_full or not self._deduplicate or self._memory.num_bytes - bytes_before >= _CHUNK_BYTES:
                yield self._chunk(held)
                held = []
                if not self._deduplicate:
                    self._memory = TextMemory(self._reader)
                if chunk_rows is not None:
                    chunk_rows.grow()
                bytes_before = self._memory.num_bytes
        if held:
            yield self._chunk(held)

    def _read(self, rows: SourceRows) -> _Batch:
        assert rows.texts is not None, "a Siamese bundle reads texts"
        assert rows.text_pairs is not None, "a Siamese bundle reads pairs"
        both = [rows.texts.to_pylist(), rows.text_pairs.to_pylist()]
        usable = [row for row, pair in enumerate(zip(*both, strict=True)) if None not in pair]
        errors = {**dict.fromkeys(set(range(rows.num_rows)).difference(usable), NULL), **rows.errors}
        usable = [row for row in usable if row not in errors]
        texts = [side[row] for side in both for row in usable]
        found = self._memory.rows_of(texts) if self._deduplicate else self._memory.add(texts)
        first_N, second_N = (np.full(rows.num_rows, -1, dtype=np.int64) for _ in both)
        first_N[usable], second_N[usable] = np.split(found, 2)
        return _Batch(start=rows.start, ids=row_ids(rows), first_N=first_N, second_N=second_N, errors=errors)

    def _chunk(self, held: Sequence[_Batch]) -> PairChunk:
        """The rows of some batches, with their texts."""
        first_N = np.concatenate([batch.first_N for batch in held])
        second_N = np.concatenate([batch.second_N for batch in held])
        starts = np.cumsum([0, *(len(batch.ids) for batch in held)]).tolist()
        errors = {
            start + row: code
            for start, batch in zip(starts, held, strict=False)
            for row, code in batch.errors.items()
        }
        rows_K = np.unique(np.concatenate([first_N, second_N]))
        rows_K = rows_K[rows_K >= 0]
        texts = self._memory.take(rows_K)
        first_N, second_N = (
            np.where(side_N < 0, -1, np.searchsorted(rows_K, side_N)) for side_N in (first_N, second_N)
        )
        codes = texts.tokens.errors
        if codes:
            bad = np.array(list(codes), dtype=np.int64)
            for side_N in (second_N, first_N):
                rows = np.flatnonzero(np.isin(side_N, bad)).tolist()
                errors |= {row: codes[int(side_N[row])] for row in rows}
            first_N[list(errors)] = second_N[list(errors)] = -1
        return PairChunk(
            start=held[0].start,
            ids=pa.concat_arrays([batch.ids for batch in held]),
            tokens=texts.tokens.tokens,
            errors=errors,
            texts=texts,
            memory=self._memory,
            rows_K=rows_K,
            first_N=first_N,
            second_N=second_N,
        )


def _key(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_KEY_BYTES).digest()


def _batches(texts: Sequence[str]) -> Iterator[SourceRows]:
    for start in range(0, len(texts), TEXT_BATCH_ROWS):
        some = pa.array(texts[start : start + TEXT_BATCH_ROWS], type=pa.large_string())
        yield SourceRows(start=start, num_rows=len(some), texts=some)
