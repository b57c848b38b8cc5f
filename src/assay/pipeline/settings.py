"""What `assay pipeline books` can be told. Imports nothing heavy, so that the command line starts fast."""

from dataclasses import dataclass, field

from assay.engine.settings import CpuThreads
from assay.settings import COUNT, Settings, positional, within


@dataclass(frozen=True, kw_only=True)
class PipelineSettings(CpuThreads, Settings):
    """All steps from a folder of books to a tuned cascade."""

    source: str = field(metadata=positional("DIR"))
    """Folder of .txt files, a book each, or the index.jsonl that `assay gutenberg` wrote."""
    out: str
    """Folder of all that is made; run the same command again to go on."""
    base: str | None = None
    """Folder of the encoder that both models start from; by default what the files below say."""
    prepare: str | None = None
    """TOML or YAML file with settings of `assay prepare books`."""
    cross: str | None = None
    """TOML or YAML file with settings of `assay train` for the cross-encoder."""
    siamese: str | None = None
    """TOML or YAML file with settings of `assay train` for the Siamese model."""
    rounds: int = field(default=1, metadata=COUNT)
    """Cross-encoders trained one after the other, each on negatives that the one before takes for positives."""
    distil: bool = True
    """The Siamese model learns from the cross-encoder too."""
    chunks_per_document: int = field(default=8, metadata=within(at_least=0))
    """Chunks of the documents that `assay compare` is calibrated for, at the most; 0: it is not."""
    recall: float = field(default=0.95, metadata=within(above=0, below=1))
    """Share of the positive pairs that the first model of the cascade must not turn away, at the least."""
    two_sided: bool = False
    """Let the first model also decide for a pair."""
    device: str = "auto"
    """Where models are asked: cpu, cuda or cuda:K; auto is a GPU where there is one."""
    overwrite: bool = False
    """Make again what was made with other settings or books, and what depends on it."""
    dry_run: bool = False
    """Say which steps there are, which are done, and what books there are; do nothing."""
