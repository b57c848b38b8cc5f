"""What predictions are worth: values, intervals, reasons where undefined; differences of bundles. Pure.

A number is never shown where it has no meaning: AUC of rows of one label, say, is `undefined` with the
reason, neither 0 nor NaN.

Axes: N rows, C classes or labels, B resamples.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from assay import metrics
from assay.errors import InputError
from assay.evaluate import statistics
from assay.evaluate.bootstrap import (
    PLAIN_ROWS,
    Advance,
    Interval,
    IntervalMethod,
    Resamples,
    interval,
    p_value,
    resample,
)
from assay.evaluate.sums import Family
from assay.metrics import FloatArray, IntArray, ReliabilityBin
from assay.tasks import Task

MOST_RANKED = 1 << 21
"""Rankings (one a class) times resamples, at most: about a minute on two cores."""
_NO_INTERVALS = "none was asked for"


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluatedRows:
    """What a bundle says of rows, and what is true of them."""

    task: Task
    outputs_NC: FloatArray
    """Calibrated probabilities; a regression's values [N, 1]."""
    plain_NC: FloatArray
    """The same before calibration."""
    predicted: IntArray
    """Index of the predicted label [N]; multi-label 0/1 [N, C]; a regression's zeros [N]."""
    targets: IntArray | FloatArray
    """Index of the true label [N]; multi-label 0/1 [N, C]; a regression's targets [N]."""
    int_score: tuple[int, int] | None = None
    """Least and greatest whole score of a regression, where it gives any."""
    half_width: float | None = None
    """Half the width of a regression's intervals, where it gives any."""
    unanswered_within: float | None = None
    """Of pairs with two labels: distance from 0.5 up to which PAN's metrics take a probability for unanswered."""

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.outputs_NC)

    def take(self, rows: IntArray) -> "EvaluatedRows":
        """These rows alone."""
        return replace(
            self,
            outputs_NC=self.outputs_NC[rows],
            plain_NC=self.plain_NC[rows],
            predicted=self.predicted[rows],
            targets=self.targets[rows],
        )

    def before_calibration(self) -> "EvaluatedRows":
        """The same rows with the uncalibrated outputs; what was predicted stays."""
        return replace(self, outputs_NC=self.plain_NC, half_width=None)

    def reliability(self) -> tuple[ReliabilityBin, ...]:
        """The reliability diagram of a classifier, in bins of equal mass."""
        return metrics.reliability_diagram(self.outputs_NC, self.targets, binning="equal-mass")


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One number, how sure it is, or why there is none."""

    value: float | None
    """The number; `None` where it is undefined."""
    undefined: str | None
    """Why it is undefined; `None` where it is not."""
    interval: Interval
    """The confidence interval, or why there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricDifference:
    """One metric of the first bundle less that of another, on the same rows."""

    value: float | None
    """First less other; `None` where either is undefined."""
    interval: Interval
    """Of the difference, by drawing the same rows for both."""
    p_value: float | None
    """Two-sided, that there is no difference."""
    test: Literal["mcnemar", "bootstrap"]
    """mcnemar: exact, of the rows on which one alone is right; bootstrap: paired."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedBundle:
    """Another bundle on the same rows."""

    metrics: Mapping[str, Metric]
    """Its own."""
    differences: Mapping[str, MetricDifference]
    """Of the first bundle less this one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """The metrics of some of the rows."""

    name: str
    """Which rows."""
    num_rows: int
    """How many."""
    metrics: Mapping[str, Metric]
    """Of the first bundle."""
    others: tuple[ComparedBundle, ...] = ()
    """The other bundles, in their order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Resampling:
    """How intervals are found."""

    num_resamples: int
    """0: no intervals."""
    method: IntervalMethod
    confidence: float
    seed: int


def measure(
    name: str,
    outcome: EvaluatedRows,
    others: Sequence[EvaluatedRows],
    resampling: Resampling,
    group_N: IntArray | None = None,
    advance: Advance = lambda _share: None,
) -> Part:
    """The metrics of an outcome, those of `others`, of the same rows, and the differences to each of them.

    `group_N`: the group of each row, any numbers, or [N, 2] the groups of both sides of pairs; intervals
    then draw groups.
    """
    values, *values_of_others = (point_values(each) for each in (outcome, *others))
    drawn = _resamples([outcome, *others], [values, *values_of_others], resampling, group_N, advance)

    def found(values: Mapping[str, float | str], prefix: str) -> dict[str, Metric]:
        return {
            metric: Metric(value=None, undefined=value, interval=Interval(undefined="the value is undefined"))
            if isinstance(value, str)
            else Metric(
                value=value, undefined=None, interval=_interval(value, prefix + metric, drawn, resampling)
            )
            for metric, value in values.items()
        }

    def difference(metric: str, first: float | str, second: float | str, index: int) -> MetricDifference:
        plain = _difference(f"0 less {index} {metric}", first, second, drawn, resampling)
        if group_N is not None or metric not in {"accuracy", "subset_accuracy"}:
            return plain
        exact = metrics.mcnemar(_is_right(outcome), _is_right(others[index - 1]))
        return replace(plain, p_value=exact, test="mcnemar")

    compared = []
    for index, theirs in enumerate(values_of_others, start=1):
        differences = {
            metric: difference(metric, value, theirs[metric], index)
            for metric, value in values.items()
            if metric in theirs
        }
        compared.append(ComparedBundle(metrics=found(theirs, f"{index} "), differences=differences))
    return Part(name=name, num_rows=outcome.num_rows, metrics=found(values, "0 "), others=tuple(compared))


def point_values(outcome: EvaluatedRows, names: Sequence[str] | None = None) -> dict[str, float | str]:
    """Every metric of an outcome by name (those of `names`), in a report's order; a text says why one is undefined."""
    if outcome.task is Task.SINGLE_LABEL:
        found = _single_label_values(outcome)
    elif outcome.task is Task.MULTI_LABEL:
        found = _multi_label_values(outcome)
    else:
        found = _regression_values(outcome)
    return {
        name: _value_or_reason(metric) for name, metric in found.items() if names is None or name in names
    }


def label_values(outcome: EvaluatedRows, index: int) -> dict[str, float | str]:
    """Metrics of one label of a classifier against the rest; a text says why one is undefined."""
    if outcome.task is Task.MULTI_LABEL:
        positive_N, predicted_N = outcome.targets[:, index] > 0, outcome.predicted[:, index] > 0
    else:
        positive_N, predicted_N = outcome.targets == index, outcome.predicted == index
    probability_N = outcome.outputs_NC[:, index]
    found: dict[str, Callable[[], float]] = {
        "precision": lambda: metrics.precision(positive_N, predicted_N),
        "recall": lambda: metrics.recall(positive_N, predicted_N),
        "f1": lambda: metrics.f_beta(positive_N, predicted_N),
        "auc": lambda: metrics.auc(positive_N, probability_N),
        "average_precision": lambda: metrics.average_precision(positive_N, probability_N),
        "brier": lambda: float(np.square(probability_N - positive_N).mean()),
        "ece": lambda: metrics.calibration_error(probability_N, positive_N),
    }
    counts = {"rows": float(positive_N.sum()), "predicted": float(predicted_N.sum())}
    return {**counts, **{name: _value_or_reason(metric) for name, metric in found.items()}}


def group_indices(*columns: Sequence[str]) -> IntArray:
    """Groups as numbers 0..G-1: [N] of one column; of two, of the sides of pairs, [N, 2] of one numbering."""
    names = np.array(columns, dtype=object).astype(str)
    indices = np.unique(names, return_inverse=True)[1].reshape(names.shape).astype(np.int64)
    return indices[0] if len(columns) == 1 else np.ascontiguousarray(indices.T)


def _single_label_values(outcome: EvaluatedRows) -> dict[str, Callable[[], float]]:
    probabilities, predicted = outcome.outputs_NC, outcome.predicted
    labels = outcome.targets.astype(np.int64)
    binary: dict[str, Callable[[], float]] = {
        "precision": lambda: metrics.precision(labels == 1, predicted == 1),
        "recall": lambda: metrics.recall(labels == 1, predicted == 1),
        "f1": lambda: metrics.f_beta(labels == 1, predicted == 1),
    }
    within = outcome.unanswered_within
    second = probabilities[:, 1] if within is not None else np.zeros(0)
    pan: dict[str, Callable[[], float]] = {}
    if within is not None:
        pan = {
            "c_at_1": lambda: metrics.c_at_1(labels, second, unanswered_within=within),
            "f05_u": lambda: metrics.f05_u(labels, second, unanswered_within=within),
            "brier_complement": lambda: metrics.brier_complement(labels, second),
        }
    return {
        "accuracy": lambda: metrics.accuracy(labels, predicted),
        "balanced_accuracy": lambda: metrics.balanced_accuracy(labels, predicted),
        "macro_f1": lambda: metrics.macro_f1(labels, predicted),
        "weighted_f1": lambda: metrics.weighted_f1(labels, predicted),
        **(binary if probabilities.shape[1] == 2 else {}),
        "auc": lambda: metrics.macro_auc(labels, probabilities),
        "average_precision": lambda: metrics.macro_average_precision(labels, probabilities),
        "nll": lambda: metrics.nll(probabilities, labels),
        "brier": lambda: metrics.brier(probabilities, labels),
        **pan,
        "ece": lambda: metrics.ece(probabilities, labels),
        "ece_equal_mass": lambda: metrics.ece(probabilities, labels, binning="equal-mass"),
    }


def _multi_label_values(outcome: EvaluatedRows) -> dict[str, Callable[[], float]]:
    probabilities, targets, predicted = outcome.outputs_NC, outcome.targets, outcome.predicted
    return {
        "macro_f1": lambda: metrics.multilabel_f1(targets, predicted, "macro"),
        "micro_f1": lambda: metrics.multilabel_f1(targets, predicted, "micro"),
        "subset_accuracy": lambda: metrics.subset_accuracy(targets, predicted),
        "auc": lambda: metrics.multilabel_macro(metrics.auc, targets, probabilities),
        "average_precision": lambda: metrics.multilabel_macro(
            metrics.average_precision, targets, probabilities
        ),
        "micro_auc": lambda: metrics.auc(targets.ravel(), probabilities.ravel()),
        "micro_average_precision": lambda: metrics.average_precision(targets.ravel(), probabilities.ravel()),
        "nll": lambda: metrics.multilabel_nll(targets, probabilities),
        "brier": lambda: metrics.multilabel_brier(targets, probabilities),
        "ece": lambda: metrics.multilabel_ece(targets, probabilities),
        "ece_equal_mass": lambda: metrics.multilabel_ece(targets, probabilities, binning="equal-mass"),
    }


def _regression_values(outcome: EvaluatedRows) -> dict[str, Callable[[], float]]:
    values, targets = outcome.outputs_NC[:, 0], outcome.targets
    found: dict[str, Callable[[], float]] = {
        "mae": lambda: metrics.mae(targets, values),
        "rmse": lambda: metrics.rmse(targets, values),
        "spearman": lambda: metrics.spearman(targets, values),
    }
    if outcome.int_score is not None:
        low, high = outcome.int_score
        found["int_macro_f1"] = lambda: metrics.int_macro_f1(targets, values, low, high)
    if outcome.half_width is not None:
        width = outcome.half_width
        found["coverage"] = lambda: float((np.abs(values - targets) <= width).mean())
        found["mean_width"] = lambda: 2 * width
    return found


def _value_or_reason(metric: Callable[[], float]) -> float | str:
    try:
        return metric()
    except InputError as error:
        return str(error)


def families_of(
    outcome: EvaluatedRows, *, most_rankings: int | None = None, all_ranks: bool = True
) -> tuple[Family, ...]:
    """What resampling needs of an outcome; see `assay.evaluate.statistics`."""
    outputs, targets = outcome.outputs_NC, outcome.targets
    if outcome.task is Task.SINGLE_LABEL:
        return statistics.single_label(
            outputs,
            targets.astype(np.int64),
            outcome.predicted,
            most_rankings=most_rankings,
            all_ranks=all_ranks,
            unanswered_within=outcome.unanswered_within,
        )
    if outcome.task is Task.MULTI_LABEL:
        return statistics.multi_label(
            outputs,
            targets > 0,
            outcome.predicted > 0,
            most_rankings=most_rankings,
            all_ranks=all_ranks,
        )
    return statistics.regression(
        outputs[:, 0],
        targets.astype(np.float64),
        outcome.int_score,
        outcome.half_width,
        all_ranks=all_ranks,
    )


def _resamples(
    outcomes: Sequence[EvaluatedRows],
    values: Sequence[Mapping[str, float | str]],
    resampling: Resampling,
    group_N: IntArray | None,
    advance: Advance,
) -> Resamples | None:
    """All bundles and the differences to the first in the same resamples: "0 auc", "1 auc", "0 less 1 auc"."""
    if not resampling.num_resamples:
        return None
    index_N = None
    if group_N is not None:
        index_N = np.unique(group_N, return_inverse=True)[1].reshape(group_N.shape).astype(np.int64)
    each = []
    for index, outcome in enumerate(outcomes):

        def of_all(share: float, done: int = index) -> None:
            advance((done + share) / len(outcomes))

        families = families_of(
            outcome,
            most_rankings=MOST_RANKED // resampling.num_resamples,
            all_ranks=outcome.num_rows <= PLAIN_ROWS,
        )
        found = resample(
            families,
            outcome.num_rows,
            num_resamples=resampling.num_resamples,
            seed=resampling.seed,
            group_N=index_N,
            advance=of_all,
        )
        each.append(_moved(found, values[index]))
    return Resamples(
        drawn=_with_differences([of.drawn for of in each]),
        left_out=_with_differences([of.left_out for of in each]),
    )


def _moved(found: Resamples, values: Mapping[str, float | str]) -> Resamples:
    """The resamples, moved by what levels in place of ranks did to the value on all rows."""
    drawn = dict(found.drawn)
    for name, whole in found.whole.items():
        value = values[name]
        # Sums in another order differ in the last bits; there is nothing to move.
        if isinstance(value, float) and abs(value - whole) > 1e-12 * max(1.0, abs(value)):
            drawn[name] = np.clip(drawn[name] + (value - whole), *metrics.range_of(name))
    return replace(found, drawn=drawn)


def _with_differences(each: Sequence[Mapping[str, FloatArray]]) -> dict[str, FloatArray]:
    first = each[0]
    found = {f"{index} {name}": values for index, of in enumerate(each) for name, values in of.items()}
    for index, of in enumerate(each[1:], start=1):
        found |= {f"0 less {index} {name}": first[name] - of[name] for name in of if name in first}
    return found


def _interval(value: float, name: str, drawn: Resamples | None, resampling: Resampling) -> Interval:
    if drawn is None:
        return Interval(undefined=_NO_INTERVALS)
    if name not in drawn.drawn:
        return Interval(undefined="too many labels to rank again; set fewer --resamples")
    return interval(value, name, drawn, confidence=resampling.confidence, method=resampling.method)


def _difference(
    key: str, first: float | str, second: float | str, drawn: Resamples | None, resampling: Resampling
) -> MetricDifference:
    if isinstance(first, str) or isinstance(second, str):
        return MetricDifference(
            value=None, interval=Interval(undefined="a value is undefined"), p_value=None, test="bootstrap"
        )
    value = first - second
    has_draws = drawn is not None and key in drawn.drawn
    return MetricDifference(
        value=value,
        interval=_interval(value, key, drawn, resampling),
        p_value=p_value(value, key, drawn, method=resampling.method)
        if drawn is not None and has_draws
        else None,
        test="bootstrap",
    )


def _is_right(outcome: EvaluatedRows) -> IntArray:
    is_right = np.equal(outcome.predicted, outcome.targets).reshape(outcome.num_rows, -1)
    return np.asarray(is_right.all(axis=1), dtype=np.int64)
