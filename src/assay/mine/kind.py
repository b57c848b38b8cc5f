"""The mine run as a kind: what makes its negatives, and what its workers need."""

from assay.mine.settings import Index, KeyKind, OutputFormat, Sampling
from assay.runs.kinds import RunKind, RunRecord


class GuardIdentity(RunRecord):
    """The model that drops candidates, and how."""

    bundle: str
    """Fingerprint."""
    label: str
    max_probability: float


class MineIdentity(RunRecord):
    """All that can change a negative, beside the rows."""

    corpus: tuple[str, ...]
    """Run ids."""
    anchors: tuple[str, ...]
    """Run ids."""
    anchor_column: str
    positive_column: str
    keys: KeyKind
    exclude_same: str | None
    num_negatives: int
    range_min: int
    range_max: int
    max_positives: int
    """Most rows of one anchor; the search looks that much further."""
    max_score: float | None
    min_score: float | None
    absolute_margin: float | None
    relative_margin: float | None
    percentile: float | None
    sampling_strategy: Sampling
    seed: int
    index: Index
    guard: GuardIdentity | None
    output_format: OutputFormat
    texts: bool


class MineRecord(RunRecord):
    """What the workers of a mine run need besides."""

    corpus: tuple[str, ...]
    """Runs."""
    anchors: tuple[str, ...]
    """Runs."""
    guard_bundle: str | None
    """Folder, absolute."""
    scratch: str | None
    strict: bool


MINE = RunKind(name="negatives", identity=MineIdentity, settings=MineRecord, rows_out="any_number")
