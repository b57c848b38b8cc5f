"""Where the figures of a training are written down as it goes: metrics.jsonl, TensorBoard, Weights & Biases.

    <out>.training/metrics.jsonl     while it runs; in the bundle afterwards
    <out>.tensorboard/<date>/        with log_to=tensorboard

A line of metrics.jsonl is a step or a validation:

    {"step": 8, "epoch": 1, "loss": 0.69, "learning_rate": 5e-05, "gradient_norm": 1.2, "rows": 64, ...}
    {"step": 8, "epoch": 1, "seconds": 3.1, "validation": {"accuracy": 0.9, ...}}

A training that goes on from a checkpoint drops what was written after it, so no step is there twice.
"""

import importlib
import json
import math
import os
from collections.abc import Collection
from contextlib import nullcontext, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TextIO

from assay.data.storage import writing
from assay.errors import StorageError, UsageError
from assay.train.display import plain
from assay.train.history import TrainProgress
from assay.train.loop import Snapshot
from assay.train.settings import TrainSettings

METRICS_FILE = "metrics.jsonl"
_WANDB_ID = "wandb-id"


class Sink(Protocol):
    """Something that takes down steps and validations."""

    def write(self, progress: TrainProgress) -> None:
        """Take down a step, or a validation."""
        ...

    def close(self, *, is_done: bool) -> None:
        """End; `is_done` unless the training failed or was interrupted."""
        ...


class Recorder:
    """Writes all that the loop tells to all sinks; on rank 0 alone. Writes nothing before `begin`."""

    def __init__(self, settings: TrainSettings, folder: Path) -> None:
        """Record in the training folder `folder`."""
        self._settings = settings
        self._folder = folder
        self._sinks: list[Sink] = []
        self._has_begun = False

    def __enter__(self) -> Self:
        """Hold the sinks."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the sinks; the file stays where there is a checkpoint to go on from."""
        for sink in self._sinks:
            sink.close(is_done=kind is None)
        if self._has_begun and not any(self._folder.glob("step-*")):
            for name in (METRICS_FILE, _WANDB_ID):
                (self._folder / name).unlink(missing_ok=True)

    def begin(self, snapshot: Snapshot | None) -> None:
        """Open the sinks, to go on after the snapshot or from the start.

        Raises StorageError where the file cannot be written, UsageError where Weights & Biases refuses.
        """
        self._has_begun = True
        self._sinks.append(MetricsFile(self._folder / METRICS_FILE, snapshot))
        if self._settings.log_to == "tensorboard":
            self._sinks.append(TensorBoard(self._settings, snapshot))
        if self._settings.log_to == "wandb":
            self._sinks.append(WeightsAndBiases(self._settings, self._folder / _WANDB_ID, snapshot))

    def write(self, progress: TrainProgress) -> None:
        """Take down a step, or a validation."""
        for sink in self._sinks:
            sink.write(progress)

    def copy_to(self, bundle: Path) -> None:
        """Put what was written so far into the folder of the bundle."""
        (bundle / METRICS_FILE).write_bytes((self._folder / METRICS_FILE).read_bytes())


class MetricsFile:
    """metrics.jsonl: a line a step and a line a validation, flushed."""

    def __init__(self, path: Path, snapshot: Snapshot | None) -> None:
        """Open the file: after a snapshot what it held until then stays."""
        self._path = path
        with writing(str(path)):
            kept = [] if snapshot is None else _lines_until(path, snapshot)
            staged = path.with_name(f"{path.name}.new")
            staged.write_text("".join(kept), encoding="utf-8")
            staged.replace(path)
            self._file: TextIO = path.open("a", encoding="utf-8")

    def write(self, progress: TrainProgress) -> None:
        """Append a line."""
        with writing(str(self._path)):
            self._file.write(json.dumps(_line(progress)) + "\n")
            self._file.flush()

    def close(self, *, is_done: bool) -> None:
        """Close the file; after a failure, what it could not write is not the news."""
        with suppress(StorageError) if not is_done else nullcontext(), writing(str(self._path)):
            self._file.close()


class TensorBoard:
    """Event files that `tensorboard --logdir` shows."""

    def __init__(self, settings: TrainSettings, snapshot: Snapshot | None) -> None:
        """Write into a folder of this training's own; one that goes on takes the newest."""
        from torch.utils.tensorboard import SummaryWriter

        out = Path(settings.out).absolute()
        root = out.with_name(f"{out.name}.tensorboard")
        before = sorted(root.iterdir()) if snapshot is not None and root.is_dir() else []
        folder = before[-1] if before else root / datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S")
        with writing(str(folder)):
            self._writer = SummaryWriter(folder, purge_step=snapshot.step + 1 if snapshot else None)
        if snapshot is None:
            self._writer.add_text("settings", f"```json\n{json.dumps(asdict(settings), indent=1)}\n```")

    def write(self, progress: TrainProgress) -> None:
        """Add a point to each curve."""
        for name, value in _scalars(progress).items():
            self._writer.add_scalar(name, value, progress.step)
        if progress.validation is not None:
            self._writer.flush()

    def close(self, *, is_done: bool) -> None:
        """Write what is left and close."""
        del is_done
        self._writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases; project, mode and key as its own variables (WANDB_...) say."""

    def __init__(self, settings: TrainSettings, id_file: Path, snapshot: Snapshot | None) -> None:
        """Begin a run, or go on with the one whose id the file holds.

        Raises UsageError with its reason where no run can begin (no key).
        """
        wandb: Any = importlib.import_module("wandb")
        known = id_file.read_text(encoding="utf-8") if snapshot is not None and id_file.exists() else None
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "assay"),
                name=Path(settings.out).name,
                config=asdict(settings),
                id=known,
                resume=None if known is None else "allow",
            )
        except wandb.Error as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise UsageError(
                f"log_to=wandb: {reason}; run `wandb login`, set WANDB_MODE=offline, or leave log_to out"
            ) from error
        with writing(str(id_file)):
            id_file.write_text(self._run.id, encoding="utf-8")

    def write(self, progress: TrainProgress) -> None:
        """Log a step or a validation; steps that the run has already are left out by wandb."""
        self._run.log(_scalars(progress), step=progress.step)

    def close(self, *, is_done: bool) -> None:
        """Send what is left and end the run."""
        self._run.finish(exit_code=0 if is_done else 1)


def _line(progress: TrainProgress) -> dict[str, object]:
    where: dict[str, object] = {"step": progress.step, "epoch": progress.epoch}
    if progress.validation is not None:
        return {**where, "seconds": round(progress.seconds, 3), "validation": plain(progress.validation)}
    counted = {} if progress.num_negatives is None else {"num_negatives": progress.num_negatives}
    return {
        **where,
        "loss": progress.loss,
        "learning_rate": progress.learning_rate,
        "gradient_norm": progress.gradient_norm,
        **counted,
        **(progress.further or {}),
        "rows": progress.num_rows,
        "tokens": progress.num_tokens,
        "seconds": round(progress.seconds, 3),
    }


def _scalars(progress: TrainProgress) -> dict[str, float]:
    """What is drawn over the steps, by the name of its curve; undefined metrics left out."""
    if progress.validation is not None:
        named = {f"validation/{name}": value for name, value in progress.validation.items()}
        return {name: value for name, value in named.items() if math.isfinite(value)}
    counted = {} if progress.num_negatives is None else {"train/num_negatives": progress.num_negatives}
    return {
        "train/loss": progress.loss,
        "train/learning_rate": progress.learning_rate,
        "train/gradient_norm": progress.gradient_norm,
        **counted,
    }


def _lines_until(path: Path, snapshot: Snapshot) -> list[str]:
    """The lines of a file that the snapshot knows of; a line that a kill cut off is left out."""
    if not path.exists():
        return []
    validated = {validation.step for validation in snapshot.history.validations}
    with path.open(encoding="utf-8") as lines:
        return [line for line in lines if _is_known(line, snapshot.step, validated)]


def _is_known(line: str, last_step: int, validated: Collection[int]) -> bool:
    try:
        content = json.loads(line)
    except ValueError:
        return False
    step: int = content["step"]
    return step in validated if "validation" in content else step <= last_step
