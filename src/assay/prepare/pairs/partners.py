"""Whom a book may be paired with, by kind of negative. Pure, over arrays with a value a book.

All partners lie in the book's split, are in its language where both are known, have chunks, and are no
edition of the same work.
"""

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from assay.prepare.splits import author_keys

NegativeKind = Literal["random", "same_author", "same_period", "metadata", "embedding", "model_mined"]
NEGATIVE_KINDS: tuple[NegativeKind, ...] = (
    "random",
    "same_author",
    "same_period",
    "metadata",
    "embedding",
    "model_mined",
)
EASY: frozenset[NegativeKind] = frozenset({"random"})
"""Every other kind is hard."""
PERIOD_YEARS = 15
"""Authors whose lives have their middles so near are of one period."""
NUM_SIMILAR = 10
"""Books most alike by their metadata that a book is paired with."""
NO_YEAR = np.iinfo(np.int32).min
Numbers = NDArray[np.int64]


class _Authors:
    """Who wrote which books, in arrays: 12 bytes a book of one author."""

    def __init__(self, keys: Sequence[str | None]) -> None:
        code_of: dict[str, int] = {}
        codes, counts = array("i"), array("i")
        for key in keys:
            authors = author_keys(key)
            codes.extend(code_of.setdefault(author, len(code_of)) for author in authors)
            counts.append(len(authors))
        self._codes = np.array(codes, dtype=np.int32)
        self._begins = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        order = np.argsort(self._codes, kind="stable")
        self._books = np.repeat(np.arange(len(counts), dtype=np.int32), counts)[order]
        self._firsts = np.searchsorted(self._codes[order], np.arange(len(code_of) + 1)).astype(np.int32)

    def by_same(self, book: int) -> NDArray[np.int32]:
        """The books of its authors, of each in order."""
        codes = self._codes[self._begins[book] : self._begins[book + 1]]
        of_each = [self._books[self._firsts[code] : self._firsts[code + 1]] for code in codes.tolist()]
        return np.concatenate(of_each) if of_each else np.zeros(0, dtype=np.int32)


@dataclass(frozen=True, kw_only=True)
class Bookshelf:
    """What is known of all books, a value a book, in the order of the listing."""

    author_keys: Sequence[str | None]
    splits: NDArray[np.int32]
    """-1 for a book that is left out."""
    editions: NDArray[np.int64]
    languages: NDArray[np.int32]
    """A number a language; -1 where it is not known."""
    birth_years: NDArray[np.int32]
    """NO_YEAR where it is not known."""
    death_years: NDArray[np.int32]
    size_bytes: NDArray[np.int64]
    neighbours: Callable[[int], Sequence[int]] = lambda _: ()
    """Nearest books by their vectors, nearest first."""

    @cached_property
    def _authors(self) -> _Authors:
        """Who wrote which books."""
        return _Authors(self.author_keys)

    @cached_property
    def _middles(self) -> NDArray[np.float64]:
        """The middle of each author's life; of one year alone, thirty years from it; NaN for none."""
        birth = np.where(self.birth_years == NO_YEAR, np.nan, self.birth_years.astype(np.float64))
        death = np.where(self.death_years == NO_YEAR, np.nan, self.death_years.astype(np.float64))
        middle = (birth + death) / 2
        middle = np.where(np.isnan(middle), birth + 30, middle)
        return np.where(np.isnan(middle), death - 30, middle)

    @cached_property
    def _log_sizes(self) -> NDArray[np.float64]:
        """Of each book, to base 2."""
        return np.log2(np.maximum(self.size_bytes, 1).astype(np.float64))

    def by_same_author(self, book: int) -> NDArray[np.bool_]:
        """Which books share an author with this one."""
        same = np.zeros(len(self.splits), dtype=np.bool_)
        same[self._authors.by_same(book)] = True
        return same

    def eligible(self, book: int) -> NDArray[np.bool_]:
        """Which books may be on the other side of a pair at all."""
        language = self.languages[book]
        apart: NDArray[np.bool_] = (self.splits == self.splits[book]) & (self.editions != self.editions[book])
        if language >= 0:
            apart &= (self.languages == language) | (self.languages < 0)
        return apart

    def partners(
        self, book: int, kinds: Sequence[NegativeKind], *, tells_books: bool = True
    ) -> dict[NegativeKind, Numbers]:
        """The partners of a book by kind; a kind without partners is left out.

        Those of `model_mined` are all books that may make a negative: with `tells_books`, of the task
        `same_book`, other books by the same author too.
        """
        eligible = self.eligible(book)
        same_author = self.by_same_author(book)
        others = eligible & ~same_author
        found: dict[NegativeKind, Numbers] = {}
        for kind in kinds:
            if kind == "random":
                chosen = np.flatnonzero(others)
            elif kind == "same_author":
                chosen = np.flatnonzero(eligible & same_author)
            elif kind == "same_period":
                chosen = np.flatnonzero(others & self._same_period(book))
            elif kind == "metadata":
                chosen = self._similar(book, others)
            elif kind == "model_mined":
                chosen = np.flatnonzero(eligible if tells_books else others)
            else:
                known = [other for other in self.neighbours(book) if others[other]]
                chosen = np.array(known[:NUM_SIMILAR], dtype=np.int64)
            if len(chosen):
                found[kind] = chosen
        return found

    def _same_period(self, book: int) -> NDArray[np.bool_]:
        near: NDArray[np.bool_] = np.abs(self._middles - self._middles[book]) <= PERIOD_YEARS
        return near

    def _similar(self, book: int, others: NDArray[np.bool_]) -> Numbers:
        """The books most alike in length and period; ties by number."""
        candidates = np.flatnonzero(others)
        distance = np.abs(self._log_sizes[candidates] - self._log_sizes[book])
        years = np.abs(self._middles[candidates] - self._middles[book]) / PERIOD_YEARS
        distance += np.where(np.isnan(years), 1.0, years)
        if len(candidates) > NUM_SIMILAR:
            # of tens of thousands only those that may be among the nearest are sorted
            near = distance <= np.partition(distance, NUM_SIMILAR - 1)[NUM_SIMILAR - 1]
            candidates, distance = candidates[near], distance[near]
        return np.sort(candidates[np.argsort(distance, kind="stable")[:NUM_SIMILAR]])
