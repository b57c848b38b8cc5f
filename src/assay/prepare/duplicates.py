"""Chunks that stand in several books, and books that share passages. Pure, over arrays of hashes.

Records are (hash, book, position): `book` is the number of a book in the listing, `position` the number of a
chunk among those of its book.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from assay.labelled.splits import root, unite

RECORD = np.dtype([("hash", "<u8"), ("book", "<i4"), ("position", "<i4")])
Records = NDArray[np.void]
Pairs = Counter[tuple[int, int]]
"""How much two books share, the lower number first."""

MAX_BOOKS_OF_CHUNK = 3
"""A chunk that stands in more books is boilerplate, and dropped from all."""
MAX_BOOKS_OF_PASSAGE = 20
"""A passage in more books (a creed, a song) says nothing about two of them."""
EDITION_SHARE = 0.2
"""Share of the passages of the smaller book from which on two books are editions of one work."""
TIED_PASSAGES = 3
"""Books that share so many passages lie in one split."""


@dataclass(kw_only=True, slots=True)
class ChunkDuplicates:
    """What equal chunks there are."""

    dropped: dict[int, list[int]] = field(default_factory=dict)
    """Positions by book."""
    num_within: int = 0
    """Dropped because the same chunk stands earlier in its book."""
    num_boilerplate: int = 0
    """Dropped because the chunk stands in more than three books."""
    num_across: int = 0
    """Dropped because the chunk stands in an earlier book too."""
    shared: Pairs = field(default_factory=Counter)
    """Equal chunks of two books."""

    def drop(self, book: int, position: int) -> None:
        """Leave a chunk out."""
        self.dropped.setdefault(book, []).append(position)


def runs_of(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Where each run of equal values begins in a sorted array, and its end."""
    if not len(hashes):
        return np.zeros(1, dtype=np.int64)
    changes = np.flatnonzero(hashes[1:] != hashes[:-1]) + 1
    return np.concatenate([[0], changes, [len(hashes)]]).astype(np.int64)


def find_equal_chunks(records: Records, found: ChunkDuplicates) -> None:
    """Add to `found` what equal chunks some records show; those of one hash come together."""
    records = np.sort(records, order=["hash", "book", "position"])
    starts = runs_of(records["hash"])
    sizes = np.diff(starts)
    for run in np.flatnonzero(sizes > 1).tolist():
        same = records[starts[run] : starts[run + 1]]
        firsts: dict[int, int] = {}
        for book, position in zip(same["book"].tolist(), same["position"].tolist(), strict=True):
            if book in firsts:
                found.num_within += 1
                found.drop(book, position)
            else:
                firsts[book] = position
        books = list(firsts)
        if len(books) > MAX_BOOKS_OF_CHUNK:
            found.num_boilerplate += len(books)
            for book, position in firsts.items():
                found.drop(book, position)
            continue
        for book in books[1:]:
            found.num_across += 1
            found.drop(book, firsts[book])
        for pair in combinations(books, 2):
            found.shared[pair] += 1


def count_shared(records: Records) -> Pairs:
    """How many passages two books share, of records of which those of one hash come together."""
    records = np.sort(records, order=["hash", "book"])
    starts = runs_of(records["hash"])
    shared: Pairs = Counter()
    for run in np.flatnonzero(np.diff(starts) > 1).tolist():
        books = np.unique(records["book"][starts[run] : starts[run + 1]]).tolist()
        if 1 < len(books) <= MAX_BOOKS_OF_PASSAGE:
            shared.update(combinations(books, 2))
    return shared


@dataclass(frozen=True, kw_only=True, slots=True)
class Kinship:
    """Which books belong together."""

    editions: tuple[int, ...]
    """The number of the first book of the editions that a book is one of; its own where it is the only one."""
    ties: tuple[int, ...]
    """The same for books that lie in one split: editions, and books that share passages."""
    shares: Mapping[tuple[int, int], float]
    """Share of the smaller book that is in the other, of tied books."""

    @property
    def edition_groups(self) -> list[list[int]]:
        """The works of which there are several editions."""
        return groups_of_several(self.editions)


def find_kinship(num_passages: Sequence[int], shared: Pairs, near: Iterable[tuple[int, int]] = ()) -> Kinship:
    """Who belongs together, of the passages that books have and share; `near` are tied too."""
    editions = list(range(len(num_passages)))
    ties = list(range(len(num_passages)))
    shares: dict[tuple[int, int], float] = {}
    for (one, other), count in sorted(shared.items()):
        share = count / max(1, min(num_passages[one], num_passages[other]))
        if count < TIED_PASSAGES:
            continue
        shares[one, other] = share
        unite(ties, one, other)
        if share >= EDITION_SHARE:
            unite(editions, one, other)
    for one, other in near:
        unite(ties, one, other)
    return Kinship(
        editions=tuple(root(editions, book) for book in range(len(editions))),
        ties=tuple(root(ties, book) for book in range(len(ties))),
        shares=shares,
    )


def groups_of_several(roots: Sequence[int]) -> list[list[int]]:
    """The groups with more than one member, by their first."""
    members: dict[int, list[int]] = {}
    for book, first in enumerate(roots):
        members.setdefault(first, []).append(book)
    return [group for group in members.values() if len(group) > 1]
