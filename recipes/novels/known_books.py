"""Same book, asked of books or authors seen in training: what a table with leaks would say.

    python recipes/novels/known_books.py british_fiction
    python recipes/novels/known_books.py british_fiction --base ENCODER --device cuda --jobs 6

The first measures words and style, the second also a cross-encoder and a Siamese network, each trained by `assay train`
for five epochs and stopped on the threshold's pairs; `--jobs` splits run at a time.

As in a published pipeline of this kind: windows of 14 sentences that begin 10 apart, so that two may share sentences;
20 pairs of a book's windows and 40 of two books, of which 35% by one author; 70% of them for training, 15% to choose a
threshold by F1, 15% to test. Its negatives of the same period and of near embeddings are not made here: random ones
stand in for them, which are easier.

    pairs   split at random: books, and texts, are on both sides
    books   split by book: authors are on both sides (its own way)
"""

import argparse
import json
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from chunk_pairs import Chunks, Side, Sides, interval, read_chunks
from scorers import (
    CROSS_ENCODER,
    SIAMESE,
    WORDS,
    Floats,
    Scorer,
    cross_scorer,
    labelled,
    siamese_scorer,
    train_network,
)

from assay.metrics import auc
from assay.siamese.evidence import PairEvidence

STEP, MOST, POSITIVES, NEGATIVES, SAME_AUTHOR = 10, 800, 20, 40, 0.35
SPLITS = ("books", "pairs")
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


NETWORKS: dict[str, tuple[dict[str, Any], Any]] = {
    "cross-encoder": (dict(CROSS_ENCODER), cross_scorer),
    "Siamese network": (dict(SIAMESE), siamese_scorer),
}
"""Settings and scorer of each."""
TRAINING: dict[str, Any] = {"epochs": 5, "batch_size": 16, "best_by": "auc"}


def measure(
    chunks: Chunks, options: argparse.Namespace, split: str, seed: int
) -> dict[str, dict[str, float]]:
    """AUC of each row of the table, and F1 and accuracy at its threshold."""
    train, held, test = parts_of(chunks, split, Random(f"{split}-{seed}"))
    found = {WORDS: figures(words_and_style(chunks, train, options.language), held, test)}
    for name, (settings, scorer) in NETWORKS.items() if options.base else ():
        # books are on both sides of pairs, which training refuses where it knows them
        known = {
            key: value for key, value in settings.items() if split == "books" or not key.endswith("_columns")
        }
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "model"
            train_network(
                labelled(chunks, train),
                labelled(chunks, held),
                out,
                base=options.base,
                language=options.language,
                settings={**known, **TRAINING, "seed": seed, **dict(options.set)},
            )
            found[name] = figures(scorer(chunks, out, options.device), held, test)
    return found


def words_and_style(chunks: Chunks, train: Sides, language: str) -> Scorer:
    """The product's evidence, without a network."""
    evidence = PairEvidence.fit(
        train.texts(chunks),
        train.first_M,
        train.second_M,
        train.is_positive_M,
        books=train.books(chunks),
        language=language,
    )

    def score(sides: Sides) -> Floats:
        return evidence.log_odds(evidence.encode(sides.texts(chunks)), sides.first_M, sides.second_M)

    return score


def figures(score: Scorer, held: Sides, test: Sides) -> dict[str, float]:
    """AUC, and F1 and accuracy at the threshold with the best F1 on the held pairs."""
    held_M, test_M = score(held), score(test)
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
    parser.add_argument("--base", help="encoder that both networks start from; without it there are none")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=JSON", help="other training settings")
    options = parser.parse_args()
    options.set = [
        (name, json.loads(value)) for name, _, value in (each.partition("=") for each in options.set)
    ]
    chunks = read_chunks(options.folder, options.language, mask=False, step=STEP, most=MOST)
    splits = [split for split in SPLITS for _ in range(options.seeds)]
    seeds = [*range(options.seeds)] * len(SPLITS)
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        measured = pool.map(measure, repeat(chunks), repeat(options), splits, seeds)
        for split in SPLITS:
            found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
            for _ in range(options.seeds):
                for row, of_row in next(measured).items():
                    for name, value in of_row.items():
                        found[row][name].append(value)
            for row, values in found.items():
                pairs = np.mean(values.pop("pairs"))
                said = ", ".join(
                    "{} {:.3f} +- {:.3f}".format(name, *interval(each)) for name, each in values.items()
                )
                print(
                    f"split by {split}: {row:15}  {said}; {options.seeds} seeds, {pairs:.0f} test pairs",
                    flush=True,
                )


if __name__ == "__main__":
    main()
