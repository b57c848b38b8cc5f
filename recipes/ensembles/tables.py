"""What ensembles of classifiers are worth on real data: seeds, snapshots, a soup, windows at offsets, orders of pairs.

    python recipes/prepare.py newsgroups
    python recipes/ensembles/tables.py --base MINILM --device cuda

Trains, a process each and `--jobs` at a time: the recipe of 20 Newsgroups with three seeds, the first of which leaves
snapshots of its weights behind, and with two seeds a cross-encoder that tells whether two posts are of one group. Then
it builds ensembles of them, calibrates everything on the calibration rows, which no training has seen, and measures
on the test rows without a near-duplicate among the training rows. The checkpoint of a training is chosen on validation
rows; the members of the soup, the best single, how long posts are read and which pairs are read twice on calibration
rows; test rows decide nothing.

Tables go to standard output, and with all figures to `--out`. `--seconds` leaves out the parts that would begin later.
A training whose bundle is in the work folder is not repeated. `--rows` and `--epochs` are for trying it out.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, Literal

FOLDER = Path(__file__).resolve().parent
RECIPES = FOLDER.parent
SPLITS = ("train", "validation", "calibration", "test")
SEEDS = ("seed_0", "seed_1", "seed_2")
PAIR_SEEDS = ("pairs_0", "pairs_1")
NUM_PAIRS = {"train": 12_000, "validation": 1_000, "calibration": 2_000, "test": 4_000}
PAIR_COLUMNS = {"text_column": "text1", "text_pair_column": "text2"}
PAIR_CHARACTERS = 2_000
"""Of each text of a pair; the model reads about 600 of them."""
SNAPSHOTS_AT = (0.6, 0.7, 0.8, 0.9, 1.0)
"""Shares of a training after which the first seed's weights are kept."""
WINDOWS: Mapping[str, Mapping[str, Any]] = {
    "cut at 256 tokens": {},
    "windows": {"on_long": "window-mean"},
    "windows, stride 127": {"on_long": "window-mean", "stride": 127},
    "windows at 2 offsets": {"on_long": "window-mean", "offsets": 2},
    "windows at 4 offsets": {"on_long": "window-mean", "offsets": 4},
}
PRECISION: Literal["fp32"] = "fp32"
"""Of all that is measured; the trainings choose theirs."""
RESAMPLES = 1_000


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A bundle on some rows."""

    name: str
    passes: float
    """Forward passes of a document."""
    figures: dict[str, float]
    right_N: Any
    """Whether each row's label is right, by calibrated probabilities."""
    loss_N: Any
    """NLL of each row, calibrated."""


def main() -> None:
    """Train, build, measure; or one training where `--train` names it."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--base", type=Path, required=True, help="folder of the encoder to start from")
    flags.add_argument("--data", type=Path, default=RECIPES / "data", help="what recipes/prepare.py wrote")
    flags.add_argument(
        "--work", type=Path, default=RECIPES / "out" / "ensembles", help="for all that is made"
    )
    flags.add_argument(
        "--out", type=Path, help="file for all figures; default figures.json in the work folder"
    )
    flags.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    flags.add_argument("--jobs", type=int, help="trainings at a time; default all on a GPU, one on a CPU")
    flags.add_argument("--seconds", type=float, default=float("inf"), help="begin no part after that many")
    flags.add_argument("--rows", type=int, help="rows of each split at most")
    flags.add_argument("--epochs", type=int, help="of each training, in place of the recipe's")
    flags.add_argument("--train", metavar="NAME", help=argparse.SUPPRESS)
    arguments = flags.parse_args()
    if arguments.train:
        train(arguments.train, arguments)
        return
    source = arguments.data / "newsgroups"
    if not (source / "test.parquet").exists():
        raise SystemExit(f"{source}: no test.parquet; prepare it: python recipes/prepare.py newsgroups")
    began = time.monotonic()
    write_rows(source, arguments.work / "data", arguments.rows)
    seconds = train_all(arguments)
    found: dict[str, Any] = {"training_seconds": seconds}
    print(
        f"trained in {time.monotonic() - began:.0f} s: "
        + ", ".join(f"{k} {v:.0f} s" for k, v in seconds.items())
    )
    bench = Bench(arguments)
    for part in (seeds_and_snapshots, orders_of_pairs, windows_of_long_posts):
        name = part.__name__.replace("_", " ")
        if time.monotonic() - began > arguments.seconds:
            print(f"{name}: left out, {arguments.seconds:.0f} s are over")
            continue
        found[part.__name__] = part(bench)
        print(f"({name}: {time.monotonic() - began:.0f} s since the beginning)", flush=True)
    out = arguments.out or arguments.work / "figures.json"
    out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"wrote {out}")


# ------------------------------------------------------------ rows


def write_rows(source: Path, out: Path, limit: int | None) -> None:
    """The splits of posts, test rows without near-duplicates of training rows, and pairs of each split's posts."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    out.mkdir(parents=True, exist_ok=True)
    for number, split in enumerate(SPLITS):
        table = pq.read_table(source / f"{split}.parquet")
        if "leaked" in table.column_names:
            table = table.filter(pc.invert(table["leaked"]))
        if limit is not None and limit < table.num_rows:  # evenly, so that all labels stay
            table = table.take([k * table.num_rows // limit for k in range(limit)])
        pq.write_table(table, out / f"{split}.parquet")
        num_pairs = min(NUM_PAIRS[split], limit or NUM_PAIRS[split])
        pairs = draw_pairs(table["text"].to_pylist(), table["label"].to_pylist(), num_pairs, seed=number)
        pq.write_table(pa.Table.from_pylist(pairs), out / f"pairs_{split}.parquet")


def draw_pairs(
    texts: Sequence[str], labels: Sequence[str], num_pairs: int, *, seed: int
) -> list[dict[str, str]]:
    """Pairs of posts, every other one of one group; of the rest half of groups that begin alike (comp., rec.)."""
    random = Random(seed)
    by_label: dict[str, list[str]] = defaultdict(list)
    for text, label in zip(texts, labels, strict=True):
        by_label[label].append(text[:PAIR_CHARACTERS])
    several = sorted(label for label, of_label in by_label.items() if len(of_label) > 1)
    pairs = []
    for number in range(num_pairs):
        first = random.choice(several)
        if number % 2 == 0:
            one, two = random.sample(by_label[first], 2)
        else:
            others = [label for label in sorted(by_label) if label != first]
            near = [label for label in others if label.split(".")[0] == first.split(".")[0]]
            second = random.choice(near if near and number % 4 == 1 else others)
            one, two = random.choice(by_label[first]), random.choice(by_label[second])
        pairs.append({"text1": one, "text2": two, "label": "other" if number % 2 else "same"})
    return pairs


# ------------------------------------------------------------ trainings


def train_all(arguments: argparse.Namespace) -> dict[str, float]:
    """Seconds of each training, each a process of its own; exits with what one said that failed."""
    names = (*SEEDS, *PAIR_SEEDS)
    jobs = arguments.jobs or (len(names) if arguments.device == "cuda" else 1)
    environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // jobs))}
    if arguments.device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""

    def run(name: str) -> float:
        began = time.monotonic()
        if (arguments.work / name).exists():
            return 0.0
        command = [
            sys.executable,
            str(Path(__file__).resolve()),
            "--train",
            name,
            "--base",
            str(arguments.base),
        ]
        command += ["--work", str(arguments.work), "--device", arguments.device]
        command += ["--epochs", str(arguments.epochs)] if arguments.epochs else []
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{name}: {done.stderr.strip()[-2000:]}")
        return time.monotonic() - began

    with ThreadPoolExecutor(jobs) as pool:
        try:
            return dict(zip(names, pool.map(run, names), strict=True))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def train(name: str, arguments: argparse.Namespace) -> None:
    """One training, in this process; the first seed's leaves `snapshot_60`, ... `snapshot_100` beside its bundle."""
    from assay.labelled.read import read_labelled
    from assay.train.parts import Parts
    from assay.train.settings import TrainSettings
    from assay.train.train import fit

    is_pairs = name in PAIR_SEEDS
    recipe = FOLDER / "pairs.toml" if is_pairs else RECIPES / "newsgroups" / "recipe.toml"
    prefix = "pairs_" if is_pairs else ""
    train_file, validation_file = (
        str(arguments.work / "data" / f"{prefix}{split}.parquet") for split in ("train", "validation")
    )
    changed = {
        "base": str(arguments.base),
        "out": str(arguments.work / name),
        "data": (train_file,),
        "validation_data": (validation_file,),
        "seed": int(name[-1]),
        **({"epochs": arguments.epochs} if arguments.epochs else {}),
    }
    settings = TrainSettings(**(tomllib.loads(recipe.read_text(encoding="utf-8")) | changed))
    rows, validation = (
        read_labelled(each, settings, task=settings.predicts)
        for each in (settings.data, settings.validation_data)
    )
    if name != SEEDS[0]:
        fit(settings, rows, validation)
        return
    num_steps = settings.epochs * -(-rows.num_rows // settings.batch_size)
    steps = {max(1, round(share * num_steps)): f"snapshot_{round(share * 100)}" for share in SNAPSHOTS_AT}
    held: dict[str, Any] = {}
    fit(settings, rows, validation, parts=Parts(stepper=snapshot_stepper(steps, held)))
    write_snapshots(arguments.work, held)


def snapshot_stepper(steps: Mapping[int, str], held: dict[str, Any]) -> Any:  # noqa: ANN401 - a maker of a `Stepper`
    """What makes a stepper that puts the weights after some steps into `held`, by name."""
    from assay.train.checkpoints import copied
    from assay.train.model import state_for_saving
    from assay.train.step import PassStepper

    class Keeping(PassStepper):
        num_updates = 0
        classifier: Any

        def update(self, token_ids: Any = None) -> Any:  # noqa: ANN401 - as `PassStepper`
            found = super().update(token_ids)
            self.num_updates += 1
            if self.num_updates in steps:
                held[steps[self.num_updates]] = copied(state_for_saving(self.classifier))
            return found

    def make(settings: Any, learner: Any, objective: Any, world: Any) -> Keeping:  # noqa: ANN401 - see `Parts`
        made = Keeping(
            learner, objective, world=world, max_gradient_norm=settings.max_gradient_norm, records=True
        )
        made.classifier = learner.classifier
        return made

    return make


def write_snapshots(work: Path, held: Mapping[str, Any]) -> None:
    """Bundles like the first seed's with other weights."""
    from assay.train.checkpoints import write_tensors

    for name, tensors in held.items():
        shutil.copytree(work / SEEDS[0], work / name, ignore=shutil.ignore_patterns("*.html", "*.jsonl"))
        write_tensors(work / name / "model.safetensors", tensors)


# ------------------------------------------------------------ measuring


class Bench:
    """Builds and measures bundles of one work folder."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.work: Path = arguments.work
        self.device: str = arguments.device

    def path(self, name: str) -> str:
        """The folder of a bundle."""
        return str(self.work / name)

    def rows(self, split: str, *, pairs: bool = False) -> tuple[str, ...]:
        """The source of a split."""
        return (str(self.work / "data" / f"{'pairs_' if pairs else ''}{split}.parquet"),)

    def build(self, name: str, members: Sequence[str], **changes: Any) -> Any:  # noqa: ANN401 - settings
        """An ensemble, calibrated after pooling; what the command prints is printed."""
        from assay.ensemble.build import ensemble_build
        from assay.ensemble.settings import BuildSettings

        pairs = "text_pair_column" in changes
        result = ensemble_build(
            BuildSettings(
                out=self.path(name),
                overwrite=True,
                members=tuple(map(self.path, members)),
                device=self.device,
                precision=PRECISION,
                **{"validation": self.rows("calibration", pairs=pairs), **changes},
            )
        )
        print(result, flush=True)
        return result

    def calibrated(self, name: str, **columns: str) -> str:
        """A copy of a single model with a calibration of its own; its name."""
        from assay.calibrate.calibrate import calibrate
        from assay.calibrate.settings import CalibrateSettings

        copy = f"{name}_calibrated"
        shutil.copytree(self.path(name), self.path(copy), dirs_exist_ok=True)
        calibrate(
            CalibrateSettings(
                bundle=self.path(copy),
                data=self.rows("calibration", pairs=bool(columns)),
                device=self.device,
                precision=PRECISION,
                **columns,
            )
        )
        return copy

    def measure(
        self,
        name: str,
        folder: str,
        split: str,
        *,
        passes: float = 1,
        columns: Mapping[str, str] | None = None,
        **how: Any,  # noqa: ANN401 - settings
    ) -> Measured:
        """A bundle on a split; seconds are those of tokenizing and forward passes, the model warm."""
        import numpy as np

        from assay import metrics
        from assay.labelled.labels import to_targets
        from assay.labelled.read import read_labelled
        from assay.labelled.settings import LabelledSources
        from assay.outcome.maps import apply_calibration, apply_link
        from assay.score.bundles import encoder_of, engine_of, open_bundle, scorer_of
        from assay.score.labelled import labelled_logits
        from assay.tokenize.settings import LongDocuments

        bundle = open_bundle(self.path(folder))
        engine = engine_of(bundle, device=self.device, precision=PRECISION)
        scorer = scorer_of(bundle, engine, encoder_of(bundle, LongDocuments(**how)), device=self.device)
        rows = read_labelled(
            self.rows(split, pairs=bool(columns)), LabelledSources(**(columns or {})), task=bundle.task
        )
        labelled_logits(scorer, rows)
        began = time.perf_counter()
        logits_NC = labelled_logits(scorer, rows).logits_NC
        seconds = time.perf_counter() - began
        targets = np.asarray(to_targets(rows.labels, bundle.task, bundle.labels))
        raw_NC = apply_link(logits_NC, bundle.task)
        given_NC = apply_calibration(logits_NC, bundle.calibration, bundle.task)
        return Measured(
            name=name,
            passes=passes,
            figures={
                "accuracy": float((given_NC.argmax(axis=1) == targets).mean()),
                "nll_raw": metrics.nll(raw_NC, targets),
                "nll": metrics.nll(given_NC, targets),
                "ece_raw": metrics.ece(raw_NC, targets),
                "ece": metrics.ece(given_NC, targets),
                "seconds_per_1000": 1_000 * seconds / rows.num_rows,
            },
            right_N=given_NC.argmax(axis=1) == targets,
            loss_N=-np.log(np.maximum(given_NC[np.arange(len(targets)), targets], 1e-12)),
        )


def table(title: str, rows: Sequence[Measured], *, against: int = 0) -> list[dict[str, Any]]:
    """Print the rows, each with its difference from one of them on the same documents; the figures."""
    import numpy as np

    names = list(rows[0].figures)
    print(f"\n### {title}, {len(rows[0].right_N):,} rows; differences from {rows[against].name}\n")
    header = ["model", "passes", *names, "accuracy, difference", "NLL, difference"]
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}")
    drawn_BN = np.random.default_rng(0).integers(0, len(rows[0].right_N), (RESAMPLES, len(rows[0].right_N)))
    found = []
    for row in rows:
        differences = {}
        for what in ("right_N", "loss_N"):
            difference_N = np.asarray(getattr(row, what), dtype=np.float64) - getattr(rows[against], what)
            low, high = np.quantile(difference_N[drawn_BN].mean(axis=1), (0.025, 0.975))
            differences[what] = (float(difference_N.mean()), float(low), float(high))
        shown = [f"{mean:+.4f} ({low:+.4f} to {high:+.4f})" for mean, low, high in differences.values()]
        is_reference = row is rows[against]
        print(
            f"| {row.name} | {row.passes:.3g} | {' | '.join(f'{row.figures[name]:.4f}' for name in names)} | "
            + " | ".join(["-", "-"] if is_reference else shown)
            + " |"
        )
        accuracy, loss = differences.values()
        found.append(
            {
                "model": row.name,
                "passes": row.passes,
                **row.figures,
                "accuracy_difference": accuracy,
                "nll_difference": loss,
            }
        )
    print(flush=True)
    return found


# ------------------------------------------------------------ the parts


def seeds_and_snapshots(bench: Bench) -> dict[str, Any]:
    """Three seeds, snapshots of one, and the soup of these."""
    snapshots = sorted(
        (path.name for path in bench.work.glob("snapshot_*")), key=lambda name: int(name.partition("_")[2])
    )
    test = bench.rows("test")
    seeds = bench.build("of_seeds", SEEDS, test=test, report=str(bench.work / "of_seeds.html"))
    late = bench.build("of_snapshots", snapshots, test=test, report=str(bench.work / "of_snapshots.html"))
    soup = bench.build("soup", snapshots, rule="soup")
    best = next(name for name in SEEDS if seeds.best.endswith(name))
    singles = [
        bench.measure(
            name + (", the best on validation" if name == best else ""), bench.calibrated(name), "test"
        )
        for name in SEEDS
    ]
    rows = [
        *singles,
        bench.measure(
            f"{len(SEEDS)} seeds, mean", "of_seeds", "test", passes=seeds.measured.pooled.num_members
        ),
        bench.measure(
            f"{len(snapshots)} snapshots of seed_0, mean",
            "of_snapshots",
            "test",
            passes=late.measured.pooled.num_members,
        ),
        bench.measure(f"soup of {len(soup.names)} of them", bench.calibrated("soup"), "test"),
    ]
    return {
        "rows": table("20 Newsgroups: seeds, snapshots and a soup", rows, against=SEEDS.index(best)),
        "disagreement": {"seeds": seeds.measured.disagreement, "snapshots": late.measured.disagreement},
        "soup": list(soup.names),
    }


def orders_of_pairs(bench: Bench) -> dict[str, Any]:
    """A model of pairs, two of them, and both orders of the texts."""
    test = bench.rows("test", pairs=True)
    results = {
        "2 seeds": bench.build("pairs_once", PAIR_SEEDS, test=test, **PAIR_COLUMNS),
        "2 seeds, both orders": bench.build(
            "pairs_both", PAIR_SEEDS, test=test, second_order="always", **PAIR_COLUMNS
        ),
        "2 seeds, both orders where unsure": bench.build(
            "pairs_unsure", PAIR_SEEDS, test=test, second_order="unsure", **PAIR_COLUMNS
        ),
        "1 seed, both orders": bench.build(
            "pairs_one_both", PAIR_SEEDS[:1], test=test, second_order="always", **PAIR_COLUMNS
        ),
    }
    folders = ("pairs_once", "pairs_both", "pairs_unsure", "pairs_one_both")
    rows = [
        bench.measure(name, bench.calibrated(name, **PAIR_COLUMNS), "test", columns=PAIR_COLUMNS)
        for name in PAIR_SEEDS
    ]
    for (name, result), folder in zip(results.items(), folders, strict=True):
        passes = result.measured.pooled.num_members
        rows.append(bench.measure(name, folder, "test", passes=passes, columns=PAIR_COLUMNS))
    swapped = {
        each.name: {
            "labels_that_change": each.changed,
            "interval": [each.changed_interval.low, each.changed_interval.high],
            "accuracy": each.accuracy,
            "accuracy_swapped": each.accuracy_swapped,
            "accuracy_both": each.accuracy_both,
        }
        for each in results["2 seeds"].orders
    }
    unsure = [str(each) for each in results["2 seeds, both orders where unsure"].second_orders]
    return {
        "rows": table("Pairs of posts, of one group or not", rows),
        "swapped": swapped,
        "second_order": unsure,
    }


def windows_of_long_posts(bench: Bench) -> dict[str, Any]:
    """The first seed on posts that are cut, in windows, and in windows at offsets; chosen on calibration rows."""
    chosen_by: dict[str, float] = {}
    rows = []
    for number, (name, how) in enumerate(WINDOWS.items()):
        offsets = how.get("offsets", 1)
        lengths = {key: value for key, value in how.items() if key != "offsets"}
        folder, passes = f"windows_{number}", 1.0
        if offsets > 1:
            test = bench.rows("test")
            result = bench.build(folder, SEEDS[:1], test=test, offsets=offsets, **lengths)
            passes = result.measured.pooled.num_members
        else:
            shutil.copytree(bench.path(SEEDS[0]), bench.path(folder), dirs_exist_ok=True)
            calibrate_here(bench, folder, lengths)
        chosen_by[name] = bench.measure(name, folder, "calibration", **lengths).figures["nll_raw"]
        rows.append(bench.measure(name, folder, "test", passes=passes, **lengths))
    best = min(chosen_by, key=chosen_by.__getitem__)
    rows = [replace(row, name=f"{row.name}, chosen" if row.name == best else row.name) for row in rows]
    return {"rows": table("20 Newsgroups: long posts, seed_0", rows), "calibration_nll": chosen_by}


def calibrate_here(bench: Bench, folder: str, lengths: Mapping[str, Any]) -> None:
    """Calibrate a bundle on documents read in this way."""
    from assay.calibrate.calibrate import calibrate
    from assay.calibrate.settings import CalibrateSettings

    calibrate(
        CalibrateSettings(
            bundle=bench.path(folder),
            data=bench.rows("calibration"),
            device=bench.device,
            precision=PRECISION,
            **lengths,
        )
    )


if __name__ == "__main__":
    main()
