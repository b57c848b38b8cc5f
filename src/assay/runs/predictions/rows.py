"""Row ids and outputs as arrays and as tables; rows that were predicted twice dropped."""

import math

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from assay.errors import CheckError

ROW = "row"
"""The column of row ids in staged files."""

RowIds = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


def to_arrow(values: npt.NDArray[np.generic], kind: pa.DataType) -> pa.Array:
    """A column of [B] or [B, width] values."""
    if values.ndim == 1:
        return pa.array(values, kind)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=kind)


def to_numpy(column: pa.ChunkedArray) -> npt.NDArray[np.generic]:
    """The values [B] or [B, width] of a column."""
    array = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if pa.types.is_fixed_size_list(array.type):
        return np.asarray(array.flatten()).reshape(len(array), array.type.list_size)
    return np.asarray(array)


def rows_of(table: pa.Table) -> RowIds:
    """The row ids of a table."""
    return to_numpy(table.column(ROW)).astype(np.int64, copy=False)


def drop_repeats(table: pa.Table, tolerance: float) -> tuple[pa.Table, int]:
    """The table without rows that an earlier row of the same id precedes, and how many those were.

    `table` is sorted by row id, the prediction to keep first. Raises CheckError where two predictions
    of one row lie further apart than `tolerance`: then the id names two rows.
    """
    rows = rows_of(table)
    again = np.flatnonzero(rows[1:] == rows[:-1]) + 1
    if not len(again):
        return table, 0
    for name in table.schema.names[1:] if math.isfinite(tolerance) else ():
        values = to_numpy(table.column(name)).astype(np.float64)
        first, second = values[again - 1], values[again]
        with np.errstate(invalid="ignore"):
            near = np.abs(first - second) <= tolerance * np.maximum(1.0, np.abs(first))
        near |= (first == second) | (np.isnan(first) & np.isnan(second))
        far = np.flatnonzero(~near.reshape(len(again), -1).all(axis=1))
        if len(far):
            twice = rows[again[far[0]]]
            raise CheckError(
                f"row {twice} was predicted twice, {name} {first[far[0]]} and {second[far[0]]}: "
                f"further apart than duplicate_tolerance {tolerance} ({len(far)} such rows); "
                "a row id must name one row of the whole cohort, not of a rank or a file"
            )
    keep = np.ones(len(rows), dtype=np.bool_)
    keep[again] = False
    return table.filter(pa.array(keep)), len(again)
