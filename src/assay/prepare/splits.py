"""Books to splits: no author, edition or near-duplicate lies in two. Pure."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from assay.errors import InputError
from assay.labelled.splits import Parents, roots_of, split_rows, unite

KEY_SEPARATOR = "|"
"""Between the keys of several authors of one book."""
SplitBy = Literal["author", "book"]
MIN_AUTHORS = 2
"""Authors that a split needs for negatives of other authors."""


def split_books(
    book_ids: Sequence[str],
    authors: Sequence[str | None],
    ties: Sequence[int] | NDArray[np.int64],
    *,
    by: SplitBy,
    shares: Mapping[str, float],
    seed: int,
) -> list[str]:
    """The split of each book; books that are tied, and by author all books of an author, share one.

    `ties` has the number of the first book of each book's group. A split by author has two authors in every
    split where there are enough. The order of the books does not matter. Raises InputError where there are
    too few groups for the splits, and by author where a book has none.
    """
    groups = np.arange(len(book_ids), dtype=np.int64)
    for book, first in enumerate(ties):
        unite(groups, int(first), book)
    if by == "author":
        _unite_authors(groups, book_ids, authors)
    roots = roots_of(groups).tolist()
    num_groups = len(set(roots))
    if num_groups < len(shares):
        num_authors = len({key for key in authors if key is not None})
        raise InputError(
            f"{len(book_ids)} books of {num_authors} author{'' if num_authors == 1 else 's'} make {num_groups} "
            f"group{'' if num_groups == 1 else 's'} that must stay whole, fewer than the {len(shares)} splits; "
            + ("set --split-by book, or add books of other authors" if by == "author" else "add books")
        )
    keys = [_key(book_id) for book_id in book_ids]
    splits = split_rows(["book"] * len(book_ids), roots, shares, seed=seed, keys=keys)
    return _filled(splits, roots, keys, list(shares), minimum=MIN_AUTHORS if by == "author" else 1)


def crossings(values: Iterable[Sequence[str | int]], splits: Sequence[str]) -> list[str | int]:
    """The values (authors, editions, chunks) that books of two splits have; [] where all is well."""
    seen: dict[str | int, str] = {}
    crossing = {
        value
        for of_book, split in zip(values, splits, strict=True)
        for value in of_book
        if seen.setdefault(value, split) != split
    }
    return sorted(crossing, key=str)


def author_keys(key: str | None) -> list[str]:
    """The authors of a book, one by one."""
    return [] if key is None else key.split(KEY_SEPARATOR)


def _unite_authors(groups: Parents, book_ids: Sequence[str], authors: Sequence[str | None]) -> None:
    without = [book_id for book_id, key in zip(book_ids, authors, strict=True) if key is None]
    if without:
        raise InputError(
            f"{len(without)} of {len(book_ids)} books have no author, the first is {without[0]}; name the files "
            "Author_Title.txt or Author/Title.txt, give an index, or set --split-by book"
        )
    first_of: dict[str, int] = {}
    for book, key in enumerate(authors):
        for author in author_keys(key):
            unite(groups, first_of.setdefault(author, book), book)


def _filled(
    splits: list[str], roots: Sequence[int], keys: Sequence[int], names: Sequence[str], *, minimum: int
) -> list[str]:
    """Give splits of fewer groups than `minimum` the smallest groups of the one with most, while it has plenty."""
    split_of = dict(zip(roots, splits, strict=True))
    sizes = Counter(roots)
    key_of: dict[int, int] = {}
    for first, key in zip(roots, keys, strict=True):
        key_of[first] = min(key, key_of.get(first, key))
    wanted = min(minimum, len(sizes) // len(names))
    for name in names:
        while sum(split == name for split in split_of.values()) < wanted:
            counts = Counter(split_of.values())
            giver = max(names, key=lambda each: counts[each])
            moved = min(
                (first for first, split in split_of.items() if split == giver),
                key=lambda first: (sizes[first], key_of[first]),
            )
            split_of[moved] = name
    return [split_of[first] for first in roots]


def _key(book_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(book_id.encode(), digest_size=8).digest(), "little")
