"""What a user may set for `assay bench`. Imports nothing heavy: the command line is made from it."""

from dataclasses import dataclass

from assay.engine.precision import Precision
from assay.score.settings import EngineChoice
from assay.tokenize.settings import OnLong


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchSettings:
    """Measure a bundle on a sample of the sources, on one device."""

    sources: tuple[str, ...]
    """Files, folders, globs or URLs to take the sample from; or the run of `assay tokenize`."""
    bundle: str
    """Directory of the classifier; any transformers sequence classification directory."""
    documents: int | None = None
    """Documents of the sample; by default 32,768 on a GPU and 256 on a CPU."""
    device: str = "auto"
    """cpu, cuda or cuda:K; auto is the first GPU where there is one."""
    precision: Precision = "auto"
    """As for `assay score`; auto is bf16 on a GPU and fp32 on a CPU."""
    engine: EngineChoice = "auto"
    """As for `assay score`; with `padded` there is nothing to compare."""
    rounds: int = 3
    """Passes of each side, in turns; the figures are medians."""
    for_documents: str | None = None
    """Documents of the estimate, such as 160M or 2.5e6; by default the rows of the sources."""
    price_per_hour: float | None = None
    """Price of the device for an hour, for the cost."""
    text_column: str = "text"
    """Column that holds the text; a dotted path reaches into structs."""
    text_pair_column: str | None = None
    """Column of the second text, for pair models."""
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
    max_batch_tokens: int | None = None
    """Tokens of a forward pass; by default what suits the device."""
    json: bool = False
    """Print one JSON object instead of lines for people."""
