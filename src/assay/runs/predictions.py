"""Predictions that many ranks make in any order, to ordered parts; knows no Lightning and no torch.

    out/predictions.json   whose result this is; created, exclusively, before the first row
    out/staged/            what each rank has so far: row ids and outputs, whole Parquet files
    out/parts/             the result in row order; empty until every row was found exactly once
    out/complete.json      written last: all parts are there

A rank gathers its batches into row groups sorted by row id. Row groups that follow one another make a
stream of rising rows; in the end the streams are merged, a few thousand rows of each at a time, and what
the cohort knows of a row (ids, labels) is put beside its outputs by position. Memory grows neither with
the rows nor with the ranks: more than FAN_IN streams (shuffled rows) are merged in passes, through files.

Not covered: going on with the staged rows of an attempt that died. They can be read, and that is all.
"""

import contextlib
import difflib
import hashlib
import itertools
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeAlias
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from assay.data.ids import IdChecksum
from assay.data.storage import LocalStore, Store, writing
from assay.errors import CheckError, RefusedError, SourceError, StorageError, UsageError
from assay.runs.manifest import MANIFEST_PATH, RUN_ID_HEX, encode_schema
from assay.runs.run import (
    FOOTER_ID_CHECKSUM,
    FOOTER_ROWS_IN,
    FOOTER_ROWS_OUT,
    FOOTER_RUN_ID,
    FOOTER_STATS,
    FOOTER_UNIT,
    PARTS,
    ROW_GROUP_BYTES,
    ROW_GROUP_ROWS,
    SUFFIX,
    row_groups,
    writer_options,
)

FORMAT_VERSION = 1
CLAIM_PATH = "predictions.json"
COMPLETE_PATH = "complete.json"
STAGED = "staged/"
ROW = "row"
"""The column of row ids in staged files."""

PART_ROWS = 1 << 20
STAGED_FILE_ROWS = 1 << 20
STAGED_FILE_SECONDS = 300.0
"""A rank's file is closed at the first row group after this, so that a kill costs no more."""
FAN_IN = 32
MERGE_ROWS = 16_384

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
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
        for batch in self.rows.to_batches() if in_memory else _scan(self.rows, self.row_columns):
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


# ------------------------------------------------------------ One result a directory


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictions:
    """A whole result."""

    url: str
    """The directory that holds it."""
    run_id: str
    """Hash of what made it."""
    num_rows: int
    """Rows, numbered 0 to num_rows - 1, each there once."""
    num_repeats: int
    """Rows that came again (the padding of a distributed sampler) and were dropped."""
    num_not_finite: int
    """Rows with an output that is NaN or infinite."""
    parts: tuple[str, ...]
    """Paths of the parts in row order, relative to `url`."""
    created: bool
    """False where the result was there before."""

    def to_json(self) -> dict[str, object]:
        """As a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """What `to_json` gave."""
        return cls(**{**document, "parts": tuple(document["parts"])})


def claim(store: Store, identity: Mapping[str, object]) -> str:
    """The run id of `identity`, for which the directory is now reserved; it may be half done, or done.

    Raises RefusedError naming what differs where another result, or another kind of run, lies there.
    """
    if store.info(MANIFEST_PATH) is not None:
        raise RefusedError(
            f"{store.url} holds a run of another kind ({MANIFEST_PATH}); use another directory"
        )
    whole = json.dumps({"kind": "predict", **identity}, sort_keys=True)
    run_id = hashlib.sha256(whole.encode()).hexdigest()[:RUN_ID_HEX]
    if store.info(CLAIM_PATH) is None:
        if next(iter(store.list(PARTS)), None) is not None:
            raise RefusedError(
                f"{store.url} has parts but no {CLAIM_PATH}; whose they are is unknown; use another directory"
            )
        document = {
            "format_version": FORMAT_VERSION,
            "kind": "predict",
            "run_id": run_id,
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "identity": dict(identity),
        }
        if store.create(CLAIM_PATH, json.dumps(document, indent=1).encode()):
            return run_id
    found = _read_json(store, CLAIM_PATH)
    if found.get("format_version") != FORMAT_VERSION:
        raise RefusedError(
            f"{store.url}/{CLAIM_PATH} has format version {found.get('format_version')!r}; this Assay reads "
            f"{FORMAT_VERSION}; use the Assay that wrote it, or another directory"
        )
    if found.get("run_id") != run_id:
        before = found.get("identity")
        changed = _differences(before if isinstance(before, dict) else {}, json.loads(whole))
        raise RefusedError(
            f"{store.url} holds another result: {changed}; put it back as it was, or use another directory"
        )
    return run_id


def _differences(before: Mapping[str, object], after: Mapping[str, object]) -> str:
    changed = [
        f"{key} was {_short(before.get(key))}, now {_short(after.get(key))}"
        for key in sorted((before.keys() | after.keys()) - {"kind"})
        if before.get(key) != after.get(key)
    ]
    return "; ".join(changed[:3]) + (f"; and {len(changed) - 3} more" if len(changed) > 3 else "")


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:12]}...{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def find_predictions(store: Store) -> Predictions | None:
    """The whole result in the directory, or None where there is none yet."""
    if store.info(COMPLETE_PATH) is None:
        return None
    found = _read_json(store, COMPLETE_PATH)
    try:
        return Predictions.from_json({**found, "url": store.url, "created": False})
    except (KeyError, TypeError) as error:
        raise SourceError(
            f"{store.url}/{COMPLETE_PATH} is damaged ({error}); use another directory"
        ) from error


def _read_json(store: Store, path: str) -> dict[str, object]:
    try:
        found = json.loads(store.read_bytes(path))
    except ValueError as error:
        raise SourceError(f"{store.url}/{path} is not JSON ({error}); use another directory") from error
    if not isinstance(found, dict):
        raise SourceError(f"{store.url}/{path} is not a JSON object; use another directory")
    return found


# ------------------------------------------------------------ One rank's rows


class Staging:
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

    def add(self, rows: Rows, outputs: Mapping[str, Floats]) -> None:
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
            _to_arrow(column[order], self._schema.field(index).type) for index, column in enumerate(gathered)
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


def _to_arrow(values: npt.NDArray[np.generic], kind: pa.DataType) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values, kind)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=kind)


def _to_numpy(column: pa.ChunkedArray) -> npt.NDArray[np.generic]:
    array = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if pa.types.is_fixed_size_list(array.type):
        return np.asarray(array.flatten()).reshape(len(array), array.type.list_size)
    return np.asarray(array)


def _rows_of(table: pa.Table) -> Rows:
    return _to_numpy(table.column(ROW)).astype(np.int64, copy=False)


def drop_repeats(table: pa.Table, tolerance: float) -> tuple[pa.Table, int]:
    """The table without rows that an earlier row of the same id precedes, and how many those were.

    `table` is sorted by row id, the prediction to keep first. Raises CheckError where two predictions
    of one row lie further apart than `tolerance`: then the id names two rows.
    """
    rows = _rows_of(table)
    again = np.flatnonzero(rows[1:] == rows[:-1]) + 1
    if not len(again):
        return table, 0
    for name in table.schema.names[1:] if math.isfinite(tolerance) else ():
        values = _to_numpy(table.column(name)).astype(np.float64)
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


# ------------------------------------------------------------ All ranks' rows, in order


@dataclass(frozen=True, kw_only=True, slots=True)
class SortedRun:
    """Row groups whose rows rise from the first to the last."""

    store: Store
    pieces: tuple[tuple[str, int], ...]
    """File and row group."""

    def tables(self) -> Iterator[pa.Table]:
        """The rows in order, a few thousand at a time."""
        for path, pieces in itertools.groupby(self.pieces, key=lambda piece: piece[0]):
            groups = [group for _, group in pieces]
            with self.store.open_input(path) as handle, pq.ParquetFile(handle, buffer_size=1 << 16) as file:
                for batch in file.iter_batches(MERGE_ROWS, row_groups=groups):
                    yield pa.Table.from_batches([batch])


def sorted_runs(store: Store, paths: Sequence[str]) -> list[SortedRun]:
    """The row groups of the files chained, in order, into as few runs of rising rows as that order gives.

    Whatever comes earlier in `paths` comes in an earlier run or earlier in the same.
    """
    runs: list[list[tuple[str, int]]] = []
    last = -1
    for path in paths:
        with store.open_input(path) as handle:
            metadata = pq.read_metadata(handle)
        for group in range(metadata.num_row_groups):
            statistics = metadata.row_group(group).column(0).statistics
            if not runs or statistics.min <= last:
                runs.append([])
            runs[-1].append((path, group))
            last = statistics.max
    return [SortedRun(store=store, pieces=tuple(run)) for run in runs]


@dataclass(kw_only=True, slots=True)
class RowMerge:
    """All staged rows in rising order, each once; of a row predicted twice the earlier run's is kept."""

    scratch: Path
    tolerance: float
    num_repeats: int = 0
    """Rows dropped so far."""

    def tables(self, runs: Sequence[SortedRun]) -> Iterator[pa.Table]:
        """The rows of all runs; more than FAN_IN runs are merged in passes, through files in `scratch`."""
        with contextlib.ExitStack() as spilled:
            while len(runs) > FAN_IN:
                groups = [runs[begin : begin + FAN_IN] for begin in range(0, len(runs), FAN_IN)]
                runs = [self._spill(group, spilled) for group in groups]
            yield from self._merge(runs)

    def _spill(self, runs: Sequence[SortedRun], spilled: contextlib.ExitStack) -> SortedRun:
        path = self.scratch / f"merge.{uuid4().hex}{SUFFIX}"
        spilled.callback(path.unlink, missing_ok=True)
        with contextlib.ExitStack() as opened, writing(str(path)):
            writer: pq.ParquetWriter | None = None
            for table in self._merge(runs):
                if writer is None:
                    options = writer_options(table.schema)
                    writer = opened.enter_context(pq.ParquetWriter(path, table.schema, **options))
                writer.write_table(table)
        (run,) = sorted_runs(LocalStore(self.scratch), [path.name])
        return run

    def _merge(self, runs: Sequence[SortedRun]) -> Iterator[pa.Table]:
        """Each step gives every row up to where the shortest head ends: no later row can come before it."""
        streams = [run.tables() for run in runs]
        heads = [next(stream, None) for stream in streams]
        while any(head is not None for head in heads):
            bound = min(int(_rows_of(head)[-1]) for head in heads if head is not None)
            taken = []
            for index, head in enumerate(heads):
                if head is None:
                    continue
                count = int(np.searchsorted(_rows_of(head), bound, side="right"))
                taken.append(head.slice(0, count))
                heads[index] = head.slice(count) if count < head.num_rows else next(streams[index], None)
            yield self._in_order(pa.concat_tables(taken)) if len(taken) > 1 else taken[0]

    def _in_order(self, table: pa.Table) -> pa.Table:
        order = np.argsort(_rows_of(table), kind="stable")
        table, repeats = drop_repeats(table.take(pa.array(order)), self.tolerance)
        self.num_repeats += repeats
        return table


@dataclass(kw_only=True, slots=True)
class RowCount:
    """Which of the rows 0, 1, 2, ... were seen, given in rising order."""

    next_row: int = 0
    num_missing: int = 0
    first_missing: int | None = None

    def update(self, rows: Rows) -> None:
        """Count the next rows, strictly rising and above all before."""
        steps = np.diff(rows, prepend=self.next_row - 1)
        gaps = np.flatnonzero(steps > 1)
        if len(gaps):
            before = rows[gaps[0]] - steps[gaps[0]]
            self._add(int((steps[gaps] - 1).sum()), int(before) + 1)
        if len(rows):
            self.next_row = int(rows[-1]) + 1

    def require(self, num_rows: int | None) -> None:
        """Raise CheckError unless exactly the rows below `num_rows` were seen (None: below the last seen)."""
        total = self.next_row if num_rows is None else num_rows
        if self.next_row > total:
            raise CheckError(
                f"rows up to {self.next_row - 1} were predicted and the cohort has {total}; "
                "row ids must be positions in the cohort, from 0"
            )
        if self.next_row < total:
            self._add(total - self.next_row, self.next_row)
        if self.num_missing:
            raise CheckError(
                f"{self.num_missing} of {total} rows were not predicted (the first: row "
                f"{self.first_missing}); nothing is published; see that the dataloader gives every row "
                "(a batch limit, a dropped last batch, a filtered dataset), and predict again"
            )

    def _add(self, count: int, first: int) -> None:
        self.num_missing += count
        if self.first_missing is None:
            self.first_missing = first


# ------------------------------------------------------------ Publishing


def _scan(dataset: ds.Dataset, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    batches: Iterator[pa.RecordBatch] = dataset.to_batches(
        columns=list(columns), batch_size=MERGE_ROWS, batch_readahead=4, fragment_readahead=1
    )
    return batches


class _RowReader:
    """What the cohort knows of rows, read once from the first to the last."""

    def __init__(self, layout: PredictionLayout) -> None:
        self._rows = layout.rows
        self._columns = layout.row_columns
        self._scan = _scan(self._rows, self._columns) if isinstance(self._rows, ds.Dataset) else iter(())
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
    reader: _RowReader
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
        checksum = IdChecksum()
        stop = start
        self.files.append(("", path))
        with writing(str(path)), pq.ParquetWriter(path, schema, **options) as writer:
            for table in row_groups(self._batches(tables), schema):
                ids = (
                    pa.array(np.arange(stop, stop + table.num_rows))
                    if id_column is None
                    else table[id_column]
                )
                checksum.update(ids)
                stop += table.num_rows
                writer.write_table(table, row_group_size=max(table.num_rows, 1))
            name = f"predictions-{start:012}-{stop:012}"
            writer.add_key_value_metadata(
                {
                    FOOTER_RUN_ID: self.run_id.encode(),
                    FOOTER_UNIT: name.encode(),
                    FOOTER_ROWS_IN: str(stop - start).encode(),
                    FOOTER_ROWS_OUT: str(stop - start).encode(),
                    FOOTER_ID_CHECKSUM: checksum.hexdigest().encode(),
                    FOOTER_STATS: json.dumps({**self.stats, "finished_at": time.time()}).encode(),
                }
            )
        self.files[-1] = (f"{PARTS}{name}{SUFFIX}", path)

    def _batches(self, tables: Iterable[pa.Table]) -> Iterator[pa.RecordBatch]:
        for table in tables:
            yield from self._compose(table).to_batches()

    def _compose(self, table: pa.Table) -> pa.Table:
        """Outputs and what the cohort knows of the same rows, in the result's schema."""
        rows = _rows_of(table)
        known = self.reader.read(int(rows[0]), int(rows[-1]) + 1)
        outputs = set(self.layout.outputs.values())
        finite = np.ones(len(rows), dtype=np.bool_)
        for name in outputs:
            finite &= (
                np.isfinite(_to_numpy(table.column(name)).astype(np.float32)).reshape(len(rows), -1).all(1)
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
        reader=_RowReader(layout),
        stats={"started_at": time.time(), "world_size": world_size},
    )
    try:
        pieces = _gapless_pieces(merge.tables(sorted_runs(store, files)), count)
        for part, tables in itertools.groupby(pieces, key=lambda piece: int(_rows_of(piece)[0]) // PART_ROWS):
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
        rows = _rows_of(table)
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
