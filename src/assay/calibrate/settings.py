"""What `assay calibrate` can be told. Imports nothing heavy, so that the command line starts fast."""

from dataclasses import dataclass, field
from typing import Literal

from assay.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrateSettings:
    """Calibration of one bundle on held-out labelled rows."""

    bundle: str = field(metadata={"positional": True, "metavar": "BUNDLE"})
    """Folder of the bundle; its `calibration.json` is written or replaced."""
    data: tuple[str, ...] = field(metadata={"positional": True, "metavar": "DATA"})
    """Sources of labelled rows that no part of the training has seen."""
    format: str | None = None
    """Format of all sources, where the file name does not tell."""
    text_column: str = "text"
    """Column of the text."""
    text_pair_column: str | None = None
    """Column of the second text, for pairs."""
    label_column: str = "label"
    """Column of the label, as the bundle names it."""
    max_length: int | None = None
    """Tokens a document; `None`: what the bundle was trained for. Score with the same."""
    on_long: Literal["truncate", "head-tail"] = "truncate"
    """What happens to longer documents. Score with the same."""
    device: str = "cpu"
    """Where the forward pass runs."""
    precision: str = "auto"
    """Number format of the forward pass."""
    max_batch_tokens: int | None = None
    """Tokens a forward pass; `None`: the engine's own choice."""
    num_threads: int | None = None
    """CPU threads; `None`: all that the process may use."""

    def __post_init__(self) -> None:
        """Raise `UsageError` for a value out of range."""
        for name in ("max_length", "max_batch_tokens", "num_threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name}={value}; it counts from 1; raise it or leave it out")
