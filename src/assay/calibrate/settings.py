"""What `assay calibrate` can be told. Imports nothing heavy, so that the command line starts fast."""

import math
from dataclasses import dataclass, field
from typing import Literal

from assay.engine.precision import Precision
from assay.errors import UsageError
from assay.train.settings import check_count

ThresholdBy = Literal["accuracy", "f0.5", "f1", "f2", "precision_at_recall", "recall_at_precision", "cost"]

_BELONGS_TO = {
    "min_recall": "precision_at_recall",
    "min_precision": "recall_at_precision",
    "cost_false_positive": "cost",
    "cost_false_negative": "cost",
}


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
    """Column of the label, as the bundle names it: lists of names for multi-label, numbers for regression."""
    group_column: str | None = None
    """Column (author, book, url) whose rows are cross-validated together; no group may be in the training."""
    id_column: str | None = None
    """Column of the id; no id may be in the training."""
    test_data: tuple[str, ...] = ()
    """Sources of the test rows: refused where they share a text, an id or a group with DATA."""
    method: Literal["temperature", "vector", "logistic", "isotonic", "auto", "conformal"] | None = None
    """Map of the logits; auto: the best in cross-validation; left out: temperature, or conformal for a regression."""
    select_by: Literal["brier", "ece"] | None = None
    """What auto compares the methods by; left out: brier."""
    num_folds: int = 5
    """Parts of the rows in cross-validation."""
    seed: int = 0
    """Decides which rows are held out together."""
    coverage: float | None = None
    """Regression: share of the documents whose interval is to hold their target; left out: 0.9."""
    threshold_by: ThresholdBy | None = None
    """Choose a threshold (two labels), or one a label (multi-label), that is best by this."""
    min_recall: float | None = None
    """precision_at_recall: least recall."""
    min_precision: float | None = None
    """recall_at_precision: least precision."""
    cost_false_positive: float | None = None
    """cost: what a wrong positive costs, in any unit."""
    cost_false_negative: float | None = None
    """cost: what a missed positive costs, in the same unit."""
    max_length: int | None = None
    """Tokens a document; left out: what the bundle was trained for. Score with the same."""
    on_long: Literal["truncate", "head-tail"] = "truncate"
    """What happens to longer documents. Score with the same."""
    device: str = "cpu"
    """Where the forward pass runs."""
    precision: Precision = "auto"
    """Number format of the forward pass."""
    max_batch_tokens: int | None = None
    """Tokens a forward pass; left out: the engine's own choice."""
    num_threads: int | None = None
    """CPU threads; left out: all that the process may use."""

    def __post_init__(self) -> None:
        """Raise `UsageError` for a value out of range."""
        for name in ("max_length", "max_batch_tokens", "num_threads"):
            check_count(name, getattr(self, name))
        if self.seed < 0:
            raise UsageError(f"seed={self.seed}; it is 0 or more; raise it")
        if self.num_folds < 2:
            raise UsageError(f"num_folds={self.num_folds}; cross-validation needs at least 2; raise it")
        if self.coverage is not None and not 0 < self.coverage < 1:
            raise UsageError(f"coverage={self.coverage}; it lies between 0 and 1; set 0.9")
        if self.select_by is not None and self.method != "auto":
            raise UsageError(
                f"select_by={self.select_by} belongs to method=auto; give --method auto, or leave --select-by out"
            )
        self._check_threshold()

    def _check_threshold(self) -> None:
        for name, threshold_by in _BELONGS_TO.items():
            value = getattr(self, name)
            flag = "--" + name.replace("_", "-")
            if value is None and self.threshold_by == threshold_by:
                raise UsageError(f"threshold_by={threshold_by} needs {name}; give {flag}")
            if value is not None and self.threshold_by != threshold_by:
                raise UsageError(
                    f"{name}={value} belongs to threshold_by={threshold_by}; "
                    f"give --threshold-by {threshold_by}, or leave {flag} out"
                )
        for name in ("min_recall", "min_precision"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise UsageError(f"{name}={value}; it lies above 0 and up to 1; set 0.9")
        costs = [self.cost_false_positive, self.cost_false_negative]
        if any(cost is not None and not 0 <= cost < math.inf for cost in costs) or costs == [0, 0]:
            raise UsageError(
                f"cost_false_positive={costs[0]}, cost_false_negative={costs[1]}; costs are 0 or more and not"
                " both 0; set for example 1 and 5"
            )
