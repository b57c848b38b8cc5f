"""From which probability on a label holds: the best threshold for a metric, a constraint or a cost. Pure.

Every threshold that tells the observed probabilities apart is tried, so the answer is the best there
is on these rows; equal probabilities stay on one side. Probabilities count as float32, as a scored
part holds them. Axes: N rows, K thresholds, C labels.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from assay.calibrate.settings import ThresholdBy
from assay.errors import InputError
from assay.metrics import FloatArray, IntArray

BETAS = {"f0.5": 0.5, "f1": 1.0, "f2": 2.0}


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """What a threshold is to be best at."""

    by: ThresholdBy
    """The metric to maximise; `cost` is minimised."""
    min_recall: float = 0.0
    """Least recall, for precision_at_recall."""
    min_precision: float = 0.0
    """Least precision, for recall_at_precision."""
    cost_false_positive: float = 1.0
    """Cost of a row taken for positive that is not, in any unit."""
    cost_false_negative: float = 1.0
    """Cost of a positive row that is missed, in the same unit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _ThresholdCounts:
    """What each threshold does to the rows."""

    threshold_K: NDArray[np.float32]
    hits_K: IntArray
    predicted_K: IntArray
    positive: int
    num_rows: int


def choose_threshold(probability_N: ArrayLike, holds_N: ArrayLike, goal: Goal) -> float:
    """The threshold in 0..1 that serves the goal best; a row is positive from it on.

    It lies half-way between two observed probabilities. Of equally good ones the nearest to 0.5 is
    taken; under a constraint, first the one that keeps it by most. Raises `InputError` for rows of one
    kind alone, and for a constraint that no threshold keeps, with the best that one can reach.
    """
    probability = np.asarray(probability_N, dtype=np.float32)
    holds = np.asarray(holds_N).astype(bool)
    if probability.shape != holds.shape or probability.ndim != 1 or not np.isfinite(probability).all():
        raise InputError(
            f"shapes {probability.shape} and {holds.shape}; a threshold needs finite probabilities [N] and"
            " labels [N]"
        )
    if holds.all() or not holds.any():
        raise InputError(
            f"{int(holds.sum())} of {holds.size} rows are positive; a threshold needs rows of both kinds;"
            " add the other"
        )
    counts = _count(probability, holds)
    value_K, allowed_K, second_K = _worth(counts, goal)
    best = value_K[allowed_K].max()
    # Figures that differ in the last digit are the same figure.
    among_K = allowed_K & (value_K >= best - 1e-12 * max(1.0, abs(float(best))))
    among_K &= second_K >= second_K[among_K].max() - 1e-12
    candidates = counts.threshold_K[among_K]
    return float(candidates[np.abs(candidates.astype(np.float64) - 0.5).argmin()])


def decision_metrics(holds_N: ArrayLike, predicted_N: ArrayLike) -> dict[str, float]:
    """accuracy, balanced_accuracy, precision, recall, f1, f0.5 and f2 of yes-no decisions; 0 for 0 / 0."""
    holds, predicted = np.asarray(holds_N).astype(bool), np.asarray(predicted_N).astype(bool)
    hits, positive, taken = int((holds & predicted).sum()), int(holds.sum()), int(predicted.sum())
    rejected, negative = int((~holds & ~predicted).sum()), int((~holds).sum())
    return {
        "accuracy": (hits + rejected) / holds.size,
        "balanced_accuracy": (_share(hits, positive) + _share(rejected, negative)) / 2,
        "precision": _share(hits, taken),
        "recall": _share(hits, positive),
        **{
            name: _share((1 + beta**2) * hits, beta**2 * positive + taken)
            for name, beta in sorted(BETAS.items(), key=lambda item: item[0] != "f1")
        },
    }


def mean_metrics(metrics_C: list[dict[str, float]]) -> dict[str, float]:
    """The mean over labels of each metric."""
    return {name: float(np.mean([each[name] for each in metrics_C])) for name in metrics_C[0]}


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _count(probability_N: NDArray[np.float32], holds_N: NDArray[np.bool_]) -> _ThresholdCounts:
    order = np.argsort(-probability_N, kind="stable")
    falling = probability_N[order]
    last_of_equals = np.append(np.flatnonzero(falling[1:] != falling[:-1]), falling.size - 1)
    scores = falling[last_of_equals]
    following = np.append(scores[1:], np.float32(0))
    # In float32 nothing may lie between two neighbours; then the upper one is the threshold itself.
    middle = ((scores.astype(np.float64) + following) / 2).astype(np.float32)
    threshold_K = np.where(middle > following, middle, scores)
    hits_K = np.cumsum(holds_N[order])[last_of_equals]
    predicted_K = last_of_equals + 1
    if scores[0] < 1:
        # Above all of them: no row is positive.
        above = np.float32((float(scores[0]) + 1) / 2)
        threshold_K = np.insert(threshold_K, 0, above if above > scores[0] else np.float32(1))
        hits_K, predicted_K = np.insert(hits_K, 0, 0), np.insert(predicted_K, 0, 0)
    return _ThresholdCounts(
        threshold_K=threshold_K,
        hits_K=hits_K.astype(np.int64),
        predicted_K=predicted_K.astype(np.int64),
        positive=int(holds_N.sum()),
        num_rows=holds_N.size,
    )


def _worth(counts: _ThresholdCounts, goal: Goal) -> tuple[FloatArray, NDArray[np.bool_], FloatArray]:
    """What each threshold is worth, whether it keeps the constraint, and what settles equal worth."""
    hits, predicted = counts.hits_K.astype(np.float64), counts.predicted_K.astype(np.float64)
    missed, wrong = counts.positive - hits, predicted - hits
    everywhere, nothing = np.ones(hits.shape, dtype=np.bool_), np.zeros(hits.shape)
    precision, recall = hits / np.maximum(predicted, 1), hits / counts.positive
    if goal.by == "accuracy":
        return 1 - (missed + wrong) / counts.num_rows, everywhere, nothing
    if goal.by == "cost":
        cost = goal.cost_false_positive * wrong + goal.cost_false_negative * missed
        return -cost / counts.num_rows, everywhere, nothing
    if goal.by == "precision_at_recall":
        return precision, _kept("recall", recall, goal.min_recall), recall
    if goal.by == "recall_at_precision":
        return recall, _kept("precision", precision, goal.min_precision), precision
    beta2 = BETAS[goal.by] ** 2
    return (1 + beta2) * hits / (beta2 * counts.positive + predicted), everywhere, nothing


def _kept(name: str, value_K: FloatArray, least: float) -> NDArray[np.bool_]:
    kept_K: NDArray[np.bool_] = value_K >= least
    if not kept_K.any():
        raise InputError(
            f"{name} {least:g} is asked for; the best that a threshold reaches on these rows is"
            f" {value_K.max():.4f}; lower --min-{name} to that or below"
        )
    return kept_K


def as_json(goal: Goal) -> Mapping[str, object]:
    """The goal and what belongs to it, for `calibration.json`."""
    mine: dict[str, tuple[str, ...]] = {
        "precision_at_recall": ("min_recall",),
        "recall_at_precision": ("min_precision",),
        "cost": ("cost_false_positive", "cost_false_negative"),
    }
    return {"by": goal.by, **{name: getattr(goal, name) for name in mine.get(goal.by, ())}}
