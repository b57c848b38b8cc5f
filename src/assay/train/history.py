"""What a training tells as it goes, and what it writes down: steps, validations, which of them is best."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from assay.tasks import MetricName

_LOWER_IS_BETTER = frozenset({"nll", "mae"})


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainProgress:
    """Where a training stands; passed to the callback for each step and each validation."""

    epoch: int
    """Epoch under way, from 1."""
    num_epochs: int
    """Epochs in all."""
    step: int
    """Optimizer steps done."""
    num_steps: int
    """Optimizer steps in all."""
    loss: float
    """Training loss of the step, over all ranks."""
    learning_rate: float
    """Of the step, that of the head."""
    gradient_norm: float
    """Of the step, before clipping."""
    num_rows: int
    """Rows trained on so far, repeats counted."""
    num_tokens: int
    """Tokens trained on so far, without padding."""
    seconds: float
    """Spent training so far, interruptions left out."""
    validation: Mapping[str, float] | None = None
    """Validation metrics, after a validation."""
    num_negatives: float | None = None
    """Siamese: how many texts of the step are held against one that has a positive, on average."""
    further: Mapping[str, float] | None = None
    """Figures of this kind of training alone, by name."""
    flops: float = 0.0
    """Operations of the model on these tokens, forward and backward; see speed.py."""
    peak_flops: float | None = None
    """Operations a second of a plain matrix product on all devices; None where it was not measured."""


OnProgress = Callable[[TrainProgress], None]
OnMessage = Callable[[str], None]
OnPhase = Callable[[str], None]


def _ignore(heard: object) -> None:
    del heard


@dataclass(frozen=True, kw_only=True, slots=True)
class Listener:
    """Who is told of a training while it goes on."""

    on_progress: OnProgress = _ignore
    """Hears of each step and each validation."""
    on_message: OnMessage = _ignore
    """Hears of the split and of what is odd about the rows."""
    on_phase: OnPhase = _ignore
    """Hears what begins: reading the rows, loading the base, training, validating, and so on."""

    @classmethod
    def of(
        cls, on_progress: OnProgress | None, on_message: OnMessage | None, on_phase: OnPhase | None
    ) -> "Listener":
        """One of callbacks that may be missing."""
        return cls(
            on_progress=on_progress or _ignore,
            on_message=on_message or _ignore,
            on_phase=on_phase or _ignore,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Validation:
    """What was measured on the validation rows at one step."""

    step: int
    """Optimizer steps done."""
    epoch: float
    """Passes over the training rows done."""
    train_loss: float
    """Mean training loss a step since the validation before, dropout on."""
    metrics: Mapping[str, float]
    """On the validation rows; see `metrics.validation_metrics`."""
    seconds: float
    """Spent training until then."""


@dataclass(slots=True)
class History:
    """What a training writes down as it goes."""

    losses: list[float] = field(default_factory=list)
    """Training loss of each step."""
    learning_rates: list[float] = field(default_factory=list)
    gradient_norms: list[float] = field(default_factory=list)
    num_negatives: list[float] = field(default_factory=list)
    """Of each step, where the objective compares the rows of a step."""
    validations: list[Validation] = field(default_factory=list)
    num_rows: int = 0
    num_tokens: int = 0
    seconds: float = 0.0

    def to_json(self) -> dict[str, object]:
        """Plain values, floats as they are."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "History":
        """What `to_json` gave."""
        validations = [Validation(**each) for each in content["validations"]]
        return cls(**{**content, "validations": validations})


def cost(validation: Validation, best_by: MetricName) -> tuple[float, float]:
    """What the best weights have least of: the metric (NaN is worst), then where equal the NLL or the loss."""
    value = validation.metrics[best_by]
    first = value if best_by in _LOWER_IS_BETTER else -value
    second = validation.metrics.get("nll", validation.metrics.get("mae", 0.0))
    return (math.inf if math.isnan(first) else first, second)
