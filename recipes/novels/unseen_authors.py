"""Same book or same author, asked of authors that no model has seen: words, a Siamese network, and both.

    python recipes/novels/unseen_authors.py british_fiction --language en --held-out 5 --splits 8
    python recipes/novels/unseen_authors.py british_fiction --language en --held-out 5 --splits 8 --base ENCODER

The second trains a network too, on the GPU with `--device cuda`; `--jobs` splits run at a time.

A folder holds a file a novel, named `Author_Title.txt`. Chunks are 14 sentences of normalised text, 60 a novel at
most. A split holds authors out; statistics, weights and thresholds come from the others alone. Every row of the
table is measured on the same pairs: 1,000 of a kind (400 where sides are several chunks), balanced over authors and
books, positives of the same book at least 28 sentences apart. Half of the mixed negatives are by the same author.
"""

import argparse
import json
import math
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from assay.books.normal_forms import find_names, mask_names, normalise_typography
from assay.books.sentences import split_sentences
from assay.labelled.rows import LabelledRows
from assay.metrics import auc
from assay.siamese.evidence import Combination, EvidenceTexts, PairEvidence
from assay.siamese.lexicon import SIMILARITIES, similarities

SENTENCES, MOST_CHUNKS, MIN_GAP = 14, 60, 28
NUM_TRAIN, NUM_TEST = 3_000, 1_000
NUM_TRAIN_WIDE, NUM_TEST_WIDE = 600, 400
"""Where a side is several chunks."""
REGRESSION, WORDS = "regression on TF-IDF, Delta, style", "words and style"
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
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


def read_chunks(folder: Path, language: str, *, mask: bool) -> Chunks:
    """The chunks of all novels of a folder; the first 14 sentences are left out, since titles stand there."""
    chunks = Chunks(texts=[], books=[], authors=[], places=[])
    for file in sorted(folder.glob("*.txt")):
        text = normalise_typography(file.read_text(encoding="utf-8", errors="replace"))
        if mask:
            text = mask_names(text, language, find_names(text, language))
        spans = split_sentences(text, language)
        found = []
        for first in range(SENTENCES, len(spans) - SENTENCES, SENTENCES):
            piece = text[spans[first, 0] : spans[first + SENTENCES - 1, 1]]
            if 200 <= len(piece) <= 6_000:
                found.append((first, piece))
        if len(found) > MOST_CHUNKS:
            found = sorted(Random(f"0{file.stem}").sample(found, MOST_CHUNKS))
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


Scorer = Callable[[Sides], Floats]


def without_network(chunks: Chunks, train: Sides, language: str) -> dict[str, Scorer]:
    """Cosines, a plain regression on three of them and the style, and the product's words and style."""
    evidence = PairEvidence.fit(
        train.texts(chunks),
        train.first_M,
        train.second_M,
        train.is_positive_M,
        books=train.books(chunks),
        language=language,
    )

    @lru_cache(maxsize=2)
    def encoded(sides: Sides) -> EvidenceTexts:
        return evidence.encode(sides.texts(chunks))

    def cosines(sides: Sides) -> Floats:
        return similarities(encoded(sides).lexical, sides.first_M, sides.second_M).astype(np.float64)

    used = [SIMILARITIES.index(name) for name in ("words", "delta_400", "delta_100")]
    regression = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1_000))

    def plainly_seen(sides: Sides) -> Floats:
        style_NF = encoded(sides).style_NF
        return np.hstack(
            [cosines(sides)[:, used], np.abs(style_NF[sides.first_M] - style_NF[sides.second_M])]
        )

    regression.fit(plainly_seen(train), train.is_positive_M)
    return {
        "TF-IDF cosine": lambda sides: cosines(sides)[:, SIMILARITIES.index("words")],
        "Cosine Delta": lambda sides: cosines(sides)[:, SIMILARITIES.index("delta_400")],
        REGRESSION: lambda sides: regression.decision_function(plainly_seen(sides)),
        WORDS: lambda sides: evidence.log_odds(encoded(sides), sides.first_M, sides.second_M),
    }


def network_of(
    chunks: Chunks, train: Sides, validation: Sides, options: argparse.Namespace, seed: int
) -> Scorer:
    """A Siamese network trained on single chunks, stopped on unseen authors; a side's vector is its chunks' mean."""
    from assay.siamese.pairs import load_siamese
    from assay.siamese.scoring import margins
    from assay.train.settings import TrainSettings
    from assay.train.train import fit

    def rows(sides: Sides) -> LabelledRows:
        texts, labels = sides.texts(chunks), np.where(sides.is_positive_M, "1", "0")
        return LabelledRows(
            texts=tuple(texts[row] for row in sides.first_M),
            text_pairs=tuple(texts[row] for row in sides.second_M),
            labels=tuple(labels.tolist()),
            keys={
                f"{name}{number}": tuple(column[sides.sides[row][0]] for row in rows_M)
                for name, column in (("book", chunks.books), ("author", chunks.authors))
                for number, rows_M in ((1, sides.first_M), (2, sides.second_M))
            },
        )

    folder = Path(tempfile.mkdtemp())
    values: dict[str, Any] = {
        "architecture": "siamese",
        "language": options.language,
        "text_pair_column": "text2",
        "book_columns": ("book1", "book2"),
        "author_columns": ("author1", "author2"),
        "max_length": options.max_length,
        "style": "none",
        "evidence": "none",
        "batch_size": 32,
        "epochs": 3,
        "evaluate_every": 40,
        "patience": 6,
        "best_by": "nll",
        "seed": seed,
        **dict(options.set),
    }
    settings = TrainSettings(
        base=options.base, out=str(folder / "model"), data=("pairs of novels",), **values
    )
    report = fit(settings, rows(train), rows(validation))
    print(f"  network: {report.best.step} steps, {report.seconds:.0f} s, {report.validation}", flush=True)
    model = load_siamese(folder / "model", device=options.device)
    shutil.rmtree(folder)
    encoded = model.encode(chunks.texts)

    def score(sides: Sides) -> Floats:
        means = np.stack([encoded.vectors_ND[list(side)].mean(axis=0) for side in sides.sides])
        whole = replace(
            encoded,
            vectors_ND=means / np.linalg.norm(means, axis=1, keepdims=True),
            style_NF=np.zeros((len(means), 0), dtype=np.float32),
        )
        return margins(model.score(whole, sides.first_M, sides.second_M).logits_MC)

    return score


def measure(chunks: Chunks, options: argparse.Namespace, split: int) -> list[tuple[str, int, str, float]]:
    """Question, k, row of the table and AUC of one split."""
    train_authors, validation_authors, test_authors = hold_out(chunks, options.held_out, split)
    known = sorted(train_authors + validation_authors)
    if options.on == "validation":
        known, test_authors = train_authors, validation_authors
    found: list[tuple[str, int, str, float]] = []
    print(
        f"split {split}: test {', '.join(test_authors)}; validation {', '.join(validation_authors)}",
        flush=True,
    )
    for task in ("same_book", "same_author"):
        question = "same author" if task == "same_author" else "same book, mixed"

        def sides_of(
            authors: Sequence[str], number: int, k: int, seed: int, name: str = question, task: str = task
        ) -> Sides:
            pairs = draw_pairs(chunks, authors, number, k, Random(seed))
            return Sides.of(*pairs.of(task)[name])

        network = None
        if options.base:
            network = network_of(
                chunks,
                sides_of(train_authors, NUM_TRAIN, 1, 10 * split),
                sides_of(validation_authors, NUM_TEST // 2, 1, 10 * split + 1),
                options,
                seed=options.seed,
            )
        for k in options.chunks_a_side:
            num_train, num_test = (NUM_TRAIN, NUM_TEST) if k == 1 else (NUM_TRAIN_WIDE, NUM_TEST_WIDE)
            all_known = sides_of(known, num_train, k, 10 * split)
            rows = without_network(chunks, all_known, options.language)
            if network is not None:
                trained_on = sides_of(train_authors, num_train, k, 10 * split)
                part = without_network(chunks, trained_on, options.language)[WORDS]
                held = sides_of(validation_authors, num_test, k, 10 * split + 2)
                combination = Combination.fit(network(held), part(held), held.is_positive_M)
                print(f"  k={k} {task}: {combination}", flush=True)
                whole = rows[WORDS]
                rows["Siamese network"] = network
                rows["network, words and style"] = lambda sides, c=combination, n=network, w=whole: c(
                    n(sides), w(sides)
                )
            test = draw_pairs(chunks, test_authors, num_test, k, Random(99 + split))
            for name, (positives, negatives) in test.of(task).items():
                sides = Sides.of(positives, negatives)
                found += [(name, k, row, sides.auc(score(sides))) for row, score in rows.items()]
    return found


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half width of its 95% t interval over splits; splits share authors, so the truth is wider."""
    from scipy.stats import t

    found = np.array(values)
    if len(found) < 2:
        return float(found.mean()), math.nan
    return float(found.mean()), float(
        t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / math.sqrt(len(found))
    )


CLAIMS = {
    "same_book_mixed_auc_1_chunk": ("same book, mixed", 1),
    "same_book_hard_auc_1_chunk": ("same book, hard", 1),
    "same_author_auc_1_chunk": ("same author", 1),
    "same_author_auc_8_chunks": ("same author", 8),
    "same_book_vs_same_author_auc_8_chunks": ("same book, hard", 8),
}
"""Questions and chunks a side, by the end of the claim's name."""


def record_claims(options: argparse.Namespace, found: Mapping[tuple[str, int, str], Sequence[float]]) -> None:
    """Print the claims that were measured, one JSON line each, and keep them under --record.

    All are of words and style, one way for every question; what a network adds or costs stands in the details.
    """
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    from _record import finish

    for end, (question, k) in CLAIMS.items():
        if (question, k, WORDS) not in found:
            continue
        means = {
            row: interval(values)
            for (name, size, row), values in found.items()
            if (name, size) == (question, k)
        }
        mean, half = means[WORDS]
        finish(
            f"books.{options.language}.{end}",
            mean,
            "AUC",
            f"{REGRESSION}: {means[REGRESSION][0]:.3f}",
            details={
                "half_width": round(half, 4),
                "splits": [round(value, 4) for value in found[question, k, WORDS]],
                "rows": {row: round(value, 4) for row, (value, _) in means.items()},
            },
            packages=("assay", "numpy"),
            record=options.record,
            trial=options.on == "validation",
        )


def main() -> None:
    """Print the table; with --out also every split's figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--language", default="en")
    parser.add_argument("--held-out", type=int, default=5)
    parser.add_argument("--splits", type=int, default=8)
    parser.add_argument("--first-split", type=int, default=0)
    parser.add_argument("--chunks-a-side", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--mask-names", action="store_true")
    parser.add_argument("--base", help="encoder to train a Siamese network from; none without it")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--max-length", type=int, default=384)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="NAME=JSON", help="other settings of the training"
    )
    parser.add_argument(
        "--on",
        choices=("validation", "test"),
        default="test",
        help="authors to measure on; validation to choose settings",
    )
    parser.add_argument("--record", action="store_true", help="append the claims to benchmarks/results.jsonl")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    options.set = [
        (name, json.loads(value)) for name, _, value in (each.partition("=") for each in options.set)
    ]
    chunks = read_chunks(options.folder, options.language, mask=options.mask_names)
    print(
        f"{len(chunks.texts)} chunks of {len(set(chunks.books))} novels by {len(set(chunks.authors))} authors"
    )
    found: dict[tuple[str, int, str], list[float]] = defaultdict(list)
    splits = range(options.first_split, options.first_split + options.splits)
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        for rows in pool.map(measure, repeat(chunks), repeat(options), splits):
            for name, k, row, value in rows:
                found[name, k, row].append(value)
    for (name, k, row), values in sorted(found.items()):
        mean, half = interval(values)
        print(f"{name:18} k={k:<2} {row:36} {mean:.3f} +- {half:.3f}")
    differences: list[dict[str, Any]] = []
    for (name, k, row), values in sorted(found.items()):
        base = found[name, k, REGRESSION]
        mean, half = interval([one - other for one, other in zip(values, base, strict=True)])
        differences.append(
            {
                "question": name,
                "chunks_a_side": k,
                "row": row,
                "aucs": values,
                "over_regression": mean,
                "half_width": half,
            }
        )
        print(f"{name:18} k={k:<2} {row:36} over the regression {mean:+.3f} +- {half:.3f}")
    record_claims(options, found)
    if options.out:
        options.out.write_text(
            json.dumps(
                {"options": {k: str(v) for k, v in vars(options).items()}, "rows": differences}, indent=1
            )
            + "\n"
        )


if __name__ == "__main__":
    main()
