"""Same author by habits: likelihood ratios of frequent words and of letters, with scales from other authors' books.

    python recipes/novels/habits.py british_fiction --on validation
    python recipes/novels/habits.py british_fiction

On the pairs of unseen_authors.py. `base` is a logistic regression on three cosines of the product's evidence:
TF-IDF and Delta of 400 and 100 words. `words and letters` is one on two numbers, `habits` on all three, `habits and
style` also on differences of the evidence's features of style:

    words    the 1,500 most frequent words and marks, their shares of each chunk
    letters  the 3,000 most frequent runs of four characters, roots of their shares
    bigrams  the 800 most frequent bigrams where all but the 150 most frequent words are one token, roots likewise

A side is the mean of its chunks. Each share is scaled by how far books' means lie apart (B, less the variance of their
errors) and how far a book's chunks do (W): z = (x - mean) / sqrt(B + W / k) for k chunks a side, cut at 5. Two books by
one author are taken to be alike in half of what parts books, so that their z correlate by r = B / (B + W / k) / 2; the
number is the sum over shares of log N(z1, z2; r) - log N(z1) - log N(z2), as in the scoring of speakers (Kenny 2010),
each share by itself.

All scales come from books by neither author of a pair: for pairs that the regression learns from, of the other training
authors; for asked ones, of all training authors. So the regression sees them as they will be. What is counted at all is
chosen on the whole corpus; no label has a part in it.
"""

import argparse
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np
import scipy.sparse as sp
from chunk_pairs import (
    NUM_TEST,
    NUM_TEST_WIDE,
    NUM_TRAIN,
    NUM_TRAIN_WIDE,
    Chunks,
    Sides,
    draw_pairs,
    hold_out,
    interval,
    read_chunks,
    sides_of,
)
from scorers import PENALTY, Floats

from assay.siamese.evidence import Regression
from assay.siamese.style import feature_names, style_features

NUM_WORDS, NUM_LETTERS, RUN, FRAME, NUM_BIGRAMS = 1_500, 3_000, 4, 150, 800
KEPT_WORDS = 5_000
"""Words whose counts are kept at all, for TF-IDF."""
MOST_Z, LEAST = 5.0, 1e-14
ALIKE = 0.5
"""Share of what parts books that two books by one author are taken to have in common."""
BASE, HABITS, STYLE = ("tf-idf", "delta 100", "delta 400"), ("words", "letters", "bigrams"), ("style",)
ROWS = {
    "base": BASE,
    "words and letters": ("words", "letters"),
    "habits": HABITS,
    "habits and style": (*HABITS, *STYLE),
}
_WORD_OR_MARK = re.compile(r"[^\W\d_]+|[^\w\s]")


# ---------------------------------------------------------------- what is counted


@dataclass(frozen=True, kw_only=True, slots=True)
class Habits:
    """What each chunk has, a row each, and how books have it."""

    words_CK: sp.csr_matrix
    """Counts of words and marks, the most frequent first."""
    shares: dict[str, Floats]
    """By name of the number, [C, K]."""
    books: "dict[str, BookShares]"


def count(chunks: Chunks, language: str) -> Habits:
    """Words, marks, runs of characters, bigrams and style."""
    texts = [text.lower() for text in chunks.texts]
    lists = [_WORD_OR_MARK.findall(text) for text in texts]
    words_CK = table_of(lists, KEPT_WORDS)
    total = Counter(token for each in lists for token in each)
    frame = {token for token, _ in total.most_common(FRAME)}
    framed = [pairwise([token if token in frame else "#" for token in each]) for each in lists]
    runs = ([text[at : at + RUN] for at in range(len(text) - RUN + 1)] for text in texts)
    shares = {
        "words": shares_of(words_CK, NUM_WORDS),
        "letters": np.sqrt(shares_of(table_of(runs, NUM_LETTERS), NUM_LETTERS)),
        "bigrams": np.sqrt(shares_of(table_of(framed, NUM_BIGRAMS), NUM_BIGRAMS)),
    }
    names = [name for name in feature_names("full", language) if not name.startswith("word:")]
    shares["style"] = style_features(chunks.texts, names, language).astype(np.float64)
    return Habits(
        words_CK=words_CK,
        shares=shares,
        books={name: BookShares.of(shares_CK, chunks) for name, shares_CK in shares.items()},
    )


def table_of(lists: Iterable[Iterable[object]], number: int) -> sp.csr_matrix:
    """Counts of the most frequent tokens, a row a list, the most frequent first."""
    counts = [Counter(each) for each in lists]
    total: Counter[object] = Counter()
    for each in counts:
        total.update(each)
    columns = {token: column for column, (token, _) in enumerate(total.most_common(number))}
    found = [
        (row, columns[token], value)
        for row, each in enumerate(counts)
        for token, value in each.items()
        if token in columns
    ]
    rows, picked, values = (np.array(each) for each in zip(*found, strict=True))
    return sp.csr_matrix((values.astype(np.float64), (rows, picked)), shape=(len(counts), len(columns)))


def shares_of(counts_NK: sp.csr_matrix, number: int) -> Floats:
    """Of the tokens of the first columns in each row."""
    picked_NK = counts_NK[:, :number].toarray()
    return picked_NK / np.maximum(picked_NK.sum(axis=1, keepdims=True), 1)


# ---------------------------------------------------------------- likelihood ratios


@dataclass(frozen=True, kw_only=True, slots=True)
class Scales:
    """How shares are spread: their mean, between books (B) and within one (W), [K] each."""

    mean_K: Floats
    between_K: Floats
    within_K: Floats

    def differences(self, first_MK: Floats, second_MK: Floats, k: int) -> Floats:
        """How far sides of k chunks lie apart in each column, [M, K]."""
        spread_K = self.between_K + self.within_K / k + LEAST
        return np.minimum(np.abs(first_MK - second_MK) / np.sqrt(spread_K), MOST_Z)

    def ratio(self, first_MK: Floats, second_MK: Floats, k: int) -> Floats:
        """The log-likelihood ratio of one author to two, [M], of sides of k chunks."""
        spread_K = self.between_K + self.within_K / k + LEAST
        one_MK, two_MK = (
            np.clip((each - self.mean_K) / np.sqrt(spread_K), -MOST_Z, MOST_Z)
            for each in (first_MK, second_MK)
        )
        r_K = ALIKE * self.between_K / spread_K
        apart_MK = r_K**2 * (one_MK**2 + two_MK**2) - 2 * r_K * one_MK * two_MK
        found: Floats = -(np.log1p(-(r_K**2)) / 2 + apart_MK / (2 * (1 - r_K**2))).sum(axis=1)
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class BookShares:
    """Means and variances of the chunks' shares in each book."""

    authors: Sequence[str]
    """Of each book."""
    mean_BK: Floats
    within_BK: Floats
    size_B1: Floats

    @classmethod
    def of(cls, shares_CK: Floats, chunks: Chunks) -> "BookShares":
        """Those of all books."""
        author_of = dict(zip(chunks.books, chunks.authors, strict=True))
        names, book_C = np.unique(chunks.books, return_inverse=True)
        size_B1 = np.bincount(book_C)[:, None].astype(np.float64)
        book_BC = sp.csr_matrix((np.ones(len(book_C)), (book_C, np.arange(len(book_C)))))
        mean_BK = (book_BC @ shares_CK) / size_B1
        within_BK = np.maximum((book_BC @ shares_CK**2) / size_B1 - mean_BK**2, 0)
        return cls(
            authors=[author_of[name] for name in names.tolist()],
            mean_BK=mean_BK,
            within_BK=within_BK * size_B1 / np.maximum(size_B1 - 1, 1),
            size_B1=size_B1,
        )

    def scales(self, authors: Iterable[str]) -> Scales:
        """Those of the books of some authors."""
        kept = np.isin(self.authors, list(authors))
        mean_BK, within_BK = self.mean_BK[kept], self.within_BK[kept]
        errors_K = (within_BK / self.size_B1[kept]).mean(axis=0)
        return Scales(
            mean_K=mean_BK.mean(axis=0),
            between_K=np.maximum(mean_BK.var(axis=0, ddof=1) - errors_K, 0),
            within_K=within_BK.mean(axis=0),
        )


def ratios(habits: Habits, chunks: Chunks, authors: Sequence[str], sides: Sides) -> dict[str, Floats]:
    """The numbers of pairs, [M] or of style [M, F], with scales of those of the authors that a pair has not."""
    author_of = [chunks.authors[side[0]] for side in sides.sides]
    rows_of: dict[frozenset[str], list[int]] = defaultdict(list)
    for row, pair in enumerate(zip(sides.first_M, sides.second_M, strict=True)):
        rows_of[frozenset(author_of[side] for side in pair)].append(row)
    mean_NC, k = means_of(sides, len(chunks.texts)), len(sides.sides[0])
    found = {}
    for name, shares_CK in habits.shares.items():
        side_NK = mean_NC @ shares_CK
        is_style = name in STYLE
        found[name] = np.zeros((len(sides.first_M), *(side_NK.shape[1:] if is_style else ())))
        for own, rows in rows_of.items():
            scales = habits.books[name].scales(author for author in authors if author not in own)
            first_RK, second_RK = side_NK[sides.first_M[rows]], side_NK[sides.second_M[rows]]
            compare = scales.differences if is_style else scales.ratio
            found[name][rows] = compare(first_RK, second_RK, k)
    return found


def means_of(sides: Sides, num_chunks: int) -> sp.csr_matrix:
    """What makes the mean of a side's chunks of numbers of all chunks, [N, C]."""
    chunk_of = [chunk for side in sides.sides for chunk in side]
    sizes = np.array([len(side) for side in sides.sides])
    side_of = np.repeat(np.arange(len(sizes)), sizes)
    return sp.csr_matrix((1 / sizes[side_of], (side_of, chunk_of)), shape=(len(sizes), num_chunks))


# ---------------------------------------------------------------- the base


def cosines(counts_CK: sp.csr_matrix, train: Sides, sides: Sides) -> dict[str, Floats]:
    """The base's of pairs by name, as the training sides say what is rare and usual; a side's counts are summed."""
    known, asked = (
        (means_of(each, counts_CK.shape[0]) > 0).astype(np.float64) @ counts_CK for each in (train, sides)
    )
    order = np.argsort(-np.asarray(known.sum(axis=0)).ravel(), kind="stable")
    found = {}
    for number in (100, 400):
        known_NK, asked_NK = (shares_of(each[:, order[:number]], number) for each in (known, asked))
        found[f"delta {number}"] = cosine(
            (asked_NK - known_NK.mean(axis=0)) / np.maximum(known_NK.std(axis=0), 1e-9), sides
        )
    rarity_K = np.log((len(train.sides) + 1) / (np.asarray((known > 0).sum(axis=0)).ravel() + 0.5))
    weights = asked.copy()
    weights.data = 1 + np.log(weights.data)
    found["tf-idf"] = cosine(weights.multiply(np.maximum(rarity_K, 0)).toarray(), sides)
    return found


def cosine(rows_NK: Floats, sides: Sides) -> Floats:
    """That of pairs of rows."""
    lengths_N1 = np.linalg.norm(rows_NK, axis=1, keepdims=True)
    rows_NK = rows_NK / np.where(lengths_N1 > 0, lengths_N1, 1)
    return np.einsum("mk,mk->m", rows_NK[sides.first_M], rows_NK[sides.second_M])


# ---------------------------------------------------------------- the table


def measure(
    chunks: Chunks, habits: Habits, options: argparse.Namespace, split: int, k: int
) -> dict[str, float]:
    """AUC by row of the table, the mean of draws of training pairs."""
    train_authors, validation_authors, test_authors = hold_out(chunks, options.held_out, split)
    known, asked, seed = sorted(train_authors + validation_authors), test_authors, 99 + split
    if options.on == "validation":
        known, asked, seed = train_authors, validation_authors, 50_000 + split
    num_train, num_test = (NUM_TRAIN, NUM_TEST) if k == 1 else (NUM_TRAIN_WIDE, NUM_TEST_WIDE)
    (pairs,) = draw_pairs(chunks, asked, num_test, k, Random(seed)).of("same_author").values()
    sides = Sides.of(*pairs)
    by_ratio = ratios(habits, chunks, known, sides)
    found = defaultdict(list)
    for draw in range(options.draws):
        train = sides_of(chunks, "same_author", known, num_train, k, 10 * split + 1_000_000 * draw)
        given = cosines(habits.words_CK, train, train) | ratios(habits, chunks, known, train)
        seen = cosines(habits.words_CK, train, sides) | by_ratio
        for name in (*BASE, *HABITS):
            found[f"alone: {name}"].append(sides.auc(seen[name]))
        for row, names in ROWS.items():
            weighed = Regression.fit(
                np.column_stack([given[name] for name in names]), train.is_positive_M, penalty=PENALTY
            )
            found[row].append(sides.auc(weighed(np.column_stack([seen[name] for name in names]))))
    return {row: float(np.mean(values)) for row, values in found.items()}


def main() -> None:
    """A line for each number of chunks a side and row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--language", default="en")
    parser.add_argument("--held-out", type=int, default=5)
    parser.add_argument("--splits", type=int, default=8)
    parser.add_argument(
        "--draws", type=int, default=3, help="draws of training pairs, whose AUCs are averaged"
    )
    parser.add_argument("--chunks-a-side", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--on", choices=("validation", "test"), default="test", help="authors to measure on")
    options = parser.parse_args()
    chunks = read_chunks(options.folder, options.language, mask=False)
    habits = count(chunks, options.language)
    for k in options.chunks_a_side:
        found = defaultdict(list)
        for split in range(options.splits):
            for row, value in measure(chunks, habits, options, split, k).items():
                found[row].append(value)
        for row, values in found.items():
            mean, half = interval(values)
            gain, spread = interval([one - other for one, other in zip(values, found["base"], strict=True)])
            print(
                f"same author k={k:<2} {row:18} {mean:.3f} +- {half:.3f}  over the base {gain:+.3f} +- {spread:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
