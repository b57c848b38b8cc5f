"""What a user may set for `assay score`. Imports nothing heavy: the command line is made from it."""

from dataclasses import dataclass, field

from assay.data.settings import SourceFormat, Texts
from assay.engine.precision import DeviceKind, Precision
from assay.engine.settings import CpuThreads, EngineSettings
from assay.runs.settings import RunSettings
from assay.settings import AUTO_OR_COUNT, positional, within
from assay.tokenize.settings import LongDocuments


@dataclass(frozen=True, kw_only=True)
class ScoreSettings(RunSettings, Texts, SourceFormat, LongDocuments, EngineSettings, CpuThreads):
    """Score every row of the sources with a bundle into a run."""

    sources: tuple[str, ...] = field(metadata=positional("SOURCE"))
    """Files, folders, globs or URLs to score; or the run of `assay tokenize`."""
    bundle: str
    """Directory of the classifier; any transformers sequence classification directory."""
    input_ids_column: str | None = None
    """Column of token ids made elsewhere, special tokens included, instead of text."""
    devices: str = field(default="auto", metadata=AUTO_OR_COUNT)
    """How many GPUs, or worker processes where there are none."""
    precision: Precision = "auto"
    """fp32, bf16, fp16 or fp8; auto: that of the run, or what suits the device."""
    deduplicate: bool = True
    """Run equal token sequences once (within 65,536 documents of a unit)."""
    unique_ids: bool = False
    """Refuse sources in which an id occurs twice; with --dry-run too, which then reads all ids."""
    plan_for: DeviceKind | None = None
    """Plan for workers on GPUs (cuda) or CPUs (cpu), whatever this machine has."""
    parity_documents: int = field(default=32, metadata=within(at_least=0))
    """Documents that are scored in plain fp32 first, to compare; 0 turns the gate off."""
    parity_tolerance: float | None = field(default=None, metadata=within(at_least=0))
    """Largest difference of a probability that passes; by default by precision."""
