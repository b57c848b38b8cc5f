"""Books that are near by the vectors of their chunks."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assay.data.finding import find_sources
from assay.data.sources import Columns
from assay.errors import SourceError
from assay.prepare.neighbours import book_neighbours, nearest
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
CHUNKS = [("a", [1, 0]), ("a", [2, 0.2]), ("b", [1, 0.1]), ("c", [0, 5]), ("d", None), ("other", [1, 0])]


class Nothing(RunRecord):
    """Nothing is fixed."""


def embed_run(folder, *, kind="embed", publish=2):
    """A run of two units whose parts hold the vectors of CHUNKS."""
    table = pa.table({"book_id": [book for book, _ in CHUNKS], "text": ["text"] * len(CHUNKS)})
    pq.write_table(table, folder / "chunks.parquet")
    sources = find_sources((str(folder / "chunks.parquet"),), columns=Columns())
    manifest = new_manifest(
        kind=RunKind(name=kind, identity=Nothing, settings=Nothing),
        assay_version="0",
        identity=Nothing(),
        settings=Nothing(),
        columns=Columns(),
        sources=sources,
        boundaries=[(0, 3, 6)],
        part_schema=SCHEMA,
    )
    run, _ = create_or_join(str(folder / "run"), manifest)
    for unit in manifest.units()[:publish]:
        rows = [
            {"source_row": row, "embedding": CHUNKS[row][1], "error": None}
            for row in range(unit.start, unit.stop)
        ]
        batch = pa.RecordBatch.from_pylist(rows, schema=SCHEMA)
        run.publish(unit, [batch], rows_in=lambda unit=unit: unit.num_rows)
    return run.url


def test_chunks_are_put_together_by_book(tmp_path):
    """Nearest first; a book without vectors is nobody's neighbour, and a book of no listing is left out."""
    assert book_neighbours(embed_run(tmp_path), ["a", "b", "c", "d"]) == [[1, 2], [0, 2], [1, 0], []]


def test_another_or_unfinished_run_is_refused(tmp_path):
    """With the way out."""
    (tmp_path / "other").mkdir()
    with pytest.raises(SourceError, match="is a score run; give the run of `assay embed`"):
        book_neighbours(embed_run(tmp_path / "other", kind="score"), ["a"])
    with pytest.raises(SourceError, match="is not published; finish that run first"):
        book_neighbours(embed_run(tmp_path, publish=1), ["a"])


def test_no_book_is_its_own_neighbour():
    """Not even where all are equal."""
    assert nearest(np.ones((3, 2)), 50) == [[1, 2], [0, 2], [0, 1]]
