"""What a sink is: a writer of sources with columns added, and what all of them need for that."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from assay.data.reading import read_rows
from assay.data.sources import Columns, Source, id_column

BATCH_ROWS = 65_536


class TakenNameError(Exception):
    """A source has a column of the name of one to be added."""

    def __init__(self, uri: str, name: str) -> None:
        super().__init__(f"{uri} has a column {name!r} already")
        self.uri = uri
        self.name = name


class AddedColumns(Protocol):
    """The columns that go beside the rows of one source, given out in row order."""

    @property
    def schema(self) -> pa.Schema:
        """The columns' names and types, as they will be in the output."""
        ...

    def take(self, num_rows: int, ids: pa.Array | None) -> pa.Table:
        """The columns of the next `num_rows` rows, whose ids in the source are `ids` (None: it has none)."""
        ...

    def metadata(self) -> dict[str, str]:
        """What to note in a Parquet footer; asked after the last row."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class MergeSink:
    """How the sources of one format are written again."""

    format: str
    """The format of the output."""
    write: Callable[[Source, Columns, int, AddedColumns, Path], None]
    """As `write_merged`."""


class SourceIds:
    """The ids of a source's first rows, read in pieces of one size and taken in others."""

    def __init__(self, source: Source, columns: Columns, num_rows: int) -> None:
        only_ids = Columns(text=None, id=columns.id)
        rows = read_rows(source, only_ids, 0, num_rows, batch_rows=BATCH_ROWS)
        self._pieces = (piece.ids for piece in rows if piece.ids is not None)
        self._has_ids = id_column(source, columns) is not None
        self._rest = pa.nulls(0)

    def take(self, num_rows: int) -> pa.Array | None:
        """The next `num_rows` ids; None where the source has no id column, and for no rows."""
        if not self._has_ids or num_rows == 0:
            return None
        taken: list[pa.Array] = []
        while num_rows > 0:
            piece = self._rest if len(self._rest) else next(self._pieces)
            taken.append(piece.slice(0, num_rows))
            self._rest = piece.slice(num_rows)
            num_rows -= len(taken[-1])
        return taken[0] if len(taken) == 1 else pa.concat_arrays(taken)
