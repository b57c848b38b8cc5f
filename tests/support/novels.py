"""Books on disk, and a finished chunks run over them whose chunks are made here, five sentences each."""

import random
from functools import cached_property

import pyarrow as pa
from support.fake_handles import FakeHandle

from assay.data.finding import find_sources
from assay.data.sources import Columns
from assay.embed.worker import open_embed_work
from assay.prepare.chunks.plan import PART_SCHEMA
from assay.prepare.chunks.worker import open_chunks_work
from assay.prepare.pairs.work import PairsWork
from assay.prepare.sketches import text_hash
from assay.runs.driver import WorkerSpec
from assay.runs.kinds import RunKind, RunRecord
from assay.runs.manifest import new_manifest
from assay.runs.pipeline import run_unit
from assay.runs.protocol import Done, Take
from assay.runs.run import create_or_join
from assay.score.worker import open_score_work

SENTENCES = 5


class ChunkRecord(RunRecord):
    """Nothing is fixed."""


def write_novel(path, seed, *, sentences=300, names=("Emma",)):
    """A novel of made-up words of its own, a sentence a line."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefghijkl", k=rng.randint(2, 8))) for _ in range(400)]
    lines = [
        f"The {' '.join(rng.choices(words, k=12))} and {rng.choice(names)} {' '.join(rng.choices(words, k=6))}."
        for _ in range(sentences)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def chunk_rows(row, book):
    """The rows that a chunks run has of a book of one sentence a line."""
    with open(book.path, encoding="utf-8") as file:  # noqa: PTH123
        text = file.read()
    lines = text.splitlines(keepends=True)
    rows, start = [], 0
    for number in range(0, len(lines) - SENTENCES + 1, SENTENCES):
        piece = "".join(lines[number : number + SENTENCES])
        chunk = {
            "start": start,
            "stop": start + len(piece),
            "chunk": number // SENTENCES,
            "num_sentences": SENTENCES,
            "num_tokens": len(piece.split()),
            "language": "en",
            "text": piece.strip(),
            "text_hash": text_hash(piece),
        }
        rows.append({"source_row": row, "book_id": book.book_id, **chunk})
        start += len(piece)
    return rows or [{"source_row": row, "book_id": book.book_id, "error": "too_short"}]


def chunks_run(listing, folder, *, unit_rows=3):
    """A finished chunks run over a listing, in the schema that chunks runs have."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = Columns(text="path")
    sources = find_sources((str(listing.path),), columns=columns)
    num = len(listing.books)
    manifest = new_manifest(
        kind=RunKind(name="chunks", identity=ChunkRecord, settings=ChunkRecord, rows_out="any_number"),
        assay_version="0",
        identity=ChunkRecord(),
        settings=ChunkRecord(),
        columns=columns,
        sources=sources,
        boundaries=[(*range(0, num, unit_rows), num)],
        part_schema=PART_SCHEMA,
    )
    run, _ = create_or_join(str(folder / "chunks"), manifest)
    for unit in manifest.units():
        rows = [
            chunk for row in range(unit.start, unit.stop) for chunk in chunk_rows(row, listing.books[row])
        ]
        batch = pa.RecordBatch.from_pylist(rows, schema=PART_SCHEMA)
        run.publish(unit, [batch], rows_in=lambda unit=unit: unit.num_rows)
    return run


class _Working(FakeHandle):
    """Does the real work of each unit as soon as it is given."""

    def send(self, command):
        if not isinstance(command, Take):
            super().send(command)
            return
        published = run_unit(self._run, self._work, self._units[command.unit])
        self._hear(Done(unit=command.unit, created=published.created, counters=self._work.counters))

    @cached_property
    def _work(self):
        return WORKS[self._run.manifest.kind](self._run)


def _loaded(work):
    work.load()
    return work


WORKS = {
    "chunks": open_chunks_work,
    "pairs": lambda run: PairsWork(run.manifest),
    "embed": lambda run: _loaded(open_embed_work(run, device="cpu", num_threads=1)),
    "score": lambda run: _loaded(open_score_work(run, device="cpu", num_threads=1)),
}


def work_here(_module, run, _placement, _work=None, **_):
    """Stands in for `place_processes` and `place_few`: the real work of a run, in this process."""
    return [WorkerSpec(name="here", start=lambda hear: _Working(run, hear, deadly=set(), loads=True))]
