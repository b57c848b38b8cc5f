"""Rows to units, and who takes which unit. Pure: plain values in, plain values out."""

import heapq
import itertools
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from assay.errors import UsageError

SECONDS_PER_UNIT = 60.0
LEAST_SECONDS_PER_UNIT = 10.0
"""Of a unit that is cut smaller so that there are more: what each costs besides stays small beside it."""
UNITS_OF_A_WORKER = 100
"""Of many, where the corpus allows it: the last units then cost about a hundredth of the time."""
UNITS_OF_A_SMALL_RUN = 16
"""At least, however few workers are known of, so that several can share it."""
MIN_UNIT_ROWS = 256
MAX_UNIT_ROWS = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """A contiguous row range of one source; becomes one part.

    The name depends on content alone, never on rank or worker count, so any number of workers
    may meet on one run.
    """

    source: int
    """Index of the source in the run's list."""
    source_name: str
    """Name of the source, unique in the run."""
    start: int
    """First row, counted within the source."""
    stop: int
    """One past the last row."""

    @property
    def name(self) -> str:
        """`<source>-<start>-<stop>`, the stem of the part's file name."""
        return f"{self.source_name}-{self.start}-{self.stop}"

    @property
    def num_rows(self) -> int:
        """Rows in the unit."""
        return self.stop - self.start


def choose_unit_rows(*, tokens_per_row: float, tokens_per_second: float) -> int:
    """Rows that take one worker about a minute, for the plan of a run.

    `tokens_per_second` is what one device is expected to do; being off by a factor of three
    only makes units shorter or longer.
    """
    rows = SECONDS_PER_UNIT * tokens_per_second / max(tokens_per_row, 1.0)
    return int(min(max(rows, MIN_UNIT_ROWS), MAX_UNIT_ROWS))


def share_unit_rows(minute_rows: int, *, num_rows: int, num_workers: int) -> int:
    """Rows of a unit of a run: a minute's, or fewer, so that each of several workers gets a hundred units.

    None is cut below ten seconds' work for that, nor below 256 rows. Example: a minute is 6,000 rows and four workers
    share 1,000,000: units have 2,500 rows.
    """
    rows = min(minute_rows, max(-(-num_rows // UNITS_OF_A_SMALL_RUN), MIN_UNIT_ROWS))
    if num_workers == 1:
        return rows
    smallest = max(int(minute_rows * LEAST_SECONDS_PER_UNIT / SECONDS_PER_UNIT), MIN_UNIT_ROWS)
    return min(rows, max(-(-num_rows // (num_workers * UNITS_OF_A_WORKER)), smallest))


def last_unit_cost(unit_rows: Sequence[int], num_workers: int) -> float:
    """What units that cannot be split cost at the end: time over that of an even split, less 1.

    Workers of one speed take the units in order, each the next when it is free (list scheduling). Example: three
    units of one size on two workers take 2 in place of 1.5, a third more.
    """
    total = sum(unit_rows)
    if not total or not num_workers:
        return 0.0
    free_at = [0] * min(num_workers, len(unit_rows))
    for rows in unit_rows:
        heapq.heapreplace(free_at, free_at[0] + rows)
    return max(free_at) * num_workers / total - 1


def plan_boundaries(num_rows: int, splits: Sequence[int], unit_rows: int) -> tuple[int, ...]:
    """Row numbers at which units of one source begin and end: `0 = b0 < b1 < ... = num_rows`.

    Whole segments between `splits` (row-group starts) are put together up to `unit_rows`, so that
    a row group is decoded by one unit; a segment larger than `unit_rows` is cut evenly. Example:
    10 rows, splits (0, 4, 6), unit_rows 6 -> (0, 6, 10); unit_rows 3 -> (0, 2, 4, 6, 8, 10).
    A source without rows is one unit of no rows, (0, 0): it becomes an empty part.
    """
    if num_rows == 0:
        return (0, 0)
    ends = [*(split for split in splits if 0 < split < num_rows), num_rows]
    boundaries = [0]
    previous = 0
    for end in ends:
        if end - boundaries[-1] > unit_rows and previous > boundaries[-1]:
            boundaries.append(previous)
        if end - boundaries[-1] > unit_rows:
            start, rows = boundaries[-1], end - boundaries[-1]
            pieces = -(-rows // unit_rows)
            boundaries.extend(start + rows * piece // pieces for piece in range(1, pieces + 1))
        previous = end
    if boundaries[-1] != num_rows:
        boundaries.append(num_rows)
    return tuple(boundaries)


def limit_boundaries(boundaries: Sequence[int], rows_left: int) -> tuple[int, ...]:
    """The same boundaries cut off after `rows_left` rows, for a trial; () where none are left."""
    if rows_left <= 0:
        return ()
    if boundaries[-1] <= rows_left:
        return tuple(boundaries)
    return (*boundaries[: bisect_right(boundaries, rows_left - 1)], rows_left)


def units_of(source: int, source_name: str, boundaries: Sequence[int]) -> Iterable[Unit]:
    """The units between the boundaries of one source, in row order."""
    for start, stop in itertools.pairwise(boundaries):
        yield Unit(source=source, source_name=source_name, start=start, stop=stop)


def own_share(num_units: int, rank: int, world_size: int) -> range:
    """The contiguous share of `range(num_units)` that `rank` of `world_size` does first.

    Shares differ by at most one unit and cover every unit once.
    """
    if world_size < 1 or not 0 <= rank < world_size:
        msg = (
            f"rank {rank} of world size {world_size}: rank must be from 0 to world size - 1; "
            "set --rank and --world-size"
        )
        raise UsageError(msg)
    return range(num_units * rank // world_size, num_units * (rank + 1) // world_size)
