"""[pure] What each rule makes of the same members' outputs, and what the order of a pair's texts does to them.

Axes: M members, N rows, C outputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from assay import metrics
from assay.ensemble.choose import Targets
from assay.ensemble.measure import mean_intervals, pooled_values
from assay.evaluate.bootstrap import Interval
from assay.evaluate.measure import Resampling
from assay.metrics import FloatArray
from assay.outcome.maps import apply_link
from assay.outcome.pooling import NO_LABEL, Pooling, PoolingRule, majority, plurality, rank_mean
from assay.tasks import TWO_LABELS, Task


@dataclass(frozen=True, kw_only=True, slots=True)
class RuleFigures:
    """What a rule gets right."""

    rule: str
    accuracy: float | None
    """Share of rows whose label it gives; None for a rule that gives no label."""
    interval: Interval
    """Of the accuracy."""
    difference: float | None
    """Accuracy less that of `mean`."""
    difference_interval: Interval
    auc: float | None
    """Of the second of two labels; None where there are others, or the rule gives no score."""
    note: str


@dataclass(frozen=True, kw_only=True, slots=True)
class OrderFigures:
    """What swapping the two texts of each pair does to a model's label."""

    name: str
    changed: float
    """Share of rows whose label changes."""
    changed_interval: Interval
    accuracy: float
    accuracy_swapped: float
    accuracy_both: float
    """Of the mean of the probabilities of both orders."""
    gain: float
    """Of both orders over the order as it stands."""
    gain_interval: Interval


def compare_rules(
    logits_MNC: FloatArray,
    targets: Targets,
    task: Task,
    weights: tuple[float, ...],
    *,
    draws: Resampling,
) -> tuple[RuleFigures, ...]:
    """Each rule on the same rows, those without a label of their own counted as wrong; none but of one label a row.

    `any-correct` looks at the answers: an oracle, and what no rule without them can pass.
    """
    if task is not Task.SINGLE_LABEL:
        return ()
    label_N = targets.astype(np.int64)
    values_MNC = np.stack([apply_link(logits_NC, task) for logits_NC in logits_MNC])
    pooled = {
        rule: pooled_values(logits_MNC, Pooling(rule=rule, weights=weights), task)
        for rule in get_args(PoolingRule)
    }
    most_N = majority(values_MNC)
    labels = {
        **{rule: values_NC.argmax(axis=1) for rule, values_NC in pooled.items()},
        "plurality": plurality(values_MNC),
        "majority": most_N,
    }
    right = {rule: given_N == label_N for rule, given_N in labels.items()}
    right["any-correct"] = (values_MNC.argmax(axis=2) == label_N).any(axis=0)
    scores = {rule: values_NC[:, 1] for rule, values_NC in pooled.items()}
    scores["rank-mean"] = rank_mean(values_MNC[:, :, 1])
    has_auc = values_MNC.shape[2] == TWO_LABELS and len(np.unique(label_N)) == TWO_LABELS
    notes = {
        "majority": f"no label for {np.mean(most_N == NO_LABEL):.2%} of rows",
        "any-correct": "an oracle: it looks at the answers",
        "rank-mean": "needs all documents' scores at once, and gives no label",
    }
    columns = {
        name: values.astype(np.float64)
        for rule, right_N in right.items()
        for name, values in ((rule, right_N), (f"{rule} less mean", right_N.astype(int) - right["mean"]))
    }
    intervals = mean_intervals(columns, draws)
    rules = [*labels, *(["rank-mean"] if has_auc else []), "any-correct"]
    nothing = Interval(undefined="no label")
    return tuple(
        RuleFigures(
            rule=rule,
            accuracy=float(right[rule].mean()) if rule in right else None,
            interval=intervals.get(rule, nothing),
            difference=float(columns[f"{rule} less mean"].mean()) if rule in right else None,
            difference_interval=intervals.get(f"{rule} less mean", nothing),
            auc=metrics.auc(label_N, scores[rule]) if has_auc and rule in scores else None,
            note=notes.get(rule, ""),
        )
        for rule in rules
    )


def compare_orders(
    names: Sequence[str],
    logits_MNC: FloatArray,
    swapped_MNC: FloatArray,
    targets: Targets,
    task: Task,
    pooling: Pooling,
    *,
    draws: Resampling,
) -> tuple[OrderFigures, ...]:
    """Each member, and all pooled, on pairs as they stand and on the same with their texts swapped."""
    if task is not Task.SINGLE_LABEL:
        return ()
    label_N = targets.astype(np.int64)
    both = [
        *(
            (apply_link(one, task), apply_link(two, task))
            for one, two in zip(logits_MNC, swapped_MNC, strict=True)
        ),
        tuple(pooled_values(each, pooling, task) for each in (logits_MNC, swapped_MNC)),
    ]
    figures = []
    for name, (one_NC, two_NC) in zip((*names, "pooled"), both, strict=True):
        one_N, two_N, mean_N = (values.argmax(axis=1) for values in (one_NC, two_NC, one_NC + two_NC))
        columns = {
            "changed": (one_N != two_N).astype(np.float64),
            "gain": (mean_N == label_N).astype(np.float64) - (one_N == label_N),
        }
        intervals = mean_intervals(columns, draws)
        figures.append(
            OrderFigures(
                name=name,
                changed=float(columns["changed"].mean()),
                changed_interval=intervals["changed"],
                accuracy=float((one_N == label_N).mean()),
                accuracy_swapped=float((two_N == label_N).mean()),
                accuracy_both=float((mean_N == label_N).mean()),
                gain=float(columns["gain"].mean()),
                gain_interval=intervals["gain"],
            )
        )
    return tuple(figures)
