"""[pure] How often at least one of k members is right: an oracle's figure, since it takes the labels to choose."""

from collections.abc import Sequence
from math import comb

import numpy as np
from numpy.typing import ArrayLike

from assay.metrics import FloatArray


def pass_at_k(num_members: int, num_correct_N: ArrayLike, k: int) -> FloatArray:
    """Of each item the chance [N] that one of k members drawn without replacement is right, of which `num_correct` are.

    1 - C(n - c, k) / C(n, k), the unbiased estimate of Chen et al. 2021 (arXiv 2107.03374, section 2.1), which is the
    mean over all orders of the members. Raises ValueError for a k out of 1 to n.
    """
    if not 1 <= k <= num_members:
        raise ValueError(f"k is {k}; it must be from 1 to the {num_members} members")
    total = comb(num_members, k)
    chances = np.array([1 - comb(num_members - c, k) / total for c in range(num_members + 1)])
    found_N: FloatArray = chances[np.asarray(num_correct_N, dtype=np.int64)]
    return found_N


def in_order(correct_NM: ArrayLike) -> FloatArray:
    """Share of the items [M] that one of the first 1, 2, ... members gets right, in the order given."""
    correct = np.asarray(correct_NM, dtype=np.bool_)
    found_M: FloatArray = np.logical_or.accumulate(correct, axis=1).mean(axis=0)
    return found_M


def curve(correct_NM: ArrayLike) -> Sequence[FloatArray]:
    """`pass_at_k` of each item for k = 1 to M."""
    correct = np.asarray(correct_NM, dtype=np.bool_)
    num_correct_N = correct.sum(axis=1)
    return [pass_at_k(correct.shape[1], num_correct_N, k) for k in range(1, correct.shape[1] + 1)]
