"""A finished chunks run to a shelf: all chunks in one file, and what is known of each book from them.

One pass over the parts. Memory holds a book at a time and a row a book; hashes go to disk in partitions.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from assay.data.storage import writing
from assay.data.syncing import replace_local, sync_folder
from assay.extras import has_package, missing_line
from assay.prepare.duplicates import (
    ChunkDuplicates,
    SharedPassages,
    find_equal_chunks,
    find_kinship,
)
from assay.prepare.partitions import Partitions, records_of
from assay.prepare.shelf import Shelf, ShelfWriter, by_book
from assay.prepare.sketches import passages
from assay.prepare.tables import BATCH_BOOKS, map_table, write_table
from assay.runs.parts import open_part, published_parts
from assay.runs.run import Run

CHUNKS_FILE = "chunks.arrow"
BOOKS_FILE = "books.arrow"
FOUND_FILE = "found.json"
NEAR_SAMPLE = 24
"""Chunks of a book that MinHash compares with those of all others."""
NEAR_SAMPLE_ALL = 20_000
"""Chunks of all books together that it compares; with many books, fewer of each."""
NEAR_TEXTS = 1_024
"""Their texts are in memory so many at a time."""
MAX_BOOKS_ALIKE = 20
"""Near-duplicates in more books are boilerplate and tie nothing."""
BOOKS_SCHEMA = pa.schema(
    [
        pa.field("num_chunks", pa.int32(), nullable=False),
        pa.field("num_kept", pa.int32(), nullable=False),
        pa.field("num_passages", pa.int32(), nullable=False),
        pa.field("language", pa.string()),
        pa.field("error", pa.string()),
        pa.field("edition", pa.int64(), nullable=False),
        pa.field("tie", pa.int64(), nullable=False),
        pa.field("dropped", pa.list_(pa.int32()), nullable=False),
    ]
)
"""A row a book, in the order of the listing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What the chunks of all books show, for people."""

    chunks_run: str
    num_chunks: int
    num_within: int
    """Equal to an earlier chunk of the same book, and dropped."""
    num_across: int
    """Equal to a chunk of an earlier book, and dropped."""
    num_boilerplate: int
    """In more than three books, and dropped from all."""
    num_near: int | None
    """Sampled chunks that are near-duplicates of one of another book; None where it was not looked for."""
    editions: list[list[int]]
    """Books that are one work, by number."""
    shares: list[tuple[int, int, float]]
    """Two books, and the share of the smaller one's passages that both have."""
    notes: list[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Shelved:
    """A shelf on disk."""

    chunks: Path
    books: pa.Table
    """As BOOKS_SCHEMA; mapped."""
    found: Found


def shelve(run: Run, num_books: int, folder: Path, *, seed: int, say: Callable[[str], None]) -> Shelved:
    """The shelf of a chunks run in `folder`: made, or read where it was made before."""
    if not (folder / BOOKS_FILE).is_file():
        making = folder.with_name(folder.name + ".making")
        shutil.rmtree(making, ignore_errors=True)
        with writing(str(folder)):
            making.mkdir(parents=True)
            _make(run, num_books, making, seed=seed)
            shutil.rmtree(folder, ignore_errors=True)
            making.rename(folder)
            sync_folder(folder.parent)
    else:
        say("Duplicates among the chunks were looked for already.")
    return Shelved(
        chunks=folder / CHUNKS_FILE,
        books=map_table(folder / BOOKS_FILE, BOOKS_SCHEMA),
        found=_read_found(folder / FOUND_FILE),
    )


def _read_found(path: Path) -> Found:
    values = json.loads(path.read_text(encoding="utf-8"))
    return Found(**{**values, "shares": [tuple(each) for each in values["shares"]]})


def _make(run: Run, num_books: int, folder: Path, *, seed: int) -> None:
    num_chunks = np.zeros(num_books, dtype=np.int32)
    num_passages = np.zeros(num_books, dtype=np.int32)
    languages, errors = _BookWords(num_books), _BookWords(num_books)
    with (
        Partitions(folder, "chunks") as chunk_hashes,
        Partitions(folder, "passages") as passage_hashes,
        ShelfWriter(folder / CHUNKS_FILE, num_books) as writer,
    ):
        for book, rows in by_book(_rows(run)):
            usable = rows.filter(rows.column("text").is_valid()) if rows.column("text").null_count else rows
            if not usable.num_rows:
                errors.put(book, next((code for code in rows.column("error").to_pylist() if code), None))
                continue
            usable = _in_order(usable).combine_chunks()
            writer.add(book, usable.to_batches()[0])
            hashes = usable.column("text_hash").to_numpy()
            chunk_hashes.add(records_of(hashes, book))
            sketch = passages("\n".join(usable.column("text").to_pylist()))
            passage_hashes.add(records_of(sketch, book))
            num_chunks[book] = usable.num_rows
            num_passages[book] = len(sketch)
            languages.put(book, _most_frequent(usable.column("language").to_pylist()))
        equal = ChunkDuplicates()
        for part in chunk_hashes.read():
            find_equal_chunks(part, equal)
        shared = SharedPassages()
        for part in passage_hashes.read():
            shared.add(part)
    near, num_near, notes = _near_books(Shelf(folder / CHUNKS_FILE), num_chunks, folder, seed)
    kinship = find_kinship(num_passages, shared, near)

    dropped = equal.dropped()

    def batches() -> Iterator[pa.RecordBatch]:
        for begin in range(0, num_books, BATCH_BOOKS):
            rows = range(begin, min(num_books, begin + BATCH_BOOKS))
            places = np.searchsorted(dropped["book"], np.arange(begin, rows.stop + 1)).astype(np.int32)
            positions = dropped["position"][places[0] : places[-1]]
            columns = {
                "num_chunks": num_chunks[begin : rows.stop],
                "num_kept": num_chunks[begin : rows.stop] - np.diff(places),
                "num_passages": num_passages[begin : rows.stop],
                "language": [languages.word(book) for book in rows],
                "error": [errors.word(book) for book in rows],
                "edition": kinship.editions[begin : rows.stop],
                "tie": kinship.ties[begin : rows.stop],
                "dropped": pa.ListArray.from_arrays(places - places[0], positions),
            }
            arrays = [
                column if isinstance(column, pa.Array) else pa.array(column, field.type)
                for field in BOOKS_SCHEMA
                for column in [columns[field.name]]
            ]
            yield pa.RecordBatch.from_arrays(arrays, schema=BOOKS_SCHEMA)

    write_table(folder / BOOKS_FILE, BOOKS_SCHEMA, batches)
    found = Found(
        chunks_run=run.manifest.run_id,
        num_chunks=int(num_chunks.sum()),
        num_within=equal.num_within,
        num_across=equal.num_across,
        num_boilerplate=equal.num_boilerplate,
        num_near=num_near,
        editions=kinship.edition_groups,
        shares=[(one, other, share) for (one, other), share in kinship.shares.items()],
        notes=notes,
    )
    replace_local(folder / FOUND_FILE, json.dumps(asdict(found)).encode())


def _rows(run: Run) -> Iterator[pa.RecordBatch]:
    for unit, _ in published_parts(run):
        with open_part(run, unit) as part:
            yield from part.iter_batches(use_threads=False)


def _in_order(chunks: pa.Table) -> pa.Table:
    """The chunks of a book by their place in the text, as most are already."""
    starts, numbers = (chunks.column(name).to_numpy() for name in ("start", "chunk"))
    steps, number_steps = np.diff(starts), np.diff(numbers)
    if ((steps > 0) | ((steps == 0) & (number_steps >= 0))).all():
        return chunks
    return chunks.sort_by([("start", "ascending"), ("chunk", "ascending")])


def _most_frequent(values: list[str | None]) -> str | None:
    counts = Counter(value for value in values if value is not None)
    return min(counts, key=lambda value: (-counts[value], value), default=None)


class _BookWords:
    """A word a book, of a few that there are; a byte each."""

    def __init__(self, num_books: int) -> None:
        self._codes = np.zeros(num_books, dtype=np.uint16)
        self._words: list[str | None] = [None]

    def put(self, book: int, word: str | None) -> None:
        if word not in self._words:
            self._words.append(word)
        self._codes[book] = self._words.index(word)

    def word(self, book: int) -> str | None:
        return self._words[int(self._codes[book])]


def _near_books(
    shelf: Shelf, num_chunks: NDArray[np.int32], folder: Path, seed: int
) -> tuple[list[tuple[int, int]], int | None, list[str]]:
    """Books tied by near-duplicate chunks of a sample; how many chunks these are; what to say.

    What is known of a sampled chunk, half a kilobyte, lies in files of `folder`, which are mapped and then removed.
    """
    if not has_package("rensa"):
        return [], None, [missing_line("rensa", used_by="MinHash over a sample of the chunks")]
    from assay.labelled.near_duplicates import NUM_PERMUTATIONS, group_by_signatures, signatures_of
    from assay.labelled.provenance import text_hashes

    with_chunks = np.flatnonzero(num_chunks)
    if not len(with_chunks):
        return [], 0, []
    each = max(1, min(NEAR_SAMPLE, NEAR_SAMPLE_ALL // len(with_chunks)))
    sampled = folder / "near-hashes", folder / "near-signatures"
    with sampled[0].open("wb") as hashes, sampled[1].open("wb") as signatures:
        for begin in range(0, len(with_chunks), max(1, NEAR_TEXTS // each)):
            texts = [
                text
                for book in with_chunks[begin : begin + max(1, NEAR_TEXTS // each)].tolist()
                for text in _sampled_texts(shelf, book, each, seed)
            ]
            shelf.forget()
            text_hashes(texts).tofile(hashes)
            signatures_of(texts).tofile(signatures)
    groups = group_by_signatures(
        np.fromfile(sampled[0], dtype=np.uint64),
        np.memmap(sampled[1], dtype=np.uint32, mode="r").reshape(-1, NUM_PERMUTATIONS),
    )
    for path in sampled:
        path.unlink()
    books = np.repeat(with_chunks, np.minimum(num_chunks[with_chunks], each))
    members = np.unique(np.stack([groups, books], axis=1), axis=0)
    firsts, starts, sizes = np.unique(members[:, 0], return_index=True, return_counts=True)
    pairs = [
        (int(members[start, 1]), other)
        for start, size in zip(starts[sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True)
        if size <= MAX_BOOKS_ALIKE
        for other in members[start + 1 : start + size, 1].tolist()
    ]
    return pairs, int(np.isin(groups, firsts[sizes > 1]).sum()), []


def _sampled_texts(shelf: Shelf, book: int, most: int, seed: int) -> list[str]:
    chunks = shelf.book(book)
    positions = Random(f"{seed}|near|{book}").sample(range(len(chunks)), min(most, len(chunks)))
    return [chunks.text(position) for position in sorted(positions)]
