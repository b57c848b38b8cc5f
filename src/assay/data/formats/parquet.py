"""Parquet: a footer says what the file holds, so that planning reads nothing else."""

import hashlib
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from assay.data.formats.format import FileFormat, SourceFile, batched_source, not_read_as
from assay.data.rows import SourceRows, batches_from, table_rows
from assay.data.sources import Columns, Source, role_paths, unreadable
from assay.data.storage import FOOTER_READ_BYTES, MAX_READ_AHEAD_BYTES, is_object_url, split_url

LOCAL_READ_BYTES = 1024 * 1024

_MAGIC = b"PAR1"
_FOOTER_TAIL_BYTES = 8


def inspect(file: SourceFile, name: str, columns: Columns) -> Source:
    """What the footer says; the fingerprint is that of size and footer."""
    wanted = {name for name in (columns.text, columns.text_pair, columns.input_ids) if name is not None}
    store, path = split_url(file.uri)
    tail = store.read_bytes(path, max(0, file.size_bytes - FOOTER_READ_BYTES), FOOTER_READ_BYTES)
    if len(tail) < _FOOTER_TAIL_BYTES or tail[-4:] != _MAGIC:
        raise not_read_as("Parquet", file.uri, EOFError("no Parquet footer at its end"))
    footer_bytes = int.from_bytes(tail[-8:-4], "little") + _FOOTER_TAIL_BYTES
    if footer_bytes > file.size_bytes:
        raise unreadable(file.uri, EOFError("its Parquet footer is longer than the file"))
    if footer_bytes > len(tail):
        tail = store.read_bytes(path, file.size_bytes - footer_bytes, footer_bytes)
    footer = tail[-footer_bytes:]
    try:
        # Not metadata.schema: it and the metadata hold each other until the garbage collector runs.
        with pq.ParquetFile(pa.BufferReader(footer)) as parquet:
            metadata, schema = parquet.metadata, parquet.schema_arrow
    except (OSError, pa.ArrowException) as error:
        raise unreadable(file.uri, error) from error
    starts, text_bytes = [0], 0
    read: list[int] = []
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        if index == 0:
            paths = [group.column(column).path_in_schema for column in range(metadata.num_columns)]
            read = [column for column, path in enumerate(paths) if _is_below(path, wanted)]
        starts.append(starts[-1] + group.num_rows)
        text_bytes += sum(group.column(column).total_uncompressed_size for column in read)
    digest = hashlib.sha256(f"{file.size_bytes}:".encode() + footer)
    return batched_source(file, name, schema, starts, digest.hexdigest(), text_bytes)


def _is_below(path: str, wanted: set[str]) -> bool:
    return any(path == column or path.startswith(f"{column}.") for column in wanted)


def read(source: Source, columns: Columns, start: int, batch_rows: int) -> Iterator[SourceRows]:
    """Rows from `start` on."""
    return table_rows(source, columns, start, batch_rows, _batches(source, columns, start, batch_rows))


def _batches(source: Source, columns: Columns, start: int, batch_rows: int) -> Iterator[pa.RecordBatch]:
    """Record batches of the wanted columns; the first begins at row `start`."""
    wanted = list({".".join(path): None for path in role_paths(source, columns).values()})
    store, path = split_url(source.uri)
    remote = is_object_url(source.uri)
    # Column chunks are streamed through a buffer: a row group of a gigabyte costs no gigabyte.
    with (
        store.open_input(path, size_bytes=source.size_bytes) as file,
        pq.ParquetFile(
            file, pre_buffer=False, buffer_size=MAX_READ_AHEAD_BYTES if remote else LOCAL_READ_BYTES
        ) as parquet,
    ):
        group, first = 0, 0
        sizes = [parquet.metadata.row_group(index).num_rows for index in range(parquet.num_row_groups)]
        while group < len(sizes) and first + sizes[group] <= start:
            first += sizes[group]
            group += 1
        if not wanted:
            yield from _empty_batches(sum(sizes) - start, batch_rows)
            return
        batches = parquet.iter_batches(
            batch_rows, row_groups=range(group, len(sizes)), columns=wanted, use_threads=False
        )
        yield from batches_from(batches, start - first)


def _empty_batches(num_rows: int, batch_rows: int) -> Iterator[pa.RecordBatch]:
    for begin in range(0, num_rows, batch_rows):
        rows = pa.nulls(min(batch_rows, num_rows - begin))
        yield pa.record_batch({"": rows})


FORMAT = FileFormat(name="parquet", endings=(".parquet", ".pq"), inspect=inspect, read=read)
