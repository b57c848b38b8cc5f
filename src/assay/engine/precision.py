"""In which precision a device computes: the names, and what `auto` means. Imports nothing heavy.

The rule stands here alone; planning, workers, training, serving, bench, calibrate and evaluate ask it. A
target may be a device of another machine, which a run is planned for. Whether a model holds in fp16 `half.py` says.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from assay.errors import UsageError

DeviceKind = Literal["cpu", "cuda"]
Computed = Literal["fp32", "bf16", "fp16", "fp8"]
"""What numbers are computed in; fp8 is for products alone, the rest is bf16."""
Precision = Literal["auto", Computed]
"""What a user may ask for."""
WhyNot = Callable[[], str | None]
"""Says why numbers are not computed in fp16, in a clause; None where they can be. May take seconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """The device that will compute, here or on another machine."""

    kind: DeviceKind
    has_bf16: bool = True
    """Whether it computes in bf16 itself, as GPUs do from capability 8.0 (Ampere) on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """What numbers are computed in, and why."""

    precision: Computed
    reason: str | None = None
    """Why `auto` does not mean fp16 here, in a clause; None where it does, and on a CPU."""

    @property
    def why(self) -> str | None:
        """What was chosen and why, for a record; None on a CPU, where there is nothing to choose."""
        if self.reason is not None:
            return f"auto: {self.precision}, since {self.reason}"
        return (
            "auto: fp16, since weights and activations stay inside its range"
            if self.precision == "fp16"
            else None
        )

    @property
    def note(self) -> str | None:
        """A sentence where it is not fp16 on a GPU."""
        return None if self.reason is None else f"numbers are in {self.precision}, not fp16: {self.reason}"


def auto_choices(target: Target) -> tuple[Computed, ...]:
    """All that `auto` can mean on a device, whatever the model: the second where fp16 does not hold."""
    if target.kind == "cpu":
        return ("fp32",)
    return ("fp16", "bf16" if target.has_bf16 else "fp32")


def choose_auto(target: Target, why_not_fp16: WhyNot) -> Choice:
    """What `auto` means on a device.

    fp32 on a CPU, where it is exact and as fast as any. On a GPU fp16, a little slower than bf16 and far nearer to
    fp32, where the numbers stay inside its range; else bf16, and fp32 on a GPU that has none.
    """
    first, *rest = auto_choices(target)
    if not rest:
        return Choice(precision=first)
    reason = why_not_fp16()
    return Choice(precision=first if reason is None else rest[0], reason=reason)


def choose_auto_for_training(target: Target) -> Choice:
    """What `auto` means for training: the same rule, which fp16 never passes."""
    return choose_auto(target, lambda: "gradients would need to be scaled to stay inside fp16's range")


def refuse_missing(precision: Computed, target: Target) -> None:
    """Raise UsageError for fp8 on a CPU, and for bf16 on a card without it: torch would emulate that, slowly."""
    if precision == "fp8" and target.kind == "cpu":
        raise UsageError("precision fp8; CPUs have none, it needs a GPU; use auto, fp32 or bf16")
    if precision == "bf16" and not target.has_bf16:
        msg = "precision bf16; the GPU has none (it needs capability 8.0); use auto, fp16 or fp32"
        raise UsageError(msg)


def common_target(targets: Sequence[Target]) -> Target:
    """The target of devices of one kind that work on one run: what all of them have."""
    return Target(kind=targets[0].kind, has_bf16=all(target.has_bf16 for target in targets))
