"""What a user may set for `assay score`. Imports nothing heavy: the command line is made from it."""

from dataclasses import dataclass, field

from assay.data.settings import SourceFormat, Texts
from assay.embed.settings import EngineRunSettings
from assay.settings import positional, within
from assay.tokenize.settings import LongDocuments


@dataclass(frozen=True, kw_only=True)
class ScoreSettings(EngineRunSettings, Texts, SourceFormat, LongDocuments):
    """Score every row of the sources with a bundle into a run."""

    sources: tuple[str, ...] = field(metadata=positional("SOURCE"))
    """Files, folders, globs or URLs to score; or the run of `assay tokenize`."""
    bundle: str
    """Folder of a transformers sequence classifier or Siamese model, or a cascade."""
    input_ids_column: str | None = None
    """Column of token ids made elsewhere, special tokens included, instead of text."""
    unique_ids: bool = False
    """Refuse sources in which an id occurs twice; with --dry-run too, which then reads all ids."""
    parity_documents: int = field(default=32, metadata=within(at_least=0))
    """Documents scored in plain fp32 too, to compare; 0 turns the gate off."""
    parity_tolerance: float | None = field(default=None, metadata=within(at_least=0))
    """Largest difference of a probability that passes; by default by precision."""
    parity_share: float | None = field(default=None, metadata=within(at_least=0, at_most=1))
    """Share of documents that run in fp32 too, as evidence; by default 0.0001."""
