"""What Assay knows of a format: how its files are recognized, inspected and read.

Everything else works with the table of formats (`table.py`) and asks for none by name.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from assay.data.formats.heads import HEAD_BYTES, other_than, way_out_of
from assay.data.rows import SourceRows
from assay.data.sources import FINGERPRINT_HEX, Columns, Source, splits_at, unreadable
from assay.data.storage import Store, split_url
from assay.errors import SourceError


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """A file that a pattern led to, not yet looked into."""

    uri: str
    """As in `Source`."""
    format: str
    """A key of FORMATS."""
    size_bytes: int
    """Size on disk, in bytes."""
    version: str
    """As in `Source`."""
    is_typed: bool
    """True where the user named this very file."""
    delimiter: str | None = None
    """CSV: what the user says stands between two fields; None where that is left to the file."""


def file_state(uri: str) -> tuple[int, str] | None:
    """Size and version of the file `uri` as it is now; None where it is gone."""
    store, path = split_url(uri)
    info = store.info(path)
    return None if info is None else (info.size_bytes, info.version)


def batched_source(
    file: SourceFile, name: str, schema: pa.Schema, starts: list[int], digest: str, text_bytes: int
) -> Source:
    """The source that a file of row groups or record batches is.

    `starts` are their first rows and the number of all rows, `text_bytes` the size of the columns to be read.
    """
    num_rows = starts[-1]
    return Source(
        uri=file.uri,
        name=name,
        format=file.format,
        size_bytes=file.size_bytes,
        version=file.version,
        fingerprint=digest[:FINGERPRINT_HEX],
        num_rows=num_rows,
        splits=splits_at(starts, num_rows),
        schema=schema,
        bytes_per_row=text_bytes / max(1, num_rows),
    )


def nothing_left_out(store: Store, folder: str, uri: str, paths: Sequence[str]) -> set[str]:
    """No file of a folder: each is a source."""
    del store, folder, uri, paths
    return set()


@dataclass(frozen=True, kw_only=True, slots=True)
class FileFormat:
    """One format, as a value: a row of the table."""

    name: str
    """What the user calls it."""
    endings: tuple[str, ...]
    """Endings of its files' names, in lower case."""
    inspect: Callable[[SourceFile, str, Columns], Source]
    """The source that a file is, under the name given; raises SourceError where it cannot be read."""
    read: Callable[[Source, Columns, int, int], Iterator[SourceRows]]
    """Rows from one on, to the end of the source, in batches of at most so many."""
    state: Callable[[str], tuple[int, str] | None] = file_state
    """Size and version of what a URI names, as it is now; None where it is gone."""
    left_out: Callable[[Store, str, str, Sequence[str]], set[str]] = nothing_left_out
    """Files of its ending that are not sources: of a store's folder, its URI, all the paths below it."""
    is_compressible: bool = False
    """Whether `.gz` and `.zst` may follow the endings."""
    is_gathered: bool = False
    """Whether the files of a folder or a glob are one source together, a row each."""
    has_schema: bool = True
    """Whether the file says which columns it has; else its first rows show them, and no row shows none."""
    is_delimited: bool = False
    """Whether a delimiter stands between the fields of a row."""
    is_all_text: bool = False
    """Whether every column can be read as text, whatever its type."""


def not_read_as(name: str, uri: str, error: Exception) -> SourceError:
    """The error for a file that is not `name` ("Parquet", "Arrow"): what it is, or that it is corrupt."""
    store, path = split_url(uri)
    head = store.read_bytes(path, 0, HEAD_BYTES)
    found = other_than(name, head)
    if found is None:
        return unreadable(uri, error)
    return SourceError(
        f"{uri}: its first bytes are those of {found}, not of {name}; {way_out_of(found, head)}"
    )
