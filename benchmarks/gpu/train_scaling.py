"""Training on N GPUs of one host against one, the same batch on each: `assay.train` with devices N and 1.

    python benchmarks/gpu/train_scaling.py --record
    python benchmarks/gpu/train_scaling.py --shape roberta-base --devices 8 --record

DistilBERT with random weights, 32 documents a GPU and step (so 64 a step on two), rows of random ids: four labels,
lengths log-normal, mean 53 tokens, 10 to 128; `--shape roberta-base` takes pairs of mean 400 tokens. Rows are read
from a Parquet file; the processes are those that `devices` starts.

First the losses of one GPU with 64 documents a step are compared with those of two with 32 each: the same rows make
each step, so without dropout the curves are one but for rounding. How far that takes them is seen from one GPU that
sums the same 64 in two passes, `--allowed-loss-difference` at most; two GPUs may be as far off, or twice as far as that
one is. The batch of more than two need not fit one GPU: they are compared with one that sums it in N passes. Then runs
alternate; the value is the median over pairs of the samples a second between the ends of two steps, by the clock that
the training itself reports, after the steps in which kernels are compiled and most shapes recorded. Seconds from the
call to the first report of steps done, and from the last to the end, are printed apart. NVLink multicast is off.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from _setup import chosen_device, environment, finish, free_memory, parser
from _trainer import (
    Recipe,
    Timed,
    Training,
    check_first_losses,
    check_losses,
    our_settings,
    without_dropout,
    write_random_model,
)
from train_throughput import cases, rows_of, unlike

from assay.labelled.rows import LabelledRows
from assay.train.train import TrainProgress, train

SHAPES = {"distilbert": "distilbert-b32", "roberta-base": "roberta-base-pairs"}
CLAIMS = {"distilbert": "h100x{}.train_scaling", "roberta-base": "h100x{}.train_roberta_base_scaling"}
MOST_AT_ONCE = 2
"""Devices whose batches together one of them takes in one pass."""
STEPS = {"distilbert": 1_000, "roberta-base": 300}
"""Timed steps of a round: a training is long, and a pass of a rare shape that is recorded among few would weigh."""


@dataclass(frozen=True, kw_only=True)
class Scaled:
    """A training that one and several devices do."""

    base: Path
    recipe: Recipe
    """Its batch is that of a device."""
    num_labels: int
    rows: Callable[[int], LabelledRows]
    """Rows for so many steps of one device."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of `TrainSettings`."""
    first_allowed: float | None = None
    """Largest difference of one of the first losses, which alone are then compared; None: the whole curves are."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training, and what it took besides its steps."""

    training: Training
    start_seconds: float
    """From the call to the first report of steps done."""
    end_seconds: float
    """From the last such report to the end: the last evaluation, and the bundle written."""


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """What came of it."""

    ratio: float
    """Median over pairs of rounds of the samples a second of several devices over those of one."""
    baseline: str
    details: Mapping[str, object]


def main() -> None:
    """Compare, measure, print."""
    flags = parser(__doc__)
    flags.add_argument("--shape", choices=SHAPES, default="distilbert")
    flags.add_argument("--devices", type=int, default=2)
    flags.add_argument("--rounds", type=int, default=3)
    flags.add_argument("--steps", type=int, help="timed steps of a round, a multiple of 25")
    flags.add_argument("--allowed-loss-difference", type=float, default=0.05)
    arguments = flags.parse_args()
    device = chosen_device(arguments, num_gpus=arguments.devices)
    case = cases(device, tiny=arguments.tiny)[SHAPES[arguments.shape]]
    steps = arguments.steps or (case.steps if arguments.tiny else STEPS[arguments.shape])
    warmup = 3 * case.warmup
    timed = Timed(first=warmup, last=warmup + steps).check(device.type)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        scaled = Scaled(
            base=write_random_model(case.config, place / "base", max_length=case.longest),
            recipe=case.recipe,
            num_labels=case.num_labels,
            rows=lambda num_steps: rows_of(case, num_steps).rows,
        )
        found = scaling(scaled, place, device, timed, arguments)
    finish(
        arguments,
        CLAIMS[arguments.shape].format(arguments.devices),
        found.ratio,
        "ratio",
        found.baseline,
        ceiling=f"{arguments.devices}",
        details={"shape": arguments.shape, **found.details},
    )


def scaling(
    scaled: Scaled, place: Path, device: torch.device, timed: Timed, arguments: argparse.Namespace
) -> Scaling:
    """Compare the losses, then time one device and several by turns; prints as it goes."""
    # for the ranks that `train` starts
    os.environ.update(PYTHONPATH=environment()["PYTHONPATH"], NCCL_NVLS_ENABLE="0")
    agreement = compare(scaled, place, arguments)
    seconds: dict[int, list[float]] = {1: [], arguments.devices: []}
    # Each run takes as many steps, so the lengths of one GPU's rows are the first of those of several.
    files = {
        count: write_rows(scaled.rows(timed.last * count), place / f"{count}", scaled.num_labels)
        for count in seconds
    }
    samples = (timed.last - timed.first) * scaled.recipe.batch_size
    apart: dict[int, list[Run]] = {count: [] for count in seconds}
    for _ in range(arguments.rounds):
        for count, kept in seconds.items():
            done = run(scaled, files[count], scaled.recipe, place / "out", count, timed)
            assert done.training.seconds is not None
            kept.append(done.training.seconds)
            apart[count].append(done)
            print(
                f"  {count} devices: {samples * count / done.training.seconds:,.0f} samples/s, "
                f"{samples / done.training.seconds:,.0f} each; first steps done after {done.start_seconds:.1f} s, "
                f"{done.end_seconds:.1f} s from the last to the end",
                flush=True,
            )
            free_memory(device)
    several = seconds[arguments.devices]
    rates = {count: samples * count / statistics.median(kept) for count, kept in seconds.items()}
    return Scaling(
        ratio=statistics.median(
            arguments.devices * one / other for one, other in zip(seconds[1], several, strict=True)
        ),
        baseline=f"one device: {rates[1]:,.0f} samples/s",
        details={
            "batch_size_of_a_device": scaled.recipe.batch_size,
            "steps": timed.last - timed.first,
            "samples_per_second": round(rates[arguments.devices]),
            "seconds": [round(each, 4) for each in several],
            "one_device_seconds": [round(each, 4) for each in seconds[1]],
            "start_seconds": [round(done.start_seconds, 1) for done in apart[arguments.devices]],
            "end_seconds": [round(done.end_seconds, 1) for done in apart[arguments.devices]],
            **agreement,
        },
    )


def compare(scaled: Scaled, place: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """How far the loss curves of one and of several devices lie apart; exits where it is too far."""
    num_steps = 6 if arguments.tiny or scaled.first_allowed is not None else 100
    files = write_rows(scaled.rows(num_steps * arguments.devices), place / "compared", scaled.num_labels)
    small = replace(without_dropout(scaled.recipe), learning_rate=3e-5)
    large = replace(small, batch_size=small.batch_size * arguments.devices)

    def losses_of(recipe: Recipe, devices: int, **changes: int) -> Training:
        return run(scaled, files, recipe, place / "out", devices, None, **changes).training

    several = losses_of(small, arguments.devices)
    cut = losses_of(small, 1, gradient_accumulation=arguments.devices)
    one = losses_of(large, 1) if arguments.devices <= MOST_AT_ONCE else None
    if scaled.first_allowed is not None:
        return {
            f"first_loss_difference_of_{what}": check_first_losses(
                f"{what} and one", done, one or cut, allowed=scaled.first_allowed
            )
            for what, done in (("passes", cut), ("devices", several))
            if done is not (one or cut)
        }
    most = arguments.allowed_loss_difference
    if one is None:
        what = f"{arguments.devices} devices and one in as many passes"
        return dict(check_losses(what, several, cut, allowed=most))
    of_passes = check_losses(f"one device in {arguments.devices} passes a step", cut, one, allowed=most)
    rounding = of_passes["largest_loss_difference"]
    found = check_losses(
        f"{arguments.devices} devices and one", several, one, allowed=max(most, 2 * rounding)
    )
    return {**found, "loss_difference_of_passes": rounding}


def write_rows(rows: LabelledRows, folder: Path, num_labels: int) -> tuple[Path, Path]:
    """Files of the rows and of a few others that end the training."""
    folder.mkdir()
    paths = (folder / "train.parquet", folder / "validation.parquet")
    for path, some in zip(paths, (rows, unlike(rows.take(range(4 * num_labels)))), strict=True):
        columns = {"text": some.texts, "label": some.labels}
        if some.text_pairs is not None:
            columns["text_pair"] = some.text_pairs
        pq.write_table(pa.table({name: list(column) for name, column in columns.items()}), path)
    return paths


def run(
    scaled: Scaled,
    files: tuple[Path, Path],
    recipe: Recipe,
    out: Path,
    devices: int,
    timed: Timed | None,
    *,
    gradient_accumulation: int = 1,
) -> Run:
    """One training on so many devices; says how far it is, since ranks may take long to start or to meet."""
    began = time.perf_counter()

    def say(words: str) -> None:
        print(f"    {devices} devices, {time.perf_counter() - began:.1f} s: {words}", flush=True)

    has_pairs = "text_pair" in pq.read_schema(files[0]).names
    settings = our_settings(
        scaled.base,
        out,
        recipe,
        data=(str(files[0]),),
        validation_data=(str(files[1]),),
        text_pair_column="text_pair" if has_pairs else None,
        near_duplicates=False,
        devices=str(devices),
        gradient_accumulation=gradient_accumulation,
        **scaled.changes,
    )
    told: list[TrainProgress] = []
    first = last = began

    def on_progress(progress: TrainProgress) -> None:
        nonlocal first, last
        if progress.validation is None:
            last = time.perf_counter()
            if not told:
                first = last
                say("the first steps are done")
            told.append(progress)

    train(settings, on_progress=on_progress, on_message=say)
    say("trained")
    return Run(
        training=Training(
            seconds=None if timed is None else timed.of_ours(told),
            losses=tuple(progress.loss for progress in told),
        ),
        start_seconds=first - began,
        end_seconds=time.perf_counter() - last,
    )


if __name__ == "__main__":
    main()
