"""Two cosines more for the same author: frequent words, weighed by how steady a book is in them.

    python recipes/novels/habits.py british_fiction --on validation
    python recipes/novels/habits.py british_fiction

On the pairs of unseen_authors.py. `base` is a logistic regression on three cosines of the product's evidence: TF-IDF
and Delta of 400 and 100 words. `habits` adds two:

    words    the 1,500 most frequent words and marks
    bigrams  the 800 most frequent bigrams where all but the 150 most frequent words are one token, roots of shares

Both are scaled by how far the books' means lie apart over how far a book's texts do, so that what is steady in a book
and differs between books counts most: x -> (x - mean) sqrt(B) / (B + W), with B the variance of the books' means less
that of their errors, and W that within books. Delta divides by the root of B + W alone. All numbers come from training
texts; which tokens are counted at all, from the whole corpus.

Counts of a side of several chunks are the sums of theirs. `--evidence` adds the rows `words and style`, the product's
own evidence, and that with both cosines; it takes a while.
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
import numpy.typing as npt
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
from scorers import PENALTY, WORDS, Floats

from assay.siamese.evidence import PairEvidence, Regression

NUM_WORDS, FRAME, NUM_BIGRAMS = 1_500, 150, 800
KEPT_WORDS, KEPT_BIGRAMS = 5_000, 3_000
"""Tokens whose counts are kept at all."""
BASE = ("tf-idf", "delta 100", "delta 400")
ROWS = {"base": BASE, "base and words": (*BASE, "words"), "base and habits": (*BASE, "words", "bigrams")}
_WORD_OR_MARK = re.compile(r"[^\W\d_]+|[^\w\s]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """How often each chunk has each kept token, a column a token."""

    words_CK: sp.csr_matrix
    bigrams_CK: sp.csr_matrix


def count(chunks: Chunks) -> Counts:
    """Words and marks, and their bigrams."""
    lists = [_WORD_OR_MARK.findall(text.lower()) for text in chunks.texts]
    total: Counter[str] = Counter()
    for each in lists:
        total.update(each)
    frame = {token for token, _ in total.most_common(FRAME)}
    framed = [[token if token in frame else "#" for token in each] for each in lists]
    return Counts(
        words_CK=table_of(lists, KEPT_WORDS),
        bigrams_CK=table_of((list(pairwise(each)) for each in framed), KEPT_BIGRAMS),
    )


def table_of(lists: Iterable[Sequence[object]], number: int) -> sp.csr_matrix:
    """Counts of the most frequent tokens, a row a list."""
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


def of_sides(counts_CK: sp.csr_matrix, sides: Sides) -> sp.csr_matrix:
    """The counts of each side, the sums of its chunks'."""
    chunk_of = [chunk for side in sides.sides for chunk in side]
    side_of = np.repeat(np.arange(len(sides.sides)), [len(side) for side in sides.sides])
    shape = (len(sides.sides), counts_CK.shape[0])
    return sp.csr_matrix((np.ones(len(chunk_of)), (side_of, chunk_of)), shape=shape) @ counts_CK


def cosines(rows_NK: Floats, sides: Sides) -> Floats:
    """Those of pairs of rows."""
    lengths_N1 = np.linalg.norm(rows_NK, axis=1, keepdims=True)
    rows_NK = rows_NK / np.where(lengths_N1 > 0, lengths_N1, 1)
    return np.einsum("mk,mk->m", rows_NK[sides.first_M], rows_NK[sides.second_M])


def shares(counts_NK: sp.csr_matrix, columns: npt.NDArray[np.int64]) -> Floats:
    """Of the tokens of these columns in each row."""
    picked_NK = counts_NK[:, columns].toarray()
    return picked_NK / np.maximum(picked_NK.sum(axis=1, keepdims=True), 1)


def steadiness(train_NK: Floats, books: Sequence[str]) -> tuple[Floats, Floats]:
    """Mean and factor of each column: (x - mean) factor counts most where a book is steady and books differ."""
    book_N = np.unique(books, return_inverse=True)[1]
    size_B1 = np.bincount(book_N)[:, None]
    book_BN = sp.csr_matrix((np.ones(len(book_N)), (book_N, np.arange(len(book_N)))))
    mean_BK = (book_BN @ train_NK) / size_B1
    within_BK = np.maximum((book_BN @ train_NK**2) / size_B1 - mean_BK**2, 0)
    within_BK *= size_B1 / np.maximum(size_B1 - 1, 1)
    within_K = within_BK.mean(axis=0)
    between_K = np.maximum(mean_BK.var(axis=0, ddof=1) - (within_BK / size_B1).mean(axis=0), 0)
    return train_NK.mean(axis=0), np.sqrt(between_K) / (between_K + within_K + 1e-14)


def seen(counts: Counts, train: Sides, books: Sequence[str], sides: Sides) -> dict[str, Floats]:
    """The cosines of pairs by name, as the training sides say what is rare, usual and steady."""
    known, asked = of_sides(counts.words_CK, train), of_sides(counts.words_CK, sides)
    order = np.argsort(-np.asarray(known.sum(axis=0)).ravel(), kind="stable")
    found = {}
    for number in (100, 400):
        known_NK, asked_NK = shares(known, order[:number]), shares(asked, order[:number])
        spread_K = np.maximum(known_NK.std(axis=0), 1e-9)
        found[f"delta {number}"] = cosines((asked_NK - known_NK.mean(axis=0)) / spread_K, sides)
    rarity_K = np.log((len(train.sides) + 1) / (np.asarray((known > 0).sum(axis=0)).ravel() + 0.5))
    weights = asked.astype(np.float64)
    weights.data = 1 + np.log(weights.data)
    weights = weights.multiply(np.maximum(rarity_K, 0)).tocsr()
    lengths_N = np.sqrt(np.asarray(weights.multiply(weights).sum(axis=1)).ravel())
    weights = sp.diags(1 / np.maximum(lengths_N, 1e-9)) @ weights
    products = weights[sides.first_M].multiply(weights[sides.second_M]).sum(axis=1)
    found["tf-idf"] = np.asarray(products).ravel()
    mean_K, factor_K = steadiness(shares(known, order[:NUM_WORDS]), books)
    found["words"] = cosines((shares(asked, order[:NUM_WORDS]) - mean_K) * factor_K, sides)
    known, asked = of_sides(counts.bigrams_CK, train), of_sides(counts.bigrams_CK, sides)
    order = np.argsort(-np.asarray(known.sum(axis=0)).ravel(), kind="stable")[:NUM_BIGRAMS]
    mean_K, factor_K = steadiness(np.sqrt(shares(known, order)), books)
    found["bigrams"] = cosines((np.sqrt(shares(asked, order)) - mean_K) * factor_K, sides)
    return found


def measure(
    chunks: Chunks, counts: Counts, options: argparse.Namespace, split: int
) -> dict[tuple[str, int, str], float]:
    """AUC by question, chunks a side and row of the table."""
    train_authors, validation_authors, test_authors = hold_out(chunks, options.held_out, split)
    known, asked, seed = sorted(train_authors + validation_authors), test_authors, 99 + split
    if options.on == "validation":
        known, asked, seed = train_authors, validation_authors, 50_000 + split
    found = {}
    for task in options.tasks:
        for k in options.chunks_a_side:
            num_train, num_test = (NUM_TRAIN, NUM_TEST) if k == 1 else (NUM_TRAIN_WIDE, NUM_TEST_WIDE)
            train = sides_of(chunks, task, known, num_train, k, 10 * split)
            books = train.books(chunks)
            given, rows = seen(counts, train, books, train), dict(ROWS)
            if options.evidence:
                rows |= {WORDS: (WORDS,), f"{WORDS}, habits": (WORDS, "words", "bigrams")}
                evidence = PairEvidence.fit(
                    train.texts(chunks),
                    train.first_M,
                    train.second_M,
                    train.is_positive_M,
                    books=books,
                    language=options.language,
                )

                def log_odds(sides: Sides, evidence: PairEvidence = evidence) -> Floats:
                    return evidence.log_odds(
                        evidence.encode(sides.texts(chunks)), sides.first_M, sides.second_M
                    )

                given[WORDS] = log_odds(train)
            for question, (positives, negatives) in (
                draw_pairs(chunks, asked, num_test, k, Random(seed)).of(task).items()
            ):
                sides = Sides.of(positives, negatives)
                cosine = seen(counts, train, books, sides)
                found |= {(question, k, f"cosine: {name}"): sides.auc(each) for name, each in cosine.items()}
                if options.evidence:
                    cosine[WORDS] = log_odds(sides)
                for row, names in rows.items():
                    weighed = Regression.fit(
                        np.column_stack([given[name] for name in names]), train.is_positive_M, penalty=PENALTY
                    )
                    scores_M = weighed(np.column_stack([cosine[name] for name in names]))
                    found[question, k, row] = sides.auc(scores_M)
    return found


def main() -> None:
    """A line for each question, chunks a side and row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--language", default="en")
    parser.add_argument("--held-out", type=int, default=5)
    parser.add_argument("--splits", type=int, default=8)
    parser.add_argument("--tasks", nargs="+", default=["same_author"])
    parser.add_argument("--chunks-a-side", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--on", choices=("validation", "test"), default="test", help="authors to measure on")
    parser.add_argument("--evidence", action="store_true", help="rows of the product's evidence too")
    options = parser.parse_args()
    chunks = read_chunks(options.folder, options.language, mask=False)
    counts = count(chunks)
    found = defaultdict(list)
    for split in range(options.splits):
        for key, value in measure(chunks, counts, options, split).items():
            found[key].append(value)
    for (question, k, row), values in sorted(found.items()):
        mean, half = interval(values)
        base = found[question, k, "base"]
        gain, spread = interval([one - other for one, other in zip(values, base, strict=True)])
        print(
            f"{question:17} k={k:<2} {row:23} {mean:.3f} +- {half:.3f}  over the base {gain:+.3f} +- {spread:.3f}"
        )


if __name__ == "__main__":
    main()
