"""[pure] Pairs in a second order only where the first does not decide: the margin, what it saves and what it admits.

Axes: M members, N pairs, C labels.
"""

from dataclasses import dataclass

import numpy as np

from assay.ensemble.choose import Targets
from assay.ensemble.findings import Share
from assay.ensemble.measure import pooled_values
from assay.metrics import FloatArray
from assay.outcome.orders import SecondOrder, fit_margin, labels_kept
from assay.outcome.pooling import Pooling
from assay.tasks import Task


@dataclass(frozen=True, kw_only=True, slots=True)
class SecondOrderFigures:
    """What leaving the second order out, where the first decides, comes to on some rows; labels are of raw pools."""

    rows: str
    """Which: validation or test."""
    read_twice: Share
    """Pairs that need the second order."""
    changed: Share
    """Pairs whose label is not the one that both orders give: the error that is admitted."""
    accuracy_first: float
    """Of the first order alone."""
    accuracy: float
    """Of the second order where it is needed."""
    accuracy_both: float
    """Of both orders of every pair."""

    def __str__(self) -> str:
        """One line, for people."""
        low, high = self.changed.interval or (0.0, 0.0)
        return (
            f"second order, {self.rows} rows: {self.read_twice.accuracy or 0:.2%} of pairs are read twice;"
            f" {self.changed.accuracy or 0:.2%} ({low:.2%} to {high:.2%}) get another label than both orders give;"
            f" accuracy {self.accuracy:.4f}, both {self.accuracy_both:.4f}, first alone {self.accuracy_first:.4f}"
        )


def both_values(
    first_MNC: FloatArray, second_MNC: FloatArray, pooling: Pooling
) -> tuple[FloatArray, FloatArray]:
    """Pooled probabilities [N, C] of the first order, and of both."""
    together = np.concatenate([first_MNC, second_MNC])
    task = Task.SINGLE_LABEL
    return pooled_values(first_MNC, pooling, task), pooled_values(together, pooling.of_views(2), task)


def fitted_margin(
    first_MNC: FloatArray, second_MNC: FloatArray, pooling: Pooling, *, max_changed: float
) -> float:
    """The margin of validation rows; see `outcome.orders.fit_margin`."""
    return fit_margin(*both_values(first_MNC, second_MNC, pooling), max_changed=max_changed)


def as_deployed(
    first_MNC: FloatArray, second_MNC: FloatArray, pooling: Pooling, orders: SecondOrder
) -> FloatArray:
    """The logits [2 M, N, C] that the bundle's engine gives: the first order's again where a pair is read once."""
    needed_N = orders.needed(pooled_values(first_MNC, pooling, Task.SINGLE_LABEL))
    return np.concatenate([first_MNC, np.where(needed_N[:, None], second_MNC, first_MNC)])


def second_order_figures(
    rows: str,
    first_MNC: FloatArray,
    second_MNC: FloatArray,
    targets: Targets,
    pooling: Pooling,
    orders: SecondOrder,
) -> SecondOrderFigures:
    """The figures of some rows."""
    first_NC, both_NC = both_values(first_MNC, second_MNC, pooling)
    needed_N = orders.needed(first_NC)
    label_N = targets.astype(np.int64)
    kept_N, both_N = labels_kept(first_NC, both_NC, needed_N), both_NC.argmax(axis=1)
    num_rows = len(label_N)
    return SecondOrderFigures(
        rows=rows,
        read_twice=Share(correct=int(needed_N.sum()), total=num_rows),
        changed=Share(correct=int((kept_N != both_N).sum()), total=num_rows),
        accuracy_first=float((first_NC.argmax(axis=1) == label_N).mean()),
        accuracy=float((kept_N == label_N).mean()),
        accuracy_both=float((both_N == label_N).mean()),
    )
