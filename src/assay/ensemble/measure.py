"""[pure] What an ensemble of classifiers is worth on rows that nothing was chosen on: members, pooled, by their number.

Axes: M members, N rows, C outputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np

from assay import metrics
from assay.ensemble.choose import Targets, row_losses
from assay.evaluate.bootstrap import Interval, interval, resample
from assay.evaluate.measure import Resampling
from assay.evaluate.statistics import means_of
from assay.metrics import FloatArray
from assay.outcome.calibration import Calibration
from assay.outcome.maps import apply_calibration, apply_link
from assay.outcome.pooling import Pooling, equal_weights
from assay.tasks import Task

MOST_SUBSETS = 40
"""Subsets of members of one size that are averaged; where there are more, so many drawn ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """Figures of one model or pooled members."""

    name: str
    num_members: float
    """Forward passes of a document, on average."""
    values: Mapping[str, float]
    """By metric, in the order in which they are shown."""
    intervals: Mapping[str, Interval]
    """Of those that are means over rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """The pooled members less a single one, on the same rows."""

    against: str
    values: Mapping[str, float]
    intervals: Mapping[str, Interval]


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What was measured on the test rows."""

    num_rows: int
    members: tuple[Figures, ...]
    pooled: Figures
    calibrated: Figures | None
    by_size: tuple[Figures, ...]
    """Pooled raw, for 1 to M members: means over subsets of that size."""
    differences: tuple[Difference, ...]
    disagreement: float | None
    """Share of rows, over pairs of members, on which their labels differ; None for a regression."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OtherWay:
    """What the passes of the pooled members buy otherwise: other views of fewer members, or another model."""

    figures: Figures
    """Its own, uncalibrated."""
    difference: Difference
    """The pooled members less it, on the same rows."""


def pooled_values(logits_MNC: FloatArray, pooling: Pooling, task: Task) -> FloatArray:
    """Probabilities, or values, [N, C] of members' logits."""
    side_by_side = np.moveaxis(logits_MNC, 0, 1).reshape(logits_MNC.shape[1], -1)
    return apply_link(pooling.pool(side_by_side, task), task)


def measure(
    names: Sequence[str],
    logits_KNC: FloatArray,
    targets: Targets,
    task: Task,
    pooling: Pooling,
    *,
    calibration: Calibration | None,
    best: int | None,
    num_passes: float | None = None,
    draws: Resampling,
) -> Measured:
    """The figures; `best` is the member that did best on the validation rows, where there are some.

    `logits_KNC`: [M, N, C], or of pairs that are pooled in both orders [2 M, N, C], the second half with the texts
    swapped, or again the first order's where a pair is read once. Members alone are of the first order.
    `num_passes`: of a document, where they are not one a member and order.
    """
    num_members = len(names)
    logits_MNC, second_MNC = logits_KNC[:num_members], logits_KNC[num_members:]
    deployed, num_passes = pooling, num_passes or float(num_members)
    if len(second_MNC):
        deployed = pooling.of_views(2)
        num_passes *= 1 + float((second_MNC != logits_MNC).any(axis=(0, 2)).mean())

    def figures(name: str, several: Sequence[FloatArray], num_members: float) -> Figures:
        return _figures(name, several, targets, task, num_members, draws)[0]

    values = [apply_link(logits_NC, task) for logits_NC in logits_MNC]
    together = pooled_values(logits_KNC, deployed, task)
    calibrated = None
    if calibration is not None and task.is_classifier:
        side_by_side = np.moveaxis(logits_KNC, 0, 1).reshape(logits_KNC.shape[1], -1)
        mapped = apply_calibration(deployed.pool(side_by_side, task), calibration, task)
        calibrated = figures("pooled, calibrated", [mapped], num_passes)
    by_size = [
        figures(
            f"{k}",
            [
                pooled_values(
                    logits_MNC[list(chosen)], Pooling(rule=pooling.rule, weights=equal_weights(k)), task
                )
                for chosen in subsets(num_members, k, draws.seed)
            ],
            k,
        )
        for k in range(1, num_members + 1)
    ]
    mine = _row_values(together, targets, task)
    each = [_row_values(values_NC, targets, task) for values_NC in values]
    references = {"the mean member": {key: np.mean([one[key] for one in each], axis=0) for key in mine}}
    if best is not None:
        references = {f"{names[best]}, the best on validation": each[best], **references}
    return Measured(
        num_rows=len(together),
        members=tuple(figures(name, [values_NC], 1) for name, values_NC in zip(names, values, strict=True)),
        pooled=figures("pooled", [together], num_passes),
        calibrated=calibrated,
        by_size=tuple(by_size),
        differences=tuple(
            _difference(against, mine, theirs, draws) for against, theirs in references.items()
        ),
        disagreement=_disagreement(values, task),
    )


def _figures(
    name: str,
    several: Sequence[FloatArray],
    targets: Targets,
    task: Task,
    num_members: float,
    draws: Resampling,
) -> tuple[Figures, dict[str, FloatArray]]:
    """Means over several models of what their values [N, C] are worth, and those metrics a row."""
    rows = [_row_values(values_NC, targets, task) for values_NC in several]
    means = {key: np.mean([each[key] for each in rows], axis=0) for key in rows[0]}
    whole = [_whole_values(values_NC, targets, task) for values_NC in several]
    figures = Figures(
        name=name,
        num_members=num_members,
        values={
            **{key: float(value_N.mean()) for key, value_N in means.items()},
            **{key: float(np.mean([each[key] for each in whole])) for key in whole[0]},
        },
        intervals=mean_intervals(means, draws),
    )
    return figures, means


@dataclass(frozen=True, kw_only=True, slots=True)
class PooledRows:
    """What pooled members, uncalibrated, say of rows, to compare with."""

    values_NC: FloatArray
    targets: Targets
    task: Task
    num_passes: float
    """Of a document, on average."""

    def less(
        self,
        name: str,
        several: Sequence[FloatArray],
        num_passes: float,
        draws: Resampling,
        targets: Targets | None = None,
    ) -> OtherWay:
        """Compared with another model on these rows, or with the mean of several; `targets`: in its labels' order."""
        theirs = self.targets if targets is None else targets
        figures, rows = _figures(name, several, theirs, self.task, num_passes, draws)
        mine = _row_values(self.values_NC, self.targets, self.task)
        return OtherWay(figures=figures, difference=_difference(name, mine, rows, draws))


def other_orders(
    pooled: PooledRows,
    first_MNC: FloatArray,
    second_MNC: FloatArray,
    pooling: Pooling,
    num_orders: int,
    draws: Resampling,
) -> tuple[OtherWay, ...]:
    """As many members as no more passes of pairs allow in one order each, and in both; means over such members.

    `num_orders`: in how many orders the pooled members read pairs, which is no other way.
    """
    found = []
    for count, words in ((1, "one order"), (2, "both orders")):
        num_members = int(pooled.num_passes / count)
        if not 1 <= num_members <= len(first_MNC) or (count, num_members) == (num_orders, len(first_MNC)):
            continue
        alone = Pooling(rule=pooling.rule, weights=equal_weights(num_members)).of_views(count)
        views = np.stack([first_MNC, second_MNC][:count])
        several = [
            pooled_values(np.concatenate(views[:, list(chosen)]), alone, pooled.task)
            for chosen in subsets(len(first_MNC), num_members, draws.seed)
        ]
        name = f"{num_members} member{'s' * (num_members > 1)} in {words}"
        found.append(pooled.less(name, several, num_members * count, draws))
    return tuple(found)


def subsets(num_members: int, size: int, seed: int) -> list[tuple[int, ...]]:
    """All subsets of a size, or `MOST_SUBSETS` drawn ones, no two the same, where there are more."""
    if comb(num_members, size) <= MOST_SUBSETS:
        return list(combinations(range(num_members), size))
    rng = np.random.default_rng([seed, size])
    drawn: set[tuple[int, ...]] = set()
    while len(drawn) < MOST_SUBSETS:
        drawn.add(tuple(sorted(rng.choice(num_members, size, replace=False).tolist())))
    return sorted(drawn)


def _row_values(values_NC: FloatArray, targets: Targets, task: Task) -> dict[str, FloatArray]:
    """Metrics that are means over rows, a number a row."""
    loss_N = row_losses(values_NC, targets, task.link)
    if task is Task.REGRESSION:
        return {"mae": np.abs(values_NC[:, 0] - targets), "mse": loss_N}
    if task is Task.MULTI_LABEL:
        holds_NC = targets.astype(np.bool_)
        right_N = ((values_NC >= 0.5) == holds_NC).all(axis=1)
        brier_N = ((values_NC - holds_NC) ** 2).mean(axis=1)
        return {"subset_accuracy": right_N.astype(np.float64), "nll": loss_N, "brier": brier_N}
    label_N = targets.astype(np.int64)
    right_N = values_NC.argmax(axis=1) == label_N
    brier_N = ((values_NC - np.eye(values_NC.shape[1])[label_N]) ** 2).sum(axis=1)
    return {"accuracy": right_N.astype(np.float64), "nll": loss_N, "brier": brier_N}


def _whole_values(values_NC: FloatArray, targets: Targets, task: Task) -> dict[str, float]:
    """Metrics of all rows together."""
    if task is Task.REGRESSION:
        return {"spearman": metrics.spearman(targets, values_NC[:, 0])}
    if task is Task.MULTI_LABEL:
        return {"ece": metrics.multilabel_ece(targets, values_NC)}
    return {"ece": metrics.ece(values_NC, targets)}


def _difference(
    against: str,
    mine: Mapping[str, FloatArray],
    theirs: Mapping[str, FloatArray],
    draws: Resampling,
) -> Difference:
    differences = {key: mine[key] - theirs[key] for key in mine}
    return Difference(
        against=against,
        values={key: float(value_N.mean()) for key, value_N in differences.items()},
        intervals=mean_intervals(differences, draws),
    )


def mean_intervals(rows: Mapping[str, FloatArray], draws: Resampling) -> dict[str, Interval]:
    """Of the means of values [N], from resamples of the rows, the same for all."""
    num_rows = len(next(iter(rows.values())))
    drawn = resample([means_of(rows)], num_rows, num_resamples=draws.num_resamples, seed=draws.seed)
    return {
        key: interval(float(value_N.mean()), key, drawn, confidence=draws.confidence, method=draws.method)
        for key, value_N in rows.items()
    }


def _disagreement(values: Sequence[FloatArray], task: Task) -> float | None:
    if not task.is_classifier:
        return None
    labels = [each.argmax(axis=1)[:, None] if task is Task.SINGLE_LABEL else each >= 0.5 for each in values]
    shares = [
        float((labels[one] != labels[other]).any(axis=1).mean())
        for one, other in combinations(range(len(labels)), 2)
    ]
    return float(np.mean(shares)) if shares else None
