"""Pairs of texts in both orders: which need the second one, and a pair's token ids with its texts swapped. Pure.

A pair that a model decides clearly is left at one order; one that it does not is read again with its texts swapped,
and both count alike. Where the line is comes from labelled or unlabelled validation rows: `fit_margin`.

Axes: N pairs, C labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from assay.metrics import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, kw_only=True, slots=True)
class SecondOrder:
    """When pairs are read with their texts swapped too, and what stands around two texts."""

    margin: float | None
    """A pair is read again where its likeliest label is at most so much likelier than the next; None: every pair is."""
    prefix: tuple[int, ...]
    """Token ids before the first text."""
    middle: tuple[int, ...]
    """Between the two."""
    suffix: tuple[int, ...]
    """After the second."""
    num_middle_of_first: int | None
    """How many of `middle` have token type 0; None where every token type of a pair is 0."""

    def needed(self, values_NC: ArrayLike) -> BoolArray:
        """Which pairs [N] need the second order, by the probabilities of the first; not those without any (NaN)."""
        gap_N = gaps(values_NC)
        return np.isfinite(gap_N) if self.margin is None else np.asarray(gap_N <= self.margin)

    def swap(
        self, ids: NDArray[np.integer], types: NDArray[np.integer] | None
    ) -> tuple[NDArray[np.integer], NDArray[np.integer] | None] | None:
        """The ids and token types of a sequence with its two texts swapped; None for what is not two texts."""
        start, stop = len(self.prefix), len(ids) - len(self.suffix)
        at = self._middle_at(ids, types)
        if at is None or not start <= at <= stop - len(self.middle):
            return None
        second = at + len(self.middle)
        if _differ(ids[:start], self.prefix) or _differ(ids[stop:], self.suffix):
            return None
        swapped = np.concatenate([ids[:start], ids[second:stop], ids[at:second], ids[start:at], ids[stop:]])
        if types is None or self.num_middle_of_first is None:
            return swapped, types
        turned = np.ones_like(types)
        turned[: start + (stop - second) + self.num_middle_of_first] = 0
        return swapped, turned

    def _middle_at(self, ids: NDArray[np.integer], types: NDArray[np.integer] | None) -> int | None:
        """Where what stands between the texts begins: by the token types, or else its first occurrence."""
        size = len(self.middle)
        if types is not None and self.num_middle_of_first is not None and types.any():
            at = int(types.argmax()) - self.num_middle_of_first
            return at if at >= 0 and not _differ(ids[at : at + size], self.middle) else None
        last = len(ids) - size - len(self.suffix)
        found = (
            at for at in range(len(self.prefix), last + 1) if not _differ(ids[at : at + size], self.middle)
        )
        return next(found, None)


def gaps(values_NC: ArrayLike) -> FloatArray:
    """How much likelier [N] the likeliest label is than the next."""
    ordered_NC = np.sort(np.asarray(values_NC, dtype=np.float64), axis=1)
    gap_N: FloatArray = ordered_NC[:, -1] - ordered_NC[:, -2]
    return gap_N


def fit_margin(first_NC: ArrayLike, both_NC: ArrayLike, *, max_changed: float) -> float:
    """The least margin at which at most a share `max_changed` of pairs keep a label that both orders would change.

    `first_NC` are the probabilities of the first order, `both_NC` those of both.
    """
    first, both = np.asarray(first_NC), np.asarray(both_NC)
    changes_N = first.argmax(axis=1) != both.argmax(axis=1)
    falling = np.sort(gaps(first)[changes_N])[::-1]
    num_admitted = int(max_changed * len(first))
    return float(falling[num_admitted]) if len(falling) > num_admitted else 0.0


def labels_kept(first_NC: ArrayLike, both_NC: ArrayLike, needed_N: BoolArray) -> IntArray:
    """The labels [N] where only the pairs that need it are read in both orders."""
    labels_N: IntArray = np.where(
        needed_N, np.asarray(both_NC).argmax(axis=1), np.asarray(first_NC).argmax(axis=1)
    ).astype(np.int64)
    return labels_N


def _differ(ids: NDArray[np.integer], wanted: Sequence[int]) -> bool:
    return len(ids) != len(wanted) or ids.tolist() != list(wanted)
