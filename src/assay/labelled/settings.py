"""How labelled rows are read, for every command that reads some. Imports nothing heavy."""

from dataclasses import dataclass

from assay.data.settings import SourceFormat, Texts
from assay.settings import Settings


@dataclass(frozen=True, kw_only=True)
class LabelColumns(Settings):
    """The columns of a labelled row beside its text."""

    label_column: str = "label"
    """Column of the label: a name or whole number; a list of them for multi-label; a number for regression."""
    group_column: str | None = None
    """Column (author, book, url) of rows that belong together: in splits, folds, resamples and metrics by group."""
    id_column: str | None = None
    """Column that names a row; rows of one id stay together, and ids that training has seen are found by it."""


@dataclass(frozen=True, kw_only=True)
class LabelledSources(LabelColumns, Texts, SourceFormat):
    """How sources of labelled rows are read."""
