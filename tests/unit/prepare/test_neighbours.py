"""Books that are near by the vectors of their chunks."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from assay.data.finding import find_sources
from assay.data.sources import Columns
from assay.prepare import neighbours
from assay.prepare.neighbours import NUM_SAMPLED, book_neighbours, nearest, write_sample
from assay.prepare.shelf import SCHEMA as SHELF_SCHEMA
from assay.prepare.shelf import Shelf, ShelfWriter
from assay.runs.kinds import RunKind, RunRecord
from assay.runs.manifest import new_manifest
from assay.runs.run import create_or_join

SCHEMA = pa.schema(
    [
        pa.field("source_row", pa.int64(), nullable=False),
        pa.field("error", pa.string()),
        pa.field("embedding", pa.list_(pa.field("element", pa.float32(), nullable=False), 2)),
    ]
)
CHUNKS = [("a", [1, 0]), ("a", [2, 0.2]), ("b", [1, 0.1]), ("c", [0, 5]), ("c", [0, 1]), ("d", None)]


class Nothing(RunRecord):
    """Nothing is fixed."""


def embed_run(folder):
    """A run of two units whose parts hold the vectors of CHUNKS."""
    table = pa.table({"book_id": [book for book, _ in CHUNKS], "text": ["text"] * len(CHUNKS)})
    pq.write_table(table, folder / "chunks.parquet")
    sources = find_sources((str(folder / "chunks.parquet"),), columns=Columns())
    manifest = new_manifest(
        kind=RunKind(name="embed", identity=Nothing, settings=Nothing),
        assay_version="0",
        identity=Nothing(),
        settings=Nothing(),
        columns=Columns(),
        sources=sources,
        boundaries=[(0, 3, 6)],
        part_schema=SCHEMA,
    )
    run, _ = create_or_join(str(folder / "run"), manifest)
    for unit in manifest.units():
        rows = [
            {"source_row": row, "embedding": CHUNKS[row][1], "error": None}
            for row in range(unit.start, unit.stop)
        ]
        batch = pa.RecordBatch.from_pylist(rows, schema=SCHEMA)
        run.publish(unit, [batch], rows_in=lambda unit=unit: unit.num_rows)
    return run


def test_chunks_are_put_together_by_book(tmp_path):
    """Nearest first; a book without vectors is nobody's neighbour."""
    assert book_neighbours(embed_run(tmp_path), ["a", "b", "c", "d"]) == [[1, 2], [0, 2], [1, 0], []]


def test_a_sample_is_spread_over_each_book(tmp_path):
    """First and last chunk are in it, dropped ones are not; the same chunks leave the file as it was."""
    with ShelfWriter(tmp_path / "shelf", 3) as writer:
        writer.add(0, shelf_rows(200))
        writer.add(2, shelf_rows(3))
    shelf, path = Shelf(tmp_path / "shelf"), tmp_path / "sample.parquet"
    content = write_sample(shelf, ["a", "b", "c"], [[199], [], [1]], path)
    written = path.stat()
    table = pq.read_table(path)
    numbers = [int(text) for text in table.column("text").to_pylist()]
    assert table.column("book_id").to_pylist() == ["a"] * NUM_SAMPLED + ["c"] * 2
    assert numbers[-2:] == [0, 2]
    steps = np.diff(numbers[:NUM_SAMPLED])
    assert (numbers[0], numbers[NUM_SAMPLED - 1]) == (0, 198)
    assert set(steps.tolist()) == {2, 3}
    assert write_sample(shelf, ["a", "b", "c"], [[199], [], [1]], path) == content
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
    assert write_sample(shelf, ["a", "b", "c"], [[199], [], []], path) != content


def shelf_rows(count):
    """The chunks of a book, each its own number."""
    rows = [
        {
            "chunk": number,
            "start": number * 10,
            "stop": number * 10 + 10,
            "num_sentences": 1,
            "num_tokens": None,
            "text_hash": number,
            "text": str(number),
        }
        for number in range(count)
    ]
    return pa.RecordBatch.from_pylist(rows, schema=SHELF_SCHEMA)


def test_no_book_is_its_own_neighbour():
    """Not even where all are equal."""
    assert nearest(np.ones((3, 2)), 50) == [[1, 2], [0, 2], [0, 1]]


def test_blocks_do_not_change_the_neighbours(monkeypatch):
    """One book at a time, two, or all at once; the nearest by cosine come first."""
    vectors = np.random.default_rng(0).normal(size=(21, 8))
    whole = nearest(vectors, 5)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit.T - 2 * np.eye(21)
    assert whole == np.argsort(-cosines, axis=1)[:, :5].tolist()
    for scores in (1, 45):
        monkeypatch.setattr(neighbours, "BLOCK_SCORES", scores)
        assert nearest(vectors, 5) == whole
