"""Sides of a pair: k chunks of one book, and two sides that share no sentence. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Sides = Literal["contiguous", "spread"]
Ints = NDArray[np.int64]
Side = tuple[int, ...]
"""Positions of chunks among those of their book, ascending."""


class HasSides(Protocol):
    """A book of which sides can be drawn."""

    def side(self, rng: Random, num_chunks: int, kind: Sides) -> Side | None:
        """One side, drawn evenly; None where the book has too few chunks."""
        ...


@dataclass(frozen=True, slots=True)
class KeptChunks:
    """The chunks of a book where one alone makes a side, so that it does not matter where they lie."""

    positions: Sequence[int]

    def side(self, rng: Random, num_chunks: int, kind: Sides) -> Side | None:
        """What `Places.side` draws."""
        del kind
        assert num_chunks == 1, "several chunks have places"
        return (self.positions[rng.randrange(len(self.positions))],) if self.positions else None


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where the chunks of one book lie that may be used, in the order of the text."""

    positions: Ints
    """Their numbers among all chunks of the book."""
    starts: Ints
    """First character."""
    stops: Ints
    """One past the last character."""
    gap: int
    """Least characters between two sides of one pair."""

    def __len__(self) -> int:
        return len(self.positions)

    @cached_property
    def _following(self) -> Ints:
        """The first chunk that begins where each chunk has ended, if it is near; else -1."""
        following = np.searchsorted(self.starts, self.stops).astype(np.int64)
        there = following < len(self)
        nearest = np.where(there, following, 0)
        limit = int(np.median(self.stops - self.starts)) if len(self) else 0
        near = there & (self.starts[nearest] - self.stops <= limit)
        return np.where(near, following, -1)

    def runs(self, num_chunks: int) -> Ints:
        """All contiguous sides [N, k] of chunks that follow each other and do not overlap."""
        columns = [np.arange(len(self), dtype=np.int64)]
        for _ in range(num_chunks - 1):
            last = columns[-1]
            columns.append(np.where(last < 0, -1, self._following[np.maximum(last, 0)]))
        runs = np.stack(columns, axis=1)
        return runs[(runs >= 0).all(axis=1)]

    def side(self, rng: Random, num_chunks: int, kind: Sides) -> Side | None:
        """One side, drawn evenly; None where the book has too few chunks."""
        if not len(self):
            return None
        if kind == "contiguous" or num_chunks == 1:
            runs = self._runs(num_chunks)
            return self._named(runs[rng.randrange(len(runs))]) if len(runs) else None
        free = np.ones(len(self), dtype=np.bool_)
        taken = self._spread(rng, num_chunks, free)
        return None if taken is None else self._named(np.array(taken))

    def two_sides(self, rng: Random, num_chunks: int, kind: Sides) -> tuple[Side, Side] | None:
        """Two sides with at least `gap` between each chunk of one and each of the other; None if there are none."""
        if not len(self):
            return None
        if kind == "contiguous" or num_chunks == 1:
            return self._two_runs(rng, num_chunks)
        free = [np.ones(len(self), dtype=np.bool_), np.ones(len(self), dtype=np.bool_)]
        taken: list[list[int]] = [[], []]
        for turn in range(2 * num_chunks):
            mine, other = turn % 2, 1 - turn % 2
            choice = np.flatnonzero(free[mine])
            if not len(choice):
                return None
            chunk = int(choice[rng.randrange(len(choice))])
            taken[mine].append(chunk)
            free[mine] &= self._apart(chunk, 0)
            free[other] &= self._apart(chunk, self.gap)
        return self._named(np.array(taken[0])), self._named(np.array(taken[1]))

    def _runs(self, num_chunks: int) -> Ints:
        if num_chunks not in self._all_runs:
            self._all_runs[num_chunks] = self.runs(num_chunks)
        return self._all_runs[num_chunks]

    @cached_property
    def _all_runs(self) -> dict[int, Ints]:
        return {}

    def _two_runs(self, rng: Random, num_chunks: int) -> tuple[Side, Side] | None:
        runs, begins, ends, possible = self._of_two(num_chunks)
        if not len(possible):
            return None
        first = int(possible[rng.randrange(len(possible))])
        others = np.flatnonzero((begins >= ends[first] + self.gap) | (ends + self.gap <= begins[first]))
        second = int(others[rng.randrange(len(others))])
        return self._named(runs[first]), self._named(runs[second])

    def _of_two(self, num_chunks: int) -> tuple[Ints, Ints, Ints, Ints]:
        """All contiguous sides, where each begins and ends, and which have another that they can go with."""
        if num_chunks not in self._all_of_two:
            runs = self._runs(num_chunks)
            begins, ends = self.starts[runs[:, 0]], self.stops[runs[:, -1]]
            # Whatever is far enough from the first end or the last begin.
            possible = (
                np.flatnonzero((begins.max() >= ends + self.gap) | (ends.min() + self.gap <= begins))
                if len(runs) > 1
                else np.zeros(0, dtype=np.int64)
            )
            self._all_of_two[num_chunks] = (runs, begins, ends, possible)
        return self._all_of_two[num_chunks]

    @cached_property
    def _all_of_two(self) -> dict[int, tuple[Ints, Ints, Ints, Ints]]:
        return {}

    def _spread(self, rng: Random, num_chunks: int, free: NDArray[np.bool_]) -> list[int] | None:
        taken: list[int] = []
        for _ in range(num_chunks):
            choice = np.flatnonzero(free)
            if not len(choice):
                return None
            taken.append(int(choice[rng.randrange(len(choice))]))
            free &= self._apart(taken[-1], 0)
        return taken

    def _apart(self, chunk: int, gap: int) -> NDArray[np.bool_]:
        apart: NDArray[np.bool_] = (self.starts >= self.stops[chunk] + gap) | (
            self.stops + gap <= self.starts[chunk]
        )
        return apart

    def _named(self, chunks: Ints) -> Side:
        return tuple(sorted(self.positions[chunks].tolist()))
