"""Chunks of token ids to scores: the one path that runs, notebooks, evaluation and calibration share.

    forward, the device's part:   token ids -> sequences (views of rows) -> logits of sequences
    decide, the host's part:      logits of rows -> probabilities -> decisions -> columns

The two may run in two threads, `decide` on one chunk beside `forward` on the next. A row with an
error keeps its place with null scores; the engine never sees it.

Axes: N rows of a chunk, S sequences (views of rows), C outputs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from assay.bundle.bundle import Bundle
from assay.engine.engine import Engine
from assay.engine.run import run_sequences
from assay.engine.sequences import ForwardStats
from assay.score.chunks import Chunk, max_row_tokens
from assay.score.schema import score_arrays
from assay.tokenize.encode import Encoder

NOT_FINITE = "not_finite"
"""Error code of a row for which the model gave NaN or infinity."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ForwardedChunk:
    """A chunk and what the engine gave for it."""

    chunk: Chunk
    logits_SC: npt.NDArray[np.float32]
    """The engine's logits, a row for each sequence."""
    row_S: npt.NDArray[np.int64]
    """Which row of the chunk each sequence is a view of."""
    view_S: npt.NDArray[np.int64]
    """Number of the view within its row."""
    stats: ForwardStats
    """What the forward passes cost."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredChunk:
    """The scores of a chunk."""

    columns: dict[str, pa.Array]
    """`num_tokens`, `truncated`, `error` and the score columns of the task, [N] each."""
    errors: dict[int, str]
    """Error code by row: the chunk's own and those that the model added."""
    stats: ForwardStats
    """What the forward passes cost."""


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
        self.engine = engine
        """Gives the logits."""
        self.encoder = encoder
        """Made the token ids."""
        self.views = encoder.views
        """How rows become sequences, and logits of sequences those of rows."""
        self.decider = bundle.decider
        """Turns logits of rows into what is said of them."""
        self._max_batch_tokens = max_batch_tokens
        self._deduplicate = deduplicate
        self._should_stop = should_stop

    @property
    def max_tokens(self) -> int | None:
        """Most ids that a row may have; None where windows cut long rows."""
        return max_row_tokens(self.encoder)

    def score(self, chunk: Chunk) -> ScoredChunk:
        """The scores of a chunk's rows, in order."""
        return self.decide(self.forward(chunk))

    def forward(self, chunk: Chunk) -> ForwardedChunk:
        """The logits of a chunk's sequences; raises Stopped where `should_stop` says so."""
        expanded = self.views.expand(chunk.tokens.rows)
        logits_SC, stats = run_sequences(
            self.engine,
            expanded.sequences,
            max_batch_tokens=self._max_batch_tokens,
            deduplicate=self._deduplicate,
            should_stop=self._should_stop,
        )
        return ForwardedChunk(
            chunk=chunk, logits_SC=logits_SC, row_S=expanded.row_S, view_S=expanded.view_S, stats=stats
        )

    def logits(self, forwarded: ForwardedChunk) -> npt.NDArray[np.float32]:
        """The logits [N, C] of a chunk's rows; NaN for a row without tokens or without finite logits."""
        return self.views.reduce(
            forwarded.logits_SC, forwarded.row_S, forwarded.view_S, forwarded.chunk.num_rows
        )

    def decide(self, forwarded: ForwardedChunk) -> ScoredChunk:
        """The scores of a chunk's rows, in order, from the logits of its sequences."""
        chunk = forwarded.chunk
        decisions = self.decider.decide(self.logits(forwarded))
        errors = chunk.errors
        if not decisions.is_finite_N.all():
            not_finite = np.flatnonzero(~decisions.is_finite_N).tolist()
            errors = {**dict.fromkeys(not_finite, NOT_FINITE), **errors}
        is_bad_N, error_column = None, pa.nulls(chunk.num_rows, pa.string())
        if errors:
            is_bad_N = np.zeros(chunk.num_rows, dtype=np.bool_)
            is_bad_N[list(errors)] = True
            error_column = pa.array([errors.get(row) for row in range(chunk.num_rows)], pa.string())
        columns = {
            "num_tokens": pa.array(chunk.tokens.num_tokens),
            "truncated": pa.array(chunk.tokens.truncated),
            "error": error_column,
            **score_arrays(self.decider, decisions, is_bad_N),
        }
        return ScoredChunk(columns=columns, errors=errors, stats=forwarded.stats)
