"""Books that are near by their vectors: an embed run over a sample of their chunks, put together by book."""

import filecmp
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from assay.data.storage import writing
from assay.embed.settings import EmbedSettings
from assay.embed.verb import embed
from assay.prepare.place import engine_place
from assay.prepare.shelf import Shelf
from assay.runs.parts import open_part
from assay.runs.placement import Cluster
from assay.runs.run import Run, open_run
from assay.telemetry import Progress

NUM_NEIGHBOURS = 50
NUM_SAMPLED = 80
"""Chunks that stand for a book."""
GROUP_BOOKS = 32
"""Books of a row group of the sample."""
BLOCK_SCORES = 4 << 20
"""Of books that are compared with all others at a time: 16 MB."""
SAMPLE_SCHEMA = pa.schema(
    [pa.field("book_id", pa.string(), nullable=False), pa.field("text", pa.string(), nullable=False)]
)
VectorArray = NDArray[np.float64]


def book_neighbours(run: Run, book_ids: Sequence[str]) -> list[list[int]]:
    """For each book the others that are nearest by the cosine of their mean vectors, nearest first.

    A book without vectors has no neighbours. `run` is a finished embed run over the file that `write_sample` wrote.
    """
    sums = _sums(run, {book_id: number for number, book_id in enumerate(book_ids)})
    return nearest(sums, NUM_NEIGHBOURS)


def nearest(vectors: VectorArray, most: int) -> list[list[int]]:
    """For each row the rows nearest by cosine, without itself; rows of zeros neither have neighbours nor become one."""
    lengths = np.linalg.norm(vectors, axis=1)
    there = np.flatnonzero(lengths > 0)
    found: list[list[int]] = [[] for _ in range(len(vectors))]
    block = max(1, BLOCK_SCORES // max(1, len(there)))
    unit = np.empty((len(there), vectors.shape[1]), dtype=np.float32)
    for begin in range(0, len(there), block):
        rows = there[begin : begin + block]
        unit[begin : begin + block] = vectors[rows] / lengths[rows, None]
    for begin in range(0, len(there), block):
        scores = unit[begin : begin + block] @ unit.T
        for row, of_row in enumerate(scores, start=begin):
            of_row[row] = -np.inf
            order = np.argsort(-of_row, kind="stable")[: min(most, len(there) - 1)]
            found[int(there[row])] = there[order].tolist()
    return found


def write_sample(shelf: Shelf, book_ids: Sequence[str], dropped: Sequence[Sequence[int]], path: Path) -> str:
    """Write the chunks that stand for each book, evenly spread over it, to a Parquet file; returns a hash of it.

    A file of the same content stays as it is: a run over it goes on.
    """
    staged = path.with_name(f".{path.name}.writing")
    with writing(str(path)), pq.ParquetWriter(staged, SAMPLE_SCHEMA, compression="zstd") as writer:
        for begin in range(0, len(shelf), GROUP_BOOKS):
            rows: list[dict[str, str]] = []
            for book in range(begin, min(begin + GROUP_BOOKS, len(shelf))):
                chunks = shelf.book(book)
                kept = np.setdiff1d(np.arange(len(chunks)), np.array(dropped[book], dtype=np.int64))
                places = np.linspace(0, len(kept) - 1, min(len(kept), NUM_SAMPLED)).round().astype(np.int64)
                rows += [{"book_id": book_ids[book], "text": chunks.text(int(kept[at]))} for at in places]
            shelf.forget()
            if rows:
                writer.write_table(pa.Table.from_pylist(rows, schema=SAMPLE_SCHEMA))
    if path.is_file() and filecmp.cmp(staged, path, shallow=False):
        staged.unlink()
    else:
        staged.replace(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def embed_sample(
    sample: Path,
    url: str,
    *,
    encoder: str,
    devices: str,
    cluster: Cluster | None = None,
    on_progress: Callable[[Progress], None] | None,
    on_message: Callable[[str], None],
) -> Run:
    """The finished embed run at `url` over a sample; goes on where one stopped. Raises what `embed` raises."""
    asked = EmbedSettings(
        sources=(str(sample),), bundle=encoder, run=url, deterministic=True, **engine_place(devices, cluster)
    )
    return open_run(embed(asked, cluster=cluster, on_progress=on_progress, on_message=on_message).run_url)


def _sums(run: Run, number_of: dict[str, int]) -> VectorArray:
    """The sum of the unit vectors of each book's chunks."""
    # A number a chunk: the ids of millions of chunks as strings would take fifty times the memory.
    with pq.ParquetFile(run.manifest.sources[0].uri) as sample:
        numbers = np.fromiter(
            (
                number_of[book]
                for batch in sample.iter_batches(columns=["book_id"], use_threads=False)
                for book in batch.column(0).to_pylist()
            ),
            np.int32,
            sample.metadata.num_rows,
        )
    sums: VectorArray | None = None
    for unit in run.units:
        with open_part(run, unit) as part:
            column = part.read(columns=["embedding"], use_threads=False).column("embedding").combine_chunks()
        rows = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
        flat = column.drop_null().flatten().to_numpy().astype(np.float64)
        vectors = flat.reshape(len(rows), column.type.list_size)
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        if sums is None:
            sums = np.zeros((len(number_of), column.type.list_size))
        np.add.at(sums, numbers[unit.start : unit.stop][rows], vectors)
    return np.zeros((len(number_of), 1)) if sums is None else sums
