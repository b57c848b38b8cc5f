"""What a training would do, without doing it: rows, lengths, devices, steps. Nothing is written."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from assay.labelled.splits import SplitReport
from assay.model.pretrained import transformers_config
from assay.telemetry import format_number_of
from assay.train.base import base_checkpoint
from assay.train.batches import IndexArray, num_warmup_steps
from assay.train.datasets import prepare_rows
from assay.train.inputs import EncodedRows, encode_split
from assay.train.parts import Parts
from assay.train.places import check_places
from assay.train.resources import choose_precision, describe_device, num_processes, num_ranks
from assay.train.settings import TrainSettings, rows_of_step, step_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Lengths:
    """Tokens of the rows of a split, special tokens included."""

    shortest: int
    median: int
    most: int
    """Of 95 in 100 rows."""
    longest: int
    num_rows: int
    num_truncated: int
    """Rows longer than `max_length`, which are cut."""

    @classmethod
    def of(cls, rows: EncodedRows) -> "Lengths":
        """Those of these rows."""
        lengths: IndexArray = rows.lengths
        shortest, median, most, longest = np.percentile(lengths, [0, 50, 95, 100], method="higher").tolist()
        return cls(
            shortest=int(shortest),
            median=int(median),
            most=int(most),
            longest=int(longest),
            num_rows=rows.num_rows,
            num_truncated=rows.num_truncated,
        )

    def __str__(self) -> str:
        """On one line."""
        share = self.num_truncated / self.num_rows
        return (
            f"{self.shortest:,} to {self.longest:,} tokens, median {self.median:,}, 95% up to {self.most:,};"
            f" {self.num_truncated:,} of {self.num_rows:,} rows ({share:.1%}) are cut"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainPlan:
    """A training that was not begun."""

    split: SplitReport
    """Sizes and balance."""
    warnings: tuple[str, ...]
    """What is odd about the rows."""
    labels: tuple[str, ...]
    """Names of the outputs."""
    architecture: str
    """Of the base: its type, layers and width."""
    max_length: int
    train_lengths: Lengths
    validation_lengths: Lengths
    device: str
    num_devices: int
    precision: str
    rows_per_step: int
    """All devices together."""
    tokens_per_step: int
    """On average, padding not counted."""
    num_steps: int
    num_warmup_steps: int
    num_epochs: int
    num_validations: int
    """Without early stopping."""

    def __str__(self) -> str:
        """For people: what is printed before a training, and what would follow."""
        facts = {
            "model": f"{self.architecture}; outputs {len(self.labels):,}",
            "lengths": f"train {self.train_lengths} at max_length={self.max_length}",
            "": f"validation {self.validation_lengths}",
            "devices": f"{self.num_devices} x {self.device}, {self.precision}",
            "steps": (
                f"{self.num_steps:,} ({self.num_warmup_steps:,} of them warm-up), each of {self.rows_per_step:,}"
                f" documents (about {self.tokens_per_step:,} tokens); {format_number_of(self.num_epochs, 'epoch')},"
                f" {format_number_of(self.num_validations, 'validation')}"
            ),
        }
        return "\n".join(
            [
                str(self.split),
                *self.warnings,
                *(f"{name:8} {fact}" for name, fact in facts.items()),
                "nothing was trained or written (dry_run)",
            ]
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedDevices:
    """Devices that are not those of this machine."""

    count: int
    name: str
    precision: str


def plan(settings: TrainSettings, *, devices: PlannedDevices | None = None) -> TrainPlan:
    """What `train` would do with these settings, here or on `devices`; raises its errors for rows, base and places.

    Rows are read, split and tokenized; of the base only the files beside its weights are read.
    """
    devices = devices or _devices_here(settings)
    num_devices = devices.count
    check_places(settings, num_ranks=num_devices)
    prepared = prepare_rows(settings)
    config = transformers_config(base_checkpoint(settings.base))
    rows = encode_split(settings, prepared, getattr(config, "vocab_size", 1 << 31))
    per_epoch = Parts().sampler(settings, rows.train, num_devices).num_epoch_steps
    num_steps = settings.epochs * per_epoch
    return TrainPlan(
        split=prepared.split,
        warnings=prepared.warnings,
        labels=prepared.names,
        architecture=_architecture(config),
        max_length=settings.max_length,
        train_lengths=Lengths.of(rows.train),
        validation_lengths=Lengths.of(rows.validation),
        device=devices.name,
        num_devices=num_devices,
        precision=devices.precision,
        rows_per_step=rows_of_step(step_of(settings, num_devices)),
        tokens_per_step=round(rows.train.lengths.sum() / per_epoch),
        num_steps=num_steps,
        num_warmup_steps=num_warmup_steps(settings, num_steps),
        num_epochs=settings.epochs,
        num_validations=-(-num_steps // (settings.evaluate_every or per_epoch)),
    )


def _devices_here(settings: TrainSettings) -> PlannedDevices:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return PlannedDevices(
        count=max(num_processes(settings), num_ranks()),
        name=describe_device(device),
        precision=choose_precision(settings, device),
    )


def _architecture(config: Any) -> str:  # noqa: ANN401 - a transformers config is untyped
    layers, width = (getattr(config, name, None) for name in ("num_hidden_layers", "hidden_size"))
    size = f", {layers} layers, {width:,} wide" if layers and width else ""
    return f"{config.model_type}{size}"
