"""Books that are near by their vectors: an embed run over the chunks, put together by book."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from assay.errors import SourceError
from assay.runs.parts import open_part
from assay.runs.run import Run, open_run

NUM_NEIGHBOURS = 50
BLOCK_BOOKS = 1_024
"""Books that are compared with all others at a time."""
EMBED_KIND = "embed"
Vectors = NDArray[np.float64]


def book_neighbours(url: str, book_ids: Sequence[str]) -> list[list[int]]:
    """For each book the others that are nearest by the cosine of their mean vectors, nearest first.

    A book without vectors has no neighbours. Raises SourceError where `url` is not a finished embed run over
    Parquet files that have a column `book_id`, such as the parts of a chunks run.
    """
    run = open_run(url)
    if run.manifest.kind != EMBED_KIND:
        raise SourceError(
            f"{url} is a {run.manifest.kind} run; give the run of `assay embed` over the chunks"
        )
    sums = _sums(run, {book_id: number for number, book_id in enumerate(book_ids)})
    return nearest(sums, NUM_NEIGHBOURS)


def nearest(vectors: Vectors, most: int) -> list[list[int]]:
    """For each row the rows nearest by cosine, without itself; rows of zeros neither have neighbours nor become one."""
    lengths = np.linalg.norm(vectors, axis=1)
    there = np.flatnonzero(lengths > 0)
    found: list[list[int]] = [[] for _ in range(len(vectors))]
    unit = (vectors[there] / lengths[there, None]).astype(np.float32)
    for begin in range(0, len(there), BLOCK_BOOKS):
        scores = unit[begin : begin + BLOCK_BOOKS] @ unit.T
        for row, of_row in enumerate(scores, start=begin):
            of_row[row] = -np.inf
            order = np.argsort(-of_row, kind="stable")[: min(most, len(there) - 1)]
            found[int(there[row])] = there[order].tolist()
    return found


def _sums(run: Run, number_of: dict[str, int]) -> Vectors:
    """The sum of the unit vectors of each book's chunks."""
    sums: Vectors | None = None
    published = run.part_files()
    for unit in run.manifest.units():
        if unit.name not in published:
            raise SourceError(f"unit {unit.name} of {run.url} is not published; finish that run first")
        books = _book_column(run, unit.source).slice(unit.start, unit.num_rows).to_pylist()
        with open_part(run, unit) as part:
            column = part.read(columns=["embedding"], use_threads=False).column("embedding").combine_chunks()
        rows = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
        flat = column.drop_null().flatten().to_numpy().astype(np.float64)
        vectors = flat.reshape(len(rows), column.type.list_size)
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        if sums is None:
            sums = np.zeros((len(number_of), column.type.list_size))
        for row, vector in zip(rows.tolist(), vectors, strict=True):
            number = number_of.get(books[row])
            if number is not None:
                sums[number] += vector
    if sums is None or not sums.any():
        raise SourceError(f"{run.url} has no vector of these books; embed the chunks of this data set")
    return sums


def _book_column(run: Run, source: int) -> pa.ChunkedArray:
    record = run.manifest.sources[source]
    try:
        return pq.read_table(record.uri, columns=["book_id"]).column("book_id")
    except (OSError, KeyError, pa.ArrowException) as error:
        raise SourceError(
            f"{record.uri} of the embed run has no column book_id; embed the parts of the chunks run"
        ) from error
