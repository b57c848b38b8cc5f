"""How sure a number is: weights of resamples, and intervals and p values from what they give. Pure.

A resample draws rows with replacement; all that a metric needs of it is how often each row was drawn,
so a resample is a row of weights and a block of resamples one matrix. Where rows come in groups
(books, authors, sites), whole groups are drawn: rows of a group are alike, and an interval that took
them for independent would be too narrow (Davison & Hinkley 1997, section 3.8).

The two sides of a pair have a group (author) each, and two pairs are alike where they share one. Groups
are drawn, and a pair is there as often as its two groups together: the product of how often each was
drawn (Owen 2007, "The pigeonhole bootstrap"; of one population of groups on both sides Davezies,
D'Haultfœuille & Guyonvarch 2021, "Empirical process results for exchangeable arrays"). A pair of one
group is there as often as that group was drawn: its square would count such pairs about twice, and the
resamples would hold another mixture of pairs than the rows.

Axes: N rows, G groups, B resamples.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

from assay import machine
from assay.metrics import FloatArray, IntArray

Statistics = Callable[[FloatArray], Mapping[str, FloatArray]]
"""Weights [B, N] to the value of each metric in each resample, [B]; NaN where it is undefined."""

IntervalMethod = Literal["percentile", "bca"]

BLOCK_ELEMENTS = 1 << 18
"""Weights of a block of resamples, about: it should stay in the cache."""
JACKKNIFE_BLOCKS = 200
"""Parts that are left out in turn to find the skew; each row alone where there are fewer."""
MOST_THREADS = 8
MOST_UNDEFINED = 0.05
"""Share of resamples that may leave a metric undefined before its interval is."""
_BIASED = "the resamples lie to one side of the value, which is biased on so few rows"
_NORMAL = NormalDist()


@dataclass(frozen=True, kw_only=True, slots=True)
class Resamples:
    """What each metric is in each resample, and with each part of the rows left out."""

    drawn: Mapping[str, FloatArray]
    """Values [B] by metric."""
    left_out: Mapping[str, FloatArray]
    """Values by metric with one part of the rows (or groups) left out at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A confidence interval, or why there is none."""

    low: float | None = None
    """Lower end."""
    high: float | None = None
    """Upper end."""
    undefined: str | None = None
    """Why there is no interval; `None` where there is one."""


def resample(
    statistics: Statistics, num_rows: int, *, num_resamples: int, seed: int, group_N: IntArray | None = None
) -> Resamples:
    """The metrics of `num_resamples` resamples of the rows, or of whole groups where `group_N` is given.

    `group_N` holds group indices 0..G-1, [N], or [N, 2] for the groups of both sides of pairs. The same
    arguments give the same numbers. Cost: some passes over B x N weights, on up to 8 threads; memory does
    not grow with B.
    """
    num_units = num_rows if group_N is None else int(group_N.max()) + 1
    num_parts = min(JACKKNIFE_BLOCKS, num_units)
    part_of_unit = np.random.default_rng(seed).permutation(num_units) * num_parts // num_units
    size = max(1, BLOCK_ELEMENTS // num_rows)

    def drawn(start: int) -> FloatArray:
        return _drawn(np.random.default_rng([seed, start]), min(size, num_resamples - start), num_units)

    def left_out(start: int) -> FloatArray:
        parts = np.arange(start, min(start + size, num_parts))
        return np.asarray(part_of_unit[None, :] != parts[:, None], dtype=np.float64)

    return Resamples(
        drawn=_evaluated(statistics, drawn, range(0, num_resamples, size), group_N),
        left_out=_evaluated(statistics, left_out, range(0, num_parts, size), group_N),
    )


def interval(
    value: float, name: str, resamples: Resamples, *, confidence: float, method: IntervalMethod
) -> Interval:
    """The interval of a metric whose value on all rows is `value`.

    percentile: the quantiles of the resamples. bca: bias-corrected and accelerated (Efron 1987;
    Efron & Tibshirani 1993, section 14.3), the quantiles moved by the bias and the skew of the
    resamples; the skew comes from a jackknife of up to 200 parts.
    """
    drawn = resamples.drawn[name]
    finite = drawn[np.isfinite(drawn)]
    if finite.size < (1 - MOST_UNDEFINED) * drawn.size:
        share = 1 - finite.size / drawn.size
        return Interval(undefined=f"{share:.0%} of the resamples leave it undefined")
    # Sums of many terms in other orders: equal but for the last bits.
    if np.ptp(finite) <= 1e-12 * max(1.0, abs(value)):
        return Interval(undefined="all resamples give the same value")
    tail = (1 - confidence) / 2
    shares = (tail, 1 - tail)
    if method == "bca":
        below = _share_below(finite, value)
        if not 0 < below < 1:
            return Interval(undefined=_BIASED)
        bias = _NORMAL.inv_cdf(below)
        shares = _moved(shares, bias, _acceleration(resamples.left_out[name]))
    low, high = np.quantile(finite, shares)
    rounding = 1e-12 * max(1.0, abs(value))
    if not low - rounding <= value <= high + rounding:
        return Interval(undefined=_BIASED)
    return Interval(low=float(low), high=float(high))


def row_weights(weights_BG: FloatArray, group_N: IntArray) -> FloatArray:
    """How often each row is there, [B, N], from how often its group, [N], or the two of a pair, [N, 2], were drawn."""
    if group_N.ndim == 1:
        return weights_BG.take(group_N, axis=1)
    first_N, second_N = group_N.T
    weights_BN: FloatArray = weights_BG.take(first_N, axis=1)
    mixed = np.flatnonzero(first_N != second_N)
    weights_BN[:, mixed] *= weights_BG.take(second_N[mixed], axis=1)
    return weights_BN


def p_value(differences_B: FloatArray) -> float | None:
    """Two-sided p value that a difference is 0, from its resamples; `None` where most are undefined.

    Twice the share of resamples on the other side of 0, with one counted in addition so that it is
    never 0 (Davison & Hinkley 1997, section 4.4): the level at which the percentile interval begins to
    hold 0.
    """
    finite = differences_B[np.isfinite(differences_B)]
    if finite.size < (1 - MOST_UNDEFINED) * differences_B.size:
        return None
    fewer = min(np.count_nonzero(finite <= 0), np.count_nonzero(finite >= 0))
    return float(min(1.0, 2 * (fewer + 1) / (finite.size + 1)))


def _drawn(rng: np.random.Generator, num_resamples: int, num_units: int) -> FloatArray:
    """How often each unit is drawn, [num_resamples, num_units]."""
    picks = rng.integers(num_units, size=(num_resamples, num_units))
    picks += np.arange(num_resamples)[:, None] * num_units
    counts = np.bincount(picks.ravel(), minlength=picks.size)
    return counts.reshape(picks.shape).astype(np.float64)


def _evaluated(
    statistics: Statistics,
    block_at: Callable[[int], FloatArray],
    starts: Sequence[int],
    group_N: IntArray | None,
) -> dict[str, FloatArray]:
    """The statistics of all blocks, some at a time: NumPy's loops let other threads run."""

    def evaluated(start: int) -> Mapping[str, FloatArray]:
        weights = block_at(start)
        return statistics(weights if group_N is None else row_weights(weights, group_N))

    with ThreadPoolExecutor(min(MOST_THREADS, machine.usable_cores())) as pool:
        found = list(pool.map(evaluated, starts))
    return {name: np.concatenate([block[name] for block in found]) for name in found[0]}


def _share_below(values: FloatArray, value: float) -> float:
    """Share of the values below `value`; those equal to it, but for rounding, count half."""
    gap = values - value
    equal = np.abs(gap) <= 1e-12 * max(1.0, abs(value))
    return float((np.count_nonzero((gap < 0) & ~equal) + 0.5 * np.count_nonzero(equal)) / values.size)


def _acceleration(left_out: FloatArray) -> float:
    """Skew of the jackknife values over 6 (Efron & Tibshirani 1993, eq. 14.15); 0 where they are equal."""
    finite = left_out[np.isfinite(left_out)]
    if finite.size < 2:
        return 0.0
    gaps = finite.mean() - finite
    spread = float(np.square(gaps).sum())
    return float((gaps**3).sum() / (6 * spread**1.5)) if spread > 1e-24 else 0.0


def _moved(shares: tuple[float, float], bias: float, acceleration: float) -> tuple[float, float]:
    """The quantiles that BCa takes instead (Efron & Tibshirani 1993, eq. 14.10)."""
    moved = []
    for share in shares:
        z = bias + _NORMAL.inv_cdf(share)
        at = _NORMAL.cdf(bias + z / (1 - acceleration * z))
        moved.append(at if math.isfinite(at) else share)
    return moved[0], moved[1]
