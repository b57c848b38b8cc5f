"""The files of a prepared data set: a Parquet file a split, and one of the rows that were dropped."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from assay.data.row_groups import ROW_GROUP_BYTES, ROW_GROUP_ROWS
from assay.labelled.rows import LabelledRows
from assay.prepare.labelled.settings import (
    IDS_COLUMN,
    ROW_COLUMN,
    SOURCE_COLUMN,
    TOKENS_COLUMN,
    LabelledSettings,
)
from assay.tasks import Task

DROPPED = "dropped.parquet"
_LABEL_TYPES = {
    Task.SINGLE_LABEL: pa.string(),
    Task.MULTI_LABEL: pa.list_(pa.string()),
    Task.REGRESSION: pa.float64(),
}
_DROPPED_SCHEMA = pa.schema(
    [
        pa.field(SOURCE_COLUMN, pa.string(), nullable=False),
        pa.field(ROW_COLUMN, pa.int64(), nullable=False),
        pa.field("id", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("kept_source_uri", pa.string()),
        pa.field("kept_source_row", pa.int64()),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class DroppedRow:
    """A row that is in no split, and why."""

    row: int
    reason: str
    uri: str = ""
    id: str | None = None
    kept_uri: str | None = None
    """Source of the row that stays in its place, and that row, where there is one."""
    kept_row: int | None = None

    def at(self, uri: str) -> "DroppedRow":
        """The row with the name of its source."""
        return replace(self, uri=uri)


def split_schema(settings: LabelledSettings, ids_type: pa.DataType | None) -> pa.Schema:
    """The columns of a split: those of the sources that have a meaning, by their names there, and their origin.

    `ids_type` is that of lists of token ids, where there are some.
    """
    kinds: list[tuple[str | None, pa.DataType]] = [
        (settings.id_column, pa.string()),
        (settings.text_column, pa.large_string()),
        (settings.text_pair_column, pa.large_string()),
        (settings.label_column, _LABEL_TYPES[settings.predicts]),
        (settings.group_column, pa.string()),
        (SOURCE_COLUMN, pa.dictionary(pa.int32(), pa.string())),
        (ROW_COLUMN, pa.int64()),
        (TOKENS_COLUMN if settings.bundle is not None else None, pa.int32()),
        (None if ids_type is None else IDS_COLUMN, ids_type),
    ]
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in kinds if name is not None])


class SplitFiles:
    """Writes rows into the files of a folder; memory holds one row group a file."""

    def __init__(self, folder: Path, settings: LabelledSettings, ids_type: pa.DataType | None) -> None:
        self._schema = split_schema(settings, ids_type)
        self._files = {name: _File(folder / f"{name}.parquet", self._schema) for name in settings.shares}
        self._dropped = _File(folder / DROPPED, _DROPPED_SCHEMA)

    def __enter__(self) -> Self:
        """The files themselves."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what is left; close the files."""
        for file in (*self._files.values(), self._dropped):
            file.close(flush=kind is None)

    def add(
        self,
        split: str,
        rows: LabelledRows,
        uri: str,
        source_rows: Sequence[int],
        num_tokens: NDArray[np.int32] | None,
        input_ids: pa.Array | None,
    ) -> None:
        """Rows of one source, to the end of a split."""
        columns: list[Sequence[object] | NDArray[np.int32] | pa.Array | None]
        columns = [rows.ids, rows.texts, rows.text_pairs, rows.labels, rows.groups]
        columns += [(uri,) * rows.num_rows, source_rows, num_tokens, input_ids]
        present = [column for column in columns if column is not None]
        arrays = [pa.array(column, field.type) for column, field in zip(present, self._schema, strict=True)]
        self._files[split].add(pa.Table.from_arrays(arrays, schema=self._schema))

    def drop(self, rows: Iterable[DroppedRow]) -> None:
        """Rows to the end of the dropped ones."""
        found = [asdict(row) for row in rows]
        if found:
            names = ("uri", "row", "id", "reason", "kept_uri", "kept_row")
            arrays = [
                pa.array([row[name] for row in found], field.type)
                for name, field in zip(names, _DROPPED_SCHEMA, strict=True)
            ]
            self._dropped.add(pa.Table.from_arrays(arrays, schema=_DROPPED_SCHEMA))


class _File:
    """A Parquet file, and the rows that wait for their row group to be full."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
        self._held: list[pa.Table] = []
        self._num_rows = self._size = 0

    def add(self, table: pa.Table) -> None:
        self._held.append(table)
        self._num_rows += table.num_rows
        self._size += table.nbytes
        if self._num_rows >= ROW_GROUP_ROWS or self._size >= ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._held:
            table = pa.concat_tables(self._held).unify_dictionaries()
            self._writer.write_table(table, row_group_size=table.num_rows)
        self._held, self._num_rows, self._size = [], 0, 0

    def close(self, *, flush: bool) -> None:
        if flush:
            self._flush()
        self._writer.close()
