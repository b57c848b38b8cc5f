"""A cross-encoder beside the other rows, and a cascade whose first stage is the Siamese network with words and style.

    python recipes/novels/two_stages.py british_fiction --base ENCODER --out two_stages --device cuda --jobs 8

Each job is a task, a split by author and a seed. Both networks are trained by `assay train` on the pairs of the table
of unseen_authors.py and stopped on the same validation authors. All rows are measured on that table's test pairs. Of
its five test authors two then give the pairs on which `assay cascade tune` chooses thresholds, and three the pairs on
which the cascade is measured, all stages on the same ones.

Two cascades: one keeps 95% of the positives (`assay cascade tune`), one is the cheapest on the tuner's two-sided curve
that keeps 99% of the best AUC found on the tuning pairs: that of the second stage alone, or of both on every pair.

After the jobs, each cascade is timed by itself: seconds of the cross-encoder on all pairs, and of the cascade.
Lines of JSON go to the folder `--out` as jobs end, all seeds and tasks of a split before the next split; the same
folder again goes on with the jobs that it lacks.
cascade_tables.py prints the tables of such a folder again.
"""

import argparse
import itertools
import json
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from cascade_tables import (
    AT_RECALL,
    BOTH_ROW,
    CASCADE,
    CROSS_ROW,
    FIRST,
    RECALL,
    SIAMESE_ROW,
    claims_of,
    print_costs,
    print_tables,
)
from chunk_pairs import (
    MOST_CHUNKS,
    NUM_TEST,
    NUM_TEST_WIDE,
    NUM_TRAIN,
    Chunks,
    Ints,
    Sides,
    draw_pairs,
    hold_out,
    read_chunks,
    sides_of,
)
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
    without_network,
    zero_shot_scorer,
)
from timed_jobs import Lines, append_lines, read_lines, run_jobs

from assay.cascade.settings import CascadeTuneSettings
from assay.cascade.stages import open_stages
from assay.cascade.tune import cascade_tune
from assay.metrics import auc
from assay.score.cascade.bundle import read_cascade
from assay.score.cascade.decide import Thresholds, answer, combined
from assay.score.cascade.files import CascadeFile, read_cascade_file, write_cascade
from assay.score.classifier import load
from assay.siamese.evidence import Combination

HELD_OUT, NUM_TUNED_ON = 5, 2
NUM_CASCADE, NUM_TIMED = 2_000, 10_000
"""Pairs of a kind that the cascade is measured and timed on, before pairs drawn twice are left out.

The second makes some 45 pairs a chunk: a first stage that encodes each text once is for pairs that share texts.
"""
KEPT_AUC = 0.99
ROUNDS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What one process does at a time."""

    task: str
    split: int
    seed: int

    @property
    def name(self) -> str:
        """Of its folder and in its lines."""
        return f"{self.task}-{self.split}-{self.seed}"


class Shared:
    """What each process is given once."""

    chunks: Chunks
    options: argparse.Namespace


def share(chunks: Chunks, options: argparse.Namespace) -> None:
    """Called in each process before its first job."""
    Shared.chunks, Shared.options = chunks, options


def authors_of_cascade(chunks: Chunks, test: Sequence[str], draw: Random) -> tuple[list[str], list[str]]:
    """Two of the test authors to tune on and the others to measure on; each has someone with two novels."""
    splits = [
        (list(two), [author for author in test if author not in two])
        for two in itertools.combinations(test, NUM_TUNED_ON)
    ]
    books_of = chunks.books_of
    fit = [both for both in splits if all(any(len(books_of[author]) > 1 for author in part) for part in both)]
    return draw.choice(fit)


def distinct(pairs: Sequence[Any]) -> list[Any]:
    """The pairs in order, each once."""
    return list(dict.fromkeys(pairs))


def text_pairs(chunks: Chunks, sides: Sides) -> list[tuple[str, str]]:
    """Both texts of each pair."""
    texts = sides.texts(chunks)
    return [(texts[one], texts[two]) for one, two in zip(sides.first_M, sides.second_M, strict=True)]


# ---------------------------------------------------------------- one job


def work(job: Job) -> Lines:
    """The rows of a split's table and of its cascade."""
    chunks, options = Shared.chunks, Shared.options
    began = time.monotonic()
    train_authors, validation_authors, test_authors = hold_out(chunks, HELD_OUT, job.split)
    train = sides_of(chunks, job.task, train_authors, options.num_train, 1, 10 * job.split)
    validation = sides_of(chunks, job.task, validation_authors, options.num_test // 2, 1, 10 * job.split + 1)
    folder = options.models / job.name
    shutil.rmtree(folder, ignore_errors=True)
    for name, settings in (("first", {**SIAMESE, "evidence": "words"}), ("second", CROSS_ENCODER)):
        train_network(
            labelled(chunks, train),
            labelled(chunks, validation),
            folder / name,
            base=options.base,
            language=options.language,
            settings={**settings, "seed": job.seed, **dict(options.set)},
        )
    trained = time.monotonic()
    lines = table(job, train_authors, validation_authors, test_authors, folder)
    lines += cascade(job, test_authors, folder)
    for line in lines:
        line |= {"task": job.task, "split": job.split, "seed": job.seed}
    lines.append(
        {
            "kind": "done",
            "job": job.name,
            "train_seconds": trained - began,
            "seconds": time.monotonic() - began,
        }
    )
    return lines


def table(
    job: Job,
    train_authors: Sequence[str],
    validation_authors: Sequence[str],
    test_authors: Sequence[str],
    folder: Path,
) -> Lines:
    """All rows on the test pairs of unseen_authors.py."""
    chunks, options = Shared.chunks, Shared.options
    known = sorted([*train_authors, *validation_authors])
    networks = {
        SIAMESE_ROW: siamese_scorer(chunks, folder / "first", options.device),
        CROSS_ROW: cross_scorer(chunks, folder / "second", options.device),
    }
    lines: Lines = []
    is_first_seed = job.seed == options.seeds[0]
    zero_shot = zero_shot_scorer(chunks, options.base, options.device) if is_first_seed else None
    for k in options.chunks_a_side if is_first_seed else [1]:
        num_test = options.num_test if k == 1 else options.num_test_wide
        rows: dict[str, Scorer] = dict(networks)
        if k == 1:  # of more chunks unseen_authors.py has these rows

            def drawn(authors: Sequence[str], number: int, seed: int) -> Sides:
                return sides_of(chunks, job.task, authors, number, 1, seed)

            whole, part = (
                without_network(chunks, drawn(authors, options.num_train, 10 * job.split), options.language)
                for authors in (known, train_authors)
            )
            held = drawn(validation_authors, num_test, 10 * job.split + 2)
            words_M = part[WORDS](held)
            if is_first_seed:  # they draw nothing
                rows |= whole
            for name, scorer in networks.items():
                both = Combination.fit(scorer(held), words_M, held.is_positive_M)
                rows[f"{name}, words and style"] = lambda sides, c=both, n=scorer, w=whole[WORDS]: c(
                    n(sides), w(sides)
                )
        if zero_shot is not None:
            rows["encoder, zero-shot"] = zero_shot
        test = draw_pairs(chunks, test_authors, num_test, k, Random(99 + job.split))
        for question, (positives, negatives) in test.of(job.task).items():
            sides = Sides.of(positives, negatives)
            lines += [
                {"kind": "row", "question": question, "k": k, "row": row, "auc": sides.auc(score(sides))}
                for row, score in rows.items()
            ]
    return lines


def cascade(job: Job, test_authors: Sequence[str], folder: Path) -> Lines:
    """The cascade tuned on two of the test authors and measured on the others."""
    chunks, options = Shared.chunks, Shared.options
    tuned_on, measured_on = authors_of_cascade(chunks, test_authors, Random(f"{job.split}-{job.seed}"))
    tuning = sides_of(chunks, job.task, tuned_on, options.num_test, 1, 20_000 + job.split)
    texts = text_pairs(chunks, tuning)
    rows = pa.table(
        {
            "text1": [one for one, _ in texts],
            "text2": [two for _, two in texts],
            "label": np.where(tuning.is_positive_M, "1", "0").tolist(),
        }
    )
    pq.write_table(rows, folder / "tuning.parquet")

    def tune(out: str, *, two_sided: bool) -> CascadeFile:
        cascade_tune(
            CascadeTuneSettings(
                first=str(folder / "first"),
                second=str(folder / "second"),
                data=(str(folder / "tuning.parquet"),),
                out=str(folder / out),
                recall=RECALL,
                two_sided=two_sided,
                device=options.device,
            )
        )
        return read_cascade_file(folder / out)

    at_recall = tune("recall.json", two_sided=False)
    two_sided = tune("curve.json", two_sided=True)
    cheapest, why = cheapest_that_keeps(two_sided, json.loads((folder / "curve.json").read_text()))
    write_cascade(str(folder / "cheapest.json"), cheapest, {"chosen": why})
    sides, questions = cascade_sides(chunks, job.task, measured_on, options.num_cascade)
    stages = open_stages(folder / "first", folder / "second", device=options.device)
    both_M = [stage.probabilities(text_pairs(chunks, sides), "1")[0] for stage in stages]
    lines: Lines = []
    for question, picked in questions.items():
        first_M, second_M = (each_M[picked] for each_M in both_M)
        found: dict[str, tuple[Floats, float]] = {
            FIRST: (first_M, 0.0),
            CROSS_ROW: (second_M, 1.0),
            BOTH_ROW: (combined(two_sided.combination, first_M, second_M), 1.0),
        }
        for name, tuned in ((AT_RECALL, at_recall), (CASCADE, cheapest)):
            answers = answer(
                tuned.thresholds,
                first_M,
                lambda rows, second_M=second_M: second_M[rows],
                lambda one, two, _, tuned=tuned: combined(tuned.combination, one, two),
            )
            found[name] = answers.final_M, float(answers.goes_on_M.mean())
        lines += [
            {
                "kind": "cascade",
                "question": question,
                "row": row,
                "auc": auc(sides.is_positive_M[picked], scores_M),
                "share_to_second": share_on,
                "pairs": len(picked),
                "tuned_on": tuned_on,
                "measured_on": measured_on,
            }
            for row, (scores_M, share_on) in found.items()
        ]
    return lines


def cascade_sides(
    chunks: Chunks, task: str, authors: Sequence[str], number: int
) -> tuple[Sides, dict[str, Ints]]:
    """The pairs that a cascade is measured on, each once, and the rows of each question."""
    pairs = draw_pairs(chunks, authors, number, 1, Random(30_000))
    kinds = [distinct(each) for each in (pairs.same_book, pairs.same_author, pairs.others)]
    same_book, same_author, others = kinds
    if task == "same_author":
        sides = Sides.of(same_author, others)
        return sides, {"same author": np.arange(len(sides.first_M))}
    sides = Sides.of(same_book, [*same_author, *others])
    positives, hard, easy = np.split(
        np.arange(len(sides.first_M)), np.cumsum([len(same_book), len(same_author)])
    )
    half = len(same_book) // 2
    return sides, {
        "same book, mixed": np.concatenate([positives, hard[:half], easy[:half]]),
        "same book, hard": np.concatenate([positives, hard]),
    }


def cheapest_that_keeps(tuned: CascadeFile, found: dict[str, Any]) -> tuple[CascadeFile, dict[str, Any]]:
    """The cheapest point of a tuner's curve that keeps so much of the best AUC, and what it says of it."""
    curve, alone = found["curve"], found["alone"]
    best = max(alone["second"]["auc"], *(point["auc"] for point in curve if point["share"] > 0.99), 0.0)
    kept = [point for point in curve if point["auc"] >= KEPT_AUC * best]
    point = min(kept, key=lambda each: each["share"]) if kept else max(curve, key=lambda each: each["auc"])
    thresholds = Thresholds(low=point["low"], high=point["high"])
    return replace(tuned, thresholds=thresholds), {**point, "best_auc": best}


# ---------------------------------------------------------------- cost, by itself


def time_cascade(job: Job) -> Lines:
    """Seconds of each way on the same pairs, the faster of two rounds; the models are loaded before."""
    chunks, options = Shared.chunks, Shared.options
    folder = options.models / job.name
    test_authors = hold_out(chunks, HELD_OUT, job.split)[2]
    _, measured_on = authors_of_cascade(chunks, test_authors, Random(f"{job.split}-{job.seed}"))
    sides, questions = cascade_sides(chunks, job.task, measured_on, options.num_timed)
    question, picked = next(iter(questions.items()))
    texts = text_pairs(chunks, sides)
    pairs, is_positive_M = [texts[row] for row in picked], sides.is_positive_M[picked]
    cheap, careful = (load(folder / name, device=options.device) for name in ("cheapest.json", "recall.json"))
    tuned = read_cascade(folder / "cheapest.json")
    first, second = open_stages(tuned.first.path, tuned.second.path, device=options.device)
    few = draw_pairs(chunks, measured_on, NUM_TEST // 10, 1, Random(1))
    few_pairs = text_pairs(chunks, Sides.of(few.same_author, few.others))
    ways = {
        CROSS_ROW: lambda given: second.probabilities(given, "1"),
        FIRST: lambda given: first.probabilities(given, "1"),
        CASCADE: cheap.predict,
        AT_RECALL: careful.predict,
    }
    lines: Lines = []
    for given in (pairs, few_pairs):
        seconds = defaultdict(list)
        for way in ways.values():
            way(given[:64])
        for _ in range(ROUNDS):
            for name, way in ways.items():
                began = time.perf_counter()
                found = way(given)
                seconds[name].append(time.perf_counter() - began)
                if name == CASCADE:
                    answers = found
        fastest = {name: min(each) for name, each in seconds.items()}
        line = {
            "kind": "cost",
            "task": job.task,
            "split": job.split,
            "seed": job.seed,
            "question": question,
            "pairs": len(given),
            "texts": len({text for pair in given for text in pair}),
            "is_large": given is pairs,
            "seconds": fastest,
            "over_cross_encoder": {name: each / fastest[CROSS_ROW] for name, each in fastest.items()},
        }
        if given is pairs:
            line["share_to_second"] = np.mean(
                [stage == "two-stage" for stage in answers["stage"].to_pylist()]
            )
            line["auc"] = auc(is_positive_M, answers["final_probability"].to_numpy())
        lines.append(line)
    return lines


def record(lines: Lines, options: argparse.Namespace) -> None:
    """The claims of the lines, printed, and kept under `--record`."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    from _record import finish

    for claim in claims_of(lines):
        finish(
            claim.name,
            claim.value,
            "x",
            claim.baseline,
            details=claim.details,
            packages=("assay", "torch", "transformers", "numpy"),
            record=options.record,
            trial=options.tiny,
        )


def main() -> None:
    """Jobs, then the cost of each cascade by itself, then the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--base", required=True, help="encoder that both networks start from")
    parser.add_argument("--out", type=Path, required=True, help="folder of results")
    parser.add_argument("--models", type=Path, help="folder of the models; by default they are not kept")
    parser.add_argument("--language", default="en")
    parser.add_argument("--splits", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", nargs="+", default=["same_book", "same_author"])
    parser.add_argument("--chunks-a-side", type=int, nargs="+", default=[1, 4, 8], help="of the first seed")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1e9, help="stop in time to print the tables")
    parser.add_argument("--timing-seconds", type=float, default=100, help="of those, for the costs")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=JSON", help="other training settings")
    parser.add_argument("--tiny", action="store_true", help="few pairs and steps: a smoke test, no result")
    parser.add_argument("--record", action="store_true", help="append the claims to benchmarks/results.jsonl")
    options = parser.parse_args()
    began = time.monotonic()
    options.set = [
        (name, json.loads(value)) for name, _, value in (each.partition("=") for each in options.set)
    ]
    options.num_train, options.num_test = NUM_TRAIN, NUM_TEST
    options.num_test_wide, options.most_chunks = NUM_TEST_WIDE, MOST_CHUNKS
    options.num_cascade, options.num_timed = NUM_CASCADE, NUM_TIMED
    if options.tiny:
        options.num_train, options.num_test, options.num_test_wide = 40, 60, 10
        options.num_cascade, options.num_timed, options.most_chunks = 80, 120, 16
    options.out.mkdir(parents=True, exist_ok=True)
    kept = options.models
    options.models = kept or Path(tempfile.mkdtemp())
    file = options.out / "lines.jsonl"
    chunks = read_chunks(options.folder, options.language, mask=False, most=options.most_chunks)
    print(f"{len(chunks.texts)} chunks of {len(set(chunks.books))} novels, {time.monotonic() - began:.0f} s")
    done = {line["job"] for line in read_lines(file) if line["kind"] == "done"}
    jobs = [
        Job(task=task, split=split, seed=seed)
        for split in range(options.splits)
        for task in options.tasks
        for seed in options.seeds
    ]
    for lines in run_jobs(
        [job for job in jobs if job.name not in done],
        work,
        num_processes=options.jobs,
        initializer=share,
        initargs=(chunks, options),
        until=began + options.seconds - options.timing_seconds,
    ):
        append_lines(file, lines)
        done.add(lines[-1]["job"])
        aucs = {line["row"]: round(line["auc"], 3) for line in lines if line["kind"] == "cascade"}
        print(f"{time.monotonic() - began:4.0f} s {lines[-1]['job']}: {aucs}", flush=True)
    print_tables(read_lines(file))
    share(chunks, options)
    for job in jobs:
        has_models = (options.models / job.name / "cheapest.json").exists()
        if job.name in done and has_models and time.monotonic() - began < options.seconds - 40:
            append_lines(file, time_cascade(job))
    if kept is None:
        shutil.rmtree(options.models)
    lines = read_lines(file)
    print_costs(lines)
    record(lines, options)


if __name__ == "__main__":
    main()
