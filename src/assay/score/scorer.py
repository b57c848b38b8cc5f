"""Chunks of token ids to scores: the one path that runs, notebooks, evaluation and calibration share.

    forward, the device's part:   see `embed.forward`
    finish, the host's part:      logits of rows -> probabilities -> decisions -> columns

A row with an error keeps its place with null scores; the engine never sees it.

Axes: N rows of a chunk, C outputs.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import numpy.typing as npt

from assay.bundle.bundle import Bundle
from assay.data.rows import SourceRows
from assay.embed.forward import FinishedChunk, ForwardedChunk, Forwarder, row_columns, with_not_finite
from assay.engine.engine import Engine
from assay.score.schema import score_arrays
from assay.tokenize.chunks import EncodedChunk, chunks
from assay.tokenize.encode import Encoder


class Scorer:
    """Scores chunks with one bundle, engine and encoder. One thread at a time may be in `forward`."""

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        encoder: Encoder,
        *,
        max_batch_tokens: int | None = None,
        deduplicate: bool = True,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        self.bundle = bundle
        """What is scored with."""
        self.decider = bundle.decider
        """Turns logits of rows into what is said of them."""
        self.forwarder = Forwarder(
            engine,
            encoder,
            max_batch_tokens=max_batch_tokens,
            deduplicate=deduplicate,
            should_stop=should_stop,
        )
        """Gives the logits of chunks."""

    @property
    def engine(self) -> Engine:
        """Gives the logits."""
        return self.forwarder.engine

    @property
    def encoder(self) -> Encoder:
        """Made the token ids."""
        return self.forwarder.encoder

    def description(self) -> str:
        """Return one line on what computes where."""
        return self.engine.description()

    def forget(self) -> None:
        """Forget the texts that were met, where any are kept."""

    def chunks(self, rows: Iterable[SourceRows]) -> Iterator[EncodedChunk]:
        """Rows of any length as chunks that `forward` takes, in order."""
        return chunks(rows, self.encoder, max_tokens=None)

    def score(self, chunk: EncodedChunk) -> FinishedChunk:
        """The scores of a chunk's rows, in order."""
        return self.finish(self.forward(chunk))

    def forward(self, chunk: EncodedChunk) -> ForwardedChunk:
        """The logits of a chunk's sequences; raises Stopped where `should_stop` says so."""
        return self.forwarder.forward(chunk)

    def logits(self, forwarded: ForwardedChunk) -> npt.NDArray[np.float32]:
        """The logits [N, C] of a chunk's rows; NaN for a row without tokens or without finite logits."""
        return self.decider.logits(self.forwarder.outputs(forwarded))

    def finish(self, forwarded: ForwardedChunk) -> FinishedChunk:
        """The scores of a chunk's rows, in order, from the logits of its sequences."""
        decisions = self.decider.decide(self.logits(forwarded))
        errors = with_not_finite(forwarded.chunk.errors, decisions.is_finite_N)
        columns, is_bad_N = row_columns(forwarded.chunk, errors)
        return FinishedChunk(
            columns={**columns, **score_arrays(self.decider, decisions, is_bad_N)},
            errors=errors,
            stats=forwarded.stats,
        )
