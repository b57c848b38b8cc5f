"""NumPy arrays of whole numbers, a row of token ids each: sequences of one length, puzzles."""

import hashlib
import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from assay.data.formats.format import FileFormat, SourceFile, not_read_as
from assay.data.rows import SourceRows, table_rows
from assay.data.sources import FINGERPRINT_HEX, Columns, Source
from assay.data.storage import Store, is_object_url, local_path, split_url
from assay.errors import SourceError

ENDINGS = (".npy",)
COLUMN = "input_ids"
"""Name of the one column."""
_BATCH_ROWS = 16_384
_BITS = 31


def inspect(file: SourceFile, name: str, columns: Columns) -> Source:
    """The shape of the array; the fingerprint is that of the whole file."""
    del columns
    array = open_npy(file.uri)
    digest = hashlib.sha256()
    store, path = split_url(file.uri)
    with store.open_input(path) as content:
        while piece := content.read(1 << 20):
            digest.update(piece)
    return Source(
        uri=file.uri,
        name=name,
        format=FORMAT.name,
        size_bytes=file.size_bytes,
        version=file.version,
        fingerprint=digest.hexdigest()[:FINGERPRINT_HEX],
        num_rows=len(array),
        splits=tuple(range(0, len(array), _BATCH_ROWS)) or (0,),
        schema=pa.schema([(COLUMN, pa.list_(pa.int32()))]),
        bytes_per_row=array.shape[1] * 4.0,
    )


def open_npy(uri: str) -> NDArray[Any]:
    """The array in a file, [N, S] of whole numbers; a local one is mapped, not read."""
    try:
        if is_object_url(uri):
            store, path = split_url(uri)
            array: NDArray[Any] = np.load(io.BytesIO(store.read_bytes(path)), allow_pickle=False)
        else:
            array = np.load(local_path(uri), mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise not_read_as("NumPy's .npy", uri, error) from error
    if array.ndim != 2 or not np.issubdtype(array.dtype, np.integer):
        raise SourceError(
            f"{uri} is an array of {array.dtype} of shape {array.shape}; rows of token ids are whole numbers in two"
            " dimensions; save it so"
        )
    return array


def record_batches(uri: str, start: int = 0) -> Iterator[pa.RecordBatch]:
    """The rows from `start` on, as lists of token ids."""
    array = open_npy(uri)
    for begin in range(start, len(array), _BATCH_ROWS):
        rows = np.ascontiguousarray(array[begin : begin + _BATCH_ROWS])
        if rows.size and (rows.min() < 0 or int(rows.max()) >> _BITS):
            raise SourceError(f"{uri}: ids from {rows.min()} to {rows.max()}; an id is 0 to 2^31 - 1")
        offsets = np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1]
        lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(rows.ravel().astype(np.int32)))
        yield pa.RecordBatch.from_arrays([lists], names=[COLUMN])


def read(source: Source, columns: Columns, start: int, batch_rows: int) -> Iterator[SourceRows]:
    """Rows from `start` on."""
    return table_rows(source, columns, start, batch_rows, record_batches(source.uri, start))


def beside_others(store: Store, folder: str, uri: str, paths: Sequence[str]) -> set[str]:
    """All arrays of a folder: beside files of other formats they are not taken for sources."""
    del store, folder, uri
    return {path for path in paths if path.lower().endswith(ENDINGS)}


FORMAT = FileFormat(name="npy", endings=ENDINGS, inspect=inspect, read=read, left_out=beside_others)
