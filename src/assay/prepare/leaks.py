"""What gives a book or an author away without any style: typography, names, editions. Pure.

Each is a score of two chunks; its AUC says how well it alone would do. Three questions: the same book against
books of other authors, the same book against other books of the same author, and the same author (another
book) against other authors. 0.5 is chance.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from assay.metrics import auc

MARKS = (
    *('"', "'", "`", "\u2018", "\u2019", "\u201c", "\u201d", "\u201e", "\u00ab", "\u00bb"),
    *("-", "--", "\u2013", "\u2014", "...", "\u2026", "_", "*", "\u00a0", "\t", "  "),
)
"""How printers differ: quotes, dashes, ellipses, italics, spaces."""
_NAME = re.compile(r"(?<=[\w,;] )[^\W\d_a-z][\w'\u2019-]*[^\W\d_]")
"""A word within a sentence that does not begin with a lower-case letter of ASCII."""
Matrix = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class Leak:
    """AUC of one score on three questions; None where there are no such pairs."""

    same_book_or_other_author: float | None
    same_book_or_same_author: float | None
    same_author: float | None


def typography_scores(texts: Sequence[str]) -> Matrix:
    """How alike the printing of each two texts is: minus the mean distance of the rates of marks, in deviations."""
    rates = np.array(
        [[math.log1p(1000 * text.count(mark) / max(1, len(text))) for mark in MARKS] for text in texts]
    ).reshape(len(texts), len(MARKS))
    deviations = rates.std(axis=0)
    rates = (rates - rates.mean(axis=0)) / np.where(deviations > 0, deviations, 1.0)
    scores = np.zeros((len(texts), len(texts)))
    distances = np.empty_like(scores)
    for column in rates.T:
        np.subtract(column[:, None], column[None, :], out=distances)
        scores -= np.abs(distances, out=distances)
    scores /= len(MARKS)
    return scores


def name_scores(texts: Sequence[str]) -> Matrix:
    """How many names each two texts share: the cosine of the sets of capitalised words, rare ones counting more."""
    sets = [names_of(text) for text in texts]
    frequencies = Counter(name for names in sets for name in names)
    columns = {name: index for index, name in enumerate(sorted(frequencies))}
    vectors = np.zeros((len(texts), max(1, len(columns))), dtype=np.float32)
    for row, names in enumerate(sets):
        for name in names:
            vectors[row, columns[name]] = math.log((1 + len(texts)) / frequencies[name])
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return (vectors @ vectors.T).astype(np.float64)


def names_of(text: str) -> set[str]:
    """The capitalised words of a text that do not begin a sentence."""
    return {word for word in _NAME.findall(text) if word[0].isupper()}


def edition_scores(books: Sequence[int], shares: Mapping[tuple[int, int], float]) -> Matrix:
    """How much of one book is in the other, for each two of `books`."""
    scores = np.zeros((len(books), len(books)))
    row_of = {book: row for row, book in enumerate(books)}
    for (one, other), share in shares.items():
        if one in row_of and other in row_of:
            scores[row_of[one], row_of[other]] = scores[row_of[other], row_of[one]] = share
    return scores


def measure(scores: Matrix, books: Sequence[int], authors: Sequence[str | None]) -> Leak:
    """The three AUCs of a score; books of unknown authors are left out where authors matter."""
    numbers = np.array(books)
    known = np.array([author is not None for author in authors])
    codes = np.array([_code(author, authors) for author in authors])
    upper = np.triu(np.ones(scores.shape, dtype=np.bool_), k=1)
    both = known[:, None] & known[None, :]
    same_book = upper & (numbers[:, None] == numbers[None, :])
    same_author = upper & both & (codes[:, None] == codes[None, :]) & ~same_book
    other_author = upper & both & (codes[:, None] != codes[None, :])
    return Leak(
        same_book_or_other_author=_auc(scores, same_book, other_author),
        same_book_or_same_author=_auc(scores, same_book, same_author),
        same_author=_auc(scores, same_author, other_author),
    )


def _auc(scores: Matrix, positive: Mask, negative: Mask) -> float | None:
    if not positive.any() or not negative.any():
        return None
    values = np.concatenate([scores[positive], scores[negative]])
    return float(auc(np.repeat([1, 0], [int(positive.sum()), int(negative.sum())]), values))


def _code(author: str | None, authors: Iterable[str | None]) -> int:
    return -1 if author is None else list(authors).index(author)
