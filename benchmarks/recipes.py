"""The recipes on real tasks: ours and `transformers.Trainer` with one budget, over seeds, then calibration.

    python recipes/prepare.py all
    python benchmarks/recipes.py --record                            # on a CPU: hours
    python benchmarks/recipes.py --tasks bbc r8 --device cuda --jobs 6 --record

For each task and seed both sides train as recipes/TASK/recipe.toml says: the same base, rows, epochs, batch size,
AdamW, learning rate, warm-up, schedule, weight decay, clipping and length, bf16 on a GPU and fp32 on a CPU; each
validates after every epoch and keeps the checkpoint that the recipe's metric prefers. Each shuffles as it does, and
draws the new head as it does. Then ours is calibrated on the calibration rows, and both are evaluated on the test
rows, which nothing has looked at before.

Values are means over seeds, with a 95% interval by Student's t. Every seed has the same splits. Where the publisher
split, the figure is that of test rows without a near-duplicate among the training rows; `all_rows` in the details
is that of all of them. ECE has 15 bins of equal width.

A training is a process of its own, `--jobs` of them at a time; `--data` and `--base` name folders, nothing is
fetched. `--set learning_rate=2e-4` changes a recipe for both sides; such a result says so in its command.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _record import FOLDER, finish, parser

RECIPES = FOLDER.parent / "recipes"
TASKS = ("bbc", "r8", "newsgroups", "vader", "spam")
SIDES = ("ours", "trainer")
PACKAGES = ("assay", "torch", "transformers")
MAIN_METRICS = {"single_label": ("accuracy", "macro_f1"), "regression": ("spearman",)}
"""What is reported of a task."""
SHARED = {
    "epochs", "batch_size", "learning_rate", "weight_decay", "warmup_share", "schedule", "max_length", "best_by",
    "task",
}  # fmt: skip
"""Settings of a recipe that both sides know; another one would be an advantage of one side."""
_NOT_OF_A_TRAINING = {"data", "validation_data", "out", "group_column"}
_T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Student's t, 97.5%, by degrees of freedom from 1."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training of one side."""

    task: str
    seed: int
    side: str

    def __str__(self) -> str:
        """Its name, for people and for files."""
        return f"{self.task}-{self.side}-{self.seed}"


def main() -> None:
    """Train, evaluate, print; or do one job where `--one` says so."""
    flags = parser(__doc__, smoke="a tiny model and few rows")
    flags.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), metavar="TASK")
    flags.add_argument("--seeds", type=int, default=3, help="how many, from 0")
    flags.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    flags.add_argument(
        "--data", type=Path, default=RECIPES / "data", help="folder that recipes/prepare.py filled"
    )
    flags.add_argument("--base", type=Path, help="folder of MiniLM; default the installed package's")
    flags.add_argument("--limit", type=int, help="use so many rows of each split at most")
    flags.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    flags.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change every recipe")
    flags.add_argument("--one", nargs=3, metavar=("TASK", "SEED", "SIDE"), help=argparse.SUPPRESS)
    flags.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    arguments = flags.parse_args()
    if arguments.one:
        task, seed, side = arguments.one
        found = run_job(Job(task=task, seed=int(seed), side=side), arguments)
        arguments.result.write_text(json.dumps(found))
        return
    if arguments.record and (arguments.tiny or arguments.limit):
        raise SystemExit("--tiny and --limit are for trying out, nothing to record; leave --record out")
    missing = [task for task in arguments.tasks if not (arguments.data / task / "test.parquet").exists()]
    if missing:
        raise SystemExit(
            f"{arguments.data}: no {missing[0]}/test.parquet; prepare it: python recipes/prepare.py {missing[0]}"
        )
    jobs = [
        Job(task=task, seed=seed, side=side)
        for task in arguments.tasks
        for seed in range(arguments.seeds)
        for side in SIDES
    ]
    if arguments.device == "cuda":
        import torch  # noqa: F401 - so that the record names the GPU
    results = run_all(jobs, arguments)
    for task in arguments.tasks:
        report(task, {job: found for job, found in results.items() if job.task == task}, arguments)


# ------------------------------------------------------------ processes


def run_all(jobs: Sequence[Job], arguments: argparse.Namespace) -> dict[Job, dict[str, Any]]:
    """What each job found; exits with what it said where one fails."""
    cores = len(os.sched_getaffinity(0))
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(
            [
                str(FOLDER.parent / "src"),
                *filter(None, [os.environ.get("PYTHONPATH")]),
            ]
        ),
        # several trainings on one machine would each take all cores
        "OMP_NUM_THREADS": str(max(1, cores // arguments.jobs)),
    }
    with tempfile.TemporaryDirectory() as folder:

        def run(job: Job) -> dict[str, Any]:
            began = time.perf_counter()
            result = Path(folder) / f"{job}.json"
            command = [
                sys.executable,
                str(Path(__file__).resolve()),
                "--one",
                job.task,
                str(job.seed),
                job.side,
            ]
            command += ["--result", str(result), "--device", arguments.device, "--data", str(arguments.data)]
            command += ["--base", str(arguments.base)] if arguments.base else []
            command += ["--limit", str(arguments.limit)] if arguments.limit else []
            command += ["--tiny"] if arguments.tiny else []
            command += [word for change in arguments.set for word in ("--set", change)]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{job}: {done.stderr.strip()[-2000:]}")
            found: dict[str, Any] = json.loads(result.read_text())
            shown = ", ".join(f"{name} {value:.4f}" for name, value in found["test"].items())
            print(f"{job}: {shown}; {time.perf_counter() - began:.0f} s", flush=True)
            return found

        with ThreadPoolExecutor(arguments.jobs) as pool:
            try:
                return dict(zip(jobs, pool.map(run, jobs), strict=True))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


# ------------------------------------------------------------ one training


def run_job(job: Job, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train one side with one seed, evaluate it on the test rows; figures by name."""
    from _trainer import Recipe

    settings = read_recipe(job.task, arguments)
    recipe = Recipe(**settings, seed=job.seed, device=arguments.device)
    splits = {
        name: read_split(arguments, job.task, name, settings["task"])
        for name in ("train", "validation", "calibration", "test")
    }
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        base = tiny_base(place / "base", arguments) if arguments.tiny else base_folder(arguments)
        side = run_ours if job.side == "ours" else run_trainer
        return side(base, splits, recipe, place)


def read_recipe(task: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings of a recipe that a training has, changed as the flags say."""
    content = tomllib.loads((RECIPES / task / "recipe.toml").read_text(encoding="utf-8"))
    settings = {name: value for name, value in content.items() if name not in _NOT_OF_A_TRAINING}
    for change in arguments.set:
        name, _, value = change.partition("=")
        settings[name] = tomllib.loads(f"value = {value}")["value"]
    if arguments.tiny:
        # it must learn something to be calibrated
        settings |= {"epochs": 4, "max_length": 32, "learning_rate": 3e-3}
    if unknown := sorted(set(settings) - SHARED):
        raise SystemExit(f"recipes/{task}/recipe.toml sets {unknown[0]}, which Trainer has not; leave it out")
    return settings


def read_split(arguments: argparse.Namespace, task: str, split: str, kind: str) -> Any:  # noqa: ANN401
    """The rows of one split, and which of them count as unseen (all but test rows like a training row)."""
    import pyarrow.parquet as pq

    from assay.labelled.rows import LabelledRows

    table = pq.read_table(arguments.data / task / f"{split}.parquet")
    limit = arguments.limit or (200 if arguments.tiny else None)
    if limit is not None and limit < table.num_rows:  # evenly, so that all labels stay
        table = table.take([k * table.num_rows // limit for k in range(limit)])
    labels = table["label"].to_pylist()
    rows = LabelledRows(
        texts=tuple(table["text"].to_pylist()),
        labels=tuple(map(float, labels)) if kind == "regression" else tuple(map(str, labels)),
        groups=tuple(table["group"].to_pylist()),
        ids=tuple(table["id"].to_pylist()),
    )
    leaked = table["leaked"].to_pylist() if "leaked" in table.column_names else None
    return rows, leaked


def run_ours(base: Path, splits: Mapping[str, Any], recipe: Any, place: Path) -> dict[str, Any]:  # noqa: ANN401
    """Ours: fit, calibrate, evaluate."""
    from _trainer import train_ours

    from assay.bundle.load import load_bundle
    from assay.calibrate.calibrate import calibrate_rows, held_out_logits
    from assay.calibrate.settings import CalibrateSettings
    from assay.engine.load import load_engine
    from assay.outcome.maps import apply_calibration
    from assay.tasks import Task

    began = time.perf_counter()
    done = train_ours(base, splits["train"][0], splits["validation"][0], recipe, place / "model")
    seconds = time.perf_counter() - began
    settings = CalibrateSettings(bundle=str(place / "model"), data=(), device=recipe.device)
    engine = load_engine(place / "model", device=recipe.device)
    bundle = load_bundle(place / "model")
    rows, leaked = splits["test"]
    outputs = held_out_logits(settings, bundle, engine, rows)
    found = {"seconds": seconds, "validation": dict(done.best or {})}
    # The test rows are handed over to be refused where they share a row or a group with these, and for nothing else.
    own_test = None if leaked is not None else rows
    calibration = calibrate_rows(settings, bundle, engine, splits["calibration"][0], own_test).calibration
    if recipe.task == "regression":
        return {**found, **regression_figures(outputs, rows.labels, leaked, calibration.half_width)}
    calibrated = apply_calibration(outputs, calibration, Task(recipe.task))
    return {**found, **class_figures(outputs, rows.labels, leaked, bundle.labels, calibrated)}


def run_trainer(base: Path, splits: Mapping[str, Any], recipe: Any, place: Path) -> dict[str, Any]:  # noqa: ANN401
    """Trainer: train, take its best checkpoint, evaluate."""
    from _trainer import (
        load_classifier,
        load_tokenizer,
        predict_with_trainer,
        to_features,
        train_with_trainer,
    )

    from assay import metrics
    from assay.labelled.labels import label_names, to_targets

    train, validation = splits["train"][0], splits["validation"][0]
    rows, leaked = splits["test"]
    names = label_names(train.labels, recipe.task)
    tokenizer = load_tokenizer(base)

    def features(some: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - LabelledRows
        return to_features(
            tokenizer, some, to_targets(some.labels, recipe.task, names).tolist(), recipe.max_length
        )

    def metrics_of(prediction: Any) -> dict[str, float]:  # noqa: ANN401 - transformers' EvalPrediction
        if recipe.task == "regression":
            return {"spearman": metrics.spearman(prediction.predictions.reshape(-1), prediction.label_ids)}
        probabilities = metrics.softmax(prediction.predictions)
        return dict(metrics.class_report(probabilities, prediction.label_ids))

    began = time.perf_counter()
    model = load_classifier(base, recipe, names)
    done = train_with_trainer(
        model,
        tokenizer,
        features(train),
        recipe,
        place / "trainer",
        validation=features(validation),
        metrics_of=metrics_of,
    )
    seconds = time.perf_counter() - began
    outputs = predict_with_trainer(model, tokenizer, features(rows), recipe)
    found = {"seconds": seconds, "validation": dict(done.best or {})}
    if recipe.task == "regression":
        return {**found, **regression_figures(outputs, rows.labels, leaked)}
    return {**found, **class_figures(outputs, rows.labels, leaked, names, None)}


def class_figures(
    logits: Any,  # noqa: ANN401 - an array [N, C]
    labels: Sequence[str],
    leaked: Sequence[bool] | None,
    names: Sequence[str],
    calibrated: Any | None,  # noqa: ANN401 - an array [N, C]
) -> dict[str, Any]:
    """Test figures of the rows that count, and of all."""
    import numpy as np

    from assay import metrics

    index_of = {name: index for index, name in enumerate(names)}
    truth = np.array([index_of[label] for label in labels])
    plain = metrics.softmax(logits)

    def figures(chosen: Any) -> dict[str, float]:  # noqa: ANN401 - a mask [N]
        predicted = plain[chosen].argmax(axis=1)
        found = {
            "accuracy": metrics.accuracy(truth[chosen], predicted),
            "macro_f1": metrics.macro_f1(truth[chosen], predicted),
            "nll": metrics.nll(plain[chosen], truth[chosen]),
            "ece": metrics.ece(plain[chosen], truth[chosen]),
        }
        if calibrated is not None:
            found["calibrated_nll"] = metrics.nll(calibrated[chosen], truth[chosen])
            found["calibrated_ece"] = metrics.ece(calibrated[chosen], truth[chosen])
        return found

    return both(figures, leaked, len(truth))


def regression_figures(
    outputs: Any,  # noqa: ANN401 - an array [N, 1]
    labels: Sequence[float],
    leaked: Sequence[bool] | None,
    half_width: float | None = None,
) -> dict[str, Any]:
    """Test figures of the rows that count, and of all; with a `half_width`, the share inside the interval."""
    import numpy as np

    from assay import metrics

    truth, predicted = np.array(labels), np.asarray(outputs, dtype=np.float64).reshape(-1)

    def figures(chosen: Any) -> dict[str, float]:  # noqa: ANN401 - a mask [N]
        errors = predicted[chosen] - truth[chosen]
        found = {
            "spearman": metrics.spearman(predicted[chosen], truth[chosen]),
            "mae": float(np.abs(errors).mean()),
            "rmse": float(np.sqrt(np.square(errors).mean())),
        }
        if half_width is not None:
            found |= {"coverage": float((np.abs(errors) <= half_width).mean()), "half_width": half_width}
        return found

    return both(figures, leaked, len(truth))


def both(figures: Any, leaked: Sequence[bool] | None, num_rows: int) -> dict[str, Any]:  # noqa: ANN401 - a function
    """The figures of the rows that are like no training row, and of all where these are others."""
    import numpy as np

    everything = np.ones(num_rows, dtype=bool)
    if leaked is None:
        return {"test": figures(everything), "num_rows": num_rows}
    unseen = ~np.array(leaked, dtype=bool)
    return {
        "test": figures(unseen),
        "num_rows": int(unseen.sum()),
        "all_rows": {**figures(everything), "num_rows": num_rows},
    }


# ------------------------------------------------------------ models


def base_folder(arguments: argparse.Namespace) -> Path:
    """The folder of MiniLM."""
    from assay.train.corpus import base_model_folder

    return Path(arguments.base) if arguments.base else base_model_folder()


def tiny_base(folder: Path, arguments: argparse.Namespace) -> Path:
    """A tiny encoder with random weights and the base's tokenizer."""
    import shutil

    import torch
    from _words import quiet
    from transformers import AutoModel, BertConfig

    torch.manual_seed(0)
    with quiet():
        AutoModel.from_config(
            BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
        ).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        if (base_folder(arguments) / name).exists():
            shutil.copy(base_folder(arguments) / name, folder / name)
    return folder


# ------------------------------------------------------------ what it came to


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over seeds and the half-width of its 95% interval (Student's t)."""

    mean: float
    half: float

    def __str__(self) -> str:
        """As 0.9650 ± 0.0032; without the half-width where one seed gives none."""
        return f"{self.mean:.4f}" + (f" ± {self.half:.4f}" if math.isfinite(self.half) else "")


def interval(values: Sequence[float]) -> Interval:
    """The interval of some seeds' values; its half-width is infinite for a single one."""
    count = len(values)
    if count < 2:
        return Interval(mean=values[0], half=math.inf)
    t = _T_975[min(count - 1, len(_T_975)) - 1]
    return Interval(mean=statistics.fmean(values), half=t * statistics.stdev(values) / math.sqrt(count))


def verdict_of(gain: Interval) -> str:
    """What a difference to the baseline says, in words that do not hide a wide interval."""
    if gain.mean >= 0:
        return "not below"
    unclear = math.isfinite(gain.half) and gain.mean + gain.half >= 0
    return "below, within the interval" if unclear else "below"


def report(task: str, results: Mapping[Job, dict[str, Any]], arguments: argparse.Namespace) -> None:
    """Print a task's table and its result lines."""
    found = {side: [each for job, each in results.items() if job.side == side] for side in SIDES}
    kind = read_recipe(task, arguments)["task"]
    num_rows = found["ours"][0]["num_rows"]
    print(f"\n{task}: {len(found['ours'])} seeds, {num_rows:,} test rows")

    def of(side: str, metric: str, part: str = "test") -> list[float]:
        return [each[part][metric] for each in found[side]]

    for metric in MAIN_METRICS[kind]:
        ours, theirs = interval(of("ours", metric)), interval(of("trainer", metric))
        gain = interval(
            [one - other for one, other in zip(of("ours", metric), of("trainer", metric), strict=True)]
        )
        verdict = verdict_of(gain)
        print(f"  {metric:10} ours {ours}, Trainer {theirs}, difference {gain}: {verdict}")
        everything = (
            {side: str(interval(of(side, metric, "all_rows"))) for side in SIDES}
            if "all_rows" in found["ours"][0]
            else None
        )
        emit(
            arguments,
            f"recipes.{task}.{metric}",
            ours.mean,
            metric.replace("_", "-"),
            f"transformers.Trainer with the same budget: {theirs}",
            {
                "interval": str(ours),
                "difference": str(gain),
                "verdict": verdict,
                "seeds": of("ours", metric),
                "trainer_seeds": of("trainer", metric),
                "test_rows": num_rows,
                **({"all_rows": everything} if everything else {}),
                "validation": {
                    side: [each["validation"].get(metric) for each in found[side]] for side in SIDES
                },
                "training_seconds": {
                    side: round(statistics.median(each["seconds"] for each in found[side]), 1)
                    for side in SIDES
                },
            },
        )
    if kind == "regression":
        coverage = interval(of("ours", "coverage"))
        width = interval(of("ours", "half_width"))
        print(f"  coverage   {coverage} of the test rows lie within {width} of the prediction; 0.9 promised")
        emit(
            arguments,
            f"recipes.{task}.coverage",
            coverage.mean,
            "share",
            "promised by the calibration: 0.9",
            {
                "interval": str(coverage),
                "half_width": str(width),
                "seeds": of("ours", "coverage"),
                "mae": str(interval(of("ours", "mae"))),
                "trainer_mae": str(interval(of("trainer", "mae"))),
                "test_rows": num_rows,
            },
        )
        return
    before, after = interval(of("ours", "ece")), interval(of("ours", "calibrated_ece"))
    good = after.mean <= max(0.5 * before.mean, 0.02)
    print(
        f"  ECE        before {before}, after {after}, Trainer's {interval(of('trainer', 'ece'))}: "
        f"{'at most half of before, or 0.02' if good else 'more than half of before, and than 0.02'}"
    )
    emit(
        arguments,
        f"recipes.{task}.ece",
        after.mean,
        "ECE",
        f"the same model before calibration: {before}",
        {
            "interval": str(after),
            "seeds": of("ours", "calibrated_ece"),
            "before_seeds": of("ours", "ece"),
            "trainer": str(interval(of("trainer", "ece"))),
            "nll_before": str(interval(of("ours", "nll"))),
            "nll_after": str(interval(of("ours", "calibrated_nll"))),
            "test_rows": num_rows,
            **(
                {"all_rows": str(interval(of("ours", "calibrated_ece", "all_rows")))}
                if "all_rows" in found["ours"][0]
                else {}
            ),
        },
    )


def emit(
    arguments: argparse.Namespace,
    claim: str,
    value: float,
    unit: str,
    baseline: str,
    details: Mapping[str, object],
) -> None:
    """The result line of a claim; that of a trial says so in its name and is never kept."""
    finish(
        claim,
        value,
        unit,
        baseline,
        packages=PACKAGES,
        details=details,
        record=arguments.record,
        trial=arguments.tiny or arguments.limit is not None,
    )


if __name__ == "__main__":
    main()
