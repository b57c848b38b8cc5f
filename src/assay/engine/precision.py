"""In which precision a device computes: the names, and what `auto` means. Imports nothing heavy.

The rule stands here alone; planning, workers, training, serving, bench, calibrate and evaluate ask it. A
target may be a device of another machine, which a run is planned for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from assay.errors import UsageError

DeviceKind = Literal["cpu", "cuda"]
Computed = Literal["fp32", "bf16", "fp16", "fp8"]
"""What numbers are computed in; fp8 is for products alone, the rest is bf16."""
Precision = Literal["auto", Computed]
"""What a user may ask for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """The device that will compute, here or on another machine."""

    kind: DeviceKind
    has_bf16: bool = True
    """Whether it computes in bf16 itself, as GPUs do from capability 8.0 (Ampere) on."""


def auto_precision(target: Target) -> Computed:
    """What `auto` means for scores on a device.

    fp32 on a CPU, where it is exact and as fast as any; bf16 on a GPU that has it, else fp16.
    """
    if target.kind == "cpu":
        return "fp32"
    return "bf16" if target.has_bf16 else "fp16"


def auto_training_precision(target: Target) -> Computed:
    """What `auto` means for training: as for scores, but for fp16, whose gradients would need scaling."""
    chosen = auto_precision(target)
    return "fp32" if chosen == "fp16" else chosen


def refuse_missing(precision: Computed, target: Target) -> None:
    """Raise UsageError for bf16, asked for by name, on a card that has none: torch would emulate it, slowly."""
    if precision == "bf16" and not target.has_bf16:
        msg = "precision bf16; the GPU has none (it needs capability 8.0); use auto, fp16 or fp32"
        raise UsageError(msg)


def common_target(targets: Sequence[Target]) -> Target:
    """The target of devices of one kind that work on one run: what all of them have."""
    return Target(kind=targets[0].kind, has_bf16=all(target.has_bf16 for target in targets))
