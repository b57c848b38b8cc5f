"""How sure a number is: metrics of resamples, and intervals and p values from what they give. Pure.

Axes: N rows, G groups, K cells, U units, B resamples.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Literal

import numpy as np
from threadpoolctl import threadpool_limits

from assay import machine
from assay.evaluate.draws import (
    Deal,
    deals,
    drawn_weights,
    first_weights,
    num_blocks,
    num_groups,
    row_weights,
)
from assay.evaluate.sums import Family, Sums, Values, joined, metrics_at, metrics_of
from assay.metrics import FloatArray, IntArray

IntervalMethod = Literal["percentile", "bca"]
Advance = Callable[[float], None]
"""Told the share of the work that is done."""

PLAIN_ROWS = 4_096
"""Rows up to which each row (or group) is drawn by itself; above, blocks of them are, see `assay.evaluate.draws`."""
BLOCK_ELEMENTS = 1 << 18
"""Weights of a matrix of resamples of rows, about: it should stay in the cache."""
MOST_THREADS = 8
MOST_UNDEFINED = 0.05
"""Share of resamples that may leave a metric undefined before its interval is."""
_EXACT_COUNT = 1 << 21
"""Sums of a cell up to which those of resamples are exact in float32, which holds whole numbers up to 2^24."""
_BIASED = "the resamples lie to one side of the value, which is biased on so few rows"
_NORMAL = NormalDist()


@dataclass(frozen=True, kw_only=True, slots=True)
class Resamples:
    """What each metric is in each resample, of all rows, and with each part of the rows left out."""

    drawn: Mapping[str, FloatArray]
    """Values [B] by metric."""
    left_out: Mapping[str, FloatArray]
    """Values by metric with one part of the rows (or groups) left out at a time."""
    whole: Mapping[str, float] = field(default_factory=dict)
    """Values by metric of all rows, found in the same way as those of resamples."""


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
    families: Sequence[Family],
    num_rows: int,
    *,
    num_resamples: int,
    seed: int,
    group_N: IntArray | None = None,
    plain_rows: int = PLAIN_ROWS,
    advance: Advance = lambda _share: None,
) -> Resamples:
    """The metrics of `num_resamples` resamples of the rows, or of whole groups where `group_N` is given.

    `group_N` holds group indices 0..G-1, [N], or [N, 2] for the groups of both sides of pairs. Up to
    `plain_rows` rows: some passes over B x N weights. Above: some passes over the rows and a product of
    matrices whose sizes do not grow with N. The same arguments give the same numbers on any number of
    threads; memory does not grow with B.
    """
    arguments = (families, num_rows, num_resamples, seed, group_N, advance)
    found = _of_rows(*arguments) if num_rows <= plain_rows else _of_blocks(*arguments)
    num_first = len(next(iter(found.values()))) - num_resamples
    return Resamples(
        drawn={name: values[num_first:] for name, values in found.items()},
        left_out={name: values[1:num_first] for name, values in found.items()},
        whole={name: float(values[0]) for name, values in found.items()},
    )


def blocks_drawn(num_rows: int, group_N: IntArray | None) -> int | None:
    """How many blocks of rows or groups a resample draws; `None` where it draws each by itself."""
    if num_rows <= PLAIN_ROWS or num_blocks(num_rows, group_N) == num_groups(num_rows, group_N):
        return None
    return num_blocks(num_rows, group_N)


def _of_rows(
    families: Sequence[Family],
    num_rows: int,
    num_resamples: int,
    seed: int,
    group_N: IntArray | None,
    advance: Advance,
) -> dict[str, FloatArray]:
    """The metrics of all, of parts left out and of resamples, where each row or group is drawn by itself."""
    num_drawn = num_groups(num_rows, group_N)
    size = max(1, BLOCK_ELEMENTS // num_rows)
    first = first_weights(num_drawn, seed)

    def evaluated(start: int) -> Mapping[str, FloatArray]:
        if start < len(first):
            weights = first[start : start + size]
        else:
            done = start - len(first)
            weights = drawn_weights(min(size, num_resamples - done), num_drawn, (seed, done))
        return metrics_at(families, weights if group_N is None else row_weights(weights, group_N))

    starts = [*range(0, len(first), size), *range(len(first), len(first) + num_resamples, size)]
    found: list[Mapping[str, FloatArray]] = []
    with _pool() as pool:
        for values in pool.map(evaluated, starts):
            found.append(values)
            advance(len(found) / len(starts))
    return _concatenated(found)


def _of_blocks(
    families: Sequence[Family],
    num_rows: int,
    num_resamples: int,
    seed: int,
    group_N: IntArray | None,
    advance: Advance,
) -> dict[str, FloatArray]:
    """The metrics of all, of parts left out and of resamples, where blocks of rows or of groups are drawn."""
    parts = [part for family in families for part in family.parts]
    found: list[list[Mapping[str, FloatArray]]] = [[] for _ in parts]
    with _pool() as pool:
        for deal in deals(num_rows, group_N, num_resamples=num_resamples, seed=seed):

            def evaluated(part: tuple[Sums, Values], deal: Deal = deal) -> Mapping[str, FloatArray]:
                return metrics_of(part[1], _sums(part[0], deal))

            for of_part, values in zip(found, pool.map(evaluated, parts), strict=True):
                of_part.append(values)
            advance(deal.share_done)
    each = iter([_concatenated(of_part) for of_part in found])
    return joined(families, [[next(each) for _ in family.parts] for family in families])


def _sums(sums: Sums, deal: Deal) -> FloatArray:
    """The sums of resamples [B, K]: in single precision where that is exact, at half the cost."""
    of_unit_UK = sums.of_units(deal.unit_N, deal.num_units)
    is_small = sums.are_counts and of_unit_UK.sum(axis=0).max() < _EXACT_COUNT
    dtype = np.float32 if is_small else np.float64
    sums_BK: FloatArray = (deal.weights_BU.astype(dtype) @ of_unit_UK.astype(dtype)).astype(np.float64)
    return sums_BK


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


def p_value(value: float, name: str, resamples: Resamples, *, method: IntervalMethod) -> float | None:
    """Two-sided p value that a difference, `value` on all rows, is 0; `None` where its interval would have no ground.

    One less the confidence at which the interval of the same method begins to hold 0 (Efron & Tibshirani 1993,
    section 15.4), so the two never contradict each other; never below 2 / (B + 1), of which B resamples know nothing
    (Davison & Hinkley 1997, section 4.4).
    """
    drawn = resamples.drawn[name]
    finite = drawn[np.isfinite(drawn)]
    if finite.size < (1 - MOST_UNDEFINED) * drawn.size:
        return None
    bias = acceleration = 0.0
    if method == "bca":
        below = _share_below(finite, value)
        if not 0 < below < 1:
            return None
        bias, acceleration = _NORMAL.inv_cdf(below), _acceleration(resamples.left_out[name])
    least, most = _shares_at_zero(np.where(np.abs(finite) <= 1e-12 * max(1.0, abs(value)), 0.0, finite))
    # where some draws are 0, the interval holds it as soon as an end of it is among them
    tails = [_unmoved(share, bias, acceleration) for share in (least, most)]
    return min(max(2 * min(tails[1], 1 - tails[0]), 2 / (finite.size + 1)), 1.0)


def _shares_at_zero(drawn: FloatArray) -> tuple[float, float]:
    """The least and the most share whose quantile of the draws (linear between them, as NumPy's) is 0."""
    ordered = np.sort(drawn)
    first, stop = (int(np.searchsorted(ordered, 0.0, side)) for side in ("left", "right"))
    last = max(ordered.size - 1, 1)
    if first < stop:
        return first / last, (stop - 1) / last
    if first in {0, ordered.size}:
        return (0.0, 0.0) if first == 0 else (1.0, 1.0)
    lower, upper = ordered[first - 1], ordered[first]
    at = float(first - 1 - lower / (upper - lower)) / last
    return at, at


def _unmoved(share: float, bias: float, acceleration: float) -> float:
    """The share that `_moved` moves to this one; 0 or 1 where none is."""
    if not 0 < share < 1:
        return share
    w = _NORMAL.inv_cdf(share) - bias
    stretch = 1 + acceleration * w
    if stretch <= 0:
        return 0.0 if w < 0 else 1.0
    return _NORMAL.cdf(w / stretch - bias)


@contextmanager
def _pool() -> Iterator[ThreadPoolExecutor]:
    """Threads (NumPy's loops let others run), with products of matrices on one thread each.

    BLAS splits each of these small products over all cores and spins for the next one: seven times the CPU time.
    """
    with (
        threadpool_limits(limits=1, user_api="blas"),
        ThreadPoolExecutor(min(MOST_THREADS, machine.usable_cores())) as pool,
    ):
        yield pool


def _concatenated(found: Sequence[Mapping[str, FloatArray]]) -> dict[str, FloatArray]:
    return {name: np.concatenate([each[name] for each in found]) for name in found[0]}


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
