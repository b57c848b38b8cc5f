"""How sources are read, for every command that reads some. Imports nothing heavy: the command line is made from it."""

from dataclasses import dataclass

from assay.settings import Settings


@dataclass(frozen=True, kw_only=True)
class SourceFormat(Settings):
    """How the files of all sources are read."""

    format: str | None = None
    """parquet, jsonl, csv, arrow, npy or text, where file names do not tell."""
    delimiter: str | None = None
    """One character (or tab) that stands between the fields of CSV, where the header does not tell."""


@dataclass(frozen=True, kw_only=True)
class Texts(Settings):
    """Where a row has its text."""

    text_column: str = "text"
    """Column that holds the text; a dotted path reaches into structs."""
    text_pair_column: str | None = None
    """Column of the second text, for pair models."""
