"""Logits to what a classifier says: probabilities, decisions, columns. Pure.

    logits -> calibrated values -> decision -> columns

One `Decider` a model; runs, `predict`, the server, evaluation and the fit of thresholds all ask it.

Axes: N documents, C outputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from assay.metrics import whole_scores
from assay.outcome.calibration import Calibration
from assay.outcome.maps import apply_calibration
from assay.outcome.pooling import Pooling
from assay.tasks import (
    INT_SCORE,
    INTERVAL,
    LABELS,
    PREDICTION,
    PROBABILITY,
    TWO_LABELS,
    ColumnType,
    Task,
    probability_column,
)

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Threshold = float | tuple[float, ...] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Decisions:
    """What a classifier says of N documents."""

    values_NC: Floats
    """Calibrated probabilities; a regression's own values [N, 1]."""
    is_finite_N: npt.NDArray[np.bool_]
    """Whether there is a score: the rest of such a row is not a decision."""
    columns: Mapping[str, npt.NDArray[np.generic]] = field(default_factory=dict)
    """By name, in the order of `Decider.columns`: numbers [N]; `prediction` of one label as its index [N];
    `labels` as whether each holds, [N, C]."""
    label_N: Ints | None = None
    """Single-label: index of the predicted label."""
    holds_NC: npt.NDArray[np.bool_] | None = None
    """Multi-label: whether each label holds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decider:
    """All that turns the logits of one model into what it says."""

    task: Task
    """What it predicts."""
    labels: tuple[str, ...]
    """Names of its outputs."""
    calibration: Calibration | None = None
    """How logits become probabilities, these decisions, and predictions intervals."""
    int_score: tuple[int, int] | None = None
    """Regression: least and greatest whole score, where predictions are also given rounded and clipped."""
    pooling: Pooling | None = None
    """How the members of an ensemble become one; None for a single model."""

    def logits(self, outputs_NC: npt.NDArray[np.floating]) -> Floats:
        """The logits [N, C] that `decide` takes, of an engine's outputs: those of an ensemble's members pooled."""
        if self.pooling is None:
            return outputs_NC.astype(np.float32, copy=False)
        return self.pooling.pool(outputs_NC, self.task).astype(np.float32)

    @property
    def columns(self) -> dict[str, ColumnType]:
        """Names and types of the score columns, in order."""
        return self.task.score_columns(
            self.labels,
            has_interval=self._half_width is not None,
            has_int_score=self.int_score is not None,
        )

    @property
    def thresholds(self) -> dict[str, float]:
        """The probability from which on each label holds: of the second of two labels, or of every label; else {}."""
        threshold = None if self.calibration is None else self.calibration.threshold
        return thresholds_of(self.task, self.labels, threshold)

    def decide(self, logits_NC: npt.NDArray[np.floating]) -> Decisions:
        """What is said of each document; one with a logit that is not finite has no score."""
        values_NC = apply_calibration(logits_NC, self.calibration, self.task).astype(np.float32)
        is_finite_N = _finite_rows(values_NC)
        if not self.task.is_classifier:
            return Decisions(
                values_NC=values_NC, is_finite_N=is_finite_N, columns=self._number(values_NC[:, 0])
            )
        threshold = None if self.calibration is None else self.calibration.threshold
        names = map(probability_column, self.labels)
        per_label = {name: values_NC[:, c] for c, name in enumerate(names)}
        if self.task is Task.MULTI_LABEL:
            holds_NC = labels_that_hold(values_NC, threshold)
            return Decisions(
                values_NC=values_NC,
                is_finite_N=is_finite_N,
                columns={LABELS: holds_NC, **per_label},
                holds_NC=holds_NC,
            )
        label_N, chosen_N = predicted_label(values_NC, threshold)
        return Decisions(
            values_NC=values_NC,
            is_finite_N=is_finite_N,
            columns={PREDICTION: label_N, PROBABILITY: chosen_N, **per_label},
            label_N=label_N,
        )

    @property
    def _half_width(self) -> float | None:
        return None if self.calibration is None else self.calibration.half_width

    def _number(self, value_N: Floats) -> dict[str, npt.NDArray[np.generic]]:
        """A regression's columns: the value, its interval, and rounded (halves to even) and clipped."""
        found: dict[str, npt.NDArray[np.generic]] = {PREDICTION: value_N}
        if self._half_width is not None:
            half_width = np.float32(self._half_width)
            found |= zip(INTERVAL, (value_N - half_width, value_N + half_width), strict=True)
        if self.int_score is not None:
            low, high = self.int_score
            known_N = np.nan_to_num(value_N, nan=low, posinf=high, neginf=low)
            found[INT_SCORE] = whole_scores(known_N, low, high).astype(np.int32)
        return found


def thresholds_of(task: Task, labels: Sequence[str], threshold: Threshold) -> dict[str, float]:
    """The probability from which on each label holds: of the second of two labels, or of every label; else {}."""
    if not task.takes_threshold(len(labels)):
        return {}
    if task is Task.SINGLE_LABEL:
        return {labels[1]: threshold} if isinstance(threshold, float) else {}
    if threshold is None or isinstance(threshold, float):
        return dict.fromkeys(labels, 0.5 if threshold is None else threshold)
    return dict(zip(labels, threshold, strict=True))


def labels_that_hold(values_NC: Floats, threshold: Threshold) -> npt.NDArray[np.bool_]:
    """Each label of a multi-label task from its threshold on, from a common one, or from 0.5."""
    holds_NC: npt.NDArray[np.bool_] = values_NC >= least_of(threshold)
    return holds_NC


def least_of(threshold: Threshold) -> Floats:
    """Least probability of a label that holds, one for all or one a label.

    As float32, which is what a column holds: whoever compares columns with thresholds decides the same.
    """
    return np.array(0.5 if threshold is None else threshold, dtype=np.float32)


def predicted_label(values_NC: Floats, threshold: Threshold) -> tuple[Ints, Floats]:
    """Index and probability of each document's one label.

    Of two labels the second from the threshold on, where there is one; else the likeliest, ties going to
    the first.
    """
    if isinstance(threshold, float) and values_NC.shape[1] == TWO_LABELS:
        label_N = (values_NC[:, 1] >= least_of(threshold)).astype(np.int64)
        return label_N, np.where(label_N == 1, values_NC[:, 1], values_NC[:, 0])
    return _largest(values_NC)


def _finite_rows(values_NC: Floats) -> npt.NDArray[np.bool_]:
    # A sum is finite only where all terms are, and costs one pass.
    if np.isfinite(values_NC.sum()):
        return np.ones(len(values_NC), dtype=np.bool_)
    is_finite_NC: npt.NDArray[np.bool_] = np.isfinite(values_NC)
    return np.asarray(is_finite_NC.all(axis=1))


def _largest(values_NC: Floats) -> tuple[Ints, Floats]:
    """Index and value of the largest output of each document, the first of equals.

    A class at a time: NumPy's own arg max over a short axis costs several times as much.
    """
    label_N = np.zeros(len(values_NC), dtype=np.int64)
    chosen_N = values_NC[:, 0].copy()
    for c in range(1, values_NC.shape[1]):
        is_larger_N = values_NC[:, c] > chosen_N
        label_N[is_larger_N] = c
        np.maximum(chosen_N, values_NC[:, c], out=chosen_N)
    return label_N, chosen_N
