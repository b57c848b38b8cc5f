"""The scoring run as a kind: what makes its scores, and what its workers need."""

from typing import Any

from assay.engine.precision import Computed
from assay.engine.settings import EngineChoice
from assay.runs.kinds import RunKind, RunRecord
from assay.tasks import Task
from assay.tokenize.kind import TokenizeIdentity


class ScoreIdentity(TokenizeIdentity):
    """What makes the scores: how ids are made, and what computes on them."""

    bundle: str
    """Fingerprint."""
    precision: Computed
    engine: EngineChoice
    deterministic: bool = False
    parity_share: float = 0.0
    """Share of the documents that run in fp32 too; 0 where the run itself is in fp32."""


class TokenRunRecord(RunRecord):
    """The tokenize run that is scored; `assay merge` finds its sources by it."""

    url: str
    run_id: str


class ScoreRecord(RunRecord):
    """What the workers of a scoring run need besides, and what its report shows."""

    bundle: str
    """Folder, absolute."""
    task: Task
    labels: tuple[str, ...]
    threshold: float | tuple[float, ...] | None = None
    max_batch_tokens: int | None = None
    deduplicate: bool = True
    strict: bool = False
    parity_documents: int = 0
    parity_tolerance: float | None = None
    precision_why: str | None = None
    """What `auto` chose for the run and why; None where a precision was asked for, and on a CPU."""
    calibration: dict[str, Any] | None = None
    """What the bundle's calibration says of itself: method, metrics, texts that it was fitted on."""
    token_run: TokenRunRecord | None = None


SCORE = RunKind(name="score", identity=ScoreIdentity, settings=ScoreRecord)
