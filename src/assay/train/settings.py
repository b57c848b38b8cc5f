"""What `assay train` can be told. Imports nothing heavy, so that the command line starts fast."""

import math
from dataclasses import dataclass
from typing import Literal

from assay.errors import UsageError

BestBy = Literal["accuracy", "macro_f1", "nll"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSettings:
    """Fine-tuning of one single-label classifier."""

    base: str
    """Folder of the model to start from: config, safetensors, tokenizer.json; with or without a head."""
    out: str
    """Folder that becomes the bundle."""
    data: tuple[str, ...]
    """Sources of labelled rows: paths, globs or URLs."""
    validation_data: tuple[str, ...] = ()
    """Sources of the rows that choose the checkpoint; none: a share of `data` is set aside."""
    format: str | None = None
    """Format of all sources, where the file name does not tell."""
    text_column: str = "text"
    """Column of the text."""
    text_pair_column: str | None = None
    """Column of the second text, for pairs."""
    label_column: str = "label"
    """Column of the label: strings or integers."""
    validation_share: float = 0.1
    """Share of the rows set aside where there is no `validation_data`, above 0 and below 1."""
    epochs: int = 3
    """Passes over the training rows."""
    batch_size: int = 16
    """Documents a step."""
    learning_rate: float = 5e-5
    """Largest learning rate, reached after the warm-up."""
    warmup_share: float = 0.1
    """Share of the steps during which the learning rate rises."""
    weight_decay: float = 0.01
    """AdamW's decay of weight matrices; biases and norms have none."""
    max_gradient_norm: float = 1.0
    """Gradients with a larger norm are scaled down to it."""
    max_length: int = 256
    """Tokens a document, special tokens included; longer ones are cut."""
    dropout: float | None = None
    """Share of activations dropped in training; `None`: what the base's config says."""
    num_frozen_layers: int = 0
    """Lowest layers left as they are; above 0 the embeddings are left too."""
    best_by: BestBy = "accuracy"
    """Validation metric that chooses the epoch; a tie goes to the lower NLL."""
    seed: int = 0
    """Decides the split, the head's first weights, the order of the rows and the dropout."""
    num_threads: int | None = None
    """CPU threads; `None`: all that the process may use."""
    overwrite: bool = False
    """Whether a folder at `out` may be replaced."""

    def __post_init__(self) -> None:
        """Raise `UsageError` for a value out of range."""
        for name in ("epochs", "batch_size", "max_length"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)}; it counts from 1; raise it")
        for name in ("learning_rate", "max_gradient_norm"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise UsageError(f"{name}={value}; it must be a number above 0; set for example {name}=1e-4")
        if not 0 < self.validation_share < 1:
            raise UsageError(f"validation_share={self.validation_share}; it lies between 0 and 1; set 0.1")
        if not 0 <= self.warmup_share <= 1:
            raise UsageError(f"warmup_share={self.warmup_share}; it lies from 0 to 1; set 0.1")
        if not 0 <= self.weight_decay < math.inf:
            raise UsageError(f"weight_decay={self.weight_decay}; it must be 0 or more; set 0.01")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise UsageError(f"dropout={self.dropout}; it is a share from 0 to below 1; set 0.1")
        if self.num_frozen_layers < 0:
            raise UsageError(f"num_frozen_layers={self.num_frozen_layers}; it counts layers; set 0 or more")
