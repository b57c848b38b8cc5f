"""Parquet, Arrow, array and text sources written as Parquet.

A Parquet source keeps every byte of its data: the new column chunks and one footer go behind them (`grafting`).
Of the others row groups of about 64 MiB are made; text has columns id and text.
Memory: one row group of the added columns.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from assay.data.columns import without_run_ends
from assay.data.formats import npy
from assay.data.formats.arrow import open_arrow
from assay.data.grafting import CannotGraftError, graft_columns
from assay.data.reading import read_rows
from assay.data.row_groups import row_groups
from assay.data.sinks.sink import BATCH_ROWS, AddedColumns, SourceIds
from assay.data.sources import Columns, Source, unreadable
from assay.data.storage import split_url
from assay.errors import InputError

_CODECS = {"UNCOMPRESSED": "none", "SNAPPY": "snappy", "GZIP": "gzip", "BROTLI": "brotli", "ZSTD": "zstd"}


def write_parquet(source: Source, columns: Columns, num_rows: int, added: AddedColumns, out: Path) -> None:
    """The row groups as they were; of a source that is not taken whole, decoded and encoded again."""
    store, path = split_url(source.uri)
    try:
        with store.open_input(path) as handle, pq.ParquetFile(handle) as file:
            if num_rows == file.metadata.num_rows:
                _graft_parquet(source, columns, file, added, out)
            else:
                _rewrite_parquet(source, columns, num_rows, file, added, out)
    except (pa.ArrowException, CannotGraftError) as error:
        raise unreadable(source.uri, error) from error
    except OSError as error:
        if error.errno is None:  # pyarrow: a page that cannot be decoded
            raise unreadable(source.uri, error) from error
        raise


def _graft_parquet(
    source: Source, columns: Columns, file: pq.ParquetFile, added: AddedColumns, out: Path
) -> None:
    store, path = split_url(source.uri)
    ids = SourceIds(source, columns, file.metadata.num_rows)
    beside = out.with_name(out.name + ".columns")
    try:
        options = _column_options(file.metadata, added.schema)
        with pq.ParquetWriter(beside, added.schema, **options) as writer:
            for size in _row_group_sizes(file.metadata):
                pieces = [added.take(rows, ids.take(rows)) for rows in _pieces(size, BATCH_ROWS)]
                writer.write_table(pa.concat_tables(pieces), row_group_size=max(size, 1))
        with store.open_input(path) as original, out.open("wb") as target:
            graft_columns(original, beside, target, schema=added.schema, metadata=added.metadata())
    finally:
        beside.unlink(missing_ok=True)


def _rewrite_parquet(
    source: Source,
    columns: Columns,
    num_rows: int,
    file: pq.ParquetFile,
    added: AddedColumns,
    out: Path,
) -> None:
    """The first rows of a file, decoded and encoded again, in row groups cut as they were."""
    ids = SourceIds(source, columns, num_rows)
    with _table_writer(source, file.schema_arrow, added, out, codecs=_codecs(file.metadata)) as write:
        left = num_rows
        for index, size in enumerate(_row_group_sizes(file.metadata)):
            if left == 0 and index > 0:
                break
            rows = min(size, left)
            taken: list[pa.Table] = []
            for batch in file.iter_batches(BATCH_ROWS, row_groups=[index]):
                kept = batch.slice(0, rows - sum(table.num_rows for table in taken))
                taken.append(_joined(kept, ids, added))
                if sum(table.num_rows for table in taken) == rows:
                    break
            if taken:
                write(pa.concat_tables(taken))
            left -= rows


def _row_group_sizes(metadata: pq.FileMetaData) -> list[int]:
    return [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]


def _pieces(num_rows: int, most: int) -> list[int]:
    """Sizes of at most `most` that add up to `num_rows`; a single 0 for no rows."""
    whole, rest = divmod(num_rows, most)
    return [most] * whole + ([rest] if rest or not whole else [])


def _codecs(metadata: pq.FileMetaData) -> dict[str, str]:
    """The codec of each leaf column, as its first row group has it."""
    if metadata.num_row_groups == 0:
        return {}
    chunks = [metadata.row_group(0).column(index) for index in range(metadata.num_columns)]
    return {chunk.path_in_schema: _CODECS.get(chunk.compression, "zstd") for chunk in chunks}


def _column_options(metadata: pq.FileMetaData, schema: pa.Schema) -> dict[str, object]:
    """How added columns are written: in the codec of the first column, dictionaries for strings alone."""
    codec = next(iter(_codecs(metadata).values()), "zstd")
    strings = [field.name for field in schema if pa.types.is_string(field.type)]
    return {"compression": codec, "use_dictionary": strings or False}


def write_arrow(source: Source, columns: Columns, num_rows: int, added: AddedColumns, out: Path) -> None:
    """All columns of an Arrow file."""
    ids = SourceIds(source, columns, num_rows)
    try:
        schema, batches = open_arrow(source.uri)
        tables = (_joined(batch, ids, added) for batch in _first_rows(batches, num_rows))
        with _table_writer(source, _without_run_ends(schema), added, out) as write:
            for group in row_groups(tables):
                write(group)
    except pa.ArrowInvalid as error:
        raise unreadable(source.uri, error) from error


def _without_run_ends(schema: pa.Schema) -> pa.Schema:
    """The schema with columns of runs as columns of values, since Parquet knows no runs (and encodes them anyway)."""
    fields = [
        field.with_type(field.type.value_type) if pa.types.is_run_end_encoded(field.type) else field
        for field in schema
    ]
    return pa.schema(fields, schema.metadata)


def _not_in_parquet(schema: pa.Schema) -> str:
    """The columns that Parquet cannot hold, by name and type, for a message."""
    found = []
    for field in schema:
        try:
            pq.write_metadata(pa.schema([field]), pa.BufferOutputStream())
        except pa.ArrowNotImplementedError:
            found.append(f"{field.name!r} ({field.type})")
    return ", ".join(found)


def write_npy(source: Source, columns: Columns, num_rows: int, added: AddedColumns, out: Path) -> None:
    """The rows of an array as lists of token ids."""
    ids = SourceIds(source, columns, num_rows)
    batches = _first_rows(npy.record_batches(source.uri), num_rows)
    with _table_writer(source, source.schema, added, out) as write:
        for group in row_groups(_joined(batch, ids, added) for batch in batches):
            write(group)


def write_text(source: Source, columns: Columns, num_rows: int, added: AddedColumns, out: Path) -> None:
    """Columns id and text."""
    del columns
    schema = pa.schema([("id", pa.string()), ("text", pa.large_string())])

    def tables() -> Iterator[pa.Table]:
        for rows in read_rows(source, Columns(text="text", id="id"), 0, num_rows):
            table = pa.Table.from_arrays([rows.ids, rows.texts], schema=schema)
            yield _beside(table, added.take(rows.num_rows, rows.ids))

    with _table_writer(source, schema, added, out) as write:
        for group in row_groups(tables()):
            write(group)


def _joined(batch: pa.RecordBatch, ids: SourceIds, added: AddedColumns) -> pa.Table:
    columns = [without_run_ends(column) for column in batch.columns]
    table = pa.Table.from_arrays(columns, schema=_without_run_ends(batch.schema))
    return _beside(table, added.take(batch.num_rows, ids.take(batch.num_rows)))


def _beside(table: pa.Table, extra: pa.Table) -> pa.Table:
    for field in extra.schema:
        table = table.append_column(field, extra.column(field.name))
    return table


@contextmanager
def _table_writer(
    source: Source,
    schema: pa.Schema,
    added: AddedColumns,
    out: Path,
    *,
    codecs: dict[str, str] | None = None,
) -> Iterator[Callable[[pa.Table], None]]:
    """A function that writes one row group of source columns and added ones."""
    for field in added.schema:
        schema = schema.append(field)
    codec = next(iter(codecs.values()), "zstd") if codecs else "zstd"
    compression: str | dict[str, str] = codec
    if codecs:
        compression = {**codecs, **dict.fromkeys(added.schema.names, codec)}
    try:
        # The name of a list's child is part of its type; Parquet's own name for it would change that.
        options = {"compression": compression, "use_compliant_nested_type": False}
        with pq.ParquetWriter(out, schema, **options) as writer:
            yield lambda table: writer.write_table(table.cast(schema), row_group_size=max(table.num_rows, 1))
            writer.add_key_value_metadata(added.metadata())
    except pa.ArrowNotImplementedError as error:
        columns = _not_in_parquet(schema) or str(error).splitlines()[0]
        msg = f"{source.uri}: Parquet cannot hold {columns}; drop or convert it in the source, and score that"
        raise InputError(msg) from error


def _first_rows(batches: Iterable[pa.RecordBatch], num_rows: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        if num_rows == 0:
            return
        kept = batch.slice(0, num_rows)
        num_rows -= kept.num_rows
        yield kept
