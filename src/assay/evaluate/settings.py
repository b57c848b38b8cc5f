"""What `assay evaluate` can be told. Imports nothing heavy, so that the command line starts fast."""

import math
from dataclasses import dataclass, field
from typing import Literal

from assay.engine.precision import Precision
from assay.errors import UsageError
from assay.tokenize.settings import OnLong
from assay.train.settings import check_count


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateSettings:
    """Evaluation of one bundle, or of two on the same rows."""

    bundle: str = field(metadata={"positional": True, "metavar": "BUNDLE"})
    """Folder of the bundle; any transformers sequence classification folder."""
    data: tuple[str, ...] = field(metadata={"positional": True, "metavar": "DATA"})
    """Sources of labelled rows that neither training nor calibration has seen."""
    against: str | None = None
    """Another bundle of the same labels: differences on the same rows, with a paired test."""
    out: str | None = None
    """File to write: a page to look at (.html) or all figures (.json)."""
    json: bool = False
    """Print one JSON object instead of a table for people."""
    show_texts: bool = False
    """Put the beginning of the worst-judged texts into the page and the JSON; they may be private."""
    format: str | None = None
    """Format of all sources, where the file name does not tell."""
    text_column: str = "text"
    """Column of the text."""
    text_pair_column: str | None = None
    """Column of the second text, for pairs."""
    label_column: str = "label"
    """Column of the label, as the bundle names it; lists for multi-label, numbers for regression."""
    id_column: str | None = None
    """Column that names a row, for the list of the worst and to find rows of the training."""
    group_column: str | None = None
    """Column (author, book, url) of rows that belong together: metrics of each, and intervals by group."""
    resample: Literal["auto", "rows", "groups"] = "auto"
    """What an interval draws anew; auto: groups where a group column is given, else rows."""
    resamples: int = 2_000
    """Resamples behind each interval; 0: no intervals."""
    interval: Literal["bca", "percentile"] = "bca"
    """bca: corrected for bias and skew (Efron 1987); percentile: plain quantiles of the resamples."""
    confidence: float = 0.95
    """Share of repetitions of the test in which an interval should hold the true value."""
    seed: int = 0
    """Decides what is drawn; the same seed gives the same intervals."""
    max_length: int | None = None
    """Most tokens of a document; by default what each model was trained for."""
    on_long: OnLong = "truncate"
    """Longer documents: truncate, head-tail, window-mean, window-max or error."""
    stride: int = 0
    """Tokens that neighbouring windows share, for the window policies."""
    device: str = "cpu"
    """Where the forward pass runs: cpu, cuda or cuda:K."""
    precision: Precision = "auto"
    """fp32, bf16, fp16 or fp8; auto is bf16 on a GPU and fp32 on a CPU."""
    max_batch_tokens: int | None = None
    """Tokens of a forward pass; by default what suits the device."""
    num_threads: int | None = None
    """CPU threads; by default all that the process may use."""

    def __post_init__(self) -> None:
        """Raise `UsageError` for a value out of range."""
        for name in ("max_length", "max_batch_tokens", "num_threads"):
            check_count(name, getattr(self, name))
        if self.resamples and self.resamples < 100:
            raise UsageError(
                f"resamples={self.resamples}; an interval needs 100 or more; set 2000, or 0 for none"
            )
        if self.resamples < 0 or self.seed < 0:
            raise UsageError(f"resamples={self.resamples}, seed={self.seed}; both are 0 or more; raise them")
        if not (math.isfinite(self.confidence) and 0.5 <= self.confidence < 1):
            raise UsageError(f"confidence={self.confidence}; it lies from 0.5 to below 1; set 0.95")
        if self.resample == "groups" and self.group_column is None:
            raise UsageError("resample=groups needs the column of the groups; give --group-column")
        if self.out is not None and not self.out.endswith((".html", ".htm", ".json")):
            raise UsageError(f"out={self.out}; a page ends in .html, figures in .json; name such a file")
