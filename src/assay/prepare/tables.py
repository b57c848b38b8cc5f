"""Tables with a row a book on disk, mapped into memory: however many books there are, no column of them is a list.

The files are Arrow IPC. The digest of their values stands in the schema, so that a run over such a table knows
it again by its header.
"""

import hashlib
import itertools
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from assay.data.ids import hash_ids
from assay.data.storage import writing
from assay.errors import SourceError

BATCH_BOOKS = 256
"""Rows of a record batch, and of what is in memory as Python values at a time."""
DIGEST = b"assay.digest"
T_co = TypeVar("T_co", covariant=True)
Batches = Callable[[], Iterable[pa.RecordBatch]]
"""Gives the rows of a table, in order, each time it is called."""


def write_table(path: Path, schema: pa.Schema, batches: Batches) -> pa.Table:
    """The table of these rows, written in one step and mapped; they are gone through twice."""
    digest = hashlib.blake2b(digest_size=16)
    for batch in batches():
        digest.update(repr(batch.to_pydict()).encode("utf-8", "surrogatepass"))
    staged = path.with_name(f".{path.name}.writing")
    with writing(str(path)):
        with (
            pa.OSFile(str(staged), "wb") as sink,
            pa.ipc.new_file(sink, schema.with_metadata({DIGEST: digest.hexdigest()})) as writer,
        ):
            for batch in batches():
                writer.write_batch(batch)
        staged.replace(path)
    return map_table(path, schema)


def map_table(path: Path, schema: pa.Schema) -> pa.Table:
    """The table of a file; what it holds takes no memory before it is read.

    Raises SourceError where the file cannot be read, or holds something else.
    """
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all().replace_schema_metadata()
    except (OSError, pa.ArrowException) as error:
        msg = f"{path} cannot be read ({error}); run the same command with another --out"
        raise SourceError(msg) from error
    if not table.schema.equals(schema):
        raise SourceError(
            f"{path} was written by another version of assay; run the same command with another --out"
        )
    return table


def in_batches(rows: Iterable[dict[str, Any]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Rows as record batches of the size that tables have."""
    held: list[dict[str, Any]] = []
    for row in rows:
        held.append(row)
        if len(held) == BATCH_BOOKS:
            yield pa.RecordBatch.from_pylist(held, schema=schema)
            held = []
    if held:
        yield pa.RecordBatch.from_pylist(held, schema=schema)


def take_rows(batches: Sequence[pa.RecordBatch], rows: NDArray[np.int64]) -> pa.RecordBatch:
    """Some rows of a table that `in_batches` made, in this order.

    Arrow's own `take` puts all batches together first.
    """
    numbers = rows // BATCH_BOOKS
    order = np.argsort(numbers, kind="stable")
    pieces = [
        batches[number].take(pa.array(rows[numbers == number] - number * BATCH_BOOKS))
        for number in np.unique(numbers).tolist()
    ]
    return pa.concat_batches(pieces).take(pa.array(np.argsort(order)))


class Column(Sequence[T_co]):
    """The values of a column, which become Python's as they are asked for."""

    def __init__(self, values: pa.ChunkedArray, rows: NDArray[np.int64] | None = None) -> None:
        """All values, or those of some rows, ascending."""
        self._values = values
        self._chunks = values.chunks
        self._begins = list(itertools.accumulate((len(chunk) for chunk in self._chunks), initial=0))
        self._rows = np.arange(len(values)) if rows is None else rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> T_co: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[T_co]: ...
    def __getitem__(self, place: int | slice) -> T_co | Sequence[T_co]:
        """The value of a place."""
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        row = int(self._rows[place])
        # Arrow's own way to a row goes past all chunks before it.
        number = bisect_right(self._begins, row) - 1
        value: T_co = self._chunks[number][row - self._begins[number]].as_py()
        return value

    def __iter__(self) -> Iterator[T_co]:
        for begin in range(0, len(self._values), BATCH_BOOKS):
            first, stop = np.searchsorted(self._rows, [begin, begin + BATCH_BOOKS]).tolist()
            values = self._values.slice(begin, BATCH_BOOKS).to_pylist()
            yield from (values[row - begin] for row in self._rows[first:stop].tolist())


class RowsById:
    """The rows of a table by their ids, of which hashes are kept: 12 bytes a row."""

    def __init__(self, ids: pa.ChunkedArray) -> None:
        hashes = np.concatenate([hash_ids(chunk) for chunk in ids.chunks])
        self._rows = np.argsort(hashes).astype(np.int32)
        self._hashes = hashes[self._rows]

    def find(self, ids: pa.Array) -> NDArray[np.int32]:
        """The row of each id; -1 for one that the table does not have."""
        hashes = hash_ids(ids)
        places = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
        return np.where(self._hashes[places] == hashes, self._rows[places], -1)
