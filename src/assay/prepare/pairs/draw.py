"""One book to its pairs: positives and negatives, the same whoever draws them. Pure.

Each pair has a random state of its own, of the seed, the book's id, what is drawn and its number: neither
units nor workers nor the other books' pairs change it.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Literal, TypedDict

from assay.prepare.pairs.partners import EASY, NegativeKind, Numbers
from assay.prepare.pairs.places import HasSides, Places, Side, Sides

PairTask = Literal["same_book", "same_author"]
Difficulty = Literal["easy", "hard"]
TRIES = 20
"""Draws of one pair before it counts as one that cannot be had."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """What is drawn of a book."""

    task: PairTask
    positives: int
    negatives: int
    weights: Mapping[NegativeKind, float]
    """Above 0 for each kind that is asked for."""
    num_chunks: int
    sides: Sides
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Two sides, by book and position."""

    label: int
    other: int
    """Number of the book of the second side."""
    first: Side
    second: Side
    negative: NegativeKind | None
    """None for a positive."""
    probability: float | None = None
    """Of a mined negative: what the model gave it of being a positive."""

    @property
    def difficulty(self) -> Difficulty:
        """Hard: a negative that something speaks for."""
        return "easy" if self.negative is None or self.negative in EASY else "hard"


@dataclass(kw_only=True, slots=True)
class Drawn:
    """The pairs of a book, and what could not be had."""

    pairs: list[Pair] = field(default_factory=list)
    not_had: Counter[str] = field(default_factory=Counter)
    """By kind of negative, and `positive`."""


def draw_pairs(
    book: int,
    book_id: str,
    rules: Rules,
    *,
    places: Places,
    others: Callable[[int], HasSides],
    same_author: Numbers,
    partners: Mapping[NegativeKind, Numbers],
    mined: Sequence[Pair] | None = None,
) -> Drawn:
    """The pairs whose first side is of this book.

    `places` are those of this book, and `others` gives what sides of another one are drawn from. `same_author`
    are the books that positives of the task `same_author` may go with; `partners` those of the negatives. A kind
    that the book cannot have goes to the others by their weights. Negatives are as many to a positive as the
    rules say: a short book that gives half the positives gives half the negatives. Without positives in the rules
    all are drawn. `mined` are those of the kind `model_mined`, the best first; where it is None they are drawn
    like others, as candidates.
    """
    drawn = Drawn()
    of_book = _OfBook(book=book, book_id=book_id, rules=rules, places=places, others=others)
    for number in range(rules.positives):
        if rules.task == "same_book":
            found = of_book.draw("positive", number, None)
        else:
            found = of_book.draw("positive", number, same_author) if len(same_author) else None
        if found is None:
            drawn.not_had["positive"] += 1
        else:
            drawn.pairs.append(Pair(label=1, negative=None, **found))
    had = {
        kind: weight
        for kind, weight in rules.weights.items()
        if kind in partners and (kind != "model_mined" or mined is None or mined)
    }
    for kind, count in share_out(rules.negatives, rules.weights).items():
        if kind not in had:
            drawn.not_had[kind] += count
    total = rules.negatives
    if rules.positives:
        total = round(rules.negatives * len(drawn.pairs) / rules.positives)
    for kind, count in share_out(total, had).items():
        if kind == "model_mined" and mined is not None:
            found_pairs = of_book.take(mined, count)
        else:
            found_pairs = of_book.negatives(kind, count, partners[kind])
        drawn.pairs += found_pairs
        if len(found_pairs) < count:
            drawn.not_had[kind] += count - len(found_pairs)
    return drawn


def candidate_rules(rules: Rules, trials: int) -> Rules:
    """The rules of the candidates from which a model chooses: so many negatives of a book, and nothing else."""
    return replace(rules, positives=0, negatives=trials, weights={"model_mined": 1.0})


class _DrawnPair(TypedDict):
    """Two sides, and whose the second is."""

    other: int
    first: Side
    second: Side


@dataclass(kw_only=True, slots=True)
class _OfBook:
    """Draws for one book; nothing twice."""

    book: int
    book_id: str
    rules: Rules
    places: Places
    others: Callable[[int], HasSides]
    seen: set[tuple[int, Side, Side]] = field(default_factory=set)

    def draw(self, what: str, number: int, others: Numbers | None) -> _DrawnPair | None:
        """A pair within the book, or with one of `others`; None where no new one is found."""
        rng = Random(f"{self.rules.seed}|{self.book_id}|{what}|{number}")
        for _ in range(TRIES):
            found = self._within(rng) if others is None else self._with_other(rng, others)
            if found is None:
                continue
            if self.add(**found):
                return found
        return None

    def negatives(self, kind: NegativeKind, count: int, others: Numbers) -> list[Pair]:
        """So many negatives of a kind, or as many of them as are found."""
        drawn = (self.draw(kind, number, others) for number in range(count))
        return [Pair(label=0, negative=kind, **found) for found in drawn if found is not None]

    def take(self, pairs: Sequence[Pair], count: int) -> list[Pair]:
        """The first of these that are not drawn yet, so many at most."""
        new = (pair for pair in pairs if self.add(pair.other, pair.first, pair.second))
        return list(itertools.islice(new, count))

    def add(self, other: int, first: Side, second: Side) -> bool:
        """Whether nothing drawn so far has these two sides; from now on something does."""
        # within one book a pair is the same either way round; in two books positions 3 and 5 are not 5 and 3
        is_exchanged = other == self.book and second < first
        key = (other, second, first) if is_exchanged else (other, first, second)
        is_new = key not in self.seen
        self.seen.add(key)
        return is_new

    def _within(self, rng: Random) -> _DrawnPair | None:
        two = self.places.two_sides(rng, self.rules.num_chunks, self.rules.sides)
        return None if two is None else _DrawnPair(other=self.book, first=two[0], second=two[1])

    def _with_other(self, rng: Random, others: Numbers) -> _DrawnPair | None:
        other = int(others[rng.randrange(len(others))])
        first = self.places.side(rng, self.rules.num_chunks, self.rules.sides)
        second = self.others(other).side(rng, self.rules.num_chunks, self.rules.sides)
        return (
            None if first is None or second is None else _DrawnPair(other=other, first=first, second=second)
        )


def share_out(total: int, weights: Mapping[NegativeKind, float]) -> dict[NegativeKind, int]:
    """`total` in whole numbers by weight, largest remainders first; {} where there are no weights.

    For 10 and weights 1, 1, 1 it is 4, 3, 3.
    """
    whole = sum(weights.values())
    if not whole:
        return {}
    exact = {kind: total * weight / whole for kind, weight in weights.items()}
    shares = {kind: int(value) for kind, value in exact.items()}
    order = sorted(weights, key=lambda kind: (shares[kind] - exact[kind], list(weights).index(kind)))
    for kind in order[: total - sum(shares.values())]:
        shares[kind] += 1
    return shares
