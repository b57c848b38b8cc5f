"""[pure] The fewest members that do nearly as well as any choice of them, chosen on validation rows alone.

Forward selection as Caruana et al. 2004 (section 2), each member once, over resamples of the rows (bags), since a
single greedy path follows the noise of a small validation set.

Axes: B bags, M members, N rows, C outputs.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.metrics import FloatArray

Targets = NDArray[Any]
"""Class indices [N], 0/1 [N, C], or numbers [N]."""

NUM_BAGS = 20
_LEAST = 1e-12


def row_losses(pooled_NC: FloatArray, targets: Targets, task_link: str) -> FloatArray:
    """What each row costs [N]: NLL of its label, or of its labels' mean; the squared error of a regression."""
    if task_link == "identity":
        return np.asarray((pooled_NC[:, 0] - targets) ** 2, dtype=np.float64)
    if task_link == "softmax":
        chosen_N = pooled_NC[np.arange(len(pooled_NC)), targets.astype(np.int64)]
        return np.asarray(-np.log(np.maximum(chosen_N, _LEAST)), dtype=np.float64)
    holds_NC = targets.astype(np.bool_)
    chosen_NC = np.where(holds_NC, pooled_NC, 1 - pooled_NC)
    return np.asarray(-np.log(np.maximum(chosen_NC, _LEAST)).mean(axis=1), dtype=np.float64)


def selection_order(values_MNC: FloatArray, targets: Targets, task_link: str, *, seed: int) -> list[int]:
    """The members, the most useful first: by their mean place in the greedy paths of `NUM_BAGS` bags of the rows.

    `values_MNC` are probabilities, or a regression's values, and are averaged.
    """
    rng = np.random.default_rng(seed)
    num_members, num_rows, _ = values_MNC.shape
    places_M = np.zeros(num_members)
    for _ in range(NUM_BAGS):
        bag_N = rng.integers(0, num_rows, num_rows)
        for place, member in enumerate(_greedy(values_MNC[:, bag_N], targets[bag_N], task_link)):
            places_M[member] += place
    order: list[int] = np.argsort(places_M, kind="stable").tolist()
    return order


def choose_members(
    values_MNC: FloatArray, targets: Targets, task_link: str, *, max_loss: float, seed: int
) -> tuple[list[int], list[float]]:
    """The members to keep, in their own order, and the loss of the first 1, 2, ... of `selection_order`.

    Kept are the fewest of that order whose loss is at most `max_loss` above the least.
    """
    order = selection_order(values_MNC, targets, task_link, seed=seed)
    losses = [
        float(row_losses(values_MNC[order[:k]].mean(axis=0), targets, task_link).mean())
        for k in range(1, len(order) + 1)
    ]
    count = next(k for k, loss in enumerate(losses, start=1) if loss <= min(losses) + max_loss)
    return sorted(order[:count]), losses


def _greedy(values_MNC: FloatArray, targets: Targets, task_link: str) -> Sequence[int]:
    """All members in the order in which a greedy search adds them."""
    left = list(range(len(values_MNC)))
    chosen: list[int] = []
    total_NC = np.zeros(values_MNC.shape[1:])
    while left:
        losses = [
            row_losses((total_NC + values_MNC[m]) / (len(chosen) + 1), targets, task_link).mean()
            for m in left
        ]
        best = left.pop(int(np.argmin(losses)))
        chosen.append(best)
        total_NC += values_MNC[best]
    return chosen
