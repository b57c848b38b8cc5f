"""What `assay evaluate` can be told. Imports nothing heavy, so that the command line starts fast."""

from dataclasses import dataclass, field
from typing import Literal

from assay.engine.settings import CpuThreads, Forward, OneDevice
from assay.errors import UsageError
from assay.labelled.settings import LabelledSources
from assay.settings import positional, within
from assay.tokenize.settings import LongDocuments


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(LabelledSources, LongDocuments, OneDevice, Forward, CpuThreads):
    """Evaluation of a bundle, or of several on the same rows."""

    bundle: str = field(metadata=positional("BUNDLE"))
    """Folder of the bundle; any transformers sequence classification folder."""
    data: tuple[str, ...] = field(metadata=positional("DATA"))
    """Sources of labelled rows that neither training nor calibration has seen."""
    against: tuple[str, ...] = ()
    """Other bundles with the same labels: paired differences on the same rows."""
    group_columns: tuple[str, ...] = ()
    """Columns of the groups (authors) of both sides of a pair, which resamples draw."""
    out: str | None = None
    """File to write: a page to look at (.html) or all figures (.json)."""
    json: bool = False
    """Print one JSON object instead of a table for people."""
    show_texts: bool = False
    """Show the beginning of the worst-judged texts, which may be private."""
    unanswered_within: float = field(default=0.0, metadata=within(at_least=0, below=0.5))
    """Distance from 0.5 up to which PAN's metrics take a pair for unanswered."""
    resample: Literal["auto", "rows", "groups"] = "auto"
    """What each resample draws; auto: groups where a column of them is given."""
    resamples: int = field(default=2_000, metadata=within(at_least=0, at_most=1_000_000))
    """Resamples behind each interval, 100 or more; 0: no intervals."""
    interval: Literal["bca", "percentile"] = "bca"
    """bca: corrected for bias and skew (Efron 1987); percentile: plain quantiles of the resamples."""
    confidence: float = field(default=0.95, metadata=within(at_least=0.5, below=1))
    """Share of repetitions of the test in which an interval should hold the true value."""
    seed: int = field(default=0, metadata=within(at_least=0))
    """Seed of the resamples; the same seed gives the same intervals."""

    def check(self) -> None:
        """Raise `UsageError` where values do not go together."""
        if 0 < self.resamples < 100:
            raise UsageError(
                f"resamples is {self.resamples}; an interval needs 100 or more; set 2000, or 0 for none"
            )
        if self.unanswered_within and self.text_pair_column is None:
            raise UsageError(
                f"unanswered_within is {self.unanswered_within}, and c@1 and F0.5u are of pairs of texts;"
                " give --text-pair-column or leave it out"
            )
        self._check_groups()
        if self.out is not None and not self.out.endswith((".html", ".htm", ".json")):
            raise UsageError(f"out={self.out}; a page ends in .html, figures in .json; name such a file")

    def _check_groups(self) -> None:
        """Raise `UsageError` where what is drawn does not fit the columns named."""
        if self.resample == "groups" and self.group_column is None and not self.group_columns:
            raise UsageError("resample=groups needs the column of the groups; give --group-column")
        if not self.group_columns:
            return
        named = " ".join(self.group_columns)
        is_two = len(self.group_columns) == len(set(self.group_columns)) == 2
        if not is_two or self.text_pair_column is None:
            raise UsageError(
                f"group_columns={named}; it names a column for each of two texts; name two, with"
                " --text-pair-column, or name the column of single texts with --group-column"
            )
        if self.resample == "rows":
            raise UsageError(f"group_columns={named} are there to be drawn; leave out these or resample=rows")
