"""Rows gathered into row groups of the size in which Assay writes Parquet."""

from collections.abc import Iterable, Iterator

import pyarrow as pa

ROW_GROUP_ROWS = 131_072
ROW_GROUP_BYTES = 64 << 20


def row_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Tables of any size gathered into tables of a row group each; memory stays bounded."""
    held: list[pa.Table] = []
    rows = size = 0
    for table in tables:
        held.append(table)
        rows += table.num_rows
        size += table.nbytes
        if rows >= ROW_GROUP_ROWS or size >= ROW_GROUP_BYTES:
            yield pa.concat_tables(held)
            held, rows, size = [], 0, 0
    if held:
        yield pa.concat_tables(held)
