"""Reading ranges of sources: their rows in order, in bounded batches.

What concerns a whole file (it is cut short, an id does not fit its column's type) raises SourceError.
"""

from collections.abc import Iterator
from typing import Self

import pyarrow as pa

from assay.data.formats.table import FORMATS
from assay.data.rows import BATCH_BYTES, BATCH_ROWS, SourceRows
from assay.data.sources import Columns, Source, unreadable
from assay.errors import SourceError, StorageError


def read_rows(
    source: Source, columns: Columns, start: int, stop: int, *, batch_rows: int = BATCH_ROWS
) -> Iterator[SourceRows]:
    """Rows [start, stop) of `source`, in order, in batches of at most `batch_rows`.

    Memory is bounded by a batch, not by the range: batches get smaller where texts are long.
    Raises SourceError where the file cannot be read or a value does not fit its column.
    """
    with RowReader(columns) as reader:
        yield from reader.read(source, start, stop, batch_rows=batch_rows)


class RowReader:
    """Reads ranges of sources and keeps the open file, so that the next range goes on where one stopped.

    Not thread-safe. Close it, or use it as a context manager.
    """

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._batch_rows = BATCH_ROWS
        self._uri: str | None = None
        self._batches: Iterator[SourceRows] = iter(())
        self._rest: SourceRows | None = None
        self._row = 0

    def __enter__(self) -> Self:
        """The reader itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the file."""
        self.close()

    def read(
        self, source: Source, start: int, stop: int, *, batch_rows: int = BATCH_ROWS
    ) -> Iterator[SourceRows]:
        """Rows [start, stop) of `source` in batches of at most `batch_rows`, as `read_rows` gives them."""
        if not 0 <= start <= stop <= source.num_rows:
            wanted = f"rows {start} to {stop} asked for"
            msg = f"{source.uri}: {wanted}, it has {source.num_rows}; plan the run again"
            raise SourceError(msg)
        if start == stop:
            return
        if (self._uri, self._row, self._batch_rows) != (source.uri, start, batch_rows):
            self.close()
            self._batches = _open(source, self._columns, start, batch_rows)
            self._uri, self._row, self._batch_rows = source.uri, start, batch_rows
        while self._row < stop:
            rows = self._next(source)
            length = min(rows.num_rows, stop - self._row)
            self._rest = rows.slice(length, rows.num_rows - length) if length < rows.num_rows else None
            self._row += length
            yield rows if length == rows.num_rows else rows.slice(0, length)

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        close = getattr(self._batches, "close", None)
        if close is not None:
            close()
        self._batches = iter(())
        self._uri = self._rest = None

    def _next(self, source: Source) -> SourceRows:
        if self._rest is not None:
            return self._rest
        try:
            rows = next(self._batches, None)
        except (pa.ArrowException, OSError) as error:
            self.close()
            raise unreadable(source.uri, error) from error
        except StorageError as error:
            self.close()
            raise SourceError(str(error)) from error
        if rows is None:
            self.close()
            msg = f"{source.uri} ends at row {self._row} of {source.num_rows}; it changed or was cut short"
            raise SourceError(msg)
        return rows


def _open(source: Source, columns: Columns, start: int, batch_rows: int) -> Iterator[SourceRows]:
    """All batches of `source` from row `start` on."""
    rows = int(min(batch_rows, max(1, BATCH_BYTES // max(1.0, source.bytes_per_row))))
    return FORMATS[source.format].read(source, columns, start, rows)
