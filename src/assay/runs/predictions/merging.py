"""All ranks' rows in order, each once: sorted runs of row groups, merged; and which rows are missing."""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from assay.data.storage import LocalStore, Store, writing
from assay.errors import CheckError
from assay.runs.predictions.rows import RowIds, drop_repeats, rows_of
from assay.runs.run import SUFFIX, writer_options

FAN_IN = 32
MERGE_ROWS = 16_384


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
            bound = min(int(rows_of(head)[-1]) for head in heads if head is not None)
            taken = []
            for index, head in enumerate(heads):
                if head is None:
                    continue
                count = int(np.searchsorted(rows_of(head), bound, side="right"))
                taken.append(head.slice(0, count))
                heads[index] = head.slice(count) if count < head.num_rows else next(streams[index], None)
            yield self._in_order(pa.concat_tables(taken)) if len(taken) > 1 else taken[0]

    def _in_order(self, table: pa.Table) -> pa.Table:
        order = np.argsort(rows_of(table), kind="stable")
        table, repeats = drop_repeats(table.take(pa.array(order)), self.tolerance)
        self.num_repeats += repeats
        return table


@dataclass(kw_only=True, slots=True)
class RowCount:
    """Which of the rows 0, 1, 2, ... were seen, given in rising order."""

    next_row: int = 0
    num_missing: int = 0
    first_missing: int | None = None

    def update(self, rows: RowIds) -> None:
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
