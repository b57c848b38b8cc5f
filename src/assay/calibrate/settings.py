"""What `assay calibrate` can be told. Imports nothing heavy, so that the command line starts fast."""

from dataclasses import dataclass, field
from typing import Literal

from assay.engine.settings import CpuThreads, Forward, OneDevice
from assay.errors import UsageError
from assay.labelled.settings import LabelledSources
from assay.settings import positional, within
from assay.tokenize.settings import LongDocuments

ThresholdBy = Literal["accuracy", "f0.5", "f1", "f2", "precision_at_recall", "recall_at_precision", "cost"]

_BELONGS_TO = {
    "min_recall": "precision_at_recall",
    "min_precision": "recall_at_precision",
    "cost_false_positive": "cost",
    "cost_false_negative": "cost",
}


@dataclass(frozen=True, kw_only=True)
class CalibrateSettings(LabelledSources, LongDocuments, OneDevice, Forward, CpuThreads):
    """Calibration of one bundle on held-out labelled rows."""

    bundle: str = field(metadata=positional("BUNDLE"))
    """Folder of the bundle; its `calibration.json` is written or replaced."""
    data: tuple[str, ...] = field(metadata=positional("DATA"))
    """Sources of labelled rows that no part of the training has seen."""
    test_data: tuple[str, ...] = ()
    """Sources of the test rows; DATA may share no text, id or group with them."""
    method: Literal["temperature", "vector", "logistic", "isotonic", "auto", "conformal"] | None = None
    """Map of the logits; auto: the best in cross-validation; by default temperature, or conformal for a regression."""
    select_by: Literal["brier", "ece"] | None = None
    """What auto compares the methods by; by default brier."""
    num_folds: int = field(default=5, metadata=within(at_least=2))
    """Parts of the rows in cross-validation."""
    seed: int = field(default=0, metadata=within(at_least=0))
    """Decides which rows are held out together."""
    coverage: float | None = field(default=None, metadata=within(above=0, below=1))
    """Regression: share of documents whose interval should hold their target; by default 0.9."""
    threshold_by: ThresholdBy | None = None
    """What the threshold (two labels), or each label's (multi-label), is best by."""
    min_recall: float | None = field(default=None, metadata=within(above=0, at_most=1))
    """precision_at_recall: least recall."""
    min_precision: float | None = field(default=None, metadata=within(above=0, at_most=1))
    """recall_at_precision: least precision."""
    cost_false_positive: float | None = field(default=None, metadata=within(at_least=0))
    """cost: what a wrong positive costs, in any unit."""
    cost_false_negative: float | None = field(default=None, metadata=within(at_least=0))
    """cost: what a missed positive costs, in the same unit."""

    def check(self) -> None:
        """Raise `UsageError` where values do not go together."""
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
        if self.cost_false_positive == self.cost_false_negative == 0:
            raise UsageError(
                "cost_false_positive and cost_false_negative are both 0; one of them must cost something; "
                "set for example 1 and 5"
            )
