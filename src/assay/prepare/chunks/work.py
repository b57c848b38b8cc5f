"""How a unit of books becomes a part of chunks."""

import os
import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from assay.data.reading import RowReader
from assay.data.sources import SOURCE_ROW
from assay.prepare.chunks.book import ChunkedBook, chunk_book
from assay.prepare.chunks.kind import CHUNKS
from assay.prepare.chunks.plan import rules_of
from assay.runs.manifest import Manifest
from assay.runs.pipeline import strict_error
from assay.runs.plan import Unit
from assay.telemetry import Counters

if TYPE_CHECKING:
    from assay.tokenize.counting import CountTokens

BATCH_BOOKS = 256
MISSING_FILE = "missing_file"
UNREADABLE_FILE = "unreadable_file"


@dataclass(frozen=True, kw_only=True, slots=True)
class BookFile:
    """A book's file as it was read."""

    source_row: int
    book_id: str
    content: bytes | None
    error: str | None
    """Why there is no content."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BookResult:
    """A book and what came of it."""

    source_row: int
    book_id: str
    chunked: ChunkedBook


class ChunksWork:
    """Makes chunks: `prepare` reads files, `compute` makes chunks of them, `finish` builds the part's columns."""

    def __init__(self, manifest: Manifest, count_tokens: "CountTokens | None") -> None:
        """Work for the run of `manifest`; `count_tokens` where its chunks have a budget or are counted."""
        self.counters = Counters()
        self._manifest = manifest
        identity, settings = manifest.read(CHUNKS)
        self._rules = rules_of(identity)
        self._strict = settings.strict
        self._count_tokens = count_tokens
        self._schema = manifest.arrow_schema()
        self._reader = RowReader(manifest.source_columns())
        self._worker = f"{socket.gethostname()}-{os.getpid()}-cpu"
        self._stats: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._second_books: dict[str, str] = {}

    def load(self) -> str:
        """Nothing is left to load; returns a line on what a chunk is."""
        rules = self._rules
        size = (
            f"{rules.chunk_sentences} sentences"
            if rules.chunk_tokens is None
            else f"{rules.chunk_tokens} tokens"
        )
        return f"chunks of {size}, {rules.max_chunks} a book at most"

    def prepare(self, unit: Unit) -> Iterator[BookFile]:
        """The unit's files, in order, one at a time."""
        source = self._manifest.source(unit.source)
        folder = Path(source.uri).parent
        for rows in self._reader.read(source, unit.start, unit.stop, batch_rows=BATCH_BOOKS):
            assert rows.ids is not None, "the plan names the column of ids"
            assert rows.texts is not None, "and that of paths"
            named = zip(rows.ids.to_pylist(), rows.texts.to_pylist(), strict=True)
            for place, (book_id, path) in enumerate(named):
                error = rows.errors.get(place)
                content = None
                if error is None:
                    content, error = _read(folder / path)
                yield BookFile(
                    source_row=rows.start + place, book_id=str(book_id), content=content, error=error
                )

    def compute(self, file: BookFile) -> BookResult:
        """The chunks of a file."""
        if file.content is None:
            chunked = ChunkedBook(error=file.error)
        else:
            chunked = chunk_book(file.content, file.book_id, self._rules, self._count_tokens)
        return BookResult(source_row=file.source_row, book_id=file.book_id, chunked=chunked)

    def finish(self, unit: Unit, computed: Iterator[BookResult]) -> Iterator[pa.RecordBatch]:
        """The rows of the unit's part: those of each book in the order of its text."""
        self._stats.clear()
        self._errors.clear()
        self._second_books.clear()
        for result in computed:
            error = result.chunked.error
            if error is not None and self._strict:
                row = f"row {result.source_row} of source {unit.source_name}"
                raise strict_error(f"book {result.book_id} ({row})", error)
            self._count(result.chunked)
            if result.chunked.second_book is not None:
                self._second_books[result.book_id] = result.chunked.second_book.described
            yield self._batch(result)

    @property
    def rows_in(self) -> int:
        """Books of the unit just finished that were read."""
        return self._stats["num_rows"]

    def stats(self) -> dict[str, Any]:
        """Figures of the unit just finished, for the part's footer."""
        return {
            **self._stats,
            "errors": dict(self._errors),
            "second_books": dict(self._second_books),
            "worker": self._worker,
        }

    def _batch(self, result: BookResult) -> pa.RecordBatch:
        chunks, num_rows = result.chunked.chunks, max(1, len(result.chunked.chunks))
        columns: dict[str, pa.Array] = {
            SOURCE_ROW: pa.array(np.full(num_rows, result.source_row, dtype=np.int64)),
            "book_id": pa.array([result.book_id] * num_rows, pa.string()),
            "language": pa.array([result.chunked.language] * num_rows, pa.string()),
            "error": pa.array([result.chunked.error] * num_rows, pa.string()),
        }
        values: dict[str, list[Any]] = {
            "chunk": [chunk.number for chunk in chunks],
            "start": [chunk.start for chunk in chunks],
            "stop": [chunk.stop for chunk in chunks],
            "num_sentences": [chunk.num_sentences for chunk in chunks],
            "num_tokens": [chunk.num_tokens for chunk in chunks],
            "text": [chunk.text for chunk in chunks],
            "text_hash": [chunk.text_hash for chunk in chunks],
        }
        columns |= {
            name: pa.array(column or [None], self._schema.field(name).type) for name, column in values.items()
        }
        return pa.RecordBatch.from_arrays([columns[name] for name in self._schema.names], schema=self._schema)

    def _count(self, chunked: ChunkedBook) -> None:
        num_tokens = sum(chunk.num_tokens or 0 for chunk in chunked.chunks)
        self._stats["num_rows"] += 1
        self._stats["num_chunks"] += len(chunked.chunks)
        self._stats["num_tokens"] += num_tokens
        self._stats.update(chunked.counts)
        if chunked.error is not None:
            self._stats["error_rows"] += 1
            self._errors[chunked.error] += 1
            self.counters.error_rows += 1
        self.counters.rows += 1
        self.counters.tokens += num_tokens
        self.counters.padded_tokens += num_tokens


def _read(path: Path) -> tuple[bytes | None, str | None]:
    try:
        return path.read_bytes(), None
    except FileNotFoundError:
        return None, MISSING_FILE
    except OSError:
        return None, UNREADABLE_FILE
