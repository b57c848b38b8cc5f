"""What a user may set for `assay score`. Imports nothing heavy: the command line is made from it."""

from dataclasses import dataclass
from typing import Literal

from assay.engine.precision import DeviceKind, Precision
from assay.tokenize.settings import OnLong

Executor = Literal["local", "static"]
EngineChoice = Literal["auto", "padded", "fake"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreSettings:
    """Score every row of the sources with a bundle into a run."""

    sources: tuple[str, ...]
    """Files, folders, globs or URLs to score; or the run of `assay tokenize`."""
    bundle: str
    """Directory of the classifier; any transformers sequence classification directory."""
    run: str
    """Directory or URL of the run; the same command again goes on where it stopped."""
    text_column: str = "text"
    """Column that holds the text; a dotted path reaches into structs."""
    text_pair_column: str | None = None
    """Column of the second text, for pair models."""
    id_column: str | None = None
    """Column that names a row; else `id` where there is one, else the row number."""
    input_ids_column: str | None = None
    """Column of token ids made elsewhere, special tokens included, instead of text."""
    format: str | None = None
    """parquet, jsonl, csv, arrow or text, where the names do not tell."""
    max_length: int | None = None
    """Most tokens of a document; by default what the model was trained for."""
    on_long: OnLong = "truncate"
    """Longer documents: truncate, head-tail, window-mean, window-max or error."""
    stride: int = 0
    """Tokens that neighbouring windows share, for the window policies."""
    devices: str = "auto"
    """How many GPUs, or worker processes where there are none."""
    precision: Precision = "auto"
    """fp32, bf16, fp16 or fp8 (products in fp8); auto is what the run has, in a new run bf16 on a GPU (fp16 on
    one without bf16) and fp32 on a CPU."""
    engine: EngineChoice = "auto"
    """`padded`: the transformers model itself; `fake`: made-up scores, to time the rest."""
    deterministic: bool = False
    """Give a document the same bits in any company; slower."""
    max_batch_tokens: int | None = None
    """Tokens of a forward pass; by default what suits the device."""
    deduplicate: bool = True
    """Run equal token sequences once (within 65,536 documents of a unit)."""
    executor: Executor = "local"
    """`local`: this machine alone; `static`: one of many that never talk, by rank."""
    rank: int | None = None
    """Which static worker this is; by default from the environment."""
    world_size: int | None = None
    """How many static workers there are; by default likewise."""
    unit_rows: int | None = None
    """Rows of a unit; by default about a minute of work."""
    limit_rows: int | None = None
    """Score only so many rows, the first ones, for a trial."""
    parity_documents: int = 32
    """Documents that are scored in plain fp32 first, to compare; 0 turns the gate off."""
    parity_tolerance: float | None = None
    """Largest difference of a probability that passes; by default by precision."""
    strict: bool = False
    """Stop at the first bad row instead of giving it an error code."""
    unique_ids: bool = False
    """Refuse sources in which an id occurs twice."""
    plan_for: DeviceKind | None = None
    """Plan the run for workers on GPUs (cuda) or CPUs (cpu), whatever this machine has."""
    dry_run: bool = False
    """Print the plan and do nothing."""
