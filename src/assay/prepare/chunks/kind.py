"""The chunks run as a kind: what makes its chunks, and what its workers need."""

from assay.books.settings import Typography
from assay.prepare.chunks.settings import LanguageCheck
from assay.runs.kinds import RunKind, RunRecord


class ChunksIdentity(RunRecord):
    """How chunks are made; see `ChunkRules` for each."""

    chunk_sentences: int
    chunk_tokens: int | None
    tokenizer: str | None
    """Fingerprint; None where no tokens are counted."""
    overlap: int
    max_chunks: int
    min_chars: int
    min_letters: float
    language: str | None
    language_check: LanguageCheck
    typography: Typography
    mask_names: bool
    cleaned: bool
    seed: int


class ChunksRecord(RunRecord):
    """What the workers of a chunks run need besides."""

    bundle: str | None
    """Folder of the tokenizer, absolute; None where no tokens are counted."""
    strict: bool


CHUNKS = RunKind(name="chunks", identity=ChunksIdentity, settings=ChunksRecord, rows_out="any_number")
