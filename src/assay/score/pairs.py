"""Chunks of pairs to scores, for Siamese bundles: each distinct text goes through the encoder once.

    forward, the device's part:   texts without a vector -> the engine; pairs of vectors -> the head -> logits
    finish, the host's part:      as every scorer's

Vectors are kept as long as the memory that their texts are rows of. A text that was read for a chunk which was then
never computed has no vector yet, and gets one with the next chunk that needs it.

Axes: N rows of a chunk, K distinct texts, D dimensions, C outputs.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from assay.data.rows import SourceRows
from assay.embed.forward import ForwardedChunk, Forwarder
from assay.engine.engine import Engine
from assay.score.scorer import Scorer
from assay.siamese.files import Siamese
from assay.siamese.head import load_head
from assay.siamese.pairs import SiameseModel
from assay.siamese.reading import PairChunk, PairReader, TextMemory
from assay.siamese.scoring import Floats, encoded
from assay.tokenize.chunks import EncodedChunk
from assay.tokenize.encode import Encoder


class PairScorer(Scorer):
    """Scores chunks of pairs with one Siamese bundle, engine and encoder."""

    def __init__(
        self,
        bundle: Siamese,
        engine: Engine,
        encoder: Encoder,
        *,
        device: str,
        max_batch_tokens: int | None = None,
        deduplicate: bool = True,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        """`engine` gives the vectors of texts; the head of pairs runs on `device`."""
        super().__init__(
            bundle,
            engine,
            encoder,
            max_batch_tokens=max_batch_tokens,
            deduplicate=deduplicate,
            should_stop=should_stop,
        )
        self.model = SiameseModel(bundle, self.forwarder, load_head(bundle), device=device)
        """Gives the vectors of texts and the logits of pairs."""
        self._make_reader = partial(PairReader, bundle, encoder, deduplicate=deduplicate)
        self._reader = self._make_reader()
        self._kept = _Kept(None, bundle.embedder.dimension)

    def forget(self) -> None:
        """Forget the texts that were met, and their vectors."""
        self._reader = self._make_reader()
        self._kept = _Kept(None, self._kept.dimension)

    def chunks(self, rows: Iterable[SourceRows]) -> Iterator[EncodedChunk]:
        """Rows of pairs as chunks of their distinct texts."""
        return self._reader.chunks(rows)

    def forward(self, chunk: EncodedChunk) -> ForwardedChunk:
        """The logits of a chunk's rows; raises Stopped where `should_stop` says so."""
        assert isinstance(chunk, PairChunk), "chunks are those of PairReader"
        if self._kept.memory is not chunk.memory:
            self._kept = _Kept(chunk.memory, self._kept.dimension)
        missing = self._kept.missing(chunk.rows_K)
        made_KD, stats = self.model.vectors(chunk.texts.take(missing).tokens)
        self._kept.add(chunk.rows_K[missing], made_KD, in_fp32=stats.fp32_sequences)
        is_fp32_K = self._kept.is_fp32(chunk.rows_K)
        usable = np.flatnonzero(chunk.first_N >= 0)
        scored = self.model.score(
            encoded(chunk.texts, self._kept.vectors(chunk.rows_K)),
            chunk.first_N[usable],
            chunk.second_N[usable],
        )
        logits_NC = np.full((chunk.num_rows, len(self.model.labels)), np.nan, dtype=np.float32)
        logits_NC[usable] = scored.logits_MC
        rows = np.arange(chunk.num_rows, dtype=np.int64)
        return ForwardedChunk(
            chunk=chunk,
            outputs_SC=logits_NC,
            row_S=rows,
            view_S=np.zeros_like(rows),
            stats=replace(stats, num_cached=2 * len(usable) - len(missing)),
            fp32_rows=usable[is_fp32_K[chunk.first_N[usable]] | is_fp32_K[chunk.second_N[usable]]],
        )

    def logits(self, forwarded: ForwardedChunk) -> npt.NDArray[np.float32]:
        """The logits [N, C] of a chunk's rows; NaN for a row with an error or without finite logits."""
        return forwarded.outputs_SC


def reference_logits(
    scorer: PairScorer, reference: Engine, pairs: Sequence[tuple[str, str]], *, device: str
) -> Floats:
    """The logits [N, C] of pairs by the scorer's head on vectors of a reference engine, which runs each text alone."""
    forwarder = Forwarder(reference, scorer.encoder, max_batch_tokens=1, deduplicate=False)
    bundle = scorer.model.bundle
    other = SiameseModel(bundle, forwarder, load_head(bundle), device=device)
    return other.logits(pairs)


class _Kept:
    """Vectors of a memory's texts, by their rows in it."""

    def __init__(self, memory: TextMemory | None, dimension: int) -> None:
        self.memory = memory
        self.dimension = dimension
        self._is_there = np.zeros(0, dtype=np.bool_)
        self._is_fp32 = np.zeros(0, dtype=np.bool_)
        self._vectors = np.zeros((0, dimension), dtype=np.float32)

    def missing(self, rows_K: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Which of these rows have no vector yet."""
        self._grow(int(rows_K[-1]) + 1 if len(rows_K) else 0)
        return np.flatnonzero(~self._is_there[rows_K])

    def add(self, rows: npt.NDArray[np.int64], vectors_KD: Floats, *, in_fp32: npt.NDArray[np.int64]) -> None:
        """Keep the vectors of these rows, of which those numbered `in_fp32` ran again."""
        self._vectors[rows] = vectors_KD
        self._is_there[rows] = True
        self._is_fp32[rows[in_fp32]] = True

    def is_fp32(self, rows_K: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which of these rows have a vector that ran again in fp32."""
        return self._is_fp32[rows_K]

    def vectors(self, rows_K: npt.NDArray[np.int64]) -> Floats:
        """The vectors of these rows."""
        return self._vectors[rows_K]

    def _grow(self, num_rows: int) -> None:
        """Make room for so many rows, by doubling."""
        held = len(self._is_there)
        if num_rows > held:
            more = max(num_rows, 2 * held) - held
            self._is_there = np.concatenate([self._is_there, np.zeros(more, dtype=np.bool_)])
            self._is_fp32 = np.concatenate([self._is_fp32, np.zeros(more, dtype=np.bool_)])
            self._vectors = np.concatenate([self._vectors, np.zeros((more, self.dimension), np.float32)])
