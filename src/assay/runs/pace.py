"""How fast parts came, and how long the rest takes at that pace: from the times of parts alone. Pure.

rate       rows between the first and the last of the parts of the last ten minutes, a second
interval   those minutes in eight stretches: the mean of their rates, two and a third standard errors either way
           (Student, seven degrees of freedom, 95%); none of fewer than eight parts
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RECENT_SECONDS = 600.0
NUM_STRETCHES = 8
STUDENT_7 = 2.365
NUM_BINS = 48
"""Of time, in which the rate is shown; at most one a part."""
STALLED_SECONDS = 300.0
"""Without a part, and five times as long as parts took lately to come, and nobody can say how long it will take."""
STALLED_GAPS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """How fast it went lately."""

    rows_per_second: float
    """0 where fewer than two parts are recent."""
    low: float | None = None
    high: float | None = None
    """Of the rate, at 95%; None where the parts are too few."""
    is_stalled: bool = False
    """No part for so long that the rate says nothing of now."""


def pace_of(parts: Sequence[tuple[float, int]], now: float) -> Pace:
    """The pace at `now` of parts, each with its time and rows; the first recent part only starts the clock."""
    recent = sorted(part for part in parts if now - part[0] <= RECENT_SECONDS)
    if len(recent) < 2 or recent[-1][0] <= recent[0][0]:
        return Pace(rows_per_second=0.0)
    times = np.array([at for at, _ in recent])
    rows = np.array([count for _, count in recent], dtype=np.float64)
    span = times[-1] - times[0]
    rate = float(rows[1:].sum() / span)
    gap = float(np.diff(times).max())
    is_stalled = now - times[-1] > max(STALLED_SECONDS, STALLED_GAPS * gap)
    if len(recent) <= NUM_STRETCHES:
        return Pace(rows_per_second=rate, is_stalled=is_stalled)
    edges = np.linspace(times[0], times[-1], NUM_STRETCHES + 1)
    of_stretch = np.clip(np.searchsorted(edges, times[1:], side="left") - 1, 0, NUM_STRETCHES - 1)
    rates = np.bincount(of_stretch, rows[1:], minlength=NUM_STRETCHES) / (span / NUM_STRETCHES)
    error = STUDENT_7 * float(rates.std(ddof=1)) / NUM_STRETCHES**0.5
    return Pace(rows_per_second=rate, low=max(rate - error, 0.0), high=rate + error, is_stalled=is_stalled)


def history(parts: Sequence[tuple[float, int]], until: float) -> tuple[tuple[float, float], ...]:
    """Rows a second over the time from the first part to `until`: the middle of each bin, from its begin, and rate."""
    if not parts:
        return ()
    times = np.array([at for at, _ in parts])
    rows = np.array([count for _, count in parts], dtype=np.float64)
    begin = float(times.min())
    num_bins = min(NUM_BINS, len(parts))
    width = max(until - begin, 1.0) / num_bins
    bins = np.clip(((times - begin) / width).astype(np.int64), 0, num_bins - 1)
    rates = np.bincount(bins, rows, minlength=num_bins) / width
    return tuple(((k + 0.5) * width, float(rate)) for k, rate in enumerate(rates))
