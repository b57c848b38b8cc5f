"""A method and held-out logits in, the map that suits them out, and how well it does on rows it has not seen.

One set of rows fits the map, chooses the method and sets the threshold, so what it says of itself is
too kind. Hence everything is done again in cross-validation: fitted on the other folds, threshold
included, and measured on the fold left out. Axes: N rows, C labels, K folds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from assay import metrics
from assay.calibrate.affine import fit_logistic, fit_vector
from assay.calibrate.isotonic import fit_isotonic
from assay.calibrate.targets import TargetArray, check_both_sides, refuse_all_right
from assay.calibrate.temperature import fit_temperature
from assay.calibrate.thresholds import Goal, choose_threshold, decision_metrics, mean_metrics
from assay.errors import InputError, UsageError
from assay.metrics import FloatArray, IntArray
from assay.outcome.calibration import Calibration
from assay.outcome.decide import Threshold, labels_that_hold, predicted_label
from assay.outcome.maps import apply_calibration, log_odds
from assay.tasks import TWO_LABELS, Method, Task

SelectBy = Literal["brier", "ece"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Examples:
    """Checked rows of a classifier."""

    logits_NC: FloatArray
    """Finite and uncalibrated."""
    targets: TargetArray
    """Class indices [N], or 0/1 [N, C] (multi-label)."""
    task: Task
    """Single-label or multi-label."""
    labels: tuple[str, ...]
    """Names of the outputs."""

    def take(self, rows: NDArray[np.bool_]) -> "Examples":
        """The rows that the mask names."""
        return replace(self, logits_NC=self.logits_NC[rows], targets=self.targets[rows])

    @property
    def strata(self) -> IntArray:
        """What a fold is to have its share of: the label, or the number of labels."""
        return (self.targets.sum(axis=1) if self.task is Task.MULTI_LABEL else self.targets).astype(np.int64)


def fit_map(method: Method, examples: Examples) -> Calibration:
    """The method's parameters for these rows; raises `InputError` where they teach none."""
    logits_NC, targets, task = examples.logits_NC, examples.targets, examples.task
    check_both_sides(targets, task, examples.labels, each_label=method != "temperature")
    if method == "temperature":
        return Calibration(temperature=fit_temperature(logits_NC, targets, task))
    refuse_all_right(logits_NC, targets)
    if method == "vector":
        scale_C, bias_C = fit_vector(logits_NC, targets.astype(np.int64))
        return Calibration(method=method, scale=tuple(scale_C.tolist()), bias=tuple(bias_C.tolist()))
    is_two = task is Task.SINGLE_LABEL and len(examples.labels) == TWO_LABELS
    if method == "logistic":
        scores = [log_odds(logits_NC)] if is_two else list(logits_NC.T)
        fitted = [fit_logistic(*each) for each in zip(scores, _holds(examples), strict=True)]
        return Calibration(
            method=method, scale=tuple(scale for scale, _ in fitted), bias=tuple(bias for _, bias in fitted)
        )
    plain_NC = apply_calibration(logits_NC, None, task)
    columns = [plain_NC[:, 1]] if is_two else list(plain_NC.T)
    return Calibration(
        method="isotonic",
        steps=tuple(fit_isotonic(*each) for each in zip(columns, _holds(examples), strict=True)),
    )


def choose_thresholds(probabilities_NC: FloatArray, examples: Examples, goal: Goal | None) -> Threshold:
    """The threshold of the second of two labels, or one a label (multi-label); `None` without a goal."""
    if goal is None:
        return None
    if examples.task is Task.SINGLE_LABEL:
        return choose_threshold(probabilities_NC[:, 1], examples.targets == 1, goal)
    found = []
    for label, probability_N, holds_N in zip(
        examples.labels, probabilities_NC.T, examples.targets.T, strict=True
    ):
        try:
            found.append(choose_threshold(probability_N, holds_N, goal))
        except InputError as error:
            raise InputError(f"label {label!r}: {error}") from None
    return tuple(found)


def quality(probabilities_NC: FloatArray, examples: Examples) -> dict[str, float]:
    """How good probabilities are, by name; the decisions among it are arg max, or 0.5 (multi-label)."""
    if examples.task is Task.SINGLE_LABEL:
        return metrics.class_report(probabilities_NC, examples.targets)
    targets_NC = examples.targets
    return {
        "num_rows": float(len(targets_NC)),
        "macro_f1": metrics.multilabel_f1(targets_NC, probabilities_NC >= 0.5, "macro"),
        "nll": metrics.multilabel_nll(targets_NC, probabilities_NC),
        "brier": metrics.multilabel_brier(targets_NC, probabilities_NC),
        "ece": metrics.multilabel_ece(targets_NC, probabilities_NC),
        "ece_equal_mass": metrics.multilabel_ece(targets_NC, probabilities_NC, binning="equal-mass"),
    }


def decide_rows(probabilities_NC: FloatArray, task: Task, threshold: Threshold) -> IntArray:
    """Class indices [N], or 0/1 for each label [N, C]: what `assay score` decides of these probabilities."""
    values_NC = probabilities_NC.astype(np.float32)
    if task is Task.MULTI_LABEL:
        return labels_that_hold(values_NC, threshold).astype(np.int64)
    return predicted_label(values_NC, threshold)[0]


def decision_report(
    decided: IntArray, examples: Examples
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Metrics of decisions, and those of each label. Two labels: of the second; more: means over labels."""
    if examples.task is Task.MULTI_LABEL:
        holds_CN, decided_CN = list(examples.targets.T == 1), list(decided.T == 1)
    else:
        indices = range(len(examples.labels))
        holds_CN = [examples.targets == index for index in indices]
        decided_CN = [decided == index for index in indices]
    each = [decision_metrics(*pair) for pair in zip(holds_CN, decided_CN, strict=True)]
    by_label = dict(zip(examples.labels, each, strict=True))
    if examples.task is Task.MULTI_LABEL:
        return mean_metrics(each), by_label
    if len(examples.labels) == TWO_LABELS:
        return each[1], {}
    # One class against the rest flatters these two: most rows are neither the class nor taken for it.
    whole = {
        "accuracy": metrics.accuracy(examples.targets, decided),
        "balanced_accuracy": metrics.balanced_accuracy(examples.targets, decided),
    }
    return {**mean_metrics(each), **whole}, by_label


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossValidated:
    """What maps and thresholds do on rows that they were not fitted on."""

    probabilities_NC: FloatArray
    """Calibrated by the map of the other folds."""
    decided: IntArray
    """Decided by the threshold of the other folds."""


def cross_validate(
    method: Method, examples: Examples, fold_N: IntArray, goal: Goal | None = None
) -> CrossValidated:
    """Each fold by the map and threshold of the others; `InputError` where some folds teach none."""
    probabilities_NC = np.empty_like(examples.logits_NC)
    decided = np.zeros_like(examples.targets, dtype=np.int64)
    for fold in np.unique(fold_N):
        held_out = fold_N == fold
        others = examples.take(~held_out)
        fitted = fit_map(method, others)
        threshold = choose_thresholds(
            apply_calibration(others.logits_NC, fitted, examples.task), others, goal
        )
        found_NC = apply_calibration(examples.logits_NC[held_out], fitted, examples.task)
        probabilities_NC[held_out] = found_NC
        decided[held_out] = decide_rows(found_NC, examples.task, threshold)
    return CrossValidated(probabilities_NC=probabilities_NC, decided=decided)


def choose_method(
    methods: Sequence[Method], examples: Examples, fold_N: IntArray, select_by: SelectBy
) -> tuple[Method, dict[str, float], dict[str, str]]:
    """The method of the lowest cross-validated `select_by`; all figures, and why others have none.

    Of equals the plainer. Raises `InputError` where no method can be fitted in every fold.
    """
    scores: dict[str, float] = {}
    failed: dict[str, str] = {}
    for method in methods:
        try:
            tried = cross_validate(method, examples, fold_N)
        except InputError as error:
            failed[method] = str(error)
            continue
        scores[method] = quality(tried.probabilities_NC, examples)[select_by]
    if not scores:
        raise InputError(f"no method can be cross-validated; {next(iter(failed.values()))}")
    best = min((method for method in methods if method in scores), key=lambda method: scores[method])
    return best, scores, failed


def refuse_other_method(method: str, task: Task, num_labels: int) -> None:
    """Raises `UsageError` for a method that the head cannot have."""
    known = (*task.calibration_methods(num_labels), *(["auto"] if task.is_classifier else []))
    if method not in known:
        raise UsageError(
            f"method={method}; a {task} bundle of {num_labels} outputs takes {', '.join(known)}; name one"
        )


def _holds(examples: Examples) -> list[NDArray[np.generic]]:
    """Whether each curve's label holds, [N] each: of the second of two labels, or of every label."""
    if examples.task is Task.MULTI_LABEL:
        return list(examples.targets.T)
    if len(examples.labels) == TWO_LABELS:
        return [examples.targets == 1]
    return [examples.targets == index for index in range(len(examples.labels))]
