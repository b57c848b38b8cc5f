"""The tokenize run as a kind: what makes its token ids, and what its workers need."""

from assay.runs.kinds import RunKind, RunRecord
from assay.tokenize.settings import OnLong


class TokenizeIdentity(RunRecord):
    """How token ids are made; `assay score` must go on the same way."""

    tokenizer: str
    """Fingerprint."""
    max_length: int
    on_long: OnLong
    stride: int


class TokenizeRecord(RunRecord):
    """What the workers of a tokenize run need besides."""

    bundle: str
    """Folder, absolute."""
    strict: bool


TOKENIZE = RunKind(name="tokenize", identity=TokenizeIdentity, settings=TokenizeRecord)
