"""Ids that occur more than once: counted exactly, in bounded memory, in as many passes as it takes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from assay.data.rows import read_rows
from assay.data.sources import Columns, Source, id_column
from assay.errors import InputError

IDS_PER_PASS = 4_000_000
SHOWN = 3
_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, kw_only=True, slots=True)
class Duplicates:
    """Ids that occur more than once."""

    num_rows: int
    """Rows beyond the first of each id."""
    examples: tuple[str, ...]
    """Some of these ids."""


def count_duplicates(read_ids: Callable[[], Iterable[pa.Array]], num_rows: int) -> Duplicates:
    """How many ids repeat an earlier one; nulls are no ids and repeat nothing.

    `read_ids` gives all ids anew each time it is called. A pass looks at the ids of one bucket, so
    memory holds about 4 million ids, however many there are; equality is of whole values.
    """
    num_passes = max(1, -(-num_rows // IDS_PER_PASS))
    repeated, examples = 0, []
    for bucket in range(num_passes):
        kept = [_of_bucket(ids, bucket, num_passes) for ids in read_ids()]
        column = pa.chunked_array(kept) if kept else pa.chunked_array([[]], pa.string())
        counts = pa.table({"id": column}).group_by("id").aggregate([([], "count_all")])
        counts = counts.filter(pc.greater(counts["count_all"], 1))
        repeated += (pc.sum(counts["count_all"]).as_py() or 0) - counts.num_rows
        examples += [str(value) for value in counts["id"].slice(0, SHOWN - len(examples)).to_pylist()]
    return Duplicates(num_rows=repeated, examples=tuple(examples[:SHOWN]))


def refuse_duplicate_ids(sources: Sequence[Source], columns: Columns) -> None:
    """Raise InputError where an id occurs twice in the sources, for `--unique-ids`."""
    if id_column(sources[0], columns) is None:
        return  # rows are counted, so their numbers are unique
    bare = Columns(text=None, id=columns.id)

    def read_ids() -> Iterable[pa.Array]:
        for source in sources:
            for rows in read_rows(source, bare, 0, source.num_rows):
                yield rows.ids

    found = count_duplicates(read_ids, sum(source.num_rows for source in sources))
    if found.num_rows:
        msg = (
            f"{found.num_rows:,} rows repeat an id, for example {', '.join(map(repr, found.examples))}; "
            "--unique-ids refuses that; mend the ids, or leave --unique-ids out"
        )
        raise InputError(msg)


def _of_bucket(ids: pa.Array, bucket: int, num_buckets: int) -> pa.Array:
    ids = ids.drop_null()
    if num_buckets == 1:
        return ids
    return ids.filter(pa.array(_hashes(ids) % np.uint64(num_buckets) == np.uint64(bucket)))


def _hashes(ids: pa.Array) -> npt.NDArray[np.uint64]:
    """A number for each id, equal for equal ids; spreads numbered ids evenly.

    Of bytes it takes the length and the last eight, which is where numbered ids differ.
    """
    if pa.types.is_integer(ids.type):
        return ids.to_numpy(zero_copy_only=False).astype(np.uint64) * _MIX >> np.uint64(32)
    values = (
        ids.cast(pa.string()).cast(pa.large_binary())
        if not _is_bytes(ids.type)
        else ids.cast(pa.large_binary())
    )
    _, offsets_buffer, data_buffer = values.buffers()
    offsets = np.frombuffer(offsets_buffer, dtype=np.int64)[values.offset : values.offset + len(values) + 1]
    data = np.frombuffer(data_buffer, dtype=np.uint8) if data_buffer is not None else np.zeros(0, np.uint8)
    starts, ends = offsets[:-1], offsets[1:]
    hashes = (ends - starts).astype(np.uint64)
    for back in range(1, 9):
        at = ends - back
        found = np.where(at >= starts, data[np.maximum(at, 0)] if len(data) else 0, 0)
        hashes = (hashes ^ found.astype(np.uint64)) * _MIX
    return hashes >> np.uint64(32)


def _is_bytes(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_string_view(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
    )
