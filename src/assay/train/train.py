"""Labelled rows in, a bundle out: fine-tuning of a single-label classifier on one device.

    rows -> token ids -> batches -> loss -> weights, the epoch chosen on validation rows -> bundle

Not covered yet: several devices, resuming, multi-label and regression heads.
Axes: B rows of a batch, L padded length, C classes.
"""

import importlib.metadata
import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
import transformers
from numpy.typing import NDArray
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from assay import metrics
from assay.bundle import Description, check_base, check_out, publish_folder, write_description
from assay.engine import devices
from assay.errors import InputError, UsageError, WorkError
from assay.tokenize.encode import Encoder, Tokens
from assay.train.batches import IndexArray, epoch_batches, learning_rate_factor
from assay.train.labels import label_names
from assay.train.provenance import pack_hashes, text_hashes
from assay.train.rows import LabelledRows, read_labelled
from assay.train.settings import BestBy, TrainSettings
from assay.train.splits import group_near_duplicates, split_rows

_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model", "spiece.model", "spm.model",
)  # fmt: skip
_EVALUATION_BATCH = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainProgress:
    """Where a training stands; passed to the callback after each step and each epoch."""

    epoch: int
    """Epoch under way, from 1."""
    num_epochs: int
    """Epochs in all."""
    step: int
    """Optimizer steps done."""
    num_steps: int
    """Optimizer steps in all."""
    loss: float
    """Training loss of the last step, nats."""
    num_rows: int
    """Rows trained on so far, repeats counted."""
    num_tokens: int
    """Tokens trained on so far, without padding."""
    seconds: float
    """Since the first step began."""
    validation: Mapping[str, float] | None = None
    """Validation metrics, once an epoch is over."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochReport:
    """One pass over the training rows."""

    epoch: int
    """From 1."""
    train_loss: float
    """Mean training loss a row, dropout on, nats."""
    validation: Mapping[str, float]
    """Metrics on the validation rows after the epoch; see `metrics.class_report`."""
    seconds: float
    """Training and validation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainReport:
    """What a training did."""

    out: Path
    """The bundle."""
    labels: tuple[str, ...]
    """Names of the outputs."""
    epochs: tuple[EpochReport, ...]
    """One entry an epoch."""
    best_epoch: int
    """Epoch whose weights were saved."""
    validation: Mapping[str, float]
    """Validation metrics of these weights."""
    num_train_rows: int
    """Rows trained on."""
    num_validation_rows: int
    """Rows that chose the epoch."""
    num_tokens: int
    """Tokens trained on, repeats counted, padding not."""
    num_truncated: int
    """Training rows longer than `max_length`."""
    seconds: float
    """From the first step to the last validation."""

    def __str__(self) -> str:
        """What was trained and how good it is on the validation rows, for people."""
        found = ", ".join(f"{name} {value:.4f}" for name, value in self.validation.items())
        return "\n".join(
            [
                f"trained on {self.num_train_rows:,} rows of {len(self.labels)} labels in {self.seconds:.0f} s",
                f"epoch {self.best_epoch} of {len(self.epochs)}, {self.num_validation_rows:,} validation rows: {found}",
                f"wrote {self.out}",
            ]
        )


OnProgress = Callable[[TrainProgress], None]


def train(settings: TrainSettings, *, on_progress: OnProgress | None = None) -> TrainReport:
    """Fine-tunes `settings.base` on the sources of `settings.data`, writes a bundle and says how it went.

    Raises `UsageError`, `InputError` or `BundleError` before the first step where something handed
    in cannot work, and `WorkError` where the loss stops being a number. Nothing is left at
    `settings.out` unless the training ends well.
    """
    check_out(Path(settings.out), overwrite=settings.overwrite)
    check_base(settings.base)
    rows = _read(settings, settings.data)
    if settings.validation_data:
        return fit(settings, rows, _read(settings, settings.validation_data), on_progress=on_progress)
    train_rows, validation_rows = set_aside(rows, share=settings.validation_share, seed=settings.seed)
    return fit(settings, train_rows, validation_rows, on_progress=on_progress)


def set_aside(rows: LabelledRows, *, share: float, seed: int) -> tuple[LabelledRows, LabelledRows]:
    """Rows to train on and rows to validate on: stratified, near-duplicates never on both sides."""
    groups = group_near_duplicates(rows.texts)
    splits = split_rows(
        [str(label) for label in rows.labels], groups, {"train": 1 - share, "validation": share}, seed=seed
    )
    chosen = {
        name: rows.take([row for row, split in enumerate(splits) if split == name])
        for name in ("train", "validation")
    }
    return chosen["train"], chosen["validation"]


def fit(
    settings: TrainSettings,
    train_rows: LabelledRows,
    validation_rows: LabelledRows,
    *,
    on_progress: OnProgress | None = None,
) -> TrainReport:
    """As `train`, with the rows handed in; `settings.data` is then only noted as their origin."""
    out = Path(settings.out)
    check_out(out, overwrite=settings.overwrite)
    base_config = check_base(settings.base)
    labels = _checked_labels(train_rows, validation_rows)
    hashes = _checked_hashes(train_rows, validation_rows)
    encoder = Encoder.from_bundle(settings.base, max_length=settings.max_length, on_long="truncate")
    torch.set_num_threads(settings.num_threads or devices.default_num_threads())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = _load_model(settings, labels)
        _freeze(model, settings.num_frozen_layers)
        train_set = _encode(encoder, train_rows, labels, model)
        validation_set = _encode(encoder, validation_rows, labels, model)
        began = time.perf_counter()
        epochs, best, num_tokens = _run_epochs(
            model, settings, train_set, validation_set, on_progress=on_progress or _ignore
        )
        seconds = time.perf_counter() - began
    report = TrainReport(
        out=out,
        labels=labels,
        epochs=tuple(epochs),
        best_epoch=best.epoch,
        validation=best.validation,
        num_train_rows=train_rows.num_rows,
        num_validation_rows=validation_rows.num_rows,
        num_tokens=num_tokens,
        num_truncated=int(train_set.tokens.truncated.sum()),
        seconds=seconds,
    )
    with publish_folder(out, overwrite=settings.overwrite) as folder:
        _restore_dropout(model, base_config)
        with _quiet_transformers():
            model.save_pretrained(folder)
        for name in _TOKENIZER_FILES:
            if (Path(settings.base) / name).exists():
                shutil.copyfile(Path(settings.base) / name, folder / name)
        write_description(folder, _description(settings, report, train_rows, hashes))
    return report


# ---------------------------------------------------------------- the loop


@dataclass(frozen=True, kw_only=True, slots=True)
class _EncodedRows:
    tokens: Tokens
    labels: IndexArray
    pad_id: int
    has_token_types: bool

    @property
    def num_rows(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> IndexArray:
        return np.diff(self.tokens.offsets)


def _run_epochs(
    model: PreTrainedModel,
    settings: TrainSettings,
    train_set: _EncodedRows,
    validation_set: _EncodedRows,
    *,
    on_progress: OnProgress,
) -> tuple[list[EpochReport], EpochReport, int]:
    """Trains in place; the model ends with the weights of the best epoch, which comes second."""
    parameters = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(_parameter_groups(model, settings), lr=settings.learning_rate)
    num_steps = settings.epochs * -(-train_set.num_rows // settings.batch_size)
    num_warmup_steps = round(settings.warmup_share * num_steps)
    rng = np.random.default_rng(settings.seed)
    began = time.perf_counter()
    step = num_rows = num_tokens = 0
    reports: list[EpochReport] = []
    best_weights: dict[str, torch.Tensor] = {}
    for epoch in range(1, settings.epochs + 1):
        epoch_began = time.perf_counter()
        model.train()
        total_loss = 0.0
        for rows in epoch_batches(train_set.lengths, batch_size=settings.batch_size, rng=rng):
            factor = learning_rate_factor(step, num_steps=num_steps, num_warmup_steps=num_warmup_steps)
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * factor
            logits_BC = model(**_collate(train_set, rows)).logits
            loss = nn.functional.cross_entropy(logits_BC, torch.from_numpy(train_set.labels[rows]))
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, settings.max_gradient_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            num_rows += len(rows)
            num_tokens += int(train_set.lengths[rows].sum())
            last_loss = loss.item()
            if not np.isfinite(last_loss):
                raise WorkError(
                    f"loss {last_loss} at step {step} of {num_steps}; it must stay a number;"
                    f" lower learning_rate={settings.learning_rate}"
                )
            total_loss += last_loss * len(rows)
            progress = TrainProgress(
                epoch=epoch,
                num_epochs=settings.epochs,
                step=step,
                num_steps=num_steps,
                loss=last_loss,
                num_rows=num_rows,
                num_tokens=num_tokens,
                seconds=time.perf_counter() - began,
            )
            on_progress(progress)
        logits_NC = _predict(model, validation_set)
        validation = metrics.class_report(metrics.softmax(logits_NC), validation_set.labels)
        report = EpochReport(
            epoch=epoch,
            train_loss=total_loss / train_set.num_rows,
            validation=validation,
            seconds=time.perf_counter() - epoch_began,
        )
        reports.append(report)
        if report is best_epoch(reports, best_by=settings.chosen_by) and settings.epochs > 1:
            best_weights = {
                name: each.detach().clone() for name, each in model.named_parameters() if each.requires_grad
            }
        on_progress(
            TrainProgress(
                epoch=epoch,
                num_epochs=settings.epochs,
                step=step,
                num_steps=num_steps,
                loss=last_loss,
                num_rows=num_rows,
                num_tokens=num_tokens,
                seconds=time.perf_counter() - began,
                validation=validation,
            )
        )
    if best_weights:
        model.load_state_dict(best_weights, strict=False)
    return reports, best_epoch(reports, best_by=settings.chosen_by), num_tokens


def best_epoch(reports: list[EpochReport], *, best_by: BestBy) -> EpochReport:
    """The epoch with the best validation metric; a tie goes to the lower NLL, then to the earlier."""

    def cost(report: EpochReport) -> tuple[float, float]:
        value = report.validation[best_by]
        return (value if best_by == "nll" else -value, report.validation["nll"])

    return min(reports, key=cost)


@torch.inference_mode()
def _predict(model: PreTrainedModel, rows: _EncodedRows) -> NDArray[np.float32]:
    """Logits [N, C] in the order of the rows."""
    model.train(mode=False)
    order = np.argsort(rows.lengths, kind="stable")
    batches = [order[first : first + _EVALUATION_BATCH] for first in range(0, len(order), _EVALUATION_BATCH)]
    logits_NC = torch.cat([model(**_collate(rows, chosen)).logits.float() for chosen in batches]).numpy()
    result: NDArray[np.float32] = logits_NC[np.argsort(order)]
    return result


def _collate(rows: _EncodedRows, chosen: IndexArray) -> dict[str, torch.Tensor]:
    """The chosen rows as padded tensors [B, L], L the longest of them."""
    lengths_B = rows.lengths[chosen]
    positions_L = np.arange(lengths_B.max())
    is_token_BL = positions_L < lengths_B[:, None]
    sources_BL = np.where(is_token_BL, rows.tokens.offsets[chosen][:, None] + positions_L, 0)
    input_ids_BL = np.where(is_token_BL, rows.tokens.flat_ids[sources_BL].astype(np.int64), rows.pad_id)
    batch = {
        "input_ids": torch.from_numpy(input_ids_BL),
        "attention_mask": torch.from_numpy(is_token_BL.astype(np.int64)),
    }
    seconds = rows.tokens.second_starts
    if rows.has_token_types and seconds is not None:
        starts_B = np.where(seconds[chosen] > 0, seconds[chosen], lengths_B)[:, None]
        batch["token_type_ids"] = torch.from_numpy(((positions_L >= starts_B) & is_token_BL).astype(np.int64))
    return batch


def _parameter_groups(model: PreTrainedModel, settings: TrainSettings) -> list[dict[str, object]]:
    """Matrices with weight decay; vectors (biases, norms) without."""
    trained = [each for each in model.parameters() if each.requires_grad]
    return [
        {"params": [each for each in trained if each.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [each for each in trained if each.ndim <= 1], "weight_decay": 0.0},
    ]


def _ignore(progress: TrainProgress) -> None:
    del progress


# ---------------------------------------------------------------- before the first step


def _read(settings: TrainSettings, patterns: tuple[str, ...]) -> LabelledRows:
    return read_labelled(
        patterns,
        text_column=settings.text_column,
        text_pair_column=settings.text_pair_column,
        label_column=settings.label_column,
        format=settings.format,
    )


def _checked_labels(train_rows: LabelledRows, validation_rows: LabelledRows) -> tuple[str, ...]:
    if validation_rows.num_rows == 0:
        raise InputError(
            "0 validation rows; they choose the epoch; hand in more rows or raise validation_share"
        )
    labels = label_names(train_rows.labels, "single_label")
    if len(labels) < 2:
        raise InputError(f"labels {list(labels)}; a classifier needs at least 2; check the label column")
    unknown = sorted(set(validation_rows.labels) - set(labels))
    if unknown:
        raise InputError(
            f"validation labels {unknown[:5]} never occur in training; both need the same labels;"
            " add training rows or drop these"
        )
    return labels


def _checked_hashes(train_rows: LabelledRows, validation_rows: LabelledRows) -> dict[str, str]:
    """Packed hashes by role; refuses validation rows that are trained on."""
    seen = text_hashes(train_rows.texts, train_rows.text_pairs)
    validation = text_hashes(validation_rows.texts, validation_rows.text_pairs)
    packed = {"train": pack_hashes(seen), "validation": pack_hashes(validation)}
    num_shared = int(np.isin(validation, seen).sum())
    if num_shared:
        raise InputError(
            f"{num_shared} of {validation.size} validation rows are training rows too;"
            " a metric on them means nothing; remove them from one side"
        )
    return {role: content for role, content in packed.items() if content is not None}


def _load_model(settings: TrainSettings, labels: tuple[str, ...]) -> PreTrainedModel:
    """The base with a head for these labels; new head weights come from the global generator."""
    config = AutoConfig.from_pretrained(settings.base, local_files_only=True, trust_remote_code=False)
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    config.problem_type = "single_label_classification"
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
    return model


def _freeze(model: PreTrainedModel, num_layers: int) -> None:
    """Stops the gradient of the embeddings and the lowest layers."""
    if num_layers == 0:
        return
    depth = getattr(model.config, "num_hidden_layers", None)
    encoder = model.base_model
    stacks = [each for each in encoder.modules() if isinstance(each, nn.ModuleList) and len(each) == depth]
    embeddings: nn.Module = getattr(encoder, "embeddings", model.get_input_embeddings())
    if not stacks or num_layers > len(stacks[0]):
        raise UsageError(
            f"num_frozen_layers={num_layers}; this {model.config.model_type} has {depth} layers; lower it"
        )
    for frozen in (embeddings, *stacks[0][:num_layers]):
        frozen.requires_grad_(requires_grad=False)


def _encode(
    encoder: Encoder, rows: LabelledRows, labels: tuple[str, ...], model: PreTrainedModel
) -> _EncodedRows:
    pairs = None if rows.text_pairs is None else pa.array(rows.text_pairs, type=pa.large_string())
    index_of_label = {label: index for index, label in enumerate(labels)}
    pad_id = getattr(model.config, "pad_token_id", None)
    return _EncodedRows(
        tokens=encoder.encode(pa.array(rows.texts, type=pa.large_string()), pairs),
        labels=np.array([index_of_label[str(label)] for label in rows.labels], dtype=np.int64),
        pad_id=pad_id if isinstance(pad_id, int) and pad_id >= 0 else 0,
        has_token_types=getattr(model.config, "type_vocab_size", 0) > 1,
    )


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


# ---------------------------------------------------------------- after the last step


def _dropout_names(config: Mapping[str, object]) -> list[str]:
    return [name for name, value in config.items() if "dropout" in name and isinstance(value, float | int)]


def _restore_dropout(model: PreTrainedModel, base_config: Mapping[str, object]) -> None:
    """The saved config keeps the base's dropout: a training setting is not part of the model."""
    for name in _dropout_names(model.config.to_dict()):
        if name in base_config:
            setattr(model.config, name, base_config[name])


def _description(
    settings: TrainSettings, report: TrainReport, train_rows: LabelledRows, hashes: Mapping[str, str]
) -> Description:
    return Description(
        assay_version=importlib.metadata.version("assay"),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        task="single_label",
        labels=report.labels,
        max_length=settings.max_length,
        is_pair=train_rows.text_pairs is not None,
        provenance={
            "settings": {**asdict(settings), "out": None},
            "num_train_rows": report.num_train_rows,
            "num_validation_rows": report.num_validation_rows,
            "num_rows_by_label": dict(sorted(Counter(train_rows.labels).items())),
            "best_epoch": report.best_epoch,
            "epochs": [asdict(each) for each in report.epochs],
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
            "text_hashes": dict(hashes),
        },
    )
