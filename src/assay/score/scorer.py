"""Chunks of token ids to scores: the one path that runs, notebooks and services share.

    token ids -> sequences (windows) -> logits -> probabilities -> decisions -> columns

A row with an error keeps its place with null scores; the engine never sees it.

Axes: N rows of a chunk, S sequences (windows of documents), C outputs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from assay.bundle import Bundle
from assay.calibrate.temperature import apply_calibration
from assay.engine.engine import Engine
from assay.engine.run import run_sequences
from assay.engine.sequences import ForwardStats, Sequences
from assay.errors import UsageError
from assay.score.chunks import Chunk
from assay.score.decide import decide
from assay.tokenize.encode import Encoder, Tokens
from assay.tokenize.windows import expand_windows, reduce_windows

NOT_FINITE = "not_finite"
"""Error code of a row for which the model gave NaN or infinity."""


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
    """Scores chunks with one bundle, engine and encoder."""

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
        self._bundle = bundle
        self._engine = engine
        self._encoder = encoder
        self._max_batch_tokens = max_batch_tokens
        self._deduplicate = deduplicate
        self._should_stop = should_stop
        self._labels = pa.array(bundle.labels, pa.string())
        calibration = bundle.calibration
        self._threshold = calibration.threshold if calibration is not None else None
        self._windows: Literal["mean", "max"] | None = None
        if encoder.on_long in ("window-mean", "window-max"):
            self._windows = "mean" if encoder.on_long == "window-mean" else "max"
            if encoder.special_tokens is None:
                msg = f"on_long {encoder.on_long} needs a tokenizer with fixed special tokens; use truncate"
                raise UsageError(msg)

    @property
    def max_tokens(self) -> int | None:
        """Most ids that a row may have; None where windows cut long rows."""
        return None if self._windows else self._encoder.max_length

    def score(self, chunk: Chunk) -> Scored:
        """The scores of a chunk's rows, in order."""
        logits_NC, stats = self._logits(chunk.tokens)
        probabilities_NC = apply_calibration(logits_NC, self._bundle.calibration, self._bundle.task)
        errors = _with_not_finite(chunk.errors, probabilities_NC)
        return Scored(columns=self._columns(chunk, probabilities_NC, errors), errors=errors, stats=stats)

    def sequences(self, tokens: Tokens) -> tuple[Sequences, npt.NDArray[np.int64]]:
        """What the engine is to run, and which row each sequence belongs to; empty rows have none."""
        special = self._encoder.special_tokens
        if self._windows and special is not None:
            windows = expand_windows(
                tokens.flat_ids,
                tokens.offsets,
                prefix=special.prefix,
                suffix=special.suffix,
                max_length=self._encoder.max_length,
                stride=self._encoder.stride,
            )
            return Sequences(flat_ids=windows.flat_ids, offsets=windows.offsets), windows.document_of_window
        row_S = np.flatnonzero(np.diff(tokens.offsets))
        offsets, second_starts = tokens.offsets, tokens.second_starts
        if len(row_S) < len(offsets) - 1:
            # Empty rows take no ids, so dropping their start leaves the others where they are.
            offsets = np.append(offsets[row_S], offsets[-1])
            second_starts = None if second_starts is None else second_starts[row_S]
        return Sequences(flat_ids=tokens.flat_ids, offsets=offsets, second_starts=second_starts), row_S

    def _logits(self, tokens: Tokens) -> tuple[npt.NDArray[np.float32], ForwardStats]:
        """The logits of each row, NaN for a row without ids; windows already reduced."""
        sequences, row_S = self.sequences(tokens)
        logits_SC, stats = run_sequences(
            self._engine,
            sequences,
            max_batch_tokens=self._max_batch_tokens,
            deduplicate=self._deduplicate,
            should_stop=self._should_stop,
        )
        is_finite_SC = np.isfinite(logits_SC)
        if not is_finite_SC.all():
            # NaN throughout, so that neither a maximum over windows nor a sigmoid hides an infinity.
            logits_SC[~is_finite_SC.all(axis=1)] = np.nan
        num_rows = len(tokens.offsets) - 1
        if self._windows:
            return reduce_windows(logits_SC, row_S, num_rows, how=self._windows), stats
        if len(row_S) == num_rows:
            return logits_SC, stats
        logits_NC = np.full((num_rows, logits_SC.shape[1]), np.nan, dtype=np.float32)
        logits_NC[row_S] = logits_SC
        return logits_NC, stats

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
        decision = decide(probabilities_NC, self._bundle.task, self._bundle.labels, self._threshold)
        if decision.label_N is not None:
            columns["prediction"] = self._labels.take(pa.array(decision.label_N, mask=is_bad_N))
        for name, values_N in decision.scores.items():
            columns[name] = pa.array(values_N, mask=is_bad_N)
        return columns


def _with_not_finite(errors: dict[int, str], probabilities_NC: npt.NDArray[np.float64]) -> dict[int, str]:
    """The errors, and one for each further row that has no finite score."""
    # A sum is finite only where all terms are, and costs one pass.
    if np.isfinite(probabilities_NC.sum()):
        return errors
    is_finite_N = np.isfinite(probabilities_NC).all(axis=1)
    return {**{int(row): NOT_FINITE for row in np.flatnonzero(~is_finite_N)}, **errors}
