"""Which columns of the parts are added, and those of one source in its row order, every id checked."""

import difflib
from collections.abc import Callable, Iterator, Sequence
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from assay.data.ids import IdChecksum, first_difference, shown_ids
from assay.embed.kind import EMBED
from assay.errors import CheckError, InputError, UsageError
from assay.runs.parts import footer_problem, open_part, way_out
from assay.runs.plan import Unit
from assay.runs.run import ID_COLUMNS, PARTS, Run, part_path
from assay.score.corpus import Corpus
from assay.score.kind import SCORE

PART_ROWS = 65_536


def choose_columns(run: Run, columns: Sequence[str] | None) -> list[str]:
    """The parts' columns to add, in the parts' order; raises UsageError for one that parts do not have."""
    if run.manifest.kind not in {SCORE.name, EMBED.name}:
        msg = (
            f"{run.url} is a {run.manifest.kind} run; merge adds scores or vectors, a row each: give a run of "
            f"`assay score` or `assay embed`; what this one holds is read from {run.url}/{PARTS}*.parquet"
        )
        raise InputError(msg)
    names = [name for name in run.manifest.arrow_schema().names if name not in ID_COLUMNS]
    if columns is None:
        return names
    for name in columns:
        if name not in names:
            nearest = difflib.get_close_matches(name, names, n=1) or names
            msg = f"--columns {name!r} is not a column of the run's parts; nearest: {', '.join(nearest)}"
            raise UsageError(msg)
    return [name for name in names if name in columns]


class PartColumns:
    """The columns of one source's parts, a batch at a time; checks the ids as they go by."""

    def __init__(
        self,
        corpus: Corpus,
        source: int,
        names: Sequence[str],
        prefix: str,
        on_rows: Callable[[int], None],
    ) -> None:
        """The columns `names` for the source of that index; `on_rows` hears how many rows were taken."""
        part_schema = corpus.run.manifest.arrow_schema()
        self._run = corpus.run
        self._record = corpus.manifest.sources[source]
        self._names = list(names)
        self._prefix = prefix
        self._on_rows = on_rows
        self._id_column = next(name for name in ID_COLUMNS if name in part_schema.names)
        self._row = 0
        self._checksum = IdChecksum()
        self._batches = self._read(corpus.units[source])
        self._rest: pa.RecordBatch | None = None
        fields = [part_schema.field(name) for name in names]
        self.schema = pa.schema([field.with_name(prefix + field.name) for field in fields])

    def __enter__(self) -> Self:
        """The columns."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the part that is open."""
        self._batches = iter(())  # ends the generator, which holds it

    def take(self, num_rows: int, ids: pa.Array | None) -> pa.Table:
        """The columns of the next rows; raises CheckError where their ids are not `ids`, the source's."""
        taken: list[pa.RecordBatch] = []
        first, stop = self._row, self._row + num_rows
        while self._row < stop:
            batch = self._rest if self._rest is not None else self._next()
            kept = batch.slice(0, stop - self._row)
            self._rest = batch.slice(kept.num_rows) if kept.num_rows < batch.num_rows else None
            self._check_ids(
                kept.column(0), None if ids is None else ids.slice(self._row - first, kept.num_rows)
            )
            taken.append(pa.RecordBatch.from_arrays(kept.columns[1:], schema=self.schema))
            self._row += kept.num_rows
        self._on_rows(num_rows)
        return pa.Table.from_batches(taken, self.schema)

    def metadata(self) -> dict[str, str]:
        """Footer keys; the prefix keeps those of an earlier merge apart."""
        key = f"assay.{self._prefix}"
        return {
            f"{key}run_id": self._run.manifest.run_id,
            f"{key}num_rows": str(self._row),
            f"{key}id_checksum": self._checksum.hexdigest(),
        }

    def require_all_taken(self) -> None:
        """Raise CheckError unless each planned row was given out."""
        if self._row != self._record.planned_rows:
            rows = f"{self._row:,} rows, the run has {self._record.planned_rows:,}"
            msg = f"{self._record.uri} gave {rows}; start a new run"
            raise CheckError(msg)

    def _next(self) -> pa.RecordBatch:
        batch = next(self._batches, None)
        if batch is None:
            msg = f"{self._record.uri} has more rows than the run has parts for; start a new run"
            raise CheckError(msg)
        return batch

    def _read(self, units: Sequence[Unit]) -> Iterator[pa.RecordBatch]:
        """The parts' batches in row order, the id column first."""
        for unit in units:
            with open_part(self._run, unit) as file:
                self._check_footer(file, unit)
                for batch in file.iter_batches(PART_ROWS, columns=[self._id_column, *self._names]):
                    yield batch.select([self._id_column, *self._names])

    def _check_footer(self, file: pq.ParquetFile, unit: Unit) -> None:
        problem = footer_problem(self._run, unit, file)
        if problem is None and file.metadata.num_rows != unit.num_rows:
            problem = f" has {file.metadata.num_rows} rows, not {unit.num_rows}"
        if problem is not None:
            msg = f"{part_path(unit)}{problem}; {way_out(self._run)}"
            raise CheckError(msg)

    def _check_ids(self, part_ids: pa.Array, source_ids: pa.Array | None) -> None:
        if source_ids is None:
            source_ids = pa.array(np.arange(self._row, self._row + len(part_ids), dtype=np.int64))
        index = first_difference(part_ids, source_ids)
        if index is not None:
            mine, theirs = shown_ids(part_ids.slice(index, 1)), shown_ids(source_ids.slice(index, 1))
            seen = f"row {self._row + index} has id {theirs[0]!r}, its part has {mine[0]!r}"
            msg = f"source {self._record.uri} {seen}: the part is not this row's; {way_out(self._run)}"
            raise CheckError(msg)
        self._checksum.update(part_ids)
