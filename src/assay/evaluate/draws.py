"""What resamples draw, and how often: weights of rows, of groups, and of blocks of them. Pure.

A resample draws rows with replacement; all that a metric needs of it is how often each row was drawn,
so a resample is a row of weights and some resamples are one matrix. Where rows come in groups
(books, authors, sites), whole groups are drawn: rows of a group are alike, and an interval that took
them for independent would be too narrow (Davison & Hinkley 1997, section 3.8).

The two sides of a pair have a group (author) each, and two pairs are alike where they share one. Groups
are drawn, and a pair is there as often as its two groups together: the product of how often each was
drawn (Owen 2007, "The pigeonhole bootstrap"; of one population of groups on both sides Davezies,
D'Haultfœuille & Guyonvarch 2021, "Empirical process results for exchangeable arrays"). A pair of one
group is there as often as that group was drawn: its square would count such pairs about twice, and the
resamples would hold another mixture of pairs than the rows.

Of many rows, blocks are drawn: rows (or groups) are dealt at random into blocks of one size, and blocks are
drawn as if they were rows. This is the method of random groups (Mahalanobis 1939; Wolter 2007,
"Introduction to Variance Estimation", chapter 2) with the bootstrap on top. Sums over blocks of independent
rows have, on average over the deals, the covariance that sums over rows drawn one by one have, so a metric
that is a smooth function of such sums has the spread of the plain bootstrap. One deal into J blocks misses a
width by about 1 / sqrt(2 J); there are `ROUNDS` deals, which divides that by sqrt(ROUNDS): 0.7%
for 512 blocks and 20 deals. Groups that are no more than the blocks are never dealt: each is drawn by itself.

Axes: N rows, G groups, J blocks, U units (blocks, or pairs of blocks that meet in a row), B resamples.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from assay.metrics import FloatArray, IntArray

BLOCKS = 512
"""Blocks into which rows (or groups) are dealt, at most; more than half as many."""
SIDE_BLOCKS = 128
"""The same of groups of both sides of pairs: every two that meet are a unit."""
ROUNDS = 20
"""Deals into blocks, at most, each for its share of the resamples."""
ROUND_RESAMPLES = 100
"""Resamples of a deal, at least: fewer leave more noise than a deal does."""
JACKKNIFE_PARTS = 200
"""Parts that are left out in turn to find the skew; each row, group or block alone where there are fewer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Deal:
    """Rows in units, and how often each unit is there in some resamples."""

    unit_N: IntArray
    """The unit of each row, 0..U-1."""
    weights_BU: FloatArray
    """How often each unit is there."""
    share_done: float
    """Which share of the resamples there are with these."""

    @property
    def num_units(self) -> int:
        """Number of units."""
        num_units: int = self.weights_BU.shape[1]
        return num_units


def num_groups(num_rows: int, group_N: IntArray | None) -> int:
    """How many rows or groups may be drawn."""
    return num_rows if group_N is None else int(group_N.max()) + 1


def first_weights(num_drawn: int, seed: int) -> FloatArray:
    """Weights of all, then with one part left out at a time, [1 + parts, num_drawn]."""
    num_parts = min(JACKKNIFE_PARTS, num_drawn)
    part_of_each = np.random.default_rng(seed).permutation(num_drawn) * num_parts // num_drawn
    left_out = part_of_each[None, :] != np.arange(num_parts)[:, None]
    return np.concatenate([np.ones((1, num_drawn)), left_out.astype(np.float64)])


def drawn_weights(num_resamples: int, num_drawn: int, seed: tuple[int, int]) -> FloatArray:
    """How often each is drawn, [num_resamples, num_drawn], where as many are drawn as there are."""
    rng = np.random.default_rng(seed)
    picks = rng.integers(num_drawn, size=(num_resamples, num_drawn))
    picks += np.arange(num_resamples)[:, None] * num_drawn
    counts = np.bincount(picks.ravel(), minlength=picks.size)
    return counts.reshape(picks.shape).astype(np.float64)


def row_weights(weights_BG: FloatArray, group_N: IntArray) -> FloatArray:
    """How often each row is there, [B, N], from how often its group, [N], or the two of a pair, [N, 2], were drawn."""
    if group_N.ndim == 1:
        return weights_BG.take(group_N, axis=1)
    first_N, second_N = group_N.T
    weights_BN: FloatArray = weights_BG.take(first_N, axis=1)
    mixed = np.flatnonzero(first_N != second_N)
    weights_BN[:, mixed] *= weights_BG.take(second_N[mixed], axis=1)
    return weights_BN


def num_blocks(num_rows: int, group_N: IntArray | None) -> int:
    """Blocks of one size (one group each where there are few), at most `BLOCKS` or `SIDE_BLOCKS`."""
    drawn = num_groups(num_rows, group_N)
    most = SIDE_BLOCKS if group_N is not None and group_N.ndim == 2 else BLOCKS
    return -(-drawn // -(-drawn // most))


def deals(num_rows: int, group_N: IntArray | None, *, num_resamples: int, seed: int) -> Iterator[Deal]:
    """The deals of rows or groups into blocks, one where each group is a block; see the module.

    The first begins with the weights of all and of parts left out, see `first_weights`; together they have
    `num_resamples` resamples beyond these.
    """
    drawn, blocks = num_groups(num_rows, group_N), num_blocks(num_rows, group_N)
    num_deals = 1 if blocks == drawn else min(ROUNDS, max(1, num_resamples // ROUND_RESAMPLES))
    for index in range(num_deals):
        share = num_resamples * (index + 1) // num_deals - num_resamples * index // num_deals
        rng = np.random.default_rng([seed, index, 1])
        block_G = np.arange(drawn) if blocks == drawn else rng.permutation(drawn) * blocks // drawn
        weights_BJ = drawn_weights(share, blocks, (seed, index))
        if index == 0:
            weights_BJ = np.concatenate([first_weights(blocks, seed), weights_BJ])
        unit_N = block_G if group_N is None else block_G[group_N]
        if unit_N.ndim == 2:
            unit_N, sides_U2 = _pairs_of_blocks(unit_N, blocks)
            weights_BJ = row_weights(weights_BJ, sides_U2)
        yield Deal(unit_N=unit_N, weights_BU=weights_BJ, share_done=(index + 1) / num_deals)


def _pairs_of_blocks(block_N2: IntArray, num_blocks: int) -> tuple[IntArray, IntArray]:
    """Which pair of blocks each row is of, [N], and the two blocks of those that occur, [U, 2]."""
    low_N, high_N = block_N2.min(axis=1), block_N2.max(axis=1)
    met_U, unit_N = np.unique(low_N * num_blocks + high_N, return_inverse=True)
    return unit_N, np.stack([met_U // num_blocks, met_U % num_blocks], axis=1)
