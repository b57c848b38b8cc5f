"""How a range of books becomes a part of pairs."""

import os
import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from assay.data.storage import local_path
from assay.prepare.pairs.draw import Drawn, Pair, Rules, candidate_rules, draw_pairs
from assay.prepare.pairs.kind import PAIRS
from assay.prepare.pairs.places import KeptChunks, Places, Side
from assay.prepare.pairs.plan import BOOKS_SCHEMA, bookshelf_of, rules_of
from assay.prepare.shelf import BookChunks, Shelf
from assay.prepare.tables import Column, map_table
from assay.runs.manifest import Manifest
from assay.runs.plan import Unit
from assay.telemetry import Counters

BOOKS_HELD = 256
"""Books whose places are kept at hand."""
BETWEEN_CHUNKS = "\n\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class BookPairs:
    """What was drawn of one book."""

    rows: pa.RecordBatch
    drawn: Drawn


class PairsWork:
    """Draws the pairs of units of books: `prepare` does all of it, `finish` hands on and counts."""

    def __init__(self, manifest: Manifest) -> None:
        """Work for the run of `manifest`."""
        self.counters = Counters()
        self._identity, settings = manifest.read(PAIRS)
        self._rules = rules_of(self._identity)
        self._shelf = Shelf(settings.shelf)
        self._schema = manifest.arrow_schema()
        books = map_table(Path(local_path(manifest.sources[0].uri)), BOOKS_SCHEMA)
        self._bookshelf = bookshelf_of(books)
        self._num_chunks = books.column("num_chunks").to_numpy()
        self._num_kept = books.column("num_kept").to_numpy()
        self._dropped = Column[list[int]](books.column("dropped"))
        self._mined_numbers = Column[list[int]](books.column("mined"))
        self._mined_probabilities = Column[list[float]](books.column("mined_probability"))
        self._book_ids = Column[str](books.column("book_id"))
        self._authors = Column[str | None](books.column("author"))
        self._splits = Column[str | None](books.column("split"))
        self._languages = Column[str | None](books.column("language"))
        self._worker = f"{socket.gethostname()}-{os.getpid()}-cpu"
        self._places = lru_cache(maxsize=BOOKS_HELD)(self._read_places)
        self._not_had: Counter[str] = Counter()
        self._num_books = 0
        self._num_pairs = 0

    def load(self) -> str:
        """Nothing is left to load; returns a line that describes the books."""
        return f"{len(self._shelf):,} books"

    def prepare(self, unit: Unit) -> Iterator[BookPairs]:
        """The pairs of each book of the unit, in order."""
        for book in range(unit.start, unit.stop):
            yield self._of_book(book)
            self._shelf.forget()

    def compute(self, chunk: BookPairs) -> BookPairs:
        """The pairs as they are."""
        return chunk

    def finish(self, unit: Unit, computed: Iterator[BookPairs]) -> Iterator[pa.RecordBatch]:
        """The rows of the unit's part."""
        del unit
        self._not_had.clear()
        self._num_books = self._num_pairs = 0
        for of_book in computed:
            self._num_books += 1
            self._num_pairs += of_book.rows.num_rows
            self._not_had.update(of_book.drawn.not_had)
            self.counters.rows += 1
            yield of_book.rows

    @property
    def rows_in(self) -> int:
        """Books of the unit just finished."""
        return self._num_books

    def stats(self) -> dict[str, Any]:
        """Figures of the unit just finished, for the part's footer."""
        return {
            "num_rows": self._num_books,
            "num_pairs": self._num_pairs,
            "not_had": dict(sorted(self._not_had.items())),
            "worker": self._worker,
        }

    def _read_places(self, book: int) -> Places:
        return self._shelf.book(book).places(self._dropped[book], self._identity.min_gap_sentences)

    def _kept(self, book: int) -> KeptChunks:
        num_chunks = int(self._num_chunks[book])
        if self._num_kept[book] == num_chunks:
            return KeptChunks(range(num_chunks))
        dropped = set(self._dropped[book])
        return KeptChunks([position for position in range(num_chunks) if position not in dropped])

    def _of_book(self, book: int) -> BookPairs:
        if self._bookshelf.splits[book] < 0:
            return BookPairs(rows=self._rows(book, []), drawn=Drawn())
        drawn = self._draw(book, self._rules, self._mined(book))
        return BookPairs(rows=self._rows(book, drawn.pairs), drawn=drawn)

    def _draw(self, book: int, rules: Rules, mined: list[Pair] | None) -> Drawn:
        shelf = self._bookshelf
        tells_books = rules.task == "same_book"
        return draw_pairs(
            book,
            self._book_ids[book],
            rules,
            places=self._places(book),
            others=self._kept if rules.num_chunks == 1 else self._places,
            same_author=np.flatnonzero(shelf.eligible(book) & shelf.by_same_author(book)),
            partners=shelf.partners(book, list(rules.weights), tells_books=tells_books),
            mined=mined,
        )

    def _mined(self, book: int) -> list[Pair] | None:
        """The negatives that the model chose, drawn again by their numbers; None where no model does."""
        identity = self._identity.mined
        if identity is None:
            return None
        numbers = self._mined_numbers[book]
        if not numbers:
            return []
        candidates = self._draw(book, candidate_rules(self._rules, identity.trials), None).pairs
        probabilities = self._mined_probabilities[book]
        return [
            replace(candidates[number], probability=probability)
            for number, probability in zip(numbers, probabilities, strict=True)
        ]

    def _rows(self, book: int, pairs: list[Pair]) -> pa.RecordBatch:
        mine = self._shelf.book(book)
        others = {pair.other: self._shelf.book(pair.other) for pair in pairs}
        same_author = self._bookshelf.by_same_author(book)
        keys = self._bookshelf.author_keys
        num = len(pairs)
        columns = {
            "source_row": [book] * num,
            "split": [self._splits[book]] * num,
            "text1": [_text(mine, pair.first) for pair in pairs],
            "text2": [_text(others[pair.other], pair.second) for pair in pairs],
            "label": [pair.label for pair in pairs],
            "book1": [self._book_ids[book]] * num,
            "book2": [self._book_ids[pair.other] for pair in pairs],
            "pair_type": ["negative" if pair.negative else "positive" for pair in pairs],
            "neg_type": [pair.negative for pair in pairs],
            "mined_probability": [pair.probability for pair in pairs],
            "author1": [self._authors[book]] * num,
            "author2": [self._authors[pair.other] for pair in pairs],
            "same_author": [
                True
                if pair.other == book
                else None
                if keys[book] is None or keys[pair.other] is None
                else bool(same_author[pair.other])
                for pair in pairs
            ],
            "language": [self._languages[book] or self._languages[pair.other] for pair in pairs],
            "chunks1": [_numbers(mine, pair.first) for pair in pairs],
            "chunks2": [_numbers(others[pair.other], pair.second) for pair in pairs],
            "num_tokens": [
                _sum(_tokens(mine, pair.first), _tokens(others[pair.other], pair.second)) for pair in pairs
            ],
            "difficulty": [pair.difficulty for pair in pairs],
            "task": [self._rules.task] * num,
        }
        arrays = [pa.array(columns[field.name], field.type) for field in self._schema]
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)


def _text(chunks: BookChunks, side: Side) -> str:
    return BETWEEN_CHUNKS.join(chunks.text(position) for position in side)


def _numbers(chunks: BookChunks, side: Side) -> list[int]:
    column = chunks.rows.column("chunk")
    return [column[position].as_py() for position in side]


def _tokens(chunks: BookChunks, side: Side) -> int | None:
    column = chunks.rows.column("num_tokens")
    counts = [column[position].as_py() for position in side]
    return None if None in counts else sum(counts)


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other
