"""One rank's rows on their way to disk."""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from assay.data.row_groups import ROW_GROUP_BYTES, ROW_GROUP_ROWS
from assay.data.storage import Store, writing
from assay.errors import CheckError
from assay.runs.predictions.layout import PredictionLayout
from assay.runs.predictions.rows import Floats, RowIds, drop_repeats, to_arrow
from assay.runs.run import SUFFIX, writer_options

STAGED = "staged/"
STAGED_FILE_ROWS = 1 << 20
STAGED_FILE_SECONDS = 300.0
"""A rank's file is closed at the first row group after this, so that a kill costs no more."""


class RowStaging:
    """One rank's rows on their way to disk: row groups sorted by row id, in files of a few minutes.

    A file appears under its name whole, or not at all. Not thread-safe.
    """

    def __init__(
        self,
        store: Store,
        layout: PredictionLayout,
        *,
        attempt: str,
        rank: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Stage rows of `rank` for `layout`, apart from those of every other attempt."""
        self.files: list[str] = []
        self.num_repeats = 0
        self._store = store
        self._schema = layout.staged_schema
        self._tolerance = layout.duplicate_tolerance
        self._num_rows = np.iinfo(np.int64).max if layout.num_rows is None else layout.num_rows
        self._prefix = f"{STAGED}{attempt}/rank-{rank:05}"
        self._clock = clock
        self._held: list[list[npt.NDArray[np.generic]]] = []
        self._held_rows = self._held_bytes = 0
        self._writer: pq.ParquetWriter | None = None
        self._path = Path()
        self._file_rows = 0
        self._opened_at = 0.0

    def add(self, rows: RowIds, outputs: Mapping[str, Floats]) -> None:
        """Take a batch: row ids [B], and for each output column [B] or [B, width]. Keeps the arrays.

        Raises CheckError for a row id that the cohort does not have.
        """
        if not len(rows):
            return
        wrong = np.flatnonzero((rows < 0) | (rows >= self._num_rows))
        if len(wrong):
            raise CheckError(
                f"{len(wrong)} row ids of a batch are not in the cohort (the first: {rows[wrong[0]]}); "
                f"ids are positions in it, from 0 to {self._num_rows - 1}"
            )
        columns: list[npt.NDArray[np.generic]] = [rows, *(outputs[name] for name in self._schema.names[1:])]
        self._held.append(columns)
        self._held_rows += len(rows)
        self._held_bytes += sum(column.nbytes for column in columns)
        if self._held_rows >= ROW_GROUP_ROWS or self._held_bytes >= ROW_GROUP_BYTES:
            self._flush()
            if self._file_rows >= STAGED_FILE_ROWS or self._clock() - self._opened_at >= STAGED_FILE_SECONDS:
                self._close_file()

    def close(self) -> dict[str, object]:
        """Write what is held and close the file; gives the names of all files and the rows dropped."""
        self._flush()
        self._close_file()
        return {"files": self.files, "num_repeats": self.num_repeats}

    def abort(self) -> None:
        """Leave whole files of everything so far, unchecked: the work has failed already."""
        self._tolerance = math.inf
        self.close()

    def _flush(self) -> None:
        if not self._held:
            return
        gathered = [np.concatenate(pieces) for pieces in zip(*self._held, strict=True)]
        order = np.argsort(gathered[0], kind="stable")
        arrays = [
            to_arrow(column[order], self._schema.field(index).type) for index, column in enumerate(gathered)
        ]
        table, repeats = drop_repeats(pa.Table.from_arrays(arrays, schema=self._schema), self._tolerance)
        if self._writer is None:
            self._path = self._store.scratch() / f"staged.{uuid4().hex}{SUFFIX}"
            with writing(str(self._path)):
                self._writer = pq.ParquetWriter(self._path, self._schema, **writer_options(self._schema))
            self._file_rows, self._opened_at = 0, self._clock()
        self._held, self._held_rows, self._held_bytes = [], 0, 0
        with writing(str(self._path)):
            self._writer.write_table(table, row_group_size=table.num_rows)
        self.num_repeats += repeats
        self._file_rows += table.num_rows

    def _close_file(self) -> None:
        if self._writer is None:
            return
        writer, self._writer = self._writer, None
        name = f"{self._prefix}-{len(self.files):06}{SUFFIX}"
        try:
            with writing(str(self._path)):
                writer.close()
            self._store.create(name, self._path)
        finally:
            self._path.unlink(missing_ok=True)
        self.files.append(name)
