"""Chunks that stand in several books, and books that share passages. Pure, over arrays of hashes.

Records are (hash, book, position): `book` is the number of a book in the listing, `position` the number of a
chunk among those of its book.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from assay.labelled.splits import roots_of, unite

RECORD = np.dtype([("hash", "<u8"), ("book", "<i4"), ("position", "<i4")])
PLACE = np.dtype([("book", "<i4"), ("position", "<i4")])
Records = NDArray[np.void]
Numbers = NDArray[np.int64]
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

    num_within: int = 0
    """Dropped because the same chunk stands earlier in its book."""
    num_boilerplate: int = 0
    """Dropped because the chunk stands in more than three books."""
    num_across: int = 0
    """Dropped because the chunk stands in an earlier book too."""
    _dropped: list[Records] = field(default_factory=list)

    def drop(self, records: Records) -> None:
        """Leave chunks out."""
        self._dropped.append(records[["book", "position"]].astype(PLACE))

    def dropped(self) -> NDArray[np.void]:
        """The chunks that are left out, by `book` and `position`."""
        return np.sort(np.concatenate([np.zeros(0, dtype=PLACE), *self._dropped]), order=["book", "position"])


@dataclass(kw_only=True, slots=True)
class SharedPassages:
    """How many passages two books share: 16 bytes for each two that share any."""

    _pairs: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """The lower number in the upper half, the other in the lower one; ascending."""
    _counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def add(self, records: Records) -> None:
        """Count those of some records; those of one hash come together."""
        records = np.unique(records[["hash", "book"]])
        starts = runs_of(records["hash"])
        num_books = np.diff(starts)
        run_of = np.repeat(np.arange(len(num_books)), num_books)
        is_counted = (num_books > 1) & (num_books <= MAX_BOOKS_OF_PASSAGE)
        records, run_of = records[is_counted[run_of]], run_of[is_counted[run_of]]
        books = records["book"].astype(np.int64)
        found = [self._pairs]
        for distance in range(1, min(MAX_BOOKS_OF_PASSAGE, len(books))):
            same = np.flatnonzero(run_of[distance:] == run_of[:-distance])
            found.append(books[same] << 32 | books[same + distance])
        pairs = np.concatenate(found)
        weights = np.ones(len(pairs), dtype=np.int64)
        weights[: len(self._counts)] = self._counts
        self._pairs, place = np.unique(pairs, return_inverse=True)
        self._counts = np.zeros(len(self._pairs), dtype=np.int64)
        np.add.at(self._counts, place, weights)

    def at_least(self, count: int) -> Iterator[tuple[int, int, int]]:
        """Two books that share so many, the lower number first, and how many these are; ascending."""
        there = self._counts >= count
        for pair, shared in zip(self._pairs[there].tolist(), self._counts[there].tolist(), strict=True):
            yield pair >> 32, pair & 0xFFFFFFFF, shared


def runs_of(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Where each run of equal values begins in a sorted array, and its end."""
    if not len(hashes):
        return np.zeros(1, dtype=np.int64)
    changes = np.flatnonzero(hashes[1:] != hashes[:-1]) + 1
    return np.concatenate([[0], changes, [len(hashes)]]).astype(np.int64)


def find_equal_chunks(records: Records, found: ChunkDuplicates) -> None:
    """Add to `found` what equal chunks some records show; those of one hash come together."""
    records = np.sort(records, order=["hash", "book", "position"])
    starts = runs_of(records["hash"])[:-1]
    opens_run = np.zeros(len(records), dtype=np.bool_)
    opens_run[starts] = True
    opens_book = opens_run.copy()
    opens_book[1:] |= records["book"][1:] != records["book"][:-1]
    num_books = np.add.reduceat(opens_book.astype(np.int64), starts) if len(records) else starts
    is_boilerplate = (num_books > MAX_BOOKS_OF_CHUNK)[np.cumsum(opens_run) - 1]
    found.num_within += int((~opens_book).sum())
    found.num_boilerplate += int((opens_book & is_boilerplate).sum())
    found.num_across += int((opens_book & ~opens_run & ~is_boilerplate).sum())
    found.drop(records[~opens_run | is_boilerplate])


@dataclass(frozen=True, kw_only=True, slots=True)
class Kinship:
    """Which books belong together."""

    editions: Numbers
    """The number of the first book of the editions that a book is one of; its own where it is the only one."""
    ties: Numbers
    """The same for books that lie in one split: editions, and books that share passages."""
    shares: Mapping[tuple[int, int], float]
    """Share of the smaller book that is in the other, of tied books."""

    @property
    def edition_groups(self) -> list[list[int]]:
        """The works of which there are several editions."""
        return groups_of_several(self.editions)


def find_kinship(
    num_passages: Sequence[int] | NDArray[np.int32],
    shared: SharedPassages,
    near: Iterable[tuple[int, int]] = (),
) -> Kinship:
    """Who belongs together, of the passages that books have and share; `near` are tied too."""
    editions = np.arange(len(num_passages), dtype=np.int64)
    ties = editions.copy()
    shares: dict[tuple[int, int], float] = {}
    for one, other, count in shared.at_least(TIED_PASSAGES):
        share = count / max(1, min(int(num_passages[one]), int(num_passages[other])))
        shares[one, other] = share
        unite(ties, one, other)
        if share >= EDITION_SHARE:
            unite(editions, one, other)
    for one, other in near:
        unite(ties, one, other)
    return Kinship(
        editions=roots_of(editions),
        ties=roots_of(ties),
        shares=shares,
    )


def groups_of_several(roots: Numbers) -> list[list[int]]:
    """The groups with more than one member, by their first."""
    firsts, sizes = np.unique(roots, return_counts=True)
    return [np.flatnonzero(roots == first).tolist() for first in firsts[sizes > 1]]
