"""What a user may set for `assay tokenize`. Imports nothing heavy: the command line is made from it."""

from dataclasses import dataclass
from typing import Literal

OnLong = Literal["truncate", "head-tail", "window-mean", "window-max", "error"]
WINDOWS: dict[OnLong, Literal["mean", "max"]] = {"window-mean": "mean", "window-max": "max"}
"""The policies that cut long documents into windows, and how these become one score."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizeSettings:
    """Turn the text of the sources into token ids, once, for `assay score` to take."""

    sources: tuple[str, ...]
    """Files, folders, globs or URLs to tokenize."""
    bundle: str
    """Directory whose tokenizer is used."""
    run: str
    """Directory or URL of the run; the same command again goes on where it stopped."""
    text_column: str = "text"
    """Column that holds the text; a dotted path reaches into structs."""
    text_pair_column: str | None = None
    """Column of the second text, for pair models."""
    id_column: str | None = None
    """Column that names a row; else `id` where there is one, else the row number."""
    format: str | None = None
    """parquet, jsonl, csv, arrow or text, where the names do not tell."""
    max_length: int | None = None
    """Most tokens of a document; by default what the model was trained for."""
    on_long: OnLong = "truncate"
    """Longer documents: truncate, head-tail, window-mean, window-max or error."""
    stride: int = 0
    """Tokens that neighbouring windows share, for the window policies."""
    devices: str = "auto"
    """Worker processes; auto is one with all cores."""
    executor: Literal["local", "static"] = "local"
    """`local`: this machine alone; `static`: one of many that never talk, by rank."""
    rank: int | None = None
    """Which static worker this is; by default from the environment."""
    world_size: int | None = None
    """How many static workers there are; by default likewise."""
    unit_rows: int | None = None
    """Rows of a unit; by default about a minute of work."""
    limit_rows: int | None = None
    """Tokenize only so many rows, the first ones, for a trial."""
    strict: bool = False
    """Stop at the first bad row instead of giving it an error code."""
    dry_run: bool = False
    """Print the plan and do nothing."""
