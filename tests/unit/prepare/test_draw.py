"""One book to its pairs, and whom it may be paired with."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from assay.prepare.pairs.draw import Rules, candidate_rules, draw_pairs, share_out
from assay.prepare.pairs.partners import NO_YEAR, Bookshelf
from assay.prepare.pairs.places import Places

YEARS = [1775, 1775, 1812, 1819, NO_YEAR, 1776]
SHELF = Bookshelf(
    author_keys=["austen", "austen", "dickens", "eliot", None, "other"],
    splits=np.array([0, 0, 0, 0, 0, 1], dtype=np.int32),
    editions=np.arange(6),
    languages=np.zeros(6, dtype=np.int32),
    birth_years=np.array(YEARS, dtype=np.int32),
    death_years=np.array([1817, 1817, 1870, 1880, NO_YEAR, 1800], dtype=np.int32),
    size_bytes=np.array([100, 100, 200, 400, 800, 100]),
    neighbours=lambda book: (5, 3) if book == 0 else (),
)
RULES = Rules(
    task="same_book",
    positives=10,
    negatives=20,
    weights={"random": 0.5, "same_author": 0.5},
    num_chunks=1,
    sides="contiguous",
    seed=4,
)


def places(_):
    """Thirty chunks a book."""
    starts = np.arange(30) * 100
    return Places(positions=np.arange(30), starts=starts, stops=starts + 100, gap=0)


def draw(book=0, *, mined=None, **changes):
    """The pairs of a book of the shelf."""
    rules = Rules(**{**{name: getattr(RULES, name) for name in RULES.__slots__}, **changes})
    own = np.flatnonzero(SHELF.eligible(book) & SHELF.by_same_author(book))
    own = own[own != book]
    partners = SHELF.partners(book, list(rules.weights))
    return draw_pairs(
        book,
        f"book {book}",
        rules,
        places=places(book),
        others=places,
        same_author=own,
        partners=partners,
        mined=mined,
    )


def test_partners_by_kind():
    """Same split, no edition, by author, period, likeness and vectors; a kind without partners is left out."""
    found = SHELF.partners(0, ["random", "same_author", "same_period", "metadata", "embedding"])
    assert {kind: others.tolist() for kind, others in found.items()} == {
        "random": [2, 3, 4],
        "same_author": [1],
        "metadata": [2, 3, 4],
        "embedding": [3],
    }
    assert SHELF.partners(2, ["same_period"])["same_period"].tolist() == [3]


def test_editions_and_other_languages_are_no_partners():
    """An edition of the same work is neither positive nor negative."""
    shelf = Bookshelf(
        **{
            **{name: getattr(SHELF, name) for name in Bookshelf.__dataclass_fields__},
            "editions": np.array([0, 0, 2, 3, 4, 5]),
            "languages": np.array([0, 0, 1, -1, 0, 0], dtype=np.int32),
        }
    )
    assert np.flatnonzero(shelf.eligible(0)).tolist() == [3, 4]


def test_pairs_by_kind_as_asked():
    """Ten positives and twenty negatives, half of each kind, none twice; easy and hard are told apart."""
    drawn = draw()
    assert Counter(pair.negative for pair in drawn.pairs) == {None: 10, "random": 10, "same_author": 10}
    assert {(pair.negative, pair.difficulty) for pair in drawn.pairs} == {
        (None, "easy"),
        ("random", "easy"),
        ("same_author", "hard"),
    }
    assert all((pair.other == 0) == (pair.label == 1) for pair in drawn.pairs)
    assert len({(pair.other, frozenset((pair.first, pair.second))) for pair in drawn.pairs}) == 30
    assert not drawn.not_had


def test_a_pair_does_not_depend_on_how_many_are_drawn():
    """Of more positives the first are the same, and another seed gives others."""
    few, many = draw(positives=5).pairs[:5], draw().pairs[:5]
    assert few == many != draw(seed=5).pairs[:5]


def test_a_kind_that_cannot_be_had_goes_to_the_others_and_is_counted():
    """Dickens has one book: all negatives are random."""
    drawn = draw(2)
    assert Counter(pair.negative for pair in drawn.pairs) == {None: 10, "random": 20}
    assert drawn.not_had == {"same_author": 10}


def test_same_author_positives_are_of_other_books():
    """A book whose author has no other gives none, and so no negatives either."""
    drawn = draw(task="same_author", weights={"random": 1.0})
    assert {pair.other for pair in drawn.pairs if pair.label} == {1}
    assert draw(2, task="same_author").not_had["positive"] == 10
    assert draw(2, task="same_author").pairs == []


@pytest.mark.parametrize(
    ("total", "weights", "shares"),
    [
        (10, {"random": 1, "same_author": 1, "metadata": 1}, {"random": 4, "same_author": 3, "metadata": 3}),
        (40, {"random": 0.15, "same_author": 0.35}, {"random": 12, "same_author": 28}),
        (3, {}, {}),
    ],
)
def test_shares_are_whole_and_add_up(total, weights, shares):
    """Largest remainders first."""
    assert share_out(total, weights) == shares


def test_candidates_are_negatives_of_the_split():
    """So many, none twice, with books by the same author too where the task is to tell books apart."""
    drawn = draw(**vars_of(candidate_rules(RULES, 200)))
    assert len({(pair.other, pair.first, pair.second) for pair in drawn.pairs}) == 200
    assert {(pair.label, pair.negative, pair.difficulty) for pair in drawn.pairs} == {
        (0, "model_mined", "hard")
    }
    assert {pair.other for pair in drawn.pairs} == {1, 2, 3, 4}
    assert SHELF.partners(0, ["model_mined"], tells_books=False)["model_mined"].tolist() == [2, 3, 4]


def test_mined_negatives_are_taken_in_order_and_missing_ones_are_counted():
    """The first of those that are not drawn yet; without any, their share goes to the other kinds."""
    candidates = draw(**vars_of(candidate_rules(RULES, 200))).pairs
    best = [candidates[number] for number in (150, 3, 77, 12, 60)]
    weights = {"random": 0.5, "model_mined": 0.5}
    drawn = draw(mined=best, weights=weights, negatives=8)
    mined = [pair for pair in drawn.pairs if pair.negative == "model_mined"]
    assert mined == best[:4]
    few = draw(mined=best[:1], weights=weights, negatives=8)
    assert [pair for pair in few.pairs if pair.negative == "model_mined"] == best[:1]
    assert few.not_had == {"model_mined": 3}
    none = draw(mined=[], weights=weights, negatives=8)
    assert Counter(pair.negative for pair in none.pairs) == {None: 10, "random": 8}
    assert none.not_had == {"model_mined": 4}


def test_the_same_positions_the_other_way_round_are_another_pair_of_two_books():
    """Chunk 3 here with chunk 5 there is not chunk 5 here with chunk 3 there; the same pair comes once."""
    candidates = draw(**vars_of(candidate_rules(RULES, 20))).pairs
    one = next(pair for pair in candidates if pair.first != pair.second)
    exchanged = replace(one, first=one.second, second=one.first)
    drawn = draw(mined=[one, exchanged, one], weights={"model_mined": 1.0}, negatives=3)
    assert [pair for pair in drawn.pairs if pair.label == 0] == [one, exchanged]


def vars_of(rules):
    """The fields of some rules."""
    return {name: getattr(rules, name) for name in Rules.__slots__}
