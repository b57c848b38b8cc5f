"""All chunks of all books in one file on disk, those of a book at hand by its number.

The file is Arrow IPC, mapped into memory: a record batch a book, in the order of the listing, so that a
process that draws pairs holds what it looks at and no more, however many books there are.
"""

import itertools
import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from assay.errors import SourceError
from assay.prepare.pairs.places import Places

SCHEMA = pa.schema(
    [
        pa.field("chunk", pa.int32(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),
        pa.field("stop", pa.int64(), nullable=False),
        pa.field("num_sentences", pa.int32(), nullable=False),
        pa.field("num_tokens", pa.int32()),
        pa.field("text_hash", pa.int64(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class BookChunks:
    """The chunks of one book, in the order of the text."""

    rows: pa.RecordBatch

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    def column(self, name: str) -> NDArray[Any]:
        """A column of numbers."""
        values: NDArray[Any] = self.rows.column(name).to_numpy(zero_copy_only=False)
        return values

    def text(self, position: int) -> str:
        """The text of one chunk."""
        text: str = self.rows.column("text")[position].as_py()
        return text

    def texts(self) -> list[str]:
        """The texts of all chunks."""
        texts: list[str] = self.rows.column("text").to_pylist()
        return texts

    def places(self, dropped: Iterable[int], gap_sentences: int) -> Places:
        """Where the chunks that are kept lie, and how far apart two sides must be."""
        kept = np.ones(len(self), dtype=np.bool_)
        kept[np.fromiter(dropped, dtype=np.int64)] = False
        starts, stops = self.column("start"), self.column("stop")
        num_sentences = int(self.column("num_sentences").sum())
        per_sentence = int((stops - starts).sum()) / max(1, num_sentences)
        return Places(
            positions=np.flatnonzero(kept),
            starts=starts[kept].astype(np.int64),
            stops=stops[kept].astype(np.int64),
            gap=round(gap_sentences * per_sentence),
        )


class ShelfWriter:
    """Writes a shelf, a book at a time, in the order of the listing."""

    def __init__(self, path: Path, num_books: int) -> None:
        """A shelf of so many books; those that are not given have no chunks."""
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, SCHEMA)
        self._num_books = num_books
        self._written = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._skip_to(self._num_books)
        self._writer.close()
        self._sink.close()

    def add(self, book: int, rows: pa.RecordBatch) -> None:
        """The chunks of the next book, sorted by their place in the text."""
        self._skip_to(book)
        self._writer.write_batch(rows.select(SCHEMA.names).cast(SCHEMA))
        self._written += 1

    def _skip_to(self, book: int) -> None:
        assert book >= self._written, "books come in the order of the listing"
        empty = pa.RecordBatch.from_pylist([], schema=SCHEMA)
        while self._written < book:
            self._writer.write_batch(empty)
            self._written += 1


class Shelf:
    """A shelf that is read. Not thread-safe; cheap to open."""

    def __init__(self, path: str | Path) -> None:
        """Map the file; raises SourceError where it is not there or not a shelf."""
        try:
            with Path(path).open("rb") as file:
                self._mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._reader = pa.ipc.open_file(pa.py_buffer(self._mapped))
        except (OSError, ValueError, pa.ArrowException) as error:
            msg = f"{path} cannot be read as chunks ({error}); run the same command with another --out"
            raise SourceError(msg) from error

    def __len__(self) -> int:
        return int(self._reader.num_record_batches)

    def book(self, number: int) -> BookChunks:
        """The chunks of the book with this number in the listing."""
        return BookChunks(rows=self._reader.get_batch(number))

    def forget(self) -> None:
        """Let go of the pages that were looked at; what is looked at again comes from the disk's cache."""
        self._mapped.madvise(mmap.MADV_DONTNEED)


def by_book(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, pa.Table]]:
    """The rows of parts, which come in the order of `source_row`, a book at a time."""
    held: list[pa.RecordBatch] = []
    number = -1
    for batch in batches:
        books = batch.column("source_row").to_numpy()
        cuts = [0, *(np.flatnonzero(np.diff(books)) + 1).tolist(), len(books)]
        for begin, end in itertools.pairwise(cuts):
            if begin == end:
                continue
            book = int(books[begin])
            if held and book != number:
                yield number, pa.Table.from_batches(held)
                held = []
            number = book
            held.append(batch.slice(begin, end - begin))
    if held:
        yield number, pa.Table.from_batches(held)
