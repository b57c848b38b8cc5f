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
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from assay.data.syncing import replace_local, sync_folder
from assay.extras import has_package, missing_line
from assay.prepare.duplicates import (
    ChunkDuplicates,
    count_shared,
    find_equal_chunks,
    find_kinship,
)
from assay.prepare.partitions import Partitions, records_of
from assay.prepare.shelf import Shelf, ShelfWriter, by_book
from assay.prepare.sketches import passages
from assay.runs.parts import open_part, published_parts
from assay.runs.run import Run

CHUNKS_FILE = "chunks.arrow"
BOOKS_FILE = "books.parquet"
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
    """As BOOKS_SCHEMA."""
    found: Found


def shelve(run: Run, num_books: int, folder: Path, *, seed: int, say: Callable[[str], None]) -> Shelved:
    """The shelf of a chunks run in `folder`: made, or read where it was made before."""
    if not (folder / FOUND_FILE).is_file():
        making = folder.with_name(folder.name + ".making")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        _make(run, num_books, making, seed=seed)
        shutil.rmtree(folder, ignore_errors=True)
        making.rename(folder)
        sync_folder(folder.parent)
    else:
        say("The chunks are on the shelf already.")
    return Shelved(
        chunks=folder / CHUNKS_FILE,
        books=pq.read_table(folder / BOOKS_FILE, schema=BOOKS_SCHEMA),
        found=_read_found(folder / FOUND_FILE),
    )


def _read_found(path: Path) -> Found:
    values = json.loads(path.read_text(encoding="utf-8"))
    return Found(**{**values, "shares": [tuple(each) for each in values["shares"]]})


def _make(run: Run, num_books: int, folder: Path, *, seed: int) -> None:
    num_chunks = np.zeros(num_books, dtype=np.int32)
    num_passages = np.zeros(num_books, dtype=np.int32)
    languages: list[str | None] = [None] * num_books
    errors: list[str | None] = [None] * num_books
    with (
        Partitions(folder, "chunks") as chunk_hashes,
        Partitions(folder, "passages") as passage_hashes,
        ShelfWriter(folder / CHUNKS_FILE, num_books) as writer,
    ):
        for book, rows in by_book(_rows(run)):
            usable = rows.filter(rows.column("text").is_valid())
            if not usable.num_rows:
                errors[book] = next((code for code in rows.column("error").to_pylist() if code), None)
                continue
            usable = usable.sort_by([("start", "ascending"), ("chunk", "ascending")]).combine_chunks()
            writer.add(book, usable.to_batches()[0])
            hashes = usable.column("text_hash").to_numpy()
            chunk_hashes.add(records_of(hashes, book))
            sketch = passages("\n".join(usable.column("text").to_pylist()))
            passage_hashes.add(records_of(sketch, book))
            num_chunks[book] = usable.num_rows
            num_passages[book] = len(sketch)
            languages[book] = _most_frequent(usable.column("language").to_pylist())
        equal = ChunkDuplicates()
        for part in chunk_hashes.read():
            find_equal_chunks(part, equal)
        shared: Counter[tuple[int, int]] = Counter()
        for part in passage_hashes.read():
            shared.update(count_shared(part))
    near, num_near, notes = _near_books(Shelf(folder / CHUNKS_FILE), num_chunks, seed)
    kinship = find_kinship(num_passages.tolist(), shared, near)
    dropped = [sorted(equal.dropped.get(book, [])) for book in range(num_books)]
    columns = {
        "num_chunks": num_chunks,
        "num_kept": num_chunks - np.array([len(each) for each in dropped], dtype=np.int32),
        "num_passages": num_passages,
        "language": languages,
        "error": errors,
        "edition": list(kinship.editions),
        "tie": list(kinship.ties),
        "dropped": dropped,
    }
    arrays = [pa.array(columns[field.name], field.type) for field in BOOKS_SCHEMA]
    pq.write_table(pa.Table.from_arrays(arrays, schema=BOOKS_SCHEMA), folder / BOOKS_FILE)
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


def _most_frequent(values: list[str | None]) -> str | None:
    counts = Counter(value for value in values if value is not None)
    return min(counts, key=lambda value: (-counts[value], value), default=None)


def _near_books(
    shelf: Shelf, num_chunks: "np.ndarray[Any, np.dtype[np.int32]]", seed: int
) -> tuple[list[tuple[int, int]], int | None, list[str]]:
    """Books tied by near-duplicate chunks of a sample; how many chunks these are; what to say."""
    if not has_package("rensa"):
        return [], None, [missing_line("rensa", used_by="MinHash over a sample of the chunks")]
    from assay.labelled.near_duplicates import group_by_signatures, signatures_of
    from assay.labelled.provenance import text_hashes

    with_chunks = np.flatnonzero(num_chunks).tolist()
    each = max(1, min(NEAR_SAMPLE, NEAR_SAMPLE_ALL // max(1, len(with_chunks))))
    texts: list[str] = []
    hashes, signatures = [], []
    books: list[int] = []

    def sign() -> None:
        # What is kept of a text is half a kilobyte, so that many books take no more memory than few.
        hashes.append(text_hashes(texts))
        signatures.append(signatures_of(texts))
        texts.clear()

    for book in with_chunks:
        chunks = shelf.book(book)
        for position in sorted(
            Random(f"{seed}|near|{book}").sample(range(len(chunks)), min(each, len(chunks)))
        ):
            texts.append(chunks.text(position))
            books.append(book)
        if len(texts) >= NEAR_TEXTS:
            sign()
    sign()
    members: dict[int, set[int]] = {}
    groups = group_by_signatures(np.concatenate(hashes), np.concatenate(signatures)) if books else []
    for group, book in zip(groups, books, strict=True):
        members.setdefault(group, set()).add(book)
    across = {group for group, of_group in members.items() if len(of_group) > 1}
    pairs = [
        (first, other)
        for group in sorted(across)
        if len(members[group]) <= MAX_BOOKS_ALIKE
        for first in [min(members[group])]
        for other in sorted(members[group] - {first})
    ]
    return pairs, sum(group in across for group in groups), []
