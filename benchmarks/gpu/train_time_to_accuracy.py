"""Time to a given validation accuracy on a real task: ours against `transformers.Trainer`, MiniLM.

    python recipes/prepare.py newsgroups
    python benchmarks/gpu/train_time_to_accuracy.py --record
    python benchmarks/gpu/train_time_to_accuracy.py --task r8 --target-accuracy 0.97 --data DIR --base DIR

The clock runs from the call, with texts in memory, to the end of the first validation that reaches the target: so
it holds tokenizing, loading the model, recording what a GPU replays, training, and every validation until then.
Imports are done and the device is awake on both sides. Both train as recipes/TASK/recipe.toml says (same base,
rows, batch, AdamW, schedule, bf16) and validate all validation rows each so many steps. Each shuffles as it does.

Trainer pads to the longest of a batch, has the fused optimizer, logs nothing, saves nothing, and takes 0 or 4 loader
processes, whichever is faster. Each round has its seed on both sides, and ends on each once the target is reached; the
schedule is that of all the recipe's epochs, and a side that does not get there within them ends the benchmark. How
many steps that takes depends on the seed: the details give them. The value is the median over rounds of ours over
Trainer, below 1 means faster; the first round, in which kernels are compiled, is shown and left out.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from _setup import chosen_device, finish, free_memory, parser
from _trainer import (
    Recipe,
    Training,
    load_classifier,
    load_tokenizer,
    to_features,
    train_ours,
    train_with_trainer,
)
from recipes import RECIPES, base_folder, read_recipe, read_split, tiny_base

from assay import metrics
from assay.labelled.labels import label_names, to_targets

TARGETS = {"newsgroups": 0.80, "r8": 0.96, "bbc": 0.95}
"""Validation accuracy that Trainer reaches well before the recipe's end."""


class Reached(NamedTuple):
    """The first validation at the target."""

    seconds: float
    steps: int


def main() -> None:
    """Train both in turn, print how the accuracy rose, and the ratio of times."""
    flags = parser(__doc__)
    flags.add_argument("--task", choices=TARGETS, default="newsgroups")
    flags.add_argument("--target-accuracy", type=float)
    flags.add_argument(
        "--data", type=Path, default=RECIPES / "data", help="folder that recipes/prepare.py filled"
    )
    flags.add_argument("--base", type=Path, help="folder of MiniLM; default the installed package's")
    flags.add_argument("--evaluations", type=int, default=5, help="validations an epoch")
    flags.add_argument("--limit", type=int, help="use so many rows of each split at most")
    flags.add_argument("--rounds", type=int, default=3)
    flags.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change the recipe")
    arguments = flags.parse_args()
    device = chosen_device(arguments)
    if arguments.limit and arguments.record:
        raise SystemExit("--limit is for trying out, nothing to record; leave --record out")
    if not (arguments.data / arguments.task / "train.parquet").exists():
        raise SystemExit(
            f"{arguments.data}: no {arguments.task}/train.parquet; python recipes/prepare.py {arguments.task}"
        )
    target = arguments.target_accuracy or (0.01 if arguments.tiny else TARGETS[arguments.task])
    settings = read_recipe(arguments.task, arguments)
    splits = {
        name: read_split(arguments, arguments.task, name, settings["task"])[0]
        for name in ("train", "validation")
    }
    num_steps = -(-splits["train"].num_rows // settings["batch_size"])
    recipe = Recipe(
        **{**settings, "best_by": "accuracy"},
        device=device.type,
        evaluate_every=max(1, num_steps // arguments.evaluations),
    )
    print(
        f"{arguments.task}: {splits['train'].num_rows:,} rows, {splits['validation'].num_rows:,} validation rows "
        f"each {recipe.evaluate_every} steps of {recipe.num_steps(splits['train'].num_rows):,}; target {target}"
    )
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        base = tiny_base(place / "base", arguments) if arguments.tiny else base_folder(arguments)
        workers = 0
        if device.type == "cuda":
            trainer(
                base, splits, recipe, place, num_workers=0, until=target
            )  # not counted: kernels are compiled
            tried = {
                count: reached(
                    "Trainer", trainer(base, splits, recipe, place, num_workers=count, until=target), target
                )
                for count in (0, 4)
            }
            workers = min(tried, key=lambda count: tried[count].seconds)
            print(f"Trainer is fastest with {workers} loader processes")
        for turn in range(arguments.rounds + 1):
            seeded = replace(recipe, seed=turn)
            ours = train_ours(
                base, splits["train"], splits["validation"], seeded, place / f"ours-{turn}", until=target
            )
            free_memory(device)
            theirs = trainer(base, splits, seeded, place, num_workers=workers, until=target)
            free_memory(device)
            found = reached("ours", ours, target), reached("Trainer", theirs, target)
            print(
                f"  round {turn}: ours {found[0].seconds:.1f} s, Trainer {found[1].seconds:.1f} s", flush=True
            )
            pairs.append(found)
    finish_with(arguments, pairs[1:], pairs[0], target, recipe, workers)


def trainer(
    base: Path,
    splits: Any,  # noqa: ANN401
    recipe: Recipe,
    place: Path,
    *,
    num_workers: int,
    until: float,
) -> Training:
    """Trainer from texts in memory to the validation that reaches `until`."""
    began = time.perf_counter()
    names = label_names(splits["train"].labels, recipe.task)
    tokenizer = load_tokenizer(base)
    features = {
        name: to_features(
            tokenizer, rows, to_targets(rows.labels, recipe.task, names).tolist(), recipe.max_length
        )
        for name, rows in splits.items()
    }

    def metrics_of(prediction: Any) -> dict[str, float]:  # noqa: ANN401 - transformers' EvalPrediction
        return {"accuracy": metrics.accuracy(prediction.label_ids, prediction.predictions.argmax(axis=1))}

    return train_with_trainer(
        load_classifier(base, recipe, names),
        tokenizer,
        features["train"],
        recipe,
        place / "trainer",
        num_workers=num_workers,
        validation=features["validation"],
        metrics_of=metrics_of,
        keep_best=False,
        began=began,
        until=until,
    )


def reached(name: str, done: Training, target: float) -> Reached:
    """The first validation at the target; exits where there is none."""
    curve = [
        (step, round(seconds, 2), round(found["accuracy"], 4)) for step, seconds, found in done.validations
    ]
    print(f"    {name}: {json.dumps(curve)}")
    times = [
        Reached(seconds, step) for step, seconds, found in done.validations if found["accuracy"] >= target
    ]
    if not times:
        raise SystemExit(
            f"{name} ends at {curve[-1][1]} and never reaches {target}; lower --target-accuracy for both"
        )
    return times[0]


def finish_with(
    arguments: argparse.Namespace,
    kept: list[tuple[Reached, Reached]],
    first: tuple[Reached, Reached],
    target: float,
    recipe: Recipe,
    workers: int,
) -> None:
    """The result line."""
    finish(
        arguments,
        "h100.train_time_to_accuracy_vs_trainer",
        statistics.median(ours.seconds / theirs.seconds for ours, theirs in kept),
        "ratio",
        f"transformers.Trainer, bf16, fused AdamW, {workers} loader processes: "
        f"{statistics.median(theirs.seconds for _, theirs in kept):.1f} s to {target} on {arguments.task}",
        details={
            "task": arguments.task,
            "target_accuracy": target,
            "seconds": [round(ours.seconds, 2) for ours, _ in kept],
            "steps": [ours.steps for ours, _ in kept],
            "trainer_seconds": [round(theirs.seconds, 2) for _, theirs in kept],
            "trainer_steps": [theirs.steps for _, theirs in kept],
            "first_round_seconds": [round(each.seconds, 2) for each in first],
            "steps_between_validations": recipe.evaluate_every,
            "batch_size": recipe.batch_size,
            "learning_rate": recipe.learning_rate,
        },
    )


if __name__ == "__main__":
    main()
