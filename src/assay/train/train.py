"""Labelled rows in, a bundle out: the verb `assay train`.

    rows -> splits, checked -> token ids -> model -> loop -> the best weights -> bundle

On several devices `train` starts a process for each (process.py) unless a launcher has done so. Each of
them runs `train_here` alike, and rank 0 writes.
"""

import hashlib
import json
import logging
import os
import platform
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from assay import __version__
from assay.bundle import Description, check_base, check_out, publish_folder, write_description
from assay.engine import devices
from assay.errors import InputError, RefusedError, UsageError
from assay.model.checkpoints import weight_files
from assay.tokenize.encode import Encoder
from assay.train import checkpoints, distributed
from assay.train.checkpoints import BestWeights, Checkpoint
from assay.train.datasets import Prepared, prepare_given, prepare_rows
from assay.train.distributed import World
from assay.train.inputs import EncodedRows, encode_rows, with_weights
from assay.train.labels import names_of
from assay.train.launch import launch, stop_signals
from assay.train.loop import (
    Best,
    History,
    Loop,
    OnProgress,
    Rows,
    Snapshot,
    TrainProgress,
    Validation,
    is_sharded,
    predict,
)
from assay.train.model import PackedClassifier, PaddedClassifier, make_classifier, state_for_saving
from assay.train.objective import Objective, balanced_weights, positive_weights
from assay.train.optimizer import add_lora, freeze, layer_stack, make_optimizer
from assay.train.report import REPORT_FILE, Trained, render
from assay.train.rows import LabelledRows
from assay.train.settings import TrainSettings
from assay.train.sharded import load_tensors, shard, spread_like, wholes
from assay.train.sinks import Recorder, check_sink
from assay.train.speed import Effort, flops_per_token, peak_flops

OnMessage = Callable[[str], None]

_log = logging.getLogger(__name__)
_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model", "spiece.model", "spm.model",
)  # fmt: skip
_CHANGES_NO_NUMBER = frozenset(
    {
        "out",
        "overwrite",
        "resume",
        "num_threads",
        "checkpoint_minutes",
        "log_to",
        "max_batch_tokens",
        "devices",
        "report_texts",
    }
)
"""Settings that another try of an interrupted training may change."""


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
        found = ", ".join(f"{name} {value:.4f}" for name, value in self.validation.items())
        rate = self.history.num_rows / max(self.seconds, 1e-9)
        return "\n".join(
            [
                (
                    f"trained on {self.num_train_rows:,} rows, {len(self.labels)} outputs, in {self.seconds:.0f} s "
                    f"({rate:,.0f} rows/s)"
                ),
                (
                    f"weights of step {self.best.step} of {len(self.history.losses)}, chosen on "
                    f"{self.num_validation_rows:,} validation rows: {found}"
                ),
                f"wrote {self.out}",
            ]
        )


def train(
    settings: TrainSettings,
    *,
    on_progress: OnProgress | None = None,
    on_message: OnMessage | None = None,
) -> TrainReport:
    """Fine-tunes `settings.base` on the sources of `settings.data`, writes a bundle and says how it went.

    `on_message` hears of splits and of what is odd about the rows. Raises `UsageError`, `InputError` or
    `BundleError` before the first step where something handed in cannot work, and `WorkError` where the
    work fails. Nothing is left at `settings.out` unless the training ends well; checkpoints of an
    interrupted one lie beside it.
    """
    num_processes = _num_processes(settings)
    if num_processes == 1:
        return train_here(settings, on_progress=on_progress, on_message=on_message)
    _check_places(settings)
    hear_progress, hear_message = on_progress or _ignore, on_message or _ignore

    def hear(event: Mapping[str, Any]) -> None:
        if event["event"] == "progress":
            hear_progress(TrainProgress(**event["value"]))
        elif event["event"] == "message":
            hear_message(event["value"])

    folder = checkpoints.training_folder(settings.out)
    result: Any = launch(
        [sys.executable, "-m", "assay.train.process"],
        asdict(settings),
        num_processes=num_processes,
        way_out=lambda: checkpoints.way_out(folder),
        on_event=hear,
        num_threads=settings.num_threads,
    )
    return TrainReport.from_json(result)


def train_here(
    settings: TrainSettings,
    *,
    on_progress: OnProgress | None = None,
    on_message: OnMessage | None = None,
) -> TrainReport:
    """As `train`, in this process: alone, or one rank of those that a launcher started."""
    _check_places(settings)
    return _train(settings, prepare_rows(settings), on_progress or _ignore, on_message or _ignore)


def fit(
    settings: TrainSettings,
    train_rows: LabelledRows,
    validation_rows: LabelledRows,
    *,
    on_progress: OnProgress | None = None,
    on_message: OnMessage | None = None,
) -> TrainReport:
    """As `train_here`, with the rows handed in; `settings.data` is then only noted as their origin."""
    _check_places(settings)
    prepared = prepare_given(settings, train_rows, validation_rows)
    return _train(settings, prepared, on_progress or _ignore, on_message or _ignore)


def _train(
    settings: TrainSettings, prepared: Prepared, on_progress: OnProgress, on_message: OnMessage
) -> TrainReport:
    folder = checkpoints.training_folder(settings.out)
    with (
        distributed.join(os.environ, way_out=lambda: checkpoints.way_out(folder)) as world,
        checkpoints.locked(folder) if world.rank == 0 else nullcontext(),
        _own_generators(world),
        Recorder(settings, folder) as recorder,
        stop_signals() as should_stop,
    ):
        if world.rank:
            on_progress = on_message = _ignore
        for line in (str(prepared.split), *prepared.warnings):
            on_message(line)
        torch.set_num_threads(settings.num_threads or _share_of_threads())
        dtype = devices.parse_precision(settings.precision, world.device)
        peak = peak_flops(world.device, dtype, num_devices=world.world_size)
        torch.manual_seed(settings.seed)
        model = load_model(settings, prepared.names)
        rows = _encode(settings, prepared)
        untyped: Any = model
        effort = Effort(
            flops_per_token=flops_per_token(rows.train.lengths, untyped.config, settings), peak_flops=peak
        )
        classifier = make_classifier(
            untyped.to(world.device),
            dtype=dtype,
            gradient_checkpointing=settings.gradient_checkpointing,
        )
        sharded = is_sharded(settings, world)
        if sharded:
            shard(classifier, layer_stack(model)[0], world=world, dtype=dtype)
        can_record = world.device.type == "cuda" and not sharded
        optimizer = make_optimizer(model, settings, world.device, can_record=can_record)
        keeper = _Keeper(settings, prepared, rows, classifier, optimizer, world=world)
        loop = Loop(
            settings,
            classifier,
            optimizer,
            _objective(settings, rows.train),
            rows,
            world=world,
            on_progress=_hearing(on_progress, recorder, effort),
            save=keeper.save,
            should_stop=should_stop,
        )
        if (snapshot := keeper.found()) is not None:
            on_message(f"going on after step {snapshot.step} of {loop.num_steps}")
            loop.go_on_from(snapshot)
        if world.rank == 0:
            recorder.begin(snapshot)
        best = loop.run()
        report = TrainReport(
            out=Path(settings.out),
            labels=prepared.names,
            history=loop.history,
            best=best.validation,
            num_train_rows=rows.train.num_rows,
            num_validation_rows=rows.validation.num_rows,
            num_truncated=rows.train.num_truncated,
            num_devices=world.world_size,
            seconds=loop.history.seconds,
        )
        load_tensors(classifier, best.weights)
        tensors = wholes(state_for_saving(classifier))
        logits_NC = predict(
            classifier, rows.validation, world=world, max_batch_tokens=settings.max_batch_tokens
        )
        if world.rank == 0:
            trained = Trained(
                settings=settings,
                prepared=prepared,
                history=loop.history,
                best=best.validation,
                logits_NC=logits_NC,
                targets=rows.validation.targets,
                num_steps=loop.num_steps,
                num_truncated=rows.train.num_truncated,
                num_devices=world.world_size,
                device=_device_name(world.device),
                precision=str(dtype).removeprefix("torch."),
                effort=effort,
                versions=_versions(),
                created=datetime.now(UTC).isoformat(timespec="seconds"),
            )
            _publish(settings, model, tensors, report, prepared, page=render(trained), recorder=recorder)
            checkpoints.clear(folder)
    return report


# ---------------------------------------------------------------- before the first step


def load_model(settings: TrainSettings, names: tuple[str, ...]) -> PreTrainedModel:
    """The base with a head for these outputs; new head weights come from the global generator."""
    config = AutoConfig.from_pretrained(settings.base, local_files_only=True, trust_remote_code=False)
    config.num_labels = len(names)
    config.id2label = dict(enumerate(names))
    config.label2id = {label: index for index, label in enumerate(names)}
    config.problem_type = "regression" if settings.task == "regression" else f"{settings.task}_classification"
    if settings.dropout is not None:
        for name in _dropout_names(config.to_dict()):
            setattr(config, name, settings.dropout)
    with _quiet_transformers():
        try:
            model = AutoModelForSequenceClassification.from_pretrained(
                settings.base,
                config=config,
                dtype=torch.float32,
                local_files_only=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,
            )
        except ValueError as error:
            reason = str(error).splitlines()[0]
            raise UsageError(
                f"{settings.base}: {config.model_type} has no sequence classifier in transformers ({reason});"
                " choose another base"
            ) from error
    assert isinstance(model, PreTrainedModel)
    if settings.lora_rank is not None:
        add_lora(model, rank=settings.lora_rank, alpha=settings.lora_alpha)
    freeze(model, settings)
    return model


def _num_processes(settings: TrainSettings) -> int:
    """Processes to start here: 1 where a launcher has started this one; raises `UsageError` for too many."""
    if distributed.find_place(os.environ) is not None:
        return 1
    num_gpus = torch.cuda.device_count()
    if settings.devices == "auto":
        return max(1, num_gpus)
    if not settings.devices.isdecimal() or int(settings.devices) < 1:
        raise UsageError(
            f"devices={settings.devices!r}; it is auto or counts from 1; set for example devices=2"
        )
    wanted = int(settings.devices)
    if num_gpus and wanted > num_gpus:
        raise UsageError(
            f"devices={wanted}; this machine has {num_gpus} GPUs; lower it, or start ranks with torchrun"
        )
    if not num_gpus and wanted > devices.default_num_threads():
        raise UsageError(
            f"devices={wanted}; without a GPU each is a process, and this machine has"
            f" {devices.default_num_threads()} cores; lower it"
        )
    return wanted


def _check_places(settings: TrainSettings) -> None:
    check_out(Path(settings.out), overwrite=settings.overwrite)
    check_base(settings.base)
    check_sink(settings)


def _encode(settings: TrainSettings, prepared: Prepared) -> Rows:
    encoder = Encoder.from_bundle(settings.base, max_length=settings.max_length, on_long="truncate")
    train_rows, validation_rows = (
        encode_rows(encoder, rows, settings.task, prepared.names)
        for rows in (prepared.train, prepared.validation)
    )
    if settings.class_weights == "balanced" and settings.task == "single_label":
        weights = balanced_weights(train_rows.targets, len(prepared.names))
        train_rows = with_weights(train_rows, weights)
    return Rows(train=train_rows, validation=validation_rows)


def _objective(settings: TrainSettings, rows: EncodedRows) -> Objective:
    balanced = settings.class_weights == "balanced" and settings.task == "multi_label"
    return Objective(
        task=settings.task,
        label_smoothing=settings.label_smoothing,
        positive_weights=positive_weights(rows.targets) if balanced else None,
    )


def _share_of_threads() -> int:
    """CPU threads of this process: all that it may use, shared among the processes of this machine."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("WORLD_SIZE", "1")))
    return max(1, devices.default_num_threads() // max(1, here))


@contextmanager
def _own_generators(world: World) -> Iterator[None]:
    """The caller's random numbers go on afterwards as if nothing had been drawn."""
    gpus = [world.device] if world.device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        yield


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No report of new head weights and no progress bar: both are what a training wants."""
    library = transformers.utils.logging
    verbosity, has_bar = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity(logging.ERROR)
    library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(verbosity)
        if has_bar:
            library.enable_progress_bar()


# ---------------------------------------------------------------- checkpoints


class _Keeper:
    """Writes what a training needs to go on, and finds it again."""

    def __init__(
        self,
        settings: TrainSettings,
        prepared: Prepared,
        rows: Rows,
        classifier: PackedClassifier | PaddedClassifier,
        optimizer: torch.optim.AdamW,
        *,
        world: World,
    ) -> None:
        self._folder = checkpoints.training_folder(settings.out)
        self._settings = settings
        self._classifier = classifier
        self._optimizer = optimizer
        self._world = world
        self._fingerprint = _fingerprint(settings, prepared.names, rows, world)
        self._best: tuple[int, str] | None = None
        """Step and folder of the best weights that were written."""

    def save(self, snapshot: Snapshot) -> None:
        """Write a checkpoint, on rank 0; the others help to put tensors together."""
        model, optimizer = wholes(self._trained()), wholes(_optimizer_tensors(self._optimizer))
        best = self._saved_best(snapshot.best)
        if self._world.rank:
            return
        checkpoint = Checkpoint(
            step=snapshot.step,
            fingerprint=self._fingerprint,
            best=best,
            values={"history": snapshot.history.to_json(), "patience_used": snapshot.patience_used},
            model=model,
            optimizer=optimizer,
        )
        checkpoints.save(self._folder, checkpoint)

    def found(self) -> Snapshot | None:
        """Load the last checkpoint into model and optimizer, and say where it was; None where none is wanted.

        Raises UsageError for an interrupted training that `resume` or `overwrite` should speak of,
        RefusedError where something that decides numbers has changed since.
        """
        path = checkpoints.latest(self._folder)
        # asked before rank 0 may clear the folder
        if not distributed.all_equal(self._world, [self._fingerprint, path and path.name]):
            raise InputError(
                "the ranks found different rows, bases or checkpoints; they must train on the same;"
                " put data, base and out where every host sees them"
            )
        if not self._settings.resume:
            if path is not None and not self._settings.overwrite:
                raise UsageError(
                    f"{self._folder} holds an interrupted training; going on and beginning anew are different things;"
                    " add --resume or --overwrite"
                )
            if self._world.rank == 0:
                checkpoints.clear(self._folder)
            return None
        if path is None:
            _log.warning("%s: no checkpoint to go on from; beginning at step 1", self._folder)
            return None
        checkpoint = checkpoints.load(path)
        if checkpoint.fingerprint != self._fingerprint:
            raise RefusedError(
                f"{path}: settings, rows, base or documents a step are not those of that training; "
                "use them again, or begin anew with --overwrite"
            )
        trained = self._trained()
        assert set(trained) == set(checkpoint.model), "the fingerprint holds one architecture"
        load_tensors(self._classifier, checkpoint.model)
        _load_optimizer(self._optimizer, checkpoint.optimizer)
        values: Any = checkpoint.values
        history = History.from_json(values["history"])
        best = None
        if checkpoint.best is not None:
            held = checkpoints.load_best(self._folder / checkpoint.best)
            validation = next(each for each in history.validations if each.step == held.step)
            weights = {name: spread_like(each, trained[name]) for name, each in held.model.items()}
            best = Best(validation=validation, weights=weights)
            self._best = (held.step, checkpoint.best)
        return Snapshot(
            step=checkpoint.step, history=history, best=best, patience_used=values["patience_used"]
        )

    def _saved_best(self, best: Best | None) -> str | None:
        """The folder of the best weights, written where they are new."""
        if best is None:
            return None
        step = best.validation.step
        if self._best is None or self._best[0] != step:
            name, weights = "", wholes(best.weights)
            if self._world.rank == 0:
                held = BestWeights(step=step, metrics=dict(best.validation.metrics), model=weights)
                name = checkpoints.save_best(self._folder, held).name
            self._best = (step, name)
        return self._best[1]

    def _trained(self) -> dict[str, torch.Tensor]:
        return {name: each for name, each in self._classifier.named_parameters() if each.requires_grad}


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's state by `<number of the parameter>.<name>`."""
    state = optimizer.state_dict()["state"]
    return {f"{number}.{name}": each for number, held in state.items() for name, each in held.items()}


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        number, _, name = key.partition(".")
        held = tensor if name == "step" else spread_like(tensor, parameters[int(number)])
        state.setdefault(int(number), {})[name] = held
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _fingerprint(settings: TrainSettings, names: tuple[str, ...], rows: Rows, world: World) -> str:
    """Hash of all that decides the numbers of a training."""
    decisive = {name: value for name, value in asdict(settings).items() if name not in _CHANGES_NO_NUMBER}
    decisive.pop("batch_size")
    decisive.pop("gradient_accumulation")
    rows_per_step = settings.batch_size * settings.gradient_accumulation * world.world_size
    digest = hashlib.blake2b(digest_size=16)
    for part in (decisive, rows_per_step, names, world.device.type):
        digest.update(json.dumps(part, sort_keys=True, default=str).encode())
    for side in (rows.train, rows.validation):
        for array in (side.offsets, side.flat_ids, side.second_starts, side.targets):
            digest.update(b"none" if array is None else np.ascontiguousarray(array).tobytes())
    for file in weight_files(settings.base):
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "blake2b").digest())
    return digest.hexdigest()


# ---------------------------------------------------------------- after the last step


def _publish(
    settings: TrainSettings,
    model: PreTrainedModel,
    tensors: Mapping[str, torch.Tensor],
    report: TrainReport,
    prepared: Prepared,
    *,
    page: bytes,
    recorder: Recorder,
) -> None:
    """The bundle of these weights."""
    config: Any = model.config
    base_config = check_base(settings.base)
    # the saved config keeps the base's dropout: a training setting is not part of the model
    for name in _dropout_names(config.to_dict()):
        if name in base_config:
            setattr(config, name, base_config[name])
    config.architectures = [type(model).__name__]
    config.dtype = "float32"
    with publish_folder(Path(settings.out), overwrite=settings.overwrite) as folder:
        config.save_pretrained(folder)
        held = {name: each.cpu().contiguous() for name, each in tensors.items()}
        save_file(held, folder / "model.safetensors", metadata={"format": "pt"})
        for name in _TOKENIZER_FILES:
            if (Path(settings.base) / name).exists():
                shutil.copyfile(Path(settings.base) / name, folder / name)
        write_description(folder, _description(settings, report, prepared))
        (folder / REPORT_FILE).write_bytes(page)
        recorder.copy_to(folder)


def _dropout_names(config: Mapping[str, object]) -> list[str]:
    return [name for name, value in config.items() if "dropout" in name and isinstance(value, float | int)]


def _description(settings: TrainSettings, report: TrainReport, prepared: Prepared) -> Description:
    labels = prepared.train.labels
    counted = Counter(name for label in labels for name in names_of(label))
    low, high = settings.int_score_min, settings.int_score_max
    return Description(
        assay_version=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        task=settings.task,
        labels=report.labels,
        max_length=settings.max_length,
        is_pair=prepared.train.text_pairs is not None,
        int_score=None if low is None or high is None else (low, high),
        provenance={
            "settings": {**asdict(settings), "out": None},
            "num_train_rows": report.num_train_rows,
            "num_validation_rows": report.num_validation_rows,
            "num_rows_by_label": {} if settings.task == "regression" else dict(sorted(counted.items())),
            "best_step": report.best.step,
            "num_steps": len(report.history.losses),
            "num_devices": report.num_devices,
            "validations": [asdict(each) for each in report.history.validations],
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
            **prepared.provenance,
        },
    )


def _versions() -> dict[str, str]:
    found = {
        "assay": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "Python": platform.python_version(),
    }
    return found if torch.version.cuda is None else {**found, "CUDA": torch.version.cuda}


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


# ---------------------------------------------------------------- who hears of it


def _hearing(on_progress: OnProgress, recorder: Recorder, effort: Effort) -> OnProgress:
    def hear(progress: TrainProgress) -> None:
        whole = effort.added_to(progress)
        recorder.write(whole)
        on_progress(whole)

    return hear


def _ignore(heard: object) -> None:
    del heard
