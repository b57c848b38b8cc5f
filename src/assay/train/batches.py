"""Which rows a step trains on, on which rank, in which pass. Pure: lengths and a seed in, indices out.

A step's rows depend on the seed and the epoch alone, never on the number of ranks or on what ran
before: a resumed training goes on with the very rows that come next, and two ranks with 16 rows each
take the rows that one takes with 32.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from assay.train.settings import Schedule, TrainSettings

IndexArray = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class ShuffledSampler:
    """Each row in one step of an epoch, in an order of the seed and the epoch alone."""

    num_rows: int
    rows_per_step: int
    """Rows of a step, all ranks together; the last step of an epoch may have fewer."""
    seed: int

    @property
    def num_epoch_steps(self) -> int:
        """Steps of one pass over the rows."""
        return -(-self.num_rows // self.rows_per_step)

    def epoch_steps(self, epoch: int) -> list[IndexArray]:
        """The rows of each step of an epoch (from 0): a shuffle cut into pieces."""
        shuffled = np.random.default_rng([self.seed, epoch]).permutation(self.num_rows).astype(np.int64)
        firsts = range(0, self.num_rows, self.rows_per_step)
        return [shuffled[first : first + self.rows_per_step] for first in firsts]


@dataclass(frozen=True, kw_only=True, slots=True)
class MeetingSampler:
    """Each row in one step of an epoch, so that several rows of a book and several books of an author meet.

    The rows of a book are shuffled and cut into runs of `rows_per_book`; runs of `books_per_author` different books
    of an author stand side by side, as far as there are any; these blocks are shuffled and laid end to end.
    """

    books: IndexArray
    """Number of each row's book; a negative one is a book of its own."""
    authors: IndexArray
    """Number of each row's author, likewise."""
    rows_per_step: int
    """Rows of a step, all ranks together; the last step of an epoch may have fewer."""
    rows_per_book: int
    books_per_author: int
    seed: int

    @property
    def num_epoch_steps(self) -> int:
        """Steps of one pass over the rows."""
        return -(-len(self.books) // self.rows_per_step)

    def epoch_steps(self, epoch: int) -> list[IndexArray]:
        """The rows of each step of an epoch (from 0)."""
        random = np.random.default_rng([self.seed, epoch])
        rows_of_book: dict[int, list[int]] = {}
        for row in random.permutation(len(self.books)).tolist():
            book = int(self.books[row])
            rows_of_book.setdefault(book if book >= 0 else -1 - row, []).append(row)
        runs_of_author: dict[int, list[list[list[int]]]] = {}
        for rows in rows_of_book.values():
            author = int(self.authors[rows[0]])
            runs = [rows[k : k + self.rows_per_book] for k in range(0, len(rows), self.rows_per_book)]
            runs_of_author.setdefault(author if author >= 0 else -1 - rows[0], []).append(runs)
        blocks = [block for books in runs_of_author.values() for block in self._blocks(books)]
        order = [row for index in random.permutation(len(blocks)).tolist() for row in blocks[index]]
        shuffled = np.array(order, dtype=np.int64)
        firsts = range(0, len(shuffled), self.rows_per_step)
        return [shuffled[first : first + self.rows_per_step] for first in firsts]

    def _blocks(self, books: list[list[list[int]]]) -> list[list[int]]:
        """An author's runs as blocks of one from each of so many books, those with the most runs left first."""
        left = [runs[:] for runs in books]
        blocks = []
        while left:
            left.sort(key=len, reverse=True)
            blocks.append([row for runs in left[: self.books_per_author] for row in runs.pop()])
            left = [runs for runs in left if runs]
        return blocks


def rank_rows(rows: IndexArray, lengths: NDArray[np.int64], *, rank: int, world_size: int) -> IndexArray:
    """One rank's share of a step's rows, longest first; shares differ by one row and have like tokens.

    Rows are dealt by length, there and back: ranks 0 1 1 0 0 1 1 0 ... A rank may get none.
    """
    by_length, ranks = _dealt(rows, lengths, world_size)
    share: IndexArray = by_length[ranks == rank]
    return share


def most_tokens(rows: IndexArray, lengths: NDArray[np.int64], *, world_size: int) -> int:
    """Tokens of the rank that `rank_rows` gives the most."""
    by_length, ranks = _dealt(rows, lengths, world_size)
    return int(np.bincount(ranks, weights=lengths[by_length]).max())


def _dealt(
    rows: IndexArray, lengths: NDArray[np.int64], world_size: int
) -> tuple[IndexArray, NDArray[np.int64]]:
    """The rows, longest first, and the rank of each."""
    by_length = rows[np.argsort(-lengths[rows], kind="stable")]
    turn = np.arange(by_length.size) % (2 * world_size)
    return by_length, np.minimum(turn, 2 * world_size - 1 - turn)


def passes(
    lengths: Sequence[int] | NDArray[np.int64], *, max_rows: int, max_tokens: int | None
) -> list[slice]:
    """A rank's rows cut into passes of at most so many rows and tokens; a longer row has its own."""
    cuts: list[slice] = []
    first = num_tokens = 0
    for row, length in enumerate(lengths):
        too_many = max_tokens is not None and num_tokens + int(length) > max_tokens
        if row > first and (row - first == max_rows or too_many):
            cuts.append(slice(first, row))
            first, num_tokens = row, 0
        num_tokens += int(length)
    if first < len(lengths):
        cuts.append(slice(first, len(lengths)))
    return cuts


def num_warmup_steps(settings: TrainSettings, num_steps: int) -> int:
    """Steps during which the learning rate rises, all of them at most."""
    if settings.warmup_steps is not None:
        return min(settings.warmup_steps, num_steps)
    return round(settings.warmup_share * num_steps)


def learning_rate_factor(
    step: int, *, num_steps: int, num_warmup_steps: int, schedule: Schedule = "linear"
) -> float:
    """Share of the largest learning rate at a step counted from 0: up in a line, then as scheduled.

    As `transformers.get_scheduler` has it, but that the first step of the warm-up is not at 0.
    """
    if step < num_warmup_steps:
        return (step + 1) / num_warmup_steps
    if schedule == "constant":
        return 1.0
    done = (step - num_warmup_steps) / max(1, num_steps - num_warmup_steps)
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
    return max(0.0, 1.0 - done)
