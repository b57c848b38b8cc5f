"""What a user may set for `assay mine`. Imports nothing heavy: the command line is made from it."""

from dataclasses import dataclass, field
from typing import Literal

from assay.data.settings import SourceFormat
from assay.engine.settings import CpuThreads
from assay.errors import UsageError
from assay.runs.settings import RunSettings
from assay.settings import AUTO_OR_COUNT, COUNT, Settings, positional, within

KeyKind = Literal["text", "id"]
Sampling = Literal["top", "random"]
OutputFormat = Literal["triplets", "pairs"]
Index = Literal["exact", "faiss"]
_COSINE = within(at_least=-1, at_most=1)


@dataclass(frozen=True, kw_only=True)
class NegativeRules(Settings):
    """Which neighbours of an anchor become its negatives; names and meanings are those of sentence-transformers."""

    num_negatives: int = field(default=3, metadata=COUNT)
    """Most negatives of an anchor."""
    range_min: int = field(default=0, metadata=within(at_least=0))
    """How many of the closest candidates to skip, of those that the other rules leave."""
    range_max: int | None = field(default=None, metadata=COUNT)
    """Most candidates of an anchor; by default enough for the negatives, ten times that under margins or max_score."""
    max_score: float | None = field(default=None, metadata=_COSINE)
    """Greatest cosine similarity of a negative to its anchor."""
    min_score: float | None = field(default=None, metadata=_COSINE)
    """Least cosine similarity of a negative to its anchor."""
    absolute_margin: float | None = field(default=None, metadata=within(at_least=0, at_most=2))
    """How far a negative must be below the anchor's least similar positive."""
    relative_margin: float | None = field(default=None, metadata=within(at_least=0, at_most=2))
    """The same as a share of the positive's similarity: 0.05 keeps what is 5% below it."""
    percentile: float | None = field(default=None, metadata=within(above=0, at_most=100))
    """Skip candidates above this percentile of the anchor's own candidates: 90 skips the closest tenth."""
    sampling_strategy: Sampling = "top"
    """The closest of what is left, or a random draw from it, the same for any unit size."""
    seed: int = field(default=0, metadata=within(at_least=0))
    """Seed of the random draw."""


@dataclass(frozen=True, kw_only=True)
class GuardSettings(Settings):
    """A scoring model that drops candidates which are probably positives."""

    guard_bundle: str | None = None
    """Bundle of a model of pairs, of any kind, that scores (anchor, candidate); by default no guard."""
    guard_max: float = field(default=0.2, metadata=within(at_least=0, at_most=1))
    """Greatest probability of the guard's label that a negative may have."""
    guard_label: str | None = None
    """Label of the guard that means positive; by default the second of two."""


@dataclass(frozen=True, kw_only=True)
class MineSettings(NegativeRules, GuardSettings, RunSettings, SourceFormat, CpuThreads):
    """Find hard negatives of anchors among the nearest texts of an embedded corpus."""

    sources: tuple[str, ...] = field(metadata=positional("SOURCE"))
    """Files, folders, globs or URLs of rows with an anchor and a positive."""
    corpus: tuple[str, ...]
    """Finished embed runs whose texts are the candidates; the positives must be among them."""
    anchors: tuple[str, ...] = ()
    """Finished embed runs that hold the anchors; by default those of the corpus."""
    anchor_column: str = "anchor"
    """Column of the anchors."""
    positive_column: str = "positive"
    """Column of the positives; rows with the same anchor give it several."""
    keys: KeyKind = "text"
    """Whether these columns hold texts or ids of the embed runs."""
    exclude_same: str | None = None
    """Column (author, book) of the embedded sources; a candidate with the anchor's value is not a negative."""
    output_format: OutputFormat = "triplets"
    """`triplets` of anchor, positive, negative; `pairs` with label 1 and 0, as `assay train` takes them."""
    texts: bool = True
    """Write the texts beside the ids."""
    index: Index = "exact"
    """`exact`, or `faiss` for an approximate search on the CPU that holds all vectors in memory."""
    devices: str = field(default="auto", metadata=AUTO_OR_COUNT)
    """GPUs, or worker processes on a CPU; auto is every GPU, or one process with all cores."""
    scratch: str | None = None
    """Folder for temporary files, which take the corpus's texts and vectors; by default the system's."""

    def check(self) -> None:
        """Refuse what needs another setting."""
        if self.guard_label is not None and self.guard_bundle is None:
            raise UsageError(
                f"guard_label is {self.guard_label!r} and there is no guard; set --guard-bundle too, or leave it out"
            )
        if not self.corpus:
            raise UsageError("corpus is empty; name at least one finished embed run with --corpus")
