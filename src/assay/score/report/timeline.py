"""When the parts of a run were made: throughput over time, hours of work. Pure.

A run that was stopped and taken up again a day later is mostly idle; long idle stretches are cut
out of its time axis, and the cuts are told.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

NUM_BINS = 60
SHORTEST_CUT_SECONDS = 60.0
SHORTEST_CUT_SHARE = 0.02
SHORTEST_SPAN_SECONDS = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class PartSpan:
    """One part: `num_rows` rows made between two times (unix seconds)."""

    started_at: float
    finished_at: float
    num_rows: int
    worker: str | None
    """Who made it; None where unknown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """An idle stretch that the time axis leaves out."""

    at: float
    """Seconds of working time before it."""
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ThroughputCurve:
    """Rows a second over working time, all workers together."""

    seconds: tuple[float, ...]
    """Middle of each bin, in seconds of working time since the first part was begun."""
    rows_per_second: tuple[float, ...]
    cuts: tuple[Cut, ...]
    active_seconds: float
    """Working time: the time in which at least one part was being made, and short pauses."""


def throughput_curve(spans: Sequence[PartSpan]) -> ThroughputCurve | None:
    """Throughput in up to sixty bins, None without spans; a part's rows are spread evenly over its span."""
    if not spans:
        return None
    busy = _union((span.started_at, span.finished_at) for span in spans)
    working = sum(stop - start for start, stop in busy)
    shortest = max(SHORTEST_CUT_SECONDS, SHORTEST_CUT_SHARE * working)
    pauses = [(stop, start) for (_, stop), (start, _) in pairwise(busy)]
    gaps = [(start, stop) for start, stop in pauses if stop - start >= shortest]
    begin, end = busy[0][0], busy[-1][1]
    gap_starts = np.array([start for start, _ in gaps])
    removed = np.concatenate([[0.0], np.cumsum([stop - start for start, stop in gaps])])

    def working_time(times: Sequence[float]) -> npt.NDArray[np.float64]:
        at = np.asarray(times, dtype=np.float64)
        before: npt.NDArray[np.float64] = removed[np.searchsorted(gap_starts, at, side="left")]
        return at - begin - before

    active = max(end - begin - float(removed[-1]), SHORTEST_SPAN_SECONDS)
    edges = np.linspace(0.0, active, min(NUM_BINS, 2 * len(spans)) + 1)
    starts = working_time([span.started_at for span in spans])
    stops = working_time([span.finished_at for span in spans])
    rows = np.array([span.num_rows for span in spans], dtype=np.float64)
    rates = rows / np.maximum(stops - starts, SHORTEST_SPAN_SECONDS)
    done = np.array([np.sum(rates * np.clip(edge - starts, 0.0, stops - starts)) for edge in edges])
    per_second = np.diff(done) / np.diff(edges)
    return ThroughputCurve(
        seconds=tuple(((edges[1:] + edges[:-1]) / 2).tolist()),
        rows_per_second=tuple(per_second.tolist()),
        cuts=tuple(
            Cut(at=start - begin - float(removed[index]), seconds=stop - start)
            for index, (start, stop) in enumerate(gaps)
        ),
        active_seconds=active,
    )


def worker_seconds(spans: Iterable[PartSpan]) -> float:
    """Seconds in which a worker had a part under way, summed over workers.

    Parts of one worker may overlap (it reads ahead); such time counts once. Without names of workers
    each part counts by itself.
    """
    by_worker: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    total = 0.0
    for span in spans:
        if span.worker is None:
            total += span.finished_at - span.started_at
        else:
            by_worker[span.worker].append((span.started_at, span.finished_at))
    return total + sum(stop - start for times in by_worker.values() for start, stop in _union(times))


def _union(times: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The times covered, disjoint and in order. Example: (0, 2), (1, 3), (5, 6) -> (0, 3), (5, 6)."""
    merged: list[tuple[float, float]] = []
    for start, stop in sorted(times):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], stop))
        else:
            merged.append((start, stop))
    return merged
