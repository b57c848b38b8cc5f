"""What a user may set for `assay bench`. Imports nothing heavy: the command line is made from it."""

from dataclasses import dataclass, field

from assay.data.settings import SourceFormat, Texts
from assay.engine.settings import CpuThreads, EngineChoice, Forward, OneDevice
from assay.score.pricing import Pricing
from assay.settings import COUNT, positional, within
from assay.tokenize.settings import LongDocuments


@dataclass(frozen=True, kw_only=True)
class BenchSettings(Texts, SourceFormat, LongDocuments, OneDevice, Forward, CpuThreads, Pricing):
    """Measure a bundle on a sample of the sources, on one device."""

    sources: tuple[str, ...] = field(metadata=positional("SOURCE"))
    """Files, folders, globs or URLs to take the sample from; or the run of `assay tokenize`."""
    bundle: str
    """Directory of the classifier; any transformers sequence classification directory."""
    input_ids_column: str | None = None
    """Column of token ids made elsewhere, special tokens included, instead of text."""
    documents: int | None = field(default=None, metadata=COUNT)
    """Documents of the sample; by default 32,768 on a GPU and 256 on a CPU."""
    device: str = "auto"
    """cpu, cuda or cuda:K; auto is the first GPU where there is one."""
    engine: EngineChoice = "auto"
    """As for `assay score`; with `padded` there is nothing to compare."""
    rounds: int = field(default=3, metadata=within(at_least=1, at_most=10_000))
    """Passes of each side, in turns; the figures are medians."""
    for_documents: str | None = None
    """Documents of the estimate, such as 160M or 2.5e6; by default the rows of the sources."""
    json: bool = False
    """Print one JSON object instead of lines for people."""
