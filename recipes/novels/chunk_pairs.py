"""Chunks of novels, authors held out, and pairs of sides with labels: what every table of this folder is measured on.

A folder holds a file a novel, named `Author_Title.txt`. Chunks are 14 sentences of normalised text, 60 a novel at
most. Pairs are drawn by a seed, balanced over authors and books; positives of the same book are at least 28 sentences
apart.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import numpy.typing as npt

from assay.books.normal_forms import find_names, mask_names, normalise_typography
from assay.books.sentences import split_sentences
from assay.metrics import auc

SENTENCES, MOST_CHUNKS, MIN_GAP = 14, 60, 28
NUM_TRAIN, NUM_TEST = 3_000, 1_000
NUM_TRAIN_WIDE, NUM_TEST_WIDE = 600, 400
"""Where a side is several chunks."""
Ints = npt.NDArray[np.int64]
Side = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunks:
    """All chunks of a corpus, a row each."""

    texts: list[str]
    books: list[str]
    authors: list[str]
    places: list[int]
    """First sentence of each."""

    @property
    def rows_of(self) -> dict[str, list[int]]:
        """Rows of each book."""
        found = defaultdict(list)
        for row, book in enumerate(self.books):
            found[book].append(row)
        return dict(found)

    @property
    def books_of(self) -> dict[str, list[str]]:
        """Books of each author, in order."""
        found: dict[str, list[str]] = {}
        for book, author in sorted(set(zip(self.books, self.authors, strict=True))):
            found.setdefault(author, []).append(book)
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairs:
    """Two sides each, by kind: the same book, two books of one author, books of two authors."""

    same_book: list[tuple[Side, Side]]
    same_author: list[tuple[Side, Side]]
    others: list[tuple[Side, Side]]

    def of(self, task: str) -> dict[str, tuple[list[tuple[Side, Side]], list[tuple[Side, Side]]]]:
        """Positives and negatives by name of the question."""
        if task == "same_author":
            return {"same author": (self.same_author, self.others)}
        half = len(self.same_book) // 2
        return {
            "same book, mixed": (self.same_book, self.same_author[:half] + self.others[:half]),
            "same book, hard": (self.same_book, self.same_author),
        }


def read_chunks(
    folder: Path, language: str, *, mask: bool, step: int = SENTENCES, most: int = MOST_CHUNKS
) -> Chunks:
    """The chunks of all novels of a folder; the first 14 sentences are left out, since titles stand there.

    They begin `step` sentences apart; of those of a novel `most` are drawn.
    """
    chunks = Chunks(texts=[], books=[], authors=[], places=[])
    for file in sorted(folder.glob("*.txt")):
        text = normalise_typography(file.read_text(encoding="utf-8", errors="replace"))
        if mask:
            text = mask_names(text, language, find_names(text, language))
        spans = split_sentences(text, language)
        found = []
        for first in range(SENTENCES, len(spans) - SENTENCES, step):
            piece = text[spans[first, 0] : spans[first + SENTENCES - 1, 1]]
            if 200 <= len(piece) <= 6_000:
                found.append((first, piece))
        if len(found) > most:
            found = sorted(Random(f"0{file.stem}").sample(found, most))
        for place, piece in found:
            chunks.texts.append(piece)
            chunks.books.append(file.stem)
            chunks.authors.append(file.stem.split("_")[0])
            chunks.places.append(place)
    return chunks


def hold_out(chunks: Chunks, number: int, split: int) -> tuple[list[str], list[str], list[str]]:
    """Authors to train on, to choose weights on and to test on; enough of the last have two novels."""
    books_of, draw = chunks.books_of, Random(1_000 + split)
    wanted = 3 if len(books_of) < 20 else 8
    test: list[str] = []
    while sum(len(books_of[author]) > 1 for author in test) < wanted:
        test = sorted(draw.sample(sorted(books_of), number))
    rest = [author for author in sorted(books_of) if author not in test]
    validation: list[str] = []
    while sum(len(books_of[author]) > 1 for author in validation) < 1:
        validation = sorted(draw.sample(rest, max(2, len(rest) // 4)))
    return [author for author in rest if author not in validation], validation, test


def draw_pairs(chunks: Chunks, authors: Sequence[str], number: int, k: int, draw: Random) -> Pairs:
    """So many pairs of each kind, k chunks a side, drawn from all over a book."""
    rows_of, books_of = chunks.rows_of, chunks.books_of
    several = [author for author in authors if len(books_of[author]) > 1]
    books = [book for author in authors for book in books_of[author]]
    pairs = Pairs(same_book=[], same_author=[], others=[])

    def side(book: str, without: Side = ()) -> Side:
        return tuple(draw.sample([row for row in rows_of[book] if row not in without], k))

    while len(pairs.same_author) < number and several:
        one, two = draw.sample(books_of[draw.choice(several)], 2)
        pairs.same_author.append((side(one), side(two)))
    while len(pairs.others) < number:
        one, two = draw.sample(list(authors), 2)
        pairs.others.append((side(draw.choice(books_of[one])), side(draw.choice(books_of[two]))))
    books = [book for book in books if len(rows_of[book]) >= 2 * k]
    while len(pairs.same_book) < number:
        first = side(book := draw.choice(books))
        second = side(book, first)
        if k > 1 or abs(chunks.places[first[0]] - chunks.places[second[0]]) >= MIN_GAP:
            pairs.same_book.append((first, second))
    return pairs


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Sides:
    """Labelled pairs over distinct sides."""

    sides: list[Side]
    first_M: Ints
    second_M: Ints
    is_positive_M: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, positives: Sequence[tuple[Side, Side]], negatives: Sequence[tuple[Side, Side]]) -> "Sides":
        """Those of positives and negatives, in this order."""
        numbers: dict[Side, int] = {}
        both = [
            [numbers.setdefault(side, len(numbers)) for side in pair] for pair in (*positives, *negatives)
        ]
        rows = np.array(both, dtype=np.int64).reshape(-1, 2)
        return cls(
            sides=list(numbers),
            first_M=rows[:, 0].copy(),
            second_M=rows[:, 1].copy(),
            is_positive_M=np.arange(len(rows)) < len(positives),
        )

    def texts(self, chunks: Chunks) -> list[str]:
        """The text of each side."""
        return ["\n".join(chunks.texts[row] for row in side) for side in self.sides]

    def books(self, chunks: Chunks) -> list[str]:
        """The book of each side."""
        return [chunks.books[side[0]] for side in self.sides]

    def auc(self, scores_M: npt.ArrayLike) -> float:
        """Area under the curve of scores of the pairs."""
        return auc(self.is_positive_M.astype(np.int64), np.asarray(scores_M))


def sides_of(chunks: Chunks, task: str, authors: Sequence[str], number: int, k: int, seed: int) -> Sides:
    """Labelled pairs of a task, drawn by a seed."""
    name = "same author" if task == "same_author" else "same book, mixed"
    return Sides.of(*draw_pairs(chunks, authors, number, k, Random(seed)).of(task)[name])


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half width of its 95% t interval over splits; splits share authors, so the truth is wider."""
    from scipy.stats import t

    found = np.array(values)
    if len(found) < 2:
        return float(found.mean()), math.nan
    return float(found.mean()), float(
        t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / math.sqrt(len(found))
    )
