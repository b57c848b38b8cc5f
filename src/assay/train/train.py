"""Labelled rows in, a bundle out: the verb `assay train`.

    rows -> splits, checked -> token ids -> model -> loop -> the best weights -> bundle

On several devices `train` starts a process for each (process.py) unless a launcher has done so. Each of
them runs `train_here` alike, and rank 0 writes.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from assay.engine import devices
from assay.errors import UsageError
from assay.labelled.rows import LabelledRows
from assay.telemetry import format_duration, format_number_of, format_rate
from assay.train import checkpoints, distributed, locking
from assay.train.base import base_checkpoint, load_model
from assay.train.datasets import Prepared, prepare_given, prepare_rows
from assay.train.events import hear
from assay.train.evidence import weigh_evidence, why_without_evidence
from assay.train.gradients import Gradients
from assay.train.history import History, Listener, OnMessage, OnPhase, OnProgress, TrainProgress, Validation
from assay.train.inputs import EncodedSplit, encode_split
from assay.train.keeper import Keeper
from assay.train.launch import LocalRanks, Ranks, stop_signals
from assay.train.learner import Learner
from assay.train.loop import Best, Loop, is_sharded
from assay.train.model import (
    make_classifier,
    state_for_saving,
    trained_parameters,
)
from assay.train.optimizer import layer_stack, make_optimizer, parameter_groups
from assay.train.parts import Parts
from assay.train.places import check_places
from assay.train.predict import predict
from assay.train.publish import publish, versions
from assay.train.report import Trained
from assay.train.resources import (
    choose_precision,
    choose_threads,
    describe_device,
    describe_threads,
    num_processes,
    num_ranks,
)
from assay.train.settings import TrainSettings
from assay.train.sharded import ShardedGradients, load_tensors, shard, wholes
from assay.train.siamese import SiameseEncoder, add_pair_parts
from assay.train.sinks import Recorder
from assay.train.speed import Effort, flops_per_token, peak_flops
from assay.train.teacher import with_teacher
from assay.train.world import World, find_place

COMMAND = (sys.executable, "-m", "assay.train.process")
"""A rank's process."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainReport:
    """What a training did."""

    out: Path
    """The bundle."""
    labels: tuple[str, ...]
    """Names of the outputs."""
    history: History
    """Losses, learning rates, gradient norms by step; validations."""
    best: Validation
    """The validation whose weights were saved."""
    num_train_rows: int
    """Rows trained on."""
    num_validation_rows: int
    """Rows that chose the weights."""
    num_truncated: int
    """Training rows longer than `max_length`."""
    num_devices: int
    """Processes that trained together."""
    seconds: float
    """From the first step to the last validation, interruptions left out."""
    joined: Mapping[str, float] | None = None
    """Siamese with evidence of words: validation metrics of network and evidence together."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the process that started this one."""
        return {**asdict(self), "out": str(self.out)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "TrainReport":
        """What `to_json` gave."""
        changed = {
            "out": Path(content["out"]),
            "labels": tuple(content["labels"]),
            "history": History.from_json(content["history"]),
            "best": Validation(**content["best"]),
        }
        return cls(**{**content, **changed})

    @property
    def validation(self) -> Mapping[str, float]:
        """Validation metrics of the saved weights."""
        return self.best.metrics

    @property
    def num_tokens(self) -> int:
        """Tokens trained on, repeats counted, padding not."""
        return self.history.num_tokens

    def __str__(self) -> str:
        """What was trained and how good it is on the validation rows, for people."""
        found = _listed(self.validation)
        rate = self.history.num_rows / max(self.seconds, 1e-9)
        return "\n".join(
            [
                (
                    f"trained on {self.num_train_rows:,} rows, {format_number_of(len(self.labels), 'output')}, "
                    f"in {format_duration(self.seconds)} ({format_rate(rate)} rows/s)"
                ),
                (
                    f"weights of step {self.best.step} of {len(self.history.losses)}, chosen on "
                    f"{self.num_validation_rows:,} validation rows: {found}"
                ),
                *([f"with the evidence of words and style: {_listed(self.joined)}"] if self.joined else []),
                f"wrote {self.out}",
            ]
        )


def _listed(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())


def train(
    settings: TrainSettings,
    *,
    ranks: Ranks | None = None,
    on_progress: OnProgress | None = None,
    on_message: OnMessage | None = None,
    on_phase: OnPhase | None = None,
) -> TrainReport:
    """Fine-tunes `settings.base` on the sources of `settings.data`, writes a bundle and says how it went.

    `ranks`: processes elsewhere, for the executor `ray`; who calls opens the cluster.
    `on_message` hears of the split and of what is odd about the rows, `on_phase` of what begins. Raises
    `UsageError`, `InputError` or `BundleError` before the first step where something handed in cannot work,
    and `WorkError` where the work fails. Nothing is left at `settings.out` unless the training
    ends well; checkpoints of an interrupted one lie beside it.
    """
    _refuse_dry_run(settings)
    assert (settings.executor == "ray") == (ranks is not None), "who calls opens the cluster"
    listener = Listener.of(on_progress, on_message, on_phase)
    if ranks is not None:
        return _train_on(ranks, settings, listener)
    wanted = num_processes(settings)
    if line := describe_threads(settings, wanted):
        listener.on_message(line)
    if wanted == 1:
        num_gpus = torch.cuda.device_count()
        if num_gpus > 1 and find_place(os.environ) is None:
            listener.on_message(
                f"1 of {num_gpus} GPUs is used; for more set devices, batch_size documents a step on each"
            )
        return train_here(settings, listener)
    return _train_on(LocalRanks(COMMAND, wanted, settings.num_threads), settings, listener)


def _train_on(ranks: Ranks, settings: TrainSettings, listener: Listener) -> TrainReport:
    """Every rank runs `train_here` in a process of its own."""
    check_places(settings, num_ranks=ranks.num_processes)
    folder = checkpoints.training_folder(settings.out)
    listener.on_phase(f"starting {format_number_of(ranks.num_processes, 'process', 'processes')}")
    result: Any = ranks.launch(
        asdict(settings),
        way_out=lambda: checkpoints.way_out(folder),
        on_event=lambda event: hear(event, listener),
    )
    return TrainReport.from_json(result)


def train_here(settings: TrainSettings, listener: Listener) -> TrainReport:
    """As `train`, in this process: alone, or one rank of those that a launcher started."""
    check_places(settings, num_ranks=num_ranks())
    listener.on_phase("reading rows")
    return _train(settings, prepare_rows(settings), Parts(), listener)


def fit(
    settings: TrainSettings,
    train_rows: LabelledRows,
    validation_rows: LabelledRows,
    *,
    parts: Parts | None = None,
    on_progress: OnProgress | None = None,
    on_message: OnMessage | None = None,
    on_phase: OnPhase | None = None,
) -> TrainReport:
    """As `train_here`, with the rows handed in; `settings.data` is then only noted as their origin.

    `parts`: another sampler, objective or stepper than those of the settings.
    """
    check_places(settings, num_ranks=num_ranks())
    prepared = prepare_given(settings, train_rows, validation_rows)
    return _train(settings, prepared, parts or Parts(), Listener.of(on_progress, on_message, on_phase))


def _train(settings: TrainSettings, prepared: Prepared, parts: Parts, listener: Listener) -> TrainReport:
    """Every rank does the same; rank 0 alone is heard and writes."""
    _refuse_dry_run(settings)
    folder = checkpoints.training_folder(settings.out)
    with (
        distributed.join(os.environ, way_out=lambda: checkpoints.way_out(folder)) as world,
        locking.locked(folder) if world.rank == 0 else nullcontext(),
        _own_generators(world),
        Recorder(settings, folder) as recorder,
        stop_signals() as should_stop,
    ):
        if world.rank:
            listener = Listener()
        for line in (str(prepared.split), *prepared.warnings, *base_checkpoint(settings.base).notes):
            listener.on_message(line)
        if (reason := why_without_evidence(settings, prepared)) is not None:
            listener.on_message(reason)
        ready = _set_up(settings, prepared, world, listener.on_phase)
        learner = ready.learner
        with Keeper(settings, prepared.names, ready.rows, learner, parts=parts, world=world) as keeper:
            objective = parts.objective(settings, ready.rows.train)
            loop = Loop(
                settings,
                learner.classifier,
                parts.stepper(settings, learner, objective, world),
                parts.sampler(settings, ready.rows.train, world.world_size),
                ready.rows,
                world=world,
                listener=_recording(listener, recorder, ready.effort),
                saver=keeper,
                should_stop=should_stop,
            )
            if (snapshot := keeper.found()) is not None:
                listener.on_message(f"going on after step {snapshot.step} of {loop.num_steps}")
                loop.go_on_from(snapshot)
            if world.rank == 0:
                recorder.begin(snapshot)
            best = loop.run()
        listener.on_phase("writing the bundle")
        load_tensors(learner.classifier, best.weights)
        tensors = wholes(state_for_saving(learner.classifier))
        trained = _trained(settings, prepared, ready, loop, best, world)
        if world.rank == 0:
            publish(ready.model, tensors, trained, recorder)
            checkpoints.clear(folder)
    return _report(trained)


def _refuse_dry_run(settings: TrainSettings) -> None:
    """Raise `UsageError` where the settings ask only what would be trained."""
    if settings.dry_run:
        raise UsageError("dry_run=True; this trains; call assay.train.plan.plan(settings), or leave it out")


# ---------------------------------------------------------------- before the first step


@dataclass(frozen=True, kw_only=True, slots=True)
class _SetUp:
    """All that the first step needs."""

    model: PreTrainedModel
    learner: Learner
    """The model as it is trained, on its device."""
    rows: EncodedSplit
    precision: torch.dtype
    effort: Effort


def _set_up(settings: TrainSettings, prepared: Prepared, world: World, on_phase: OnPhase) -> _SetUp:
    """The rows as tokens, the model on its device and its optimizer."""
    torch.set_num_threads(choose_threads(settings).count)
    dtype = devices.DTYPES[choose_precision(settings, world.device)]
    on_phase("measuring the device")
    peak = peak_flops(world.device, dtype, num_devices=world.world_size)
    torch.manual_seed(settings.seed)
    on_phase("loading the base")
    model = load_model(settings, prepared.names)
    untyped: Any = model
    on_phase("tokenizing")
    rows = encode_split(settings, prepared, untyped.get_input_embeddings().weight.shape[0])
    effort = Effort(
        flops_per_token=flops_per_token(rows.train.lengths, untyped.config, settings), peak_flops=peak
    )
    on_phase("preparing the first step")
    make = make_classifier
    if settings.teacher is not None and settings.is_siamese:
        on_phase("asking the teacher")
        rows = with_teacher(rows, settings.teacher, prepared, world)
    if rows.style is not None:
        add_pair_parts(model, settings, prepared.names, rows.style)
        make = SiameseEncoder
    classifier = make(
        untyped.to(world.device),
        dtype=dtype,
        gradient_checkpointing=settings.gradient_checkpointing,
    )
    sharded = is_sharded(settings, world)
    if sharded:
        shard(classifier, layer_stack(model)[0], world=world, dtype=dtype)
    trained = trained_parameters(classifier)
    gradients = (
        ShardedGradients(classifier, trained)
        if sharded
        else Gradients(trained, world=world, table=classifier.token_table)
    )
    can_record = world.device.type == "cuda" and gradients.can_record
    groups = parameter_groups(model, settings)
    optimizer = make_optimizer(groups, gradients.own, world.device, can_record=can_record)
    return _SetUp(
        model=model,
        learner=Learner(classifier=classifier, optimizer=optimizer, gradients=gradients),
        rows=rows,
        precision=dtype,
        effort=effort,
    )


@contextmanager
def _own_generators(world: World) -> Iterator[None]:
    """The caller's random numbers go on afterwards as if nothing had been drawn."""
    gpus = [world.device] if world.device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        yield


# ---------------------------------------------------------------- after the last step


def _trained(
    settings: TrainSettings, prepared: Prepared, ready: _SetUp, loop: Loop, best: Best, world: World
) -> Trained:
    """What the training came to; all ranks look at the validation rows once more, with the best weights."""
    rows = ready.rows
    logits_NC = predict(
        ready.learner.classifier, rows.validation, world=world, max_batch_tokens=settings.max_batch_tokens
    )
    evidence, joined = weigh_evidence(settings, prepared, logits_NC) or (None, None)
    return Trained(
        settings=settings,
        prepared=prepared,
        history=loop.history,
        best=best.validation,
        logits_NC=logits_NC,
        evidence=evidence,
        joined=joined,
        targets=rows.validation.targets,
        num_steps=loop.num_steps,
        num_truncated=rows.train.num_truncated,
        num_devices=world.world_size,
        device=describe_device(world.device),
        precision=str(ready.precision).removeprefix("torch."),
        effort=ready.effort,
        versions=versions(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _report(trained: Trained) -> TrainReport:
    return TrainReport(
        out=Path(trained.settings.out),
        labels=trained.prepared.names,
        history=trained.history,
        best=trained.best,
        num_train_rows=trained.prepared.train.num_rows,
        num_validation_rows=trained.prepared.validation.num_rows,
        num_truncated=trained.num_truncated,
        num_devices=trained.num_devices,
        seconds=trained.history.seconds,
        joined=trained.joined,
    )


# ---------------------------------------------------------------- who hears of it


def _recording(listener: Listener, recorder: Recorder, effort: Effort) -> Listener:
    """The listener, behind a recorder that writes down the same with the work done."""

    def hear(progress: TrainProgress) -> None:
        whole = effort.added_to(progress)
        recorder.write(whole)
        listener.on_progress(whole)

    return replace(listener, on_progress=hear)
