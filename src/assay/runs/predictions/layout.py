"""What a row of the result holds, and where it comes from."""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import pyarrow as pa
import pyarrow.dataset as ds

from assay.data.ids import IdChecksum
from assay.errors import UsageError
from assay.runs.manifest import encode_schema
from assay.runs.predictions.rows import ROW

SCAN_ROWS = 16_384
RowSource: TypeAlias = pa.Table | ds.Dataset | Callable[[pa.Int64Array], pa.Table]
"""What the cohort knows of its rows: a table or a dataset in row order, or a function of row ids."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictionLayout:
    """What a row of the result holds, and where it comes from; UsageError where that does not add up."""

    schema: pa.Schema
    """Columns of the result, in order."""
    outputs: Mapping[str, str]
    """Key in what `predict_step` returns -> column, of type float32 or fixed_size_list<float32>."""
    row_key: str = ROW
    """A column of this name is filled with the row ids."""
    rows: RowSource | None = None
    """Gives every other column."""
    num_rows: int | None = None
    """Rows of the cohort; None = counted in `rows`, or unknown where that is a function."""
    duplicate_tolerance: float = 0.05
    """How far two predictions of one row may lie apart: absolute below 1, relative above."""

    def __post_init__(self) -> None:
        """Check that each column has one source, of the right type, and settle `num_rows`."""
        for column in self.outputs.values():
            if column not in self.schema.names:
                raise UsageError(
                    f"output column {column!r} is not in the schema{_nearest(column, self.schema.names)}"
                )
            output_width(self.schema.field(column).type, column)
        if len(set(self.outputs.values())) != len(self.outputs):
            raise UsageError("two outputs go to one column; give each a column of its own")
        if ROW in self.outputs.values():
            raise UsageError(f"output column {ROW!r} has the name of the row ids; rename it")
        if (
            self.rows is not None
            and not isinstance(self.rows, (pa.Table, ds.Dataset))
            and not callable(self.rows)
        ):
            object.__setattr__(self, "rows", pa.table(self.rows))
        if self.row_key in self.schema.names and self.schema.field(self.row_key).type != pa.int64():
            kind = self.schema.field(self.row_key).type
            raise UsageError(f"column {self.row_key!r} holds row ids and has type {kind}; make it int64")
        self._check_rows()

    def _check_rows(self) -> None:
        known: Sequence[str]
        if self.rows is None:
            known = ()
        elif isinstance(self.rows, (pa.Table, ds.Dataset)):
            known = self.rows.schema.names
            count = self.rows.num_rows if isinstance(self.rows, pa.Table) else self.rows.count_rows()
            if self.num_rows not in (None, count):
                raise UsageError(
                    f"num_rows is {self.num_rows} and rows has {count}; leave num_rows out, or fix it"
                )
            object.__setattr__(self, "num_rows", count)
        else:
            known = self.rows(pa.array([], pa.int64())).schema.names
        if self.num_rows is not None and self.num_rows < 0:
            raise UsageError(f"num_rows is {self.num_rows}; a cohort has 0 rows or more")
        for column in self.row_columns:
            if column not in known:
                raise UsageError(
                    f"column {column!r} of the schema is not an output and not in rows"
                    f"{_nearest(column, known)}; add it to outputs or rows, or drop it from the schema"
                )

    @property
    def row_columns(self) -> list[str]:
        """Columns that `rows` gives."""
        made = {*self.outputs.values(), self.row_key}
        return [name for name in self.schema.names if name not in made]

    @property
    def staged_schema(self) -> pa.Schema:
        """Row id and outputs: what a rank writes."""
        fields = [pa.field(name, self.schema.field(name).type) for name in self.outputs.values()]
        return pa.schema([pa.field(ROW, pa.int64(), nullable=False), *fields])

    def identity(self) -> dict[str, object]:
        """What makes the result, for its id; reads the columns of `rows` once."""
        return {
            "schema": encode_schema(self.schema),
            "outputs": dict(self.outputs),
            "num_rows": self.num_rows,
            "rows": self._rows_checksum(),
        }

    def _rows_checksum(self) -> dict[str, str] | None:
        if self.rows is None or not isinstance(self.rows, (pa.Table, ds.Dataset)):
            return None
        checksums = {name: IdChecksum() for name in self.row_columns}
        in_memory = isinstance(self.rows, pa.Table)
        for batch in self.rows.to_batches() if in_memory else scan(self.rows, self.row_columns):
            for name, checksum in checksums.items():
                checksum.update(batch.column(name))
        return {name: checksum.hexdigest() for name, checksum in checksums.items()}


def output_width(kind: pa.DataType, column: str) -> int | None:
    """None for a float32 column, the list size for fixed_size_list<float32>; UsageError for any other."""
    if kind == pa.float32():
        return None
    if pa.types.is_fixed_size_list(kind) and kind.value_type == pa.float32():
        size: int = kind.list_size
        return size
    raise UsageError(
        f"output column {column!r} has type {kind}; outputs are float32 or fixed_size_list<float32>"
    )


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), 3)
    return f" (nearest: {', '.join(close)})" if close else ""


def scan(dataset: ds.Dataset, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The rows of a dataset in order, in bounded memory."""
    batches: Iterator[pa.RecordBatch] = dataset.to_batches(
        columns=list(columns), batch_size=SCAN_ROWS, batch_readahead=4, fragment_readahead=1
    )
    return batches
