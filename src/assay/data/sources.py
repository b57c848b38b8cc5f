"""What a source is, and which of its columns are read for what.

A `Source` keeps plain numbers only, so that ten thousand of them are a few megabytes.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from assay.data.columns import find_column, type_at
from assay.data.ids import plain_type
from assay.errors import SourceError

FINGERPRINT_HEX = 32
"""Digits of a fingerprint."""

SOURCE_ROW = "source_row"
"""Name of the id column where the source has none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """Which columns of the sources are read. Dots reach into structs; a literal name with a dot wins.

    Every command that reads one of them has a setting `<field>_column` for it.
    """

    text: str | None = "text"
    """Column of the documents; not needed where `input_ids` is set."""
    text_pair: str | None = None
    """Column of the second text, for pair models."""
    id: str | None = None
    """Column of the ids; None takes the column "id" where there is one, else rows are counted."""
    input_ids: str | None = None
    """Column of token ids, for sources that are tokenized already."""
    label: str | None = None
    """Column of the labels, for training, calibration and evaluation."""
    group: str | None = None
    """Column of the groups (author, book, url) that no split may cut through."""
    keys: tuple[str, ...] = ()
    """Columns of what else a row belongs to, such as the book of each text of a pair."""


KEY = "key:"
"""How the role of a column of `Columns.keys` begins; its name follows."""
_ROLES = {"texts": "text", "text_pairs": "text_pair", "labels": "label", "groups": "group"}
"""What columns are read for, and the field of `Columns` that names each; ids apart."""
_ROLES_OF_TOKENIZED = {"input_ids": "input_ids", "labels": "label", "groups": "group"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One input file, as it was when it was inspected."""

    uri: str
    """Absolute path or URL; for text files of a folder its path and a slash, for those of a glob the glob."""
    name: str
    """Unique among the sources of a run, safe in a file name."""
    format: str
    """A key of FORMATS."""
    size_bytes: int
    """Size on disk, in bytes; of all files for text."""
    version: str
    """Changes when the file does: etag or modification time."""
    fingerprint: str
    """Of the content; the same for a copy elsewhere. Parquet: size and footer."""
    num_rows: int
    """Number of rows."""
    splits: tuple[int, ...]
    """Rows at which a range may start cheaply, ascending, 0 first."""
    offsets: tuple[int, ...] = ()
    """Line formats: byte of the decompressed stream at which row k * index_rows begins."""
    index_rows: int = 0
    """Rows between two offsets; 0 where there are none."""
    schema: pa.Schema
    """Columns and types; for JSON Lines and CSV as the first rows show them."""
    bytes_per_row: float
    """Mean bytes of text a row, an estimate for planning."""
    delimiter: str = ","
    """CSV: what stands between two fields."""
    id_type: pa.DataType | None = None
    """The type of the run's ids, where it has some: that of a source that shows none, having no row or only nulls."""


def id_column(source: Source, columns: Columns) -> tuple[str, ...] | None:
    """The path of the source's id column; None where its rows are counted instead."""
    if shows_no_column(source):
        has_ids = columns.id is not None or source.id_type is not None
        return (columns.id or "id",) if has_ids else None
    if columns.id is None and "id" not in source.schema.names:
        return None
    return _find(source, columns.id or "id", column_flag("id"))


def column_flag(field: str) -> str:
    """The flag that sets a field of `Columns`, for messages: `--text-pair-column`."""
    return f"--{field.replace('_', '-')}-column"


def named_column(
    source: Source, columns: Columns, field: str, *, or_else: str = ""
) -> tuple[str, ...] | None:
    """The path of the column that a field names, None where it names none.

    Raises SourceError where the source lacks it; `or_else` is said behind the flag that sets it.
    """
    name: str | None = getattr(columns, field)
    return None if name is None else _find(source, name, column_flag(field) + or_else)


def _find(source: Source, name: str, option: str) -> tuple[str, ...]:
    return find_column(source.schema, name, uri=source.uri, option=option)


def shows_no_column(source: Source) -> bool:
    """True for a file that names no columns and has no row to show any."""
    return not len(source.schema)


def shown_id_type(source: Source, columns: Columns) -> pa.DataType:
    """The type of the ids as the file shows it; null where it shows none, int64 where rows are counted."""
    path = id_column(source, columns)
    if path is None:
        return pa.int64()
    return pa.null() if shows_no_column(source) else plain_type(type_at(source.schema, path))


def id_type(source: Source, columns: Columns) -> pa.DataType:
    """The type in which the ids are read: the one shown, else that of the run's other sources, else string."""
    shown = shown_id_type(source, columns)
    return shown if not pa.types.is_null(shown) else source.id_type or pa.string()


def role_paths(source: Source, columns: Columns) -> dict[str, tuple[str, ...]]:
    """The columns to read, by what they are read for."""
    if shows_no_column(source):
        return {}
    roles = _ROLES if columns.input_ids is None else _ROLES_OF_TOKENIZED
    found = {role: named_column(source, columns, field) for role, field in roles.items()}
    paths = {role: path for role, path in found.items() if path is not None}
    paths |= {
        f"{KEY}{name}": _find(source, name, "--book-columns, --author-columns or --group-columns")
        for name in columns.keys
    }
    path = id_column(source, columns)
    if path is not None:
        paths["ids"] = path
    return paths | (_token_part_columns(source.schema) if columns.input_ids is not None else {})


def _token_part_columns(schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """What `assay tokenize` writes beside the ids; nothing for token ids of another origin."""
    types = {field.name: field.type for field in schema}
    if (types.get("truncated"), types.get("error")) != (pa.bool_(), pa.string()):
        return {}
    named = {"truncated": "truncated", "codes": "error"}
    if types.get("second_start") == pa.int32():
        named["second_starts"] = "second_start"
    return {role: (name,) for role, name in named.items()}


def splits_at(starts: Iterable[int], num_rows: int) -> tuple[int, ...]:
    """Where a range may start: ascending, each once, 0 first."""
    return (0, *sorted({start for start in starts if 0 < start < num_rows}))


def unreadable(uri: str, error: Exception) -> SourceError:
    """The error for a file that cannot be decoded, in one line that names it."""
    reason = " ".join(str(error).split())[:200]
    return SourceError(f"{uri} cannot be read ({reason}); it is corrupt or cut short: write it again")
