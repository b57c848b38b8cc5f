"""What a user may set for `assay embed`. Imports nothing heavy: the command line is made from it."""

from dataclasses import dataclass, field
from typing import Literal

from assay.data.settings import SourceFormat
from assay.engine.precision import DeviceKind, Precision
from assay.engine.settings import CpuThreads, EngineSettings
from assay.runs.settings import RunSettings
from assay.settings import AUTO_OR_COUNT, Settings, positional, within
from assay.tokenize.settings import LongDocuments


@dataclass(frozen=True, kw_only=True)
class EngineRunSettings(RunSettings, EngineSettings, CpuThreads):
    """A run whose work is the engine."""

    devices: str = field(default="auto", metadata=AUTO_OR_COUNT)
    """How many GPUs, or worker processes where there are none."""
    precision: Precision = "auto"
    """fp32, bf16, fp16 or fp8; auto: that of the run, or what suits the device."""
    deduplicate: bool = True
    """Run equal token sequences once (within 65,536 documents of a unit)."""
    plan_for: DeviceKind | None = None
    """Plan for workers on GPUs (cuda) or CPUs (cpu), whatever this machine has."""


@dataclass(frozen=True, kw_only=True)
class Pooled(Settings):
    """How an encoder makes a vector of a text."""

    pooling: Literal["auto", "mean", "first_token", "attention"] = "auto"
    """What of the hidden states a vector is; auto: as the model's files say, else their mean."""
    normalize: Literal["auto", "yes", "no"] = "auto"
    """Whether vectors have length 1; auto: as the model's files say, else yes."""


@dataclass(frozen=True, kw_only=True)
class EmbedSettings(EngineRunSettings, SourceFormat, LongDocuments, Pooled):
    """Make a vector of every row of the sources with a sentence encoder, into a run."""

    sources: tuple[str, ...] = field(metadata=positional("SOURCE"))
    """Files, folders, globs or URLs to embed."""
    bundle: str
    """Directory of the encoder: sentence-transformers', any transformers encoder, or a classifier."""
    text_column: str = "text"
    """Column that holds the text; a dotted path reaches into structs."""
    input_ids_column: str | None = None
    """Column of token ids made elsewhere, special tokens included, instead of text."""
    dtype: Literal["float32", "float16"] = "float32"
    """Type of the numbers in the parts."""
    cache: str | None = None
    """Folder of vectors by token ids and model, for runs to share; what it has is not computed again."""
    parity_documents: int = field(default=32, metadata=within(at_least=0))
    """Documents that are embedded in plain fp32 too, to compare; 0 turns the gate off."""
    parity_tolerance: float | None = field(default=None, metadata=within(at_least=0))
    """Largest distance of a vector to fp32's, as a share of its length; by default by precision."""
    parity_share: float | None = field(default=None, metadata=within(at_least=0, at_most=1))
    """Share of all documents that run in fp32 too, as evidence; by default 0.0001, and 0 in fp32."""
