"""Same book or same author, asked of authors that no model has seen: words, a Siamese network, and both.

    python recipes/novels/unseen_authors.py british_fiction --language en --held-out 5 --splits 8
    python recipes/novels/unseen_authors.py british_fiction --language en --held-out 5 --splits 8 --base ENCODER

The second trains a network too, on the GPU with `--device cuda`; `--jobs` splits run at a time.

A split holds authors out; statistics, weights and thresholds come from the others alone. Every row of the table is
measured on the same pairs: 1,000 of a kind (400 where sides are several chunks). Half of the mixed negatives are by
the same author.
"""

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

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
from scorers import (
    REGRESSION,
    SIAMESE,
    WORDS,
    Scorer,
    labelled,
    siamese_scorer,
    train_network,
    without_network,
    zero_shot_scorer,
)

from assay.siamese.evidence import Combination


def network_of(chunks: Chunks, train: Sides, validation: Sides, options: argparse.Namespace) -> Scorer:
    """A Siamese network trained on single chunks."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "model"
        train_network(
            labelled(chunks, train),
            labelled(chunks, validation),
            out,
            base=options.base,
            language=options.language,
            settings={**SIAMESE, "max_length": options.max_length, "seed": options.seed, **dict(options.set)},
        )
        return siamese_scorer(chunks, out, options.device)


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
    zero_shot = None
    if options.zero_shot:
        zero_shot = zero_shot_scorer(chunks, options.zero_shot, options.device)
    for task in ("same_book", "same_author"):

        def drawn(authors: Sequence[str], number: int, k: int, seed: int, task: str = task) -> Sides:
            return sides_of(chunks, task, authors, number, k, seed)

        network = None
        if options.base:
            network = network_of(
                chunks,
                drawn(train_authors, NUM_TRAIN, 1, 10 * split),
                drawn(validation_authors, NUM_TEST // 2, 1, 10 * split + 1),
                options,
            )
        for k in options.chunks_a_side:
            num_train, num_test = (NUM_TRAIN, NUM_TEST) if k == 1 else (NUM_TRAIN_WIDE, NUM_TEST_WIDE)
            all_known = drawn(known, num_train, k, 10 * split)
            rows = without_network(chunks, all_known, options.language, ablation=options.ablation)
            if zero_shot is not None:
                rows["encoder, zero-shot"] = zero_shot
            if network is not None:
                trained_on = drawn(train_authors, num_train, k, 10 * split)
                part = without_network(chunks, trained_on, options.language)[WORDS]
                held = drawn(validation_authors, num_test, k, 10 * split + 2)
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
    parser.add_argument("--ablation", action="store_true", help="rows of the evidence without style or words")
    parser.add_argument("--zero-shot", metavar="ENCODER", help="a row of an encoder that no pair has trained")
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
