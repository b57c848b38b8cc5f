"""Chunks of token ids to scores: the one path that runs, notebooks and services share.

    forward, the device's part:   token ids -> sequences (windows) -> logits
    decide, the host's part:      logits -> probabilities -> decisions -> columns

The two may run in two threads, `decide` on one chunk beside `forward` on the next. A row with an
error keeps its place with null scores; the engine never sees it.

Axes: N rows of a chunk, S sequences (windows of documents), C outputs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from assay.bundle.bundle import Bundle
from assay.calibrate.maps import apply_calibration
from assay.engine.engine import Engine
from assay.engine.run import run_sequences
from assay.engine.sequences import ForwardStats, Sequences
from assay.errors import UsageError
from assay.outcome.calibration import Calibration
from assay.score.chunks import Chunk, max_row_tokens
from assay.score.decide import INT_SCORE, decide
from assay.tokenize.encode import Encoder, Tokens
from assay.tokenize.settings import WINDOWS
from assay.tokenize.windows import document_logits, expand_windows

NOT_FINITE = "not_finite"
"""Error code of a row for which the model gave NaN or infinity."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Forwarded:
    """A chunk and what the engine gave for it."""

    chunk: Chunk
    logits_SC: npt.NDArray[np.float32]
    """The engine's logits, a row for each sequence."""
    row_S: npt.NDArray[np.int64]
    """Which row of the chunk each sequence belongs to."""
    stats: ForwardStats
    """What the forward passes cost."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
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
        """Put together what was loaded; raises UsageError where windows need what the tokenizer lacks."""
        self.engine = engine
        """Gives the logits."""
        self.encoder = encoder
        """Made the token ids."""
        self._bundle = bundle
        self._max_batch_tokens = max_batch_tokens
        self._deduplicate = deduplicate
        self._should_stop = should_stop
        self._labels = pa.array(bundle.labels, pa.string())
        self._calibration = bundle.calibration or Calibration()
        self._windows = WINDOWS.get(encoder.on_long)
        if self._windows and encoder.special_tokens is None:
            msg = f"on_long {encoder.on_long} needs a tokenizer with fixed special tokens; use truncate"
            raise UsageError(msg)

    @property
    def max_tokens(self) -> int | None:
        """Most ids that a row may have; None where windows cut long rows."""
        return max_row_tokens(self.encoder)

    def score(self, chunk: Chunk) -> Scored:
        """The scores of a chunk's rows, in order."""
        return self.decide(self.forward(chunk))

    def forward(self, chunk: Chunk) -> Forwarded:
        """The logits of a chunk's sequences; raises Stopped where `should_stop` says so."""
        sequences, row_S = self.sequences(chunk.tokens)
        logits_SC, stats = run_sequences(
            self.engine,
            sequences,
            max_batch_tokens=self._max_batch_tokens,
            deduplicate=self._deduplicate,
            should_stop=self._should_stop,
        )
        return Forwarded(chunk=chunk, logits_SC=logits_SC, row_S=row_S, stats=stats)

    def decide(self, forwarded: Forwarded) -> Scored:
        """The scores of a chunk's rows, in order, from the logits of its sequences."""
        chunk = forwarded.chunk
        logits_NC = document_logits(forwarded.logits_SC, forwarded.row_S, chunk.num_rows, how=self._windows)
        probabilities_NC = apply_calibration(logits_NC, self._bundle.calibration, self._bundle.task)
        errors = _with_not_finite(chunk.errors, probabilities_NC)
        columns = self._columns(chunk, probabilities_NC, errors)
        return Scored(columns=columns, errors=errors, stats=forwarded.stats)

    def sequences(self, tokens: Tokens) -> tuple[Sequences, npt.NDArray[np.int64]]:
        """What the engine is to run, and which row each sequence belongs to; empty rows have none."""
        special = self.encoder.special_tokens
        if self._windows and special is not None:
            windows = expand_windows(
                tokens.flat_ids,
                tokens.offsets,
                prefix=special.prefix,
                suffix=special.suffix,
                max_length=self.encoder.max_length,
                stride=self.encoder.stride,
            )
            return Sequences(flat_ids=windows.flat_ids, offsets=windows.offsets), windows.document_of_window
        row_S = np.flatnonzero(np.diff(tokens.offsets))
        offsets, second_starts = tokens.offsets, tokens.second_starts
        if len(row_S) < len(offsets) - 1:
            # Empty rows take no ids, so dropping their start leaves the others where they are.
            offsets = np.append(offsets[row_S], offsets[-1])
            second_starts = None if second_starts is None else second_starts[row_S]
        return Sequences(flat_ids=tokens.flat_ids, offsets=offsets, second_starts=second_starts), row_S

    def _columns(
        self, chunk: Chunk, probabilities_NC: npt.NDArray[np.float64], errors: dict[int, str]
    ) -> dict[str, pa.Array]:
        num_rows = chunk.num_rows
        is_bad_N, error_column = None, pa.nulls(num_rows, pa.string())
        if errors:
            is_bad_N = np.zeros(num_rows, dtype=np.bool_)
            is_bad_N[list(errors)] = True
            error_column = pa.array([errors.get(row) for row in range(num_rows)], pa.string())
        columns = {
            "num_tokens": pa.array(chunk.tokens.num_tokens),
            "truncated": pa.array(chunk.tokens.truncated),
            "error": error_column,
        }
        decision = decide(
            probabilities_NC,
            self._bundle.task,
            self._bundle.labels,
            self._calibration.threshold,
            half_width=self._calibration.half_width,
            int_score=self._bundle.int_score,
        )
        if decision.label_N is not None:
            columns["prediction"] = self._labels.take(pa.array(decision.label_N, mask=is_bad_N))
        for name, values_N in decision.scores.items():
            columns[name] = pa.array(values_N, mask=is_bad_N)
        if decision.int_score_N is not None:
            columns[INT_SCORE] = pa.array(decision.int_score_N, mask=is_bad_N)
        return columns


def _with_not_finite(errors: dict[int, str], probabilities_NC: npt.NDArray[np.float64]) -> dict[int, str]:
    """The errors, and one for each further row that has no finite score."""
    # A sum is finite only where all terms are, and costs one pass.
    if np.isfinite(probabilities_NC.sum()):
        return errors
    is_finite_N = np.isfinite(probabilities_NC).all(axis=1)
    return {**{int(row): NOT_FINITE for row in np.flatnonzero(~is_finite_N)}, **errors}
