"""Ids that occur more than once: counted exactly, in bounded memory, in as many passes as it takes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from assay.data.ids import hash_ids, plain_ids, shown_ids
from assay.data.reading import read_rows
from assay.data.sources import Columns, Source, id_column

IDS_PER_PASS = 4_000_000
SHOWN = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Duplicates:
    """Ids that occur more than once."""

    num_rows: int
    """Rows beyond the first of each id."""
    examples: tuple[str, ...]
    """Some of these ids."""


def count_duplicates(read_ids: Callable[[], Iterable[pa.Array]], num_rows: int) -> Duplicates:
    """How many ids repeat an earlier one; nulls are not ids and repeat nothing.

    `read_ids` gives all ids from the first each time it is called. A pass looks at the ids of one bucket, so
    memory holds about 4 million ids, however many there are; equality is of whole values.
    """
    num_passes = max(1, -(-num_rows // IDS_PER_PASS))
    repeated = 0
    examples: list[str] = []
    for bucket in range(num_passes):
        kept = [_of_bucket(ids, bucket, num_passes) for ids in read_ids()]
        column = pa.chunked_array(kept) if kept else pa.chunked_array([[]], pa.string())
        counts = pa.table({"id": column}).group_by("id").aggregate([([], "count_all")])
        counts = counts.filter(pc.greater(counts["count_all"], 1))
        repeated += (pc.sum(counts["count_all"]).as_py() or 0) - counts.num_rows
        examples += shown_ids(counts["id"].slice(0, SHOWN - len(examples)).combine_chunks())
    return Duplicates(num_rows=repeated, examples=tuple(examples[:SHOWN]))


def count_duplicate_ids(sources: Sequence[Source], columns: Columns) -> Duplicates:
    """How many rows of the sources repeat an id; none where rows are counted."""
    if id_column(sources[0], columns) is None:
        return Duplicates(num_rows=0, examples=())
    bare = Columns(text=None, id=columns.id)

    def read_ids() -> Iterable[pa.Array]:
        for source in sources:
            for rows in read_rows(source, bare, 0, source.num_rows):
                yield rows.ids

    return count_duplicates(read_ids, sum(source.num_rows for source in sources))


def _of_bucket(ids: pa.Array, bucket: int, num_buckets: int) -> pa.Array:
    ids = plain_ids(ids).drop_null()
    if num_buckets == 1:
        return ids
    return ids.filter(pa.array(hash_ids(ids) % np.uint64(num_buckets) == np.uint64(bucket)))
