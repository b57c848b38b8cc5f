"""Which split a labelled row belongs to: stratified by label, never through a group. Pure.

rows -> what ties them together (group column, ids, equal and nearly equal texts) -> groups
labels -> strata; strata, groups, shares and a seed -> split names -> a report for people
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, MutableSequence, Sequence
from dataclasses import dataclass
from itertools import chain
from random import Random

import numpy as np
from numpy.typing import NDArray

from assay.errors import UsageError
from assay.labelled.labels import Label, brief, names_of
from assay.tasks import Task

Parents = MutableSequence[int] | NDArray[np.int64]
"""Leads from each row to an earlier one of its group, or to itself where it is the first."""
NUM_BINS = 10
"""Regression targets are stratified by so many quantiles; fewer values are strata themselves."""
SHOWN_LABELS = 20
"""So many labels are shown by a report, the most frequent ones."""


def unite_groups(*columns: Sequence[Hashable]) -> list[int]:
    """Rows that share a value in any of the columns, directly or through others, share a group.

    A group is the index of its first row. For (["a", "a", "b"], [1, 2, 2]) it is [0, 0, 0].
    """
    num_rows = len(columns[0])
    parents = list(range(num_rows))
    for column in columns:
        first_with: dict[Hashable, int] = {}
        for row, value in enumerate(column):
            unite(parents, first_with.setdefault(value, row), row)
    return [root(parents, row) for row in range(num_rows)]


def unite(parents: Parents, first: int, second: int) -> None:
    """Put the groups of two rows together."""
    low, high = sorted((root(parents, first), root(parents, second)))
    parents[high] = low


def root(parents: Parents, row: int) -> int:
    """The first row of a row's group; the way to it is halved."""
    while parents[row] != row:
        parents[row] = parents[parents[row]]
        row = parents[row]
    return row


def roots_of(parents: NDArray[np.int64]) -> NDArray[np.int64]:
    """The root of every row: the way to it is halved until nothing moves."""
    roots = parents
    while not np.array_equal(further := roots[roots], roots):
        roots = further
    return roots


def strata(labels: Sequence[Label], task: Task) -> list[str]:
    """What each row counts as when shares are kept: its label, its rarest label, or its quantile."""
    if task == Task.SINGLE_LABEL:
        return [str(label) for label in labels]
    if task == Task.MULTI_LABEL:
        counts = Counter(chain.from_iterable(map(names_of, labels)))
        return [min(names_of(label), key=lambda name: (counts[name], name), default="") for label in labels]
    values = np.array(labels, dtype=np.float64)
    distinct = np.unique(values)
    edges = (
        distinct[1:]
        if distinct.size <= NUM_BINS
        else np.unique(np.quantile(values, np.arange(1, NUM_BINS) / NUM_BINS))
    )
    return [str(bin_) for bin_ in np.searchsorted(edges, values, side="right")]


def split_rows(
    strata: Sequence[str],
    groups: Sequence[int],
    shares: Mapping[str, float],
    *,
    seed: int,
    keys: Sequence[int] | None = None,
) -> list[str]:
    """The name of each row's split: a group lies in one split, shares hold within each stratum.

    `shares` maps split names to weights; the first split gets at least one row of every stratum.
    The same input and seed give the same split on any machine. With `keys` (one a row, of its
    content), the order of the rows does not matter either.

    Shares of all rows and of each stratum hold to about a group; a group larger than the room that
    is left goes where there is most.
    """
    if not shares or any(not share > 0 for share in shares.values()):
        raise UsageError(f"shares {dict(shares)}; each split needs a weight above 0; drop the empty ones")
    rows_of_group: dict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        rows_of_group[group].append(row)
    members = list(rows_of_group.values())
    if keys is not None:
        members.sort(key=lambda rows: min(keys[row] for row in rows))
    Random(f"{seed}").shuffle(members)
    placed = _place([Counter(sorted(strata[row] for row in rows)) for rows in members], shares)
    split_of_row = [""] * len(strata)
    for rows, name in zip(members, placed, strict=True):
        for row in rows:
            split_of_row[row] = name
    return split_of_row


def _place(groups: Sequence[Counter[str]], shares: Mapping[str, float]) -> list[str]:
    """The split of each group, given its rows by stratum.

    First the groups that are larger than half of the smallest split, then those of several strata,
    each where its strata have most room; then the others, stratum by stratum. What a stratum leaves
    over is handed on to the next, so that a hundred labels of three rows fill a tenth as one of 300.
    """
    places = _Placement(groups, shares)
    sizes = [group.total() for group in groups]
    large = max(1, min(shares.values()) / sum(shares.values()) * sum(sizes) / 2)
    by_size = sorted(range(len(groups)), key=lambda index: -sizes[index])
    big = [index for index in by_size if sizes[index] > large]
    for index in big:
        places.put(index, places.free())
    pure: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        if len(group) > 1 and sizes[index] <= large:
            places.put(index, places.free_for(group))
        elif sizes[index] <= large:
            pure[next(iter(group))].append(index)
    left_over = dict.fromkeys(shares, 0.0)
    for stratum in sorted(places.totals, key=lambda name: (places.totals[name], name)):
        room = places.room[stratum]
        for name in shares:
            room[name] += left_over[name]
        for index in pure[stratum]:
            places.put(index, room)
        left_over = room
    return places.placed


class _Placement:
    """What is placed where, and the room that is left for each stratum in each split."""

    def __init__(self, groups: Sequence[Counter[str]], shares: Mapping[str, float]) -> None:
        self.placed = [""] * len(groups)
        self.totals: Counter[str] = Counter()
        for group in groups:
            self.totals.update(group)
        whole = sum(shares.values())
        self.room = {
            stratum: {name: share / whole * size for name, share in shares.items()}
            for stratum, size in self.totals.items()
        }
        self._groups = groups
        self._first = next(iter(shares))
        self._in_first: set[str] = set()
        self._unplaced = Counter(self.totals)

    def put(self, index: int, room: Mapping[str, float]) -> None:
        """A group goes where there is most room; a stratum's last chance to be in the first split is taken."""
        group = self._groups[index]
        is_last = any(
            name not in self._in_first and size == self._unplaced[name] for name, size in group.items()
        )
        split = self._first if is_last else max(room, key=room.__getitem__)
        self.placed[index] = split
        self._unplaced.subtract(group)
        for stratum, size in group.items():
            self.room[stratum][split] -= size
        if split == self._first:
            self._in_first.update(group)

    def free(self) -> dict[str, float]:
        """Room in each split for rows of any stratum."""
        rooms = list(self.room.values())
        return {name: sum(room[name] for room in rooms) for name in rooms[0]}

    def free_for(self, group: Counter[str]) -> dict[str, float]:
        """Room in each split for the strata of a group, each stratum as a share of itself."""
        free = dict.fromkeys(next(iter(self.room.values())), 0.0)
        for stratum, size in group.items():
            for name, rows in self.room[stratum].items():
                free[name] += size * rows / self.totals[stratum]
        return free


# ---------------------------------------------------------------- what people are told


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitReport:
    """Sizes and balance of the splits, and what was kept together."""

    num_rows: Mapping[str, int]
    """Rows by split."""
    num_rows_by_label: Mapping[str, Mapping[str, int]]
    """Rows with a label, by label and split, the most frequent label first; {} for a regression."""
    ranges: Mapping[str, tuple[float, float, float]]
    """Least, mean and greatest target, by split; {} for labels."""
    num_groups: int | None = None
    """Values of the group column; `None` where none was named."""
    num_near_duplicate_groups: int | None = None
    """Groups of two or more near-duplicate texts; `None` where they were not looked for."""
    num_near_duplicates: int | None = None
    """Rows in these groups."""
    num_kept_together: int | None = None
    """Rows that were tied to another row, by whatever; `None` where both splits were handed in."""

    def __str__(self) -> str:
        """For people: sizes, what was kept together, and a table of the labels or targets."""
        total = max(1, sum(self.num_rows.values()))
        sizes = ", ".join(
            f"{name} {size:,} rows ({size / total:.1%})" for name, size in self.num_rows.items()
        )
        lines = [f"split: {sizes}"]
        if self.num_kept_together or (self.num_kept_together == 0 and self.num_groups is not None):
            lines.append(f"kept together: {self.num_kept_together:,} rows{self._ties()}")
        lines += _table(self._ranges() if self.ranges else self._label_counts())
        rest = len(self.num_rows_by_label) - SHOWN_LABELS
        return "\n".join([*lines, f"and {rest:,} rarer labels"] if rest > 0 else lines)

    def _ties(self) -> str:
        ties = []
        if self.num_groups is not None:
            ties.append(f"{self.num_groups:,} groups of the group column")
        if self.num_near_duplicate_groups is not None:
            ties.append(
                f"{self.num_near_duplicates:,} near-duplicates in {self.num_near_duplicate_groups:,} groups"
            )
        return f" ({', '.join(ties)})" if ties else ""

    def _ranges(self) -> list[list[str]]:
        header = ["target", "least", "mean", "greatest"]
        return [
            header,
            *([name, *(f"{value:.4g}" for value in found)] for name, found in self.ranges.items()),
        ]

    def _label_counts(self) -> list[list[str]]:
        shown = [["label", *self.num_rows]]
        for label, counts in list(self.num_rows_by_label.items())[:SHOWN_LABELS]:
            shares = ((counts[name], counts[name] / max(1, size)) for name, size in self.num_rows.items())
            shown.append([brief(label), *(f"{count:,} ({share:.1%})" for count, share in shares)])
        return shown


def split_report(
    labels: Mapping[str, Sequence[Label]],
    task: Task,
    *,
    groups: Sequence[Hashable] | None = None,
    near_duplicates: Sequence[int] | None = None,
    united: Sequence[int] | None = None,
) -> SplitReport:
    """The report of splits with these labels; the other columns are those of all rows, where there are any."""
    counts = {name: Counter(chain.from_iterable(map(names_of, column))) for name, column in labels.items()}
    totals = sum(counts.values(), Counter())
    near = _num_tied(near_duplicates)
    return SplitReport(
        num_rows={name: len(column) for name, column in labels.items()},
        num_rows_by_label={}
        if task == Task.REGRESSION
        else {
            label: {name: counts[name][label] for name in labels}
            for label in sorted(totals, key=lambda label: (-totals[label], label))
        },
        ranges={name: _range(column) for name, column in labels.items()} if task == Task.REGRESSION else {},
        num_groups=None if groups is None else len(set(groups)),
        num_near_duplicate_groups=None if near is None else near[0],
        num_near_duplicates=None if near is None else near[1],
        num_kept_together=(_num_tied(united) or (0, None))[1],
    )


def _num_tied(groups: Sequence[int] | None) -> tuple[int, int] | None:
    """Groups of two rows or more, and rows in them."""
    if groups is None:
        return None
    sizes = [size for size in Counter(groups).values() if size > 1]
    return len(sizes), sum(sizes)


def _range(labels: Sequence[Label]) -> tuple[float, float, float]:
    values = np.array(labels, dtype=np.float64)
    return float(values.min()), float(values.mean()), float(values.max())


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of columns of one width each, the first aligned left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in rows
    ]
