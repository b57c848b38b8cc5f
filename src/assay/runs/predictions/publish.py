"""The whole result as parts in row order: what the cohort knows beside the outputs, written and published."""

import itertools
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from assay.data.storage import Store, writing
from assay.errors import RefusedError, SourceError, StorageError
from assay.runs.predictions.layout import PredictionLayout, scan
from assay.runs.predictions.merging import RowCount, RowMerge, sorted_runs
from assay.runs.predictions.result import COMPLETE_PATH, Predictions, find_predictions
from assay.runs.predictions.rows import ROW, rows_of, to_numpy
from assay.runs.predictions.staging import STAGED
from assay.runs.run import FOOTER_RUN_ID, PARTS, SUFFIX, footer_of_part, write_rows, writer_options

PART_ROWS = 1 << 20


class _PredictionReader:
    """What the cohort knows of rows, read once from the first to the last."""

    def __init__(self, layout: PredictionLayout) -> None:
        self._rows = layout.rows
        self._columns = layout.row_columns
        self._scan = scan(self._rows, self._columns) if isinstance(self._rows, ds.Dataset) else iter(())
        self._ahead = pa.table({})

    def read(self, start: int, stop: int) -> pa.Table:
        """Rows `start` to `stop`, which follow those read before."""
        if not self._columns:
            return pa.table({})
        if isinstance(self._rows, pa.Table):
            table = self._rows.slice(start, stop - start)
        elif isinstance(self._rows, ds.Dataset):
            table = self._next(stop - start)
        else:
            assert callable(self._rows)
            table = self._rows(pa.array(np.arange(start, stop), pa.int64()))
        if table.num_rows != stop - start:
            raise SourceError(
                f"rows gave {table.num_rows} rows for rows {start} to {stop}; it must give one for each id, "
                "in order"
            )
        return table

    def _next(self, count: int) -> pa.Table:
        pieces = [self._ahead]
        have: int = self._ahead.num_rows
        while have < count and (batch := next(self._scan, None)) is not None:
            pieces.append(pa.Table.from_batches([batch]))
            have += batch.num_rows
        pieces = [piece for piece in pieces if piece.num_rows]
        table = pa.concat_tables(pieces) if pieces else self._ahead
        self._ahead = table.slice(count)
        return table.slice(0, count)


@dataclass(kw_only=True, slots=True)
class _PartWriter:
    """Writes parts under temporary names; `files` holds those that are whole."""

    layout: PredictionLayout
    run_id: str
    scratch: Path
    reader: _PredictionReader
    stats: Mapping[str, object]
    files: list[tuple[str, Path]] = field(default_factory=list)
    num_not_finite: int = 0

    def write(self, start: int, tables: Iterable[pa.Table]) -> None:
        """Write the part that begins with row `start` from rows that follow one another."""
        path = self.scratch / f"part.{uuid4().hex}{SUFFIX}"
        schema = self.layout.schema
        strings = [
            column.name
            for column in schema
            if pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        ]
        options = {**writer_options(schema), "use_dictionary": strings or False}
        id_column = (*self.layout.row_columns, None)[0]

        def ids_of(table: pa.Table, before: int) -> pa.ChunkedArray | pa.Array:
            first = start + before
            return (
                pa.array(np.arange(first, first + table.num_rows)) if id_column is None else table[id_column]
            )

        self.files.append(("", path))
        with writing(str(path)), pq.ParquetWriter(path, schema, **options) as writer:
            num_rows, checksum = write_rows(writer, self._batches(tables), schema, ids_of)
            name = f"predictions-{start:012}-{start + num_rows:012}"
            writer.add_key_value_metadata(
                footer_of_part(
                    run_id=self.run_id,
                    unit=name,
                    rows_in=num_rows,
                    rows_out=num_rows,
                    id_checksum=checksum,
                    stats={**self.stats, "finished_at": time.time()},
                )
            )
        self.files[-1] = (f"{PARTS}{name}{SUFFIX}", path)

    def _batches(self, tables: Iterable[pa.Table]) -> Iterator[pa.RecordBatch]:
        for table in tables:
            yield from self._compose(table).to_batches()

    def _compose(self, table: pa.Table) -> pa.Table:
        """Outputs and what the cohort knows of the same rows, in the result's schema."""
        rows = rows_of(table)
        known = self.reader.read(int(rows[0]), int(rows[-1]) + 1)
        outputs = set(self.layout.outputs.values())
        finite = np.ones(len(rows), dtype=np.bool_)
        for name in outputs:
            finite &= (
                np.isfinite(to_numpy(table.column(name)).astype(np.float32)).reshape(len(rows), -1).all(1)
            )
        self.num_not_finite += len(rows) - int(finite.sum())
        columns = []
        for column in self.layout.schema:
            if column.name in outputs:
                columns.append(table.column(column.name))
            elif column.name == self.layout.row_key:
                columns.append(table.column(ROW))
            else:
                columns.append(_cast(known, column))
        return pa.Table.from_arrays(columns, schema=self.layout.schema)

    def discard(self) -> None:
        """Remove what was not published."""
        for _, path in self.files:
            path.unlink(missing_ok=True)


def _cast(known: pa.Table, column: pa.Field) -> pa.ChunkedArray:
    try:
        values = pc.cast(known.column(column.name), column.type)
    except (pa.ArrowException, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise SourceError(
            f"column {column.name!r} of rows cannot become {column.type} ({reason}); fix rows or the schema"
        ) from error
    if values.null_count and not column.nullable:
        raise SourceError(
            f"column {column.name!r} of rows has {values.null_count} nulls and the schema allows none; "
            "fill them, or make the field nullable"
        )
    return values


def publish_predictions(
    store: Store, layout: PredictionLayout, *, run_id: str, report: Mapping[str, object], world_size: int
) -> Predictions:
    """The whole result, published from what the ranks staged, or found where someone had it before.

    `report` holds `files`, the staged files in order of rank, and `num_repeats`. Raises CheckError
    and publishes nothing where a row is missing. Cost: reads each staged row once (once more a pass
    where rows were shuffled widely), `layout.rows` once.
    """
    found = find_predictions(store)
    if found is None:
        try:
            found = _publish(store, layout, run_id, report, world_size)
        except StorageError:
            # The same work done twice at once: the other one is done and has removed the staged files.
            found = find_predictions(store)
            if found is None:
                raise
    for info in list(store.list(STAGED)):
        store.delete(info.path)
    return found


def _publish(
    store: Store, layout: PredictionLayout, run_id: str, report: Mapping[str, object], world_size: int
) -> Predictions:
    files, repeats = report["files"], report["num_repeats"]
    assert isinstance(files, list)
    assert isinstance(repeats, int)
    merge = RowMerge(scratch=store.scratch(), tolerance=layout.duplicate_tolerance, num_repeats=repeats)
    count = RowCount()
    writer = _PartWriter(
        layout=layout,
        run_id=run_id,
        scratch=store.scratch(),
        reader=_PredictionReader(layout),
        stats={"started_at": time.time(), "world_size": world_size},
    )
    try:
        pieces = _gapless_pieces(merge.tables(sorted_runs(store, files)), count)
        for part, tables in itertools.groupby(pieces, key=lambda piece: int(rows_of(piece)[0]) // PART_ROWS):
            writer.write(part * PART_ROWS, tables)
        count.require(layout.num_rows)
        if not writer.files:
            writer.write(0, ())
        for path, content in writer.files:
            if not store.create(path, content):
                _check_same(store, path, run_id)
    finally:
        writer.discard()
    predictions = Predictions(
        url=store.url,
        run_id=run_id,
        num_rows=count.next_row,
        num_repeats=merge.num_repeats,
        num_not_finite=writer.num_not_finite,
        parts=tuple(path for path, _ in writer.files),
        created=True,
    )
    document = predictions.to_json()
    del document["url"], document["created"]
    store.create(COMPLETE_PATH, json.dumps(document, indent=1).encode())
    return predictions


def _gapless_pieces(tables: Iterable[pa.Table], count: RowCount) -> Iterator[pa.Table]:
    """The tables cut where a part ends; after a gap they are only counted, as nothing will be published."""
    for table in tables:
        rows = rows_of(table)
        count.update(rows)
        if count.num_missing:
            continue
        cuts = np.flatnonzero(rows % PART_ROWS == 0).tolist()
        for begin, end in itertools.pairwise(sorted({0, *cuts, len(rows)})):
            yield table.slice(begin, end - begin)


def _check_same(store: Store, path: str, run_id: str) -> None:
    """A part that an attempt killed while it published has left stands, if it is of this run."""
    with store.open_input(path) as handle:
        footer = pq.read_metadata(handle).metadata or {}
    seen = footer.get(FOOTER_RUN_ID, b"").decode()
    if seen != run_id:
        raise RefusedError(f"{store.url}/{path} is of run {seen!r}, not {run_id!r}; use another directory")
