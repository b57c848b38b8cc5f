"""The embed run as a kind: what makes its vectors, and what its workers need."""

from typing import Literal

from assay.engine.precision import Computed
from assay.engine.settings import EngineChoice
from assay.model.sentence_files import PoolingName
from assay.runs.kinds import RunKind, RunRecord
from assay.tokenize.kind import TokenizeIdentity

VectorType = Literal["float32", "float16"]
"""Type of the numbers of a vector in a part."""


class EmbedIdentity(TokenizeIdentity):
    """What makes the vectors: how ids are made, what computes on them, and how vectors are kept."""

    bundle: str
    """Fingerprint."""
    pooling: PoolingName
    normalized: bool
    precision: Computed
    engine: EngineChoice
    deterministic: bool = False
    parity_share: float = 0.0
    """The chance of each document to run in fp32 too."""
    dtype: VectorType = "float32"


class EmbedRecord(RunRecord):
    """What the workers of an embed run need besides."""

    bundle: str
    """Folder, absolute."""
    dimension: int
    """D."""
    max_batch_tokens: int | None = None
    deduplicate: bool = True
    strict: bool = False
    parity_documents: int = 0
    parity_tolerance: float | None = None
    precision_why: str | None = None
    """What `auto` chose for the run and why; None where a precision was asked for, and on a CPU."""
    cache: str | None = None
    """Folder, absolute."""


EMBED = RunKind(name="embed", identity=EmbedIdentity, settings=EmbedRecord)
