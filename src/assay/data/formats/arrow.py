"""Arrow IPC files and streams, and the folders of them that `datasets` saves."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

import pyarrow as pa

from assay.data.columns import column_path
from assay.data.formats.format import FileFormat, SourceFile, batched_source, not_read_as
from assay.data.listing import joined
from assay.data.rows import SourceRows, batches_from, table_rows
from assay.data.sources import Columns, Source
from assay.data.storage import FOOTER_READ_BYTES, Store, is_object_url, local_path, split_url
from assay.errors import SourceError

_FILE_MAGIC = b"ARROW1"
_STATE = "state.json"


def inspect(file: SourceFile, name: str, columns: Columns) -> Source:
    """What the headers of its batches say; the fingerprint is that of schema, batches and the last bytes."""
    digest = hashlib.sha256(f"{file.size_bytes}:".encode())
    starts, text_bytes = [0], 0
    try:
        schema, batches = open_arrow(file.uri)
        digest.update(schema.serialize())
        column = column_path(schema, columns.input_ids or columns.text or "")
        for batch in batches:
            starts.append(starts[-1] + batch.num_rows)
            digest.update(f"{batch.num_rows},".encode())
            if column is not None and batch.num_rows:
                text_bytes += batch.column(schema.get_field_index(column[0])).nbytes
    except (OSError, pa.ArrowException) as error:
        raise not_read_as("Arrow", file.uri, error) from error
    store, path = split_url(file.uri)
    digest.update(store.read_bytes(path, max(0, file.size_bytes - FOOTER_READ_BYTES), FOOTER_READ_BYTES))
    return batched_source(file, name, schema, starts, digest.hexdigest(), text_bytes)


def open_arrow(uri: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The schema and the record batches of an Arrow IPC file or stream; a local one is mapped, not read."""
    if is_object_url(uri):
        store, path = split_url(uri)
        file = store.open_input(path)
    else:
        file = pa.memory_map(str(local_path(uri)), "rb")
    is_file = file.read(len(_FILE_MAGIC)) == _FILE_MAGIC
    file.seek(0)
    if not is_file:
        stream = pa.ipc.open_stream(file)
        return stream.schema, iter(stream)
    reader = pa.ipc.open_file(file)
    return reader.schema, (reader.get_batch(index) for index in range(reader.num_record_batches))


def read(source: Source, columns: Columns, start: int, batch_rows: int) -> Iterator[SourceRows]:
    """Rows from `start` on."""
    return table_rows(source, columns, start, batch_rows, _batches(source, start))


def _batches(source: Source, start: int) -> Iterator[pa.RecordBatch]:
    _, batches = open_arrow(source.uri)
    yield from batches_from(batches, start)


def cache_files(store: Store, folder: str, uri: str, paths: Sequence[str]) -> set[str]:
    """Cache files, which lie beside the data files of a saved dataset and are not sources."""
    found: set[str] = set()
    for state in [path for path in paths if PurePosixPath(path).name == _STATE]:
        below = state.removesuffix(_STATE)
        saved = {below + name for name in _saved_data_files(store, joined(folder, state), f"{uri}/{state}")}
        missing = sorted(saved.difference(paths))
        if missing:
            msg = f"{uri}/{missing[0]} is named in state.json and missing; save the dataset again"
            raise SourceError(msg)
        beside = {path for path in paths if path.rpartition("/")[0] == below.rstrip("/")}
        found |= beside - saved
    return found


def _saved_data_files(store: Store, path: str, uri: str) -> set[str]:
    try:
        return {entry["filename"] for entry in json.loads(store.read_bytes(path))["_data_files"]}
    except (ValueError, KeyError, TypeError) as error:
        msg = f"{uri} is not a state.json of a saved dataset ({error!r}); save it again with save_to_disk"
        raise SourceError(msg) from error


FORMAT = FileFormat(name="arrow", endings=(".arrow",), inspect=inspect, read=read, left_out=cache_files)
