"""A finished pairs run to files, one a split, the same bytes however the run was cut; and what they hold."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from assay.data.storage import writing
from assay.data.syncing import sync_file, sync_folder
from assay.errors import CheckError
from assay.prepare.pairs.plan import PART_SCHEMA
from assay.prepare.settings import SPECIAL_TOKENS
from assay.prepare.tables import RowsById
from assay.runs.parts import open_part, published_parts
from assay.runs.run import Run

ROW_GROUP_ROWS = 4_096
READ_ROWS = 256
"""Rows of a part in memory at a time, besides those that wait for their row group."""
HELD_BYTES = 16 << 20
"""Parts of this size together are held in memory."""
SCHEMA = pa.schema([field for field in PART_SCHEMA if field.name not in {"source_row", "split"}])
"""Columns of the files."""


@dataclass(kw_only=True, slots=True)
class SplitCounts:
    """What a split holds."""

    pairs: int = 0
    positives: int = 0
    by_kind: Counter[str] = field(default_factory=Counter)
    """Negatives by kind."""
    by_difficulty: Counter[str] = field(default_factory=Counter)
    """Negatives: easy and hard."""
    with_tokens: int = 0
    """Pairs whose tokens are counted."""
    tokens: int = 0
    cut_pairs: int = 0
    """Pairs longer than the model takes."""
    cut_tokens: int = 0
    """Tokens that the model would not see."""


def collect(
    run: Run, folder: Path, *, splits: Sequence[str], split_of: "SplitOf", max_length: int
) -> dict[str, SplitCounts]:
    """Write `<split>.parquet` for each split, each in one step; returns what they hold.

    Large parts are read once a split, so that memory holds one row group that is being made and not one a split.
    Raises CheckError where a pair's books are not both in its split.
    """
    counts = {name: SplitCounts() for name in splits}
    files: list[_SplitFile] = []
    is_small = sum(info.size_bytes for _, info in published_parts(run)) <= HELD_BYTES
    held = list(_tables(run)) if is_small else None
    with writing(str(folder)):
        try:
            for name in splits:
                files.append(_SplitFile(folder / f"{name}.parquet"))
                for table in _tables(run) if held is None else held:
                    rows = table.filter(pc.equal(table.column("split"), name))
                    if rows.num_rows:
                        _check(rows, name, split_of)
                        _count(counts[name], rows, max_length)
                        files[-1].add(rows.select(SCHEMA.names))
                files[-1].finish()
            for file in files:
                file.publish()
        finally:
            for file in files:
                file.drop()
    return counts


class _SplitFile:
    """A Parquet file that is written under another name; row groups have one size, whatever comes in."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._staged = path.with_name(f".{path.name}.writing")
        # Least and greatest passage of a row group say nothing, and are in memory until the file is closed.
        figured = [field.name for field in SCHEMA if field.name not in {"text1", "text2"}]
        self._writer = pq.ParquetWriter(
            self._staged, SCHEMA, compression="zstd", compression_level=1, write_statistics=figured
        )
        self._held: list[pa.Table] = []
        self._num_held = 0

    def add(self, rows: pa.Table) -> None:
        """Write whole row groups, hold the rest."""
        self._held.append(rows)
        self._num_held += rows.num_rows
        while self._num_held >= ROW_GROUP_ROWS:
            self._write(ROW_GROUP_ROWS)

    def finish(self) -> None:
        """Write what is held."""
        if self._num_held:
            self._write(self._num_held)
        self._held = []
        self._writer.close()
        sync_file(self._staged)

    def publish(self) -> None:
        """Put the file in its place."""
        os.replace(self._staged, self._path)  # noqa: PTH105  the two names are one file's
        sync_folder(self._path.parent)

    def drop(self) -> None:
        """Leave nothing half behind; a file that is in its place stays."""
        self._writer.close()
        self._staged.unlink(missing_ok=True)

    def _write(self, num_rows: int) -> None:
        table = pa.concat_tables(self._held)
        group, self._held = table.slice(0, num_rows).combine_chunks(), [table.slice(num_rows)]
        self._num_held -= num_rows
        del table  # what was put together is not needed twice while it is written
        self._writer.write_table(group, row_group_size=ROW_GROUP_ROWS)


def _tables(run: Run) -> Iterator[pa.Table]:
    for unit, _ in published_parts(run):
        with open_part(run, unit) as part:
            for batch in part.iter_batches(READ_ROWS, use_threads=False):
                yield pa.Table.from_batches([batch])
        # Else the memory pool keeps what parts needed that are read already.
        pa.default_memory_pool().release_unused()


class SplitOf:
    """The split of a book by its id."""

    def __init__(self, book_ids: pa.ChunkedArray, splits: Sequence[str | None]) -> None:
        """`splits` has a value an id."""
        self._rows = RowsById(book_ids)
        self._splits = splits

    def elsewhere(self, book_ids: pa.ChunkedArray, split: str) -> list[tuple[str, str | None]]:
        """Those of the books that are not in this split, with theirs."""
        books = book_ids.unique()
        found = [None if row < 0 else self._splits[row] for row in self._rows.find(books).tolist()]
        return [(books[place].as_py(), other) for place, other in enumerate(found) if other != split]


def _check(rows: pa.Table, split: str, split_of: SplitOf) -> None:
    for side in ("book1", "book2"):
        for book, other in split_of.elsewhere(rows.column(side), split):
            msg = f"a pair of {split} has {book} of {other}; please report this bug"
            raise CheckError(msg)


def _count(counts: SplitCounts, rows: pa.Table, max_length: int) -> None:
    counts.pairs += rows.num_rows
    counts.positives += int(pc.sum(rows.column("label")).as_py())
    negatives = rows.filter(pc.equal(rows.column("label"), 0))
    counts.by_kind.update(negatives.column("neg_type").to_pylist())
    counts.by_difficulty.update(negatives.column("difficulty").to_pylist())
    lengths = rows.column("num_tokens").drop_null().to_numpy().astype(np.int64) + SPECIAL_TOKENS
    over = np.maximum(0, lengths - max_length)
    counts.with_tokens += len(lengths)
    counts.tokens += int(lengths.sum())
    counts.cut_pairs += int((over > 0).sum())
    counts.cut_tokens += int(over.sum())
