"""Same book, asked of books or authors seen in training: what a table with leaks would say of words and style.

    python recipes/novels/known_books.py british_fiction

As in a published pipeline of this kind: windows of 14 sentences that begin 10 apart, so that two may share sentences;
20 pairs of a book's windows and 40 of two books, of which 35% by one author; 70% of them for training, 15% to choose a
threshold by F1, 15% to test. Its negatives of the same period and of near embeddings are not made here: random ones
stand in for them, which are easier.

    pairs   split at random: books, and texts, are on both sides
    books   split by book: authors are on both sides (its own way)
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from chunk_pairs import Chunks, Side, Sides, interval, read_chunks

from assay.metrics import auc
from assay.siamese.evidence import PairEvidence

STEP, MOST, POSITIVES, NEGATIVES, SAME_AUTHOR = 10, 800, 20, 40, 0.35
SHARES = (0.7, 0.15)
"""For training and to choose a threshold; the rest is the test."""
Pair = tuple[Side, Side]
Labelled = list[tuple[Pair, bool]]


def pairs_of(chunks: Chunks, books: Sequence[str], draw: Random) -> Labelled:
    """The pairs of each of the books, with other books among them alone."""
    rows_of = {book: rows for book, rows in chunks.rows_of.items() if book in set(books)}
    author_of = dict(zip(chunks.books, chunks.authors, strict=True))
    found: Labelled = []
    for book in books:
        own = [other for other in books if other != book and author_of[other] == author_of[book]]
        foreign = [other for other in books if author_of[other] != author_of[book]]
        for _ in range(POSITIVES):
            one, two = draw.sample(rows_of[book], 2)
            found.append((((one,), (two,)), True))
        for _ in range(NEGATIVES):
            among = own if own and (not foreign or draw.random() < SAME_AUTHOR) else foreign
            pair = ((draw.choice(rows_of[book]),), (draw.choice(rows_of[draw.choice(among)]),))
            found.append((pair, False))
    return found


def parts_of(chunks: Chunks, split: str, draw: Random) -> list[Sides]:
    """Pairs to train on, to choose a threshold on and to test on."""
    books = sorted(chunks.rows_of)
    if split == "books":
        draw.shuffle(books)
        parts = [pairs_of(chunks, part, draw) for part in cut(books)]
    else:
        pairs = pairs_of(chunks, books, draw)
        draw.shuffle(pairs)
        parts = cut(pairs)
    return [
        Sides.of(
            [pair for pair, positive in part if positive], [pair for pair, positive in part if not positive]
        )
        for part in parts
    ]


def cut(rows: list[Any]) -> list[list[Any]]:
    """The rows in the shares of training, threshold and test."""
    first, second = (round(len(rows) * share) for share in (SHARES[0], sum(SHARES)))
    return [rows[:first], rows[first:second], rows[second:]]


def measure(chunks: Chunks, language: str, split: str, seed: int) -> dict[str, float]:
    """AUC, and F1 and accuracy at the threshold."""
    train, held, test = parts_of(chunks, split, Random(f"{split}-{seed}"))
    evidence = PairEvidence.fit(
        train.texts(chunks),
        train.first_M,
        train.second_M,
        train.is_positive_M,
        books=train.books(chunks),
        language=language,
    )
    held_M, test_M = (
        evidence.log_odds(evidence.encode(sides.texts(chunks)), sides.first_M, sides.second_M)
        for sides in (held, test)
    )
    threshold = max(held_M, key=lambda each: f1(held.is_positive_M, held_M >= each))
    return {
        "AUC": auc(test.is_positive_M, test_M),
        "F1": f1(test.is_positive_M, test_M >= threshold),
        "accuracy": float(np.mean((test_M >= threshold) == test.is_positive_M)),
        "pairs": float(len(test_M)),
    }


def f1(is_positive_M: np.ndarray, said_M: np.ndarray) -> float:
    """Of the positives; 0 where none is right."""
    right = int((is_positive_M & said_M).sum())
    return 2 * right / max(int(is_positive_M.sum() + said_M.sum()), 1)


def main() -> None:
    """A line for each split and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--language", default="en")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    chunks = read_chunks(options.folder, options.language, mask=False, step=STEP, most=MOST)
    for split in ("pairs", "books"):
        found = defaultdict(list)
        for seed in range(options.seeds):
            for name, value in measure(chunks, options.language, split, seed).items():
                found[name].append(value)
        pairs = np.mean(found.pop("pairs"))
        said = ", ".join("{} {:.3f} +- {:.3f}".format(name, *interval(each)) for name, each in found.items())
        print(f"split by {split}: {said}; {options.seeds} seeds, {pairs:.0f} test pairs", flush=True)


if __name__ == "__main__":
    main()
