"""The vectors, texts and ids of embed runs, unique by text, in bounded host memory.

What is large lies in temporary files that are gone with the process, however it ends: they have no name. Memory
holds some 60 bytes a row (hashes, places, offsets, short ids), whatever the texts and vectors take. Equal texts are
one: the first row of a text stands for all. Vectors are normalised here; those that cannot be have a code.
"""

import os
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from assay.data.finding import reinspect
from assay.data.ids import hash_ids
from assay.data.reading import RowReader
from assay.data.rows import SourceRows
from assay.data.storage import writing
from assay.errors import UnitError
from assay.mine.vectors import VECTOR, dimension, id_kind
from assay.runs.parts import open_part
from assay.runs.plan import Unit
from assay.runs.run import Run

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]

BATCH_ROWS = 8_192
NO_VECTOR, ZERO_VECTOR, NOT_FINITE = -1, -2, -3
"""Places of texts that have no vector: not embedded, of length zero, with a value that is not a number."""
CODES = {NO_VECTOR: "no_vector", ZERO_VECTOR: "zero_vector", NOT_FINITE: "not_finite"}


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyPlaces:
    """Hashes of keys and the place of each in a store."""

    keys: Hashes
    """Ascending, each once."""
    places: Ints

    def find(self, keys: Hashes) -> Ints:
        """The place of each key; NO_VECTOR for one that is not there."""
        if not len(self.keys):
            return np.full(len(keys), NO_VECTOR, dtype=np.int64)
        found = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[found] == keys, self.places[found], NO_VECTOR)


class Nameless:
    """A temporary file without a name: gone with this object, or with the process."""

    def __init__(self, folder: str | None) -> None:
        """An empty one in `folder`, by default that of the system."""
        with writing(folder or tempfile.gettempdir()):
            self._descriptor, path = tempfile.mkstemp(prefix="assay-mine-", dir=folder)
            os.unlink(path)  # noqa: PTH108  path is text
        self._where = folder or tempfile.gettempdir()
        weakref.finalize(self, os.close, self._descriptor)

    def write(self, content: memoryview) -> None:
        """Add bytes at the end; raises StorageError where there is no room."""
        with writing(self._where):
            while len(content):
                content = content[os.write(self._descriptor, content) :]

    def read_into(self, target: memoryview, start: int) -> None:
        """Fill `target` with the bytes from `start` on."""
        done = 0
        while done < len(target):
            read = os.preadv(self._descriptor, [target[done:]], start + done)
            assert read, "only what was written is read"
            done += read

    def read(self, start: int, stop: int) -> bytes:
        """These bytes."""
        return os.pread(self._descriptor, stop - start, start)


class VectorFile:
    """Normalised vectors in a temporary file: written once, in order, then read in blocks or one by one."""

    def __init__(self, dimension: int, folder: str | None) -> None:
        """An empty file in `folder`."""
        self.dimension = dimension
        self.num_rows = 0
        self._file = Nameless(folder)
        self._row_bytes = dimension * 4

    def append(self, vectors: Floats) -> None:
        """Add rows."""
        self._file.write(np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1).view(np.uint8).data)
        self.num_rows += len(vectors)

    def read(self, start: int, stop: int) -> Floats:
        """Rows [start, stop)."""
        found = np.empty((stop - start, self.dimension), dtype=np.float32)
        self._file.read_into(found.reshape(-1).view(np.uint8).data, start * self._row_bytes)
        return found

    def take(self, places: Ints) -> Floats:
        """These rows, in this order; each distinct one is read once."""
        distinct, inverse = np.unique(places, return_inverse=True)
        rows = np.empty((len(distinct), self.dimension), dtype=np.float32)
        for index, place in enumerate(distinct.tolist()):
            self._file.read_into(rows[index].view(np.uint8).data, place * self._row_bytes)
        return rows[inverse]


class TextFile:
    """Texts in a temporary file, read one by one."""

    def __init__(self, folder: str | None) -> None:
        """An empty file in `folder`."""
        self._file = Nameless(folder)
        self._ends: list[Ints] = []
        self._size = 0
        self._offsets = np.zeros(1, dtype=np.int64)

    def append(self, texts: pa.Array) -> None:
        """Add texts, none null."""
        content = texts.cast(pa.large_binary())
        lengths = np.asarray(pc.binary_length(content))
        _, offsets, data = content.buffers()
        if data is not None and len(content):
            bounds = np.frombuffer(offsets, dtype=np.int64)
            first, last = bounds[content.offset], bounds[content.offset + len(content)]
            self._file.write(memoryview(data).cast("B")[int(first) : int(last)])
        self._ends.append(self._size + np.cumsum(lengths, dtype=np.int64))
        self._size += int(lengths.sum())

    def seal(self) -> None:
        """Make what was added readable; nothing follows."""
        self._offsets = np.concatenate([np.zeros(1, dtype=np.int64), *self._ends])
        self._ends = []

    def take(self, places: Ints) -> list[str]:
        """These texts, in this order."""
        distinct, inverse = np.unique(places, return_inverse=True)
        found = []
        for start, stop in zip(self._offsets[distinct], self._offsets[distinct + 1], strict=True):
            found.append(self._file.read(int(start), int(stop)).decode())
        return [found[index] for index in inverse.tolist()]


@dataclass(frozen=True, kw_only=True, slots=True)
class VectorStore:
    """The distinct texts of some embed runs that have a vector, numbered as they come."""

    vectors: VectorFile
    texts: TextFile | None
    """None where the runs were made from token ids."""
    ids: pa.Array
    text_keys: Hashes
    """Hash of each text."""
    groups: Ints | None
    """Hash of each text's group, 0 for none; None where no group column was asked for."""
    by_text: KeyPlaces
    by_id: KeyPlaces
    num_read: int
    """Rows of the runs."""

    @property
    def num_rows(self) -> int:
        """Vectors."""
        return self.vectors.num_rows


def build_store(
    runs: Sequence[Run],
    *,
    group: str | None = None,
    folder: str | None = None,
    on_batch: Callable[[], None] = lambda: None,
) -> VectorStore:
    """Read the runs and their sources, twice: for the keys, then for all else. `on_batch` is called often.

    Raises RefusedError where a source changed since it was embedded, SourceError where it lacks the group column.
    """
    for run in runs:
        for index in range(len(run.manifest.sources)):
            reinspect(run.manifest.source(index))
    kind = id_kind(runs)
    text_keys, id_keys = _read_keys(runs, kind, on_batch)
    # The first row of each text stands for all of them; `first_N` holds their row numbers, by key.
    unique_keys, first_N = np.unique(text_keys, return_index=True)
    leads = np.zeros(len(text_keys), dtype=bool)
    leads[first_N] = True

    dim = dimension(runs[0])
    vectors = VectorFile(dim, folder)
    has_texts = all(run.manifest.columns.text is not None for run in runs)
    texts = TextFile(folder) if has_texts else None
    ids: list[pa.Array] = []
    groups: list[Ints] = []
    place_of_lead = np.full(len(text_keys), NO_VECTOR, dtype=np.int64)
    row = 0
    for unit, rows, embeddings in _read(runs, group):
        stop = row + rows.num_rows
        wanted = np.flatnonzero(leads[row:stop])
        normalised, codes = normalise(embeddings.take(pa.array(wanted)), dim)
        good = codes >= 0
        places = codes.copy()
        places[good] = vectors.num_rows + np.arange(int(good.sum()))
        place_of_lead[row + wanted] = places
        vectors.append(normalised)
        taken = pa.array(wanted[good])
        if texts is not None and rows.texts is not None:
            texts.append(rows.texts.take(taken))
        ids.append(_ids(unit, rows, kind).take(taken))
        if group is not None:
            groups.append(group_keys(rows.groups)[wanted[good]])
        row = stop
        on_batch()
    if texts is not None:
        texts.seal()
    by_text = KeyPlaces(keys=unique_keys, places=place_of_lead[first_N])
    unique_ids, first_ids = np.unique(id_keys, return_index=True)
    by_id = KeyPlaces(keys=unique_ids, places=by_text.find(text_keys[first_ids]))
    keys_of_places = np.zeros(vectors.num_rows, dtype=np.uint64)
    is_there = by_text.places >= 0
    keys_of_places[by_text.places[is_there]] = by_text.keys[is_there]
    return VectorStore(
        vectors=vectors,
        texts=texts,
        ids=pa.concat_arrays(ids) if ids else pa.array([], kind),
        text_keys=keys_of_places,
        groups=None if group is None else np.concatenate([*groups, np.zeros(0, dtype=np.int64)]),
        by_text=by_text,
        by_id=by_id,
        num_read=row,
    )


def normalise(embeddings: pa.Array, dim: int) -> tuple[Floats, Ints]:
    """The vectors of length one, of those that can be; and of all 0, or the code of what is wrong."""
    codes = np.full(len(embeddings), NO_VECTOR, dtype=np.int64)
    is_valid = np.asarray(embeddings.is_valid())
    values = embeddings.drop_null().flatten()
    # A null inside a vector is not a number.
    vectors = values.cast(pa.float32()).to_numpy(zero_copy_only=False).reshape(-1, dim)
    lengths = np.sqrt(np.square(vectors, dtype=np.float64).sum(axis=1))
    found = np.zeros(len(vectors), dtype=np.int64)
    found[lengths == 0] = ZERO_VECTOR
    found[~np.isfinite(lengths)] = NOT_FINITE
    codes[is_valid] = found
    good = found == 0
    return (vectors[good] / lengths[good, None]).astype(np.float32), codes


def group_keys(groups: pa.Array | None) -> Ints:
    """A number for each group, 0 for null."""
    assert groups is not None, "a group column was asked for"
    keys = hash_ids(groups).view(np.int64).copy()
    keys[keys == 0] = 1
    keys[np.asarray(groups.is_null())] = 0
    return keys


def _ids(unit: Unit, rows: SourceRows, kind: pa.DataType) -> pa.Array:
    """The ids of rows; their numbers where they have none, behind the source's name where several are counted."""
    if rows.ids is not None:
        return rows.ids.cast(kind)
    numbers = pa.array(np.arange(rows.start, rows.start + rows.num_rows, dtype=np.int64))
    if pa.types.is_integer(kind):
        return numbers
    return pc.binary_join_element_wise(f"{unit.source_name}:", numbers.cast(pa.string()), "")


def _text_keys(rows: SourceRows, ids: pa.Array, row: int) -> Hashes:
    """Hashes of the texts, of the ids where there are none; a row without text has a key of its own."""
    if rows.texts is None:
        return hash_ids(ids)
    keys = hash_ids(rows.texts)
    if rows.texts.null_count:
        numbers = pa.array(np.arange(row, row + rows.num_rows, dtype=np.int64))
        keys = np.where(np.asarray(rows.texts.is_null()), hash_ids(numbers), keys)
    return keys


def _read_keys(runs: Sequence[Run], kind: pa.DataType, on_batch: Callable[[], None]) -> tuple[Hashes, Hashes]:
    """The hashes of all texts and of all ids, in order."""
    texts, ids = [], []
    row = 0
    for _, unit, rows in _read_rows(runs, None):
        ids_N = _ids(unit, rows, kind)
        ids.append(hash_ids(ids_N))
        texts.append(_text_keys(rows, ids_N, row))
        row += rows.num_rows
        on_batch()
    nothing = np.zeros(0, dtype=np.uint64)
    return np.concatenate([*texts, nothing]), np.concatenate([*ids, nothing])


def _read_rows(runs: Sequence[Run], group: str | None) -> Iterator[tuple[Run, Unit, SourceRows]]:
    """All rows of the runs' sources, unit by unit."""
    for run in runs:
        columns = replace(run.manifest.source_columns(), group=group)
        with RowReader(columns) as reader:
            for unit in run.units:
                source = run.manifest.source(unit.source)
                for rows in reader.read(source, unit.start, unit.stop, batch_rows=BATCH_ROWS):
                    yield run, unit, rows


def _read(runs: Sequence[Run], group: str | None) -> Iterator[tuple[Unit, SourceRows, pa.Array]]:
    """All rows of the runs' sources, each batch with its vectors."""
    taker: _Vectors | None = None
    for run, unit, rows in _read_rows(runs, group):
        if taker is None or (taker.run, taker.unit) != (run, unit):
            taker = _Vectors(run, unit)
        yield unit, rows, taker.take(rows.num_rows)


class _Vectors:
    """The vectors of one part, in order."""

    def __init__(self, run: Run, unit: Unit) -> None:
        self.run, self.unit = run, unit
        self._batches = _part_vectors(run, unit)
        self._rest: list[pa.Array] = []

    def take(self, num_rows: int) -> pa.Array:
        """The next rows."""
        have = sum(map(len, self._rest))
        while have < num_rows:
            batch = next(self._batches, None)
            if batch is None:
                raise UnitError(
                    f"the part of unit {self.unit.name} of {self.run.url} has too few rows; "
                    f"see `assay verify {self.run.url}`"
                )
            self._rest.append(batch)
            have += len(batch)
        whole = pa.concat_arrays(self._rest) if len(self._rest) > 1 else self._rest[0]
        self._rest = [whole.slice(num_rows)]
        return whole.slice(0, num_rows)


def _part_vectors(run: Run, unit: Unit) -> Iterator[pa.Array]:
    with open_part(run, unit) as file:
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=[VECTOR], use_threads=False):
            yield batch.column(0)
