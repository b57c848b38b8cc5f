"""Books to splits that nothing crosses."""

from collections import Counter

import pytest

from assay.errors import InputError
from assay.prepare.splits import crossings, split_books

SHARES = {"train": 0.7, "validation": 0.15, "test": 0.15}


def split(authors, ties=None, **changes):
    """The splits of books named by their place."""
    ids = [f"book {number:03}" for number in range(len(authors))]
    rules = {"by": "author", "shares": SHARES, "seed": 1, **changes}
    return split_books(ids, authors, list(range(len(ids))) if ties is None else ties, **rules)


def test_no_author_lies_in_two_splits():
    """Shares hold to about a book, and a tie across authors binds all books of both."""
    authors = [f"author {number // 3}" for number in range(60)]
    ties = list(range(60))
    ties[59] = 0
    splits = split(authors, ties)
    assert crossings([[author] for author in authors], splits) == []
    assert splits[59] == splits[0] == splits[57]
    assert Counter(splits) == pytest.approx({"train": 42, "validation": 9, "test": 9}, abs=3)


def test_co_authors_bind_their_books():
    """A book of two authors lies with the books of either."""
    authors = ["a|b", "a", "b", *(f"c{number}" for number in range(9))]
    splits = split(authors)
    assert len(set(splits[:3])) == 1


def test_every_split_has_two_authors_where_there_are_enough():
    """Even where all but a few books are by one author."""
    authors = ["a"] * 40 + ["b", "c", "d", "e", "f"]
    splits = split(authors)
    by_split = {name: {a for a, s in zip(authors, splits, strict=True) if s == name} for name in SHARES}
    assert all(len(found) == 2 for found in by_split.values())


def test_the_order_of_the_books_does_not_matter():
    """A book's split is that of its id and group."""
    authors = [f"author {number % 7}" for number in range(30)]
    ids = [f"book {number}" for number in range(30)]
    order = list(range(29, -1, -1))
    rules = {"by": "author", "shares": SHARES, "seed": 3}
    forward = split_books(ids, authors, range(30), **rules)
    back = split_books([ids[i] for i in order], [authors[i] for i in order], range(30), **rules)
    assert [back[29 - number] for number in range(30)] == forward


def test_what_cannot_be_split_is_refused():
    """One author, and a book without one; by book both are fine."""
    with pytest.raises(InputError, match=r"4 books of 1 author make 1 group .*--split-by book"):
        split(["a"] * 4)
    with pytest.raises(InputError, match="1 of 4 books have no author, the first is book 001"):
        split(["a", None, "b", "c"])
    assert set(split(["a", None, "a", "a"], by="book")) == set(SHARES)


def test_crossings_are_named():
    """What lies in two splits is found."""
    assert crossings([["a", 1], ["b"], ["a"]], ["train", "train", "test"]) == ["a"]
