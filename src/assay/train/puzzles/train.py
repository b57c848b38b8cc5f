"""Puzzles in, snapshots of a model out: the verb `assay sudoku train`.

<out>/config.json, step_<N>.safetensors     the newest snapshots, readable while the training goes on
<out>/metrics.jsonl, training.json          figures by step; how it ended
<out>.training/                             checkpoints to resume from, gone at the end
"""

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from assay import machine
from assay.bundle.publish import check_out
from assay.data.storage import writing
from assay.data.syncing import replace_local
from assay.engine.devices import parse_device
from assay.errors import InputError, RefusedError, WorkError
from assay.model.hrm.files import OWN_CONFIG, snapshots_of
from assay.model.hrm.halting import (
    BatchPlaces,
    Draws,
    Puzzles,
    StepFunction,
    empty_places,
    needs_next_step,
    supervised_step,
)
from assay.model.hrm.network import DTYPES, Network
from assay.sudoku.puzzles import PuzzleSplit, need_sudoku, read_split
from assay.telemetry import format_duration, format_number_of
from assay.train import checkpoints, locking
from assay.train.checkpoints import TrainCheckpoint
from assay.train.history import History, Listener, TrainProgress, Validation
from assay.train.launch import stop_signals
from assay.train.loop import Interrupted, Snapshot
from assay.train.puzzles.feed import Ahead, Feed
from assay.train.puzzles.optimizer import Updates, rate_share, sign_step
from assay.train.puzzles.settings import PuzzleTraining
from assay.train.puzzles.state import load_tensors, tensors_of, write_snapshot
from assay.train.puzzles.validate import validate
from assay.train.sinks import METRICS_FILE, MetricsFile

SUMMARY_FILE = "training.json"
_HELD_OUT = ("validation", "test")
"""The split that validations look at: the first there is."""
_STEPS_BETWEEN_READINGS = 50
"""On a GPU: each reading waits for the device."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PuzzleReport:
    """What a training came to, or how far it got."""

    out: Path
    step: int
    """Optimizer steps done."""
    num_steps: int
    num_parameters: int
    seconds: float
    """Spent training, interruptions left out."""
    validation: dict[str, float] | None
    """Figures of the newest validation; None before the first."""

    @property
    def is_done(self) -> bool:
        """Whether the last step was reached."""
        return self.step == self.num_steps

    def __str__(self) -> str:
        """For people."""
        done = f"step {self.step:,} of {self.num_steps:,} after {format_duration(self.seconds)}"
        figures = ", ".join(f"{name} {value:.4f}" for name, value in (self.validation or {}).items())
        size = f"{self.num_parameters:,} parameters"
        lines = [f"{size}; {done}" + (f"; held out: {figures}" if figures else "")]
        snapshots = snapshots_of(self.out) if self.out.is_dir() else []
        lines.append(f"{format_number_of(len(snapshots), 'snapshot')} in {self.out}")
        if not self.is_done:
            lines.append("not at its end: run the same command with --resume")
        return "\n".join(lines)


def sudoku_train(settings: PuzzleTraining, listener: Listener | None = None) -> PuzzleReport:
    """Train a model of the puzzles in `settings.data`; snapshots appear in `settings.out` as it goes.

    Killed or stopped at any step and resumed, it ends with the same weights. Raises `UsageError` or `InputError`
    before the first step where something handed in cannot work, `RefusedError` where a resumed training is
    another one, `WorkError` where the loss stops being a number, `Interrupted` where a signal stopped it.
    """
    listener = listener or Listener()
    torch.set_num_threads(machine.choose_threads(settings.num_threads, num_processes=1).count)
    data = Path(settings.data)
    held_out = next((name for name in _HELD_OUT if (data / name).is_dir()), "test")
    train, test = read_split(data, "train"), read_split(data, held_out)
    if settings.augment:
        need_sudoku(train, settings.data)
    if (train.description.vocab_size, train.description.seq_len) != (
        test.description.vocab_size,
        test.description.seq_len,
    ):
        raise InputError(f"{data}: train and {held_out} are puzzles of other sizes; build them together")
    folder = checkpoints.training_folder(settings.out)
    with locking.locked(folder), stop_signals() as should_stop:
        run = _Run(settings, train, test, folder, listener, should_stop)
        if (done := run.already_done()) is not None:
            return done
        run.take_up()
        return run.to_the_end()


class _Run:
    """One process's part of a training."""

    def __init__(
        self,
        settings: PuzzleTraining,
        train: PuzzleSplit,
        test: PuzzleSplit,
        folder: Path,
        listener: Listener,
        should_stop: Callable[[], bool],
    ) -> None:
        self._settings, self._test, self._folder = settings, test, folder
        self._listener, self._should_stop = listener, should_stop
        self._out = Path(settings.out)
        self._fingerprint = _fingerprint(settings, train)
        self._device = _device(settings.device)
        self._dtype = DTYPES[settings.forward_dtype]
        found = train.description
        config = settings.config(
            vocab_size=found.vocab_size,
            seq_len=found.seq_len,
            num_puzzle_identifiers=found.num_puzzle_identifiers,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self._network = Network(config).to(self._device)
        self._feed = Feed(train, batch_size=settings.batch_size, seed=settings.seed, augment=settings.augment)
        self._updates = Updates(
            self._network,
            kind=settings.optimizer,
            betas=(settings.beta1, settings.beta2),
            weight_decay=settings.weight_decay,
            ema=settings.ema,
        )
        self._step_function, self._refresh = _faster(
            self._network, self._dtype, found.seq_len, compiles=settings.compile
        )
        self._places: BatchPlaces = empty_places(
            self._network, settings.batch_size, found.seq_len, self._dtype
        )
        self._step = 0
        self._figures = torch.zeros(7, device=self._device, dtype=torch.float64)
        self._unread = 0
        self._loss = math.nan
        self._puzzles_done = 0
        self._history = History()
        self._seconds_before = 0.0
        self._began = self._saved_at = time.monotonic()

    # ------------------------------------------------------------ where it stands

    def already_done(self) -> PuzzleReport | None:
        """The report of a training that was ended before, where it is to be resumed."""
        settings, file = self._settings, self._out / SUMMARY_FILE
        if not settings.resume or not file.is_file():
            return None
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["fingerprint"] != self._fingerprint:
            raise RefusedError(
                f"{file}: that training had other settings or puzzles; name another out, or use --overwrite"
            )
        self._listener.on_message("this training has ended; nothing is left to do")
        return PuzzleReport(**{**content["report"], "out": self._out})

    def take_up(self) -> None:
        """Load the last checkpoint where the training is to be resumed; else make room for a new one."""
        settings, folder = self._settings, self._folder
        if not settings.resume:
            if not settings.overwrite:
                checkpoints.refuse_interrupted(folder)
            check_out(self._out, overwrite=settings.overwrite, what="snapshot")
            checkpoints.clear(folder)
            self._remove_own()
            return
        path = checkpoints.latest(folder)
        if path is None:
            checkpoints.refuse_damaged(folder)
            self._listener.on_message(f"{folder}: no checkpoint to resume from; starting at step 1")
            self._remove_own()
            return
        checkpoint = checkpoints.load(path)
        if checkpoint.fingerprint != self._fingerprint:
            before: Any = checkpoint.values["settings"]
            now = json.loads(json.dumps(settings.decisive()))
            changed = [f"{name}={value!r}" for name, value in before.items() if now.get(name) != value]
            raise RefusedError(
                f"{path}: that training had {', '.join(changed) or 'other puzzles'}; use them again, or start "
                "again with --overwrite"
            )
        self._network.load_state_dict(
            {name: each.to(self._device) for name, each in checkpoint.model.items()}
        )
        self._refresh()
        self._places = load_tensors(checkpoint.optimizer, self._updates, self._device)
        values: Any = checkpoint.values
        self._step, self._seconds_before = checkpoint.step, float(values["seconds"])
        self._history.validations = [Validation(**each) for each in values["validations"]]
        self._puzzles_done = int(values["puzzles_done"])
        self._listener.on_message(f"going on after step {self._step:,} of {settings.num_steps:,}")

    def _remove_own(self) -> None:
        """Remove what an earlier training left in `out`."""
        if not self._out.is_dir():
            return
        for name in (SUMMARY_FILE, METRICS_FILE, OWN_CONFIG):
            (self._out / name).unlink(missing_ok=True)
        for _, path in snapshots_of(self._out):
            path.unlink()

    # ------------------------------------------------------------ the loop

    def to_the_end(self) -> PuzzleReport:
        """Train until the last step, the time limit or a signal."""
        settings = self._settings
        limit = math.inf if settings.stop_after_minutes is None else 60 * settings.stop_after_minutes
        with writing(str(self._out)):
            self._out.mkdir(parents=True, exist_ok=True)
        before = Snapshot(step=self._step, history=self._history, best=None, patience_used=0)
        metrics = self._metrics = MetricsFile(self._out / METRICS_FILE, before if self._step else None)
        is_done = False
        try:
            with Ahead(self._feed) as feed:
                self._train(feed, limit)
            is_done = True
        finally:
            metrics.close(is_done=is_done)
        report = self._report()
        if report.is_done:
            self._end(report)
        return report

    def _train(self, feed: Ahead, limit: float) -> None:
        """Steps until the last one, or until so many seconds have passed."""
        num_steps = self._settings.num_steps
        while self._step < num_steps:
            self._one_step(feed.batch(self._step))
            self._step += 1
            self._unread += 1
            self._after_step()
            if self._should_stop():
                self._save()
                raise Interrupted
            if time.monotonic() - self._began > limit and self._step < num_steps:
                self._save()
                return

    def _one_step(self, puzzles: Puzzles) -> None:
        """One optimizer step; waits for nothing."""
        settings, network = self._settings, self._network
        step = self._step + 1
        generator = torch.Generator().manual_seed(_draw_seed(settings.seed, step))
        draws = Draws.draw(settings.batch_size, network.config.halt_max_steps, generator).to(self._device)
        found = supervised_step(
            network, self._places, _on(puzzles, self._device), draws, step=self._step_function
        )
        (found.losses.total / settings.batch_size).backward()
        share = self._rate_share(step)
        norm = self._updates.gradient_norm()
        self._updates.step(settings.learning_rate * share)
        vectors = found.puzzle_vectors_BW
        if vectors is not None:
            assert vectors.grad is not None, "the loss depends on the puzzle's vector"
            sign_step(
                network.puzzle_emb.weights,
                found.places.puzzles.identifiers_B,
                vectors.grad,
                learning_rate=settings.puzzle_learning_rate * share,
                weight_decay=settings.puzzle_weight_decay,
            )
        self._refresh()
        self._places = found.places
        losses, halted = found.losses, found.places.halted_B & found.losses.counts_B
        self._figures += torch.stack(
            [
                losses.total.detach().double(),
                norm.double(),
                halted.sum().double(),
                (halted & losses.is_right_B).sum().double(),
                torch.where(halted, losses.right_cells_B, 0).sum().double(),
                torch.where(halted, found.places.steps_B, 0).sum().double(),
                losses.cells.double(),
            ]
        )

    def _after_step(self) -> None:
        settings, step = self._settings, self._step
        is_last = step == settings.num_steps
        is_due = is_last or step % settings.validates_every == 0
        if is_due or step == 1 or self._device.type == "cpu" or step % _STEPS_BETWEEN_READINGS == 0:
            self._tell()
        if is_due:
            self._validate()
        if is_last or step % settings.keeps_every == 0:
            with self._updates.averaged():
                write_snapshot(self._out, step, self._network, keep=settings.snapshots)
        if not is_last and time.monotonic() - self._saved_at > 60 * settings.checkpoint_minutes:
            self._save()

    def _tell(self) -> None:
        """Read the figures of the steps since the last reading, and pass them on."""
        settings, number = self._settings, self._unread
        total, norm, halted, *_ = figures = self._figures.tolist()
        self._figures.zero_()
        self._unread = 0
        if not math.isfinite(total):
            raise WorkError(
                f"the loss is {total} by step {self._step:,}; lower the learning rate; "
                f"{checkpoints.way_out(self._folder)}"
            )
        self._puzzles_done += int(halted)
        share = {
            "train_accuracy": figures[3] / max(halted, 1),
            "train_cell_accuracy": figures[4] / max(halted, 1),
            "steps_a_puzzle": figures[5] / max(halted, 1),
        }
        self._loss = total / number / settings.batch_size
        progress = self._progress(norm=norm / number, further=share)
        self._listener.on_progress(progress)
        self._metrics.write(progress)

    def _validate(self) -> None:
        settings = self._settings
        self._listener.on_phase(f"validating after step {self._step:,}")
        with self._updates.averaged():
            self._refresh()
            figures = validate(
                self._network,
                self._test,
                num_rows=settings.validation_rows,
                batch_size=settings.batch_size,
                dtype=self._dtype,
                step=self._step_function,
            )
        self._refresh()
        progress = self._progress(validation=figures)
        self._history.validations.append(
            Validation(
                step=self._step,
                epoch=self._step / self._feed.steps_per_epoch,
                train_loss=self._loss,
                metrics=figures,
                seconds=progress.seconds,
            )
        )
        self._listener.on_progress(progress)
        self._metrics.write(progress)

    def _progress(
        self,
        *,
        norm: float = math.nan,
        validation: dict[str, float] | None = None,
        further: dict[str, float] | None = None,
    ) -> TrainProgress:
        settings, epochs = self._settings, self._feed.steps_per_epoch
        rows = self._step * settings.batch_size
        return TrainProgress(
            epoch=max(self._step - 1, 0) // epochs + 1,
            num_epochs=-(-settings.num_steps // epochs),
            step=self._step,
            num_steps=settings.num_steps,
            loss=self._loss,
            learning_rate=settings.learning_rate * self._rate_share(self._step),
            gradient_norm=norm,
            num_rows=rows,
            num_tokens=rows * self._test.description.seq_len,
            seconds=self._seconds(),
            validation=validation,
            further=further,
        )

    def _rate_share(self, step: int) -> float:
        settings = self._settings
        return rate_share(
            step,
            warmup_steps=settings.warmup_steps,
            num_steps=settings.num_steps,
            min_ratio=settings.min_learning_rate_ratio,
        )

    # ------------------------------------------------------------ what stays

    def _save(self) -> None:
        if self._unread:
            self._tell()
        checkpoint = TrainCheckpoint(
            step=self._step,
            fingerprint=self._fingerprint,
            best=None,
            values={
                "settings": json.loads(json.dumps(self._settings.decisive())),
                "seconds": self._seconds(),
                "validations": [asdict(each) for each in self._history.validations],
                "puzzles_done": self._puzzles_done,
            },
            model=dict(self._network.state_dict()),
            optimizer=tensors_of(self._updates, self._places),
        )
        checkpoints.save(self._folder, checkpoint)
        self._saved_at = time.monotonic()

    def _end(self, report: PuzzleReport) -> None:
        content = {
            "fingerprint": self._fingerprint,
            "settings": asdict(self._settings),
            "puzzles_done": self._puzzles_done,
            "needs_second_forward": needs_next_step(self._network.config),
            "report": {**asdict(report), "out": str(report.out)},
        }
        with writing(str(self._out)):
            replace_local(self._out / SUMMARY_FILE, json.dumps(content, indent=1).encode() + b"\n")
        checkpoints.clear(self._folder)

    def _report(self) -> PuzzleReport:
        return PuzzleReport(
            out=self._out,
            step=self._step,
            num_steps=self._settings.num_steps,
            num_parameters=sum(each.numel() for each in self._network.parameters()),
            seconds=self._seconds(),
            validation=dict(self._history.validations[-1].metrics) if self._history.validations else None,
        )

    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._began


def _fingerprint(settings: PuzzleTraining, train: PuzzleSplit) -> str:
    """Of all that decides the numbers of a training: settings, and the puzzles that it learns from."""
    found = hashlib.sha256(json.dumps(settings.decisive(), sort_keys=True).encode())
    for array in (train.inputs, train.labels, train.puzzle_indices, train.group_indices):
        found.update(f"{array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return parse_device(name)


def _faster(
    network: Network, dtype: torch.dtype, seq_len: int, *, compiles: bool
) -> tuple[StepFunction | None, Callable[[], None]]:
    """A faster forward for the device, None where there is none, and what it is to be told after each update."""
    device = network.H_init.device
    if not compiles or device.type != "cuda":
        return None, _nothing
    from assay.engine.hrm_step import can_run

    if not can_run(network.config, device, dtype, network.config.num_positions(seq_len)):
        compiled: StepFunction = torch.compile(network.forward, dynamic=False)
        return compiled, _nothing
    from assay.train.puzzles.fused import FusedTraining

    fused = FusedTraining(network, dtype)
    return fused, fused.refresh


def _nothing() -> None:
    """A forward that reads the weights at each use is to be told nothing."""


def _draw_seed(seed: int, step: int) -> int:
    """What decides which puzzles of a step must go on."""
    return int(np.random.SeedSequence([seed, 2, step]).generate_state(1, np.uint64)[0] >> 1)


def _on(puzzles: Puzzles, device: torch.device) -> Puzzles:
    """The puzzles on a device; the host does not wait for what the device still has to do."""
    if device.type == "cpu":
        return puzzles

    def moved(each: torch.Tensor) -> torch.Tensor:
        return each.pin_memory().to(device, non_blocking=True)

    return Puzzles(
        inputs_BS=moved(puzzles.inputs_BS),
        labels_BS=moved(puzzles.labels_BS),
        identifiers_B=moved(puzzles.identifiers_B),
    )
