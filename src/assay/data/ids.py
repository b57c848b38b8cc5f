"""Ids of rows: the types they are kept in, how they are shown, and how they are compared.

Any scalar may be an id. A source and the part made of it share a checksum of them.
"""

import hashlib

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from assay.data.columns import value_type, values_of
from assay.errors import SourceError

Hashes = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]
Positions = npt.NDArray[np.int64]

_WORD = 8


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type in which ids of the type `kind` are kept: one that Parquet gives back and every kernel takes.

    Dictionaries and run ends are decoded and an extension type gives way to its storage, views to
    plain strings and bytes, and times to the unit or width in which Parquet keeps them.
    """
    types, kind = pa.types, value_type(kind)
    if types.is_string_view(kind):
        return pa.string()
    if types.is_binary_view(kind):
        return pa.binary()
    if types.is_timestamp(kind) and kind.unit == "s":
        return pa.timestamp("ms", kind.tz)
    if kind == pa.time32("s"):
        return pa.time32("ms")
    if types.is_date64(kind):
        return pa.date32()
    if types.is_decimal32(kind) or types.is_decimal64(kind):
        return pa.decimal128(kind.precision, kind.scale)
    return kind


def plain_ids(array: pa.Array) -> pa.Array:
    """The same ids in the type that `plain_type` gives; any other column of scalars likewise."""
    array = values_of(array)
    kind = plain_type(array.type)
    # A date64 holds whole days; where it does not, Parquet would cut it likewise.
    return array if array.type == kind else array.cast(kind, safe=not pa.types.is_date64(array.type))


def python_values(ids: pa.Array) -> list[object]:
    """Each value of a column of scalars; times and dates as text, since Python's types do not hold all of them."""
    ids = plain_ids(ids)
    types, kind = pa.types, ids.type
    if types.is_duration(kind):
        return [
            None if count is None else f"{count} {kind.unit}" for count in ids.cast(pa.int64()).to_pylist()
        ]
    if types.is_timestamp(kind):
        # Shown in UTC: a time zone's own clock needs a database of time zones, and some times stand on it twice.
        texts = ids.cast(pa.timestamp(kind.unit)).cast(pa.string()).to_pylist()
        return [text if text is None or kind.tz is None else f"{text}Z" for text in texts]
    if types.is_temporal(kind) and not types.is_interval(kind):
        return list(ids.cast(pa.string()).to_pylist())
    return list(ids.to_pylist())


def shown_ids(ids: pa.Array) -> list[str]:
    """Each id as text, for messages and reports; bytes that are not UTF-8 in hexadecimal, null as "null"."""
    return [_shown(value) for value in python_values(ids)]


def _shown(value: object) -> str:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.hex()
    return "null" if value is None else str(value)


def first_difference(ids: pa.Array, others: pa.Array) -> int | None:
    """The place of the first id that is not the other's, None where all are equal; NaN equals NaN.

    Both have the same length. Raises SourceError for nested ids.
    """
    ids, others = _canonical(ids), _canonical(others)
    if ids.type != others.type:
        return None if ids.null_count == others.null_count == len(ids) else 0
    if ids.equals(others):
        return None
    differs = np.asarray(ids.is_null()) != np.asarray(others.is_null())
    if pa.types.is_floating(ids.type):
        one_N, other_N = (each.cast(pa.float64()).fill_null(0).to_numpy() for each in (ids, others))
        differs |= (one_N != other_N) & ~(np.isnan(one_N) & np.isnan(other_N))
    else:
        differs |= np.asarray(pc.not_equal(ids, others).fill_null(fill_value=False))
    places = np.flatnonzero(differs)
    return int(places[0]) if len(places) else None


class IdChecksum:
    """A streaming checksum of ids: their values, their order, their nulls and their kind.

    Does not depend on how the ids are cut into batches, nor on how Arrow encodes them: string,
    large_string, string_view, dictionary and the binary types hash alike, integers of any width do,
    and so do times whose unit Parquet changes (seconds become milliseconds). About 1 GB/s: no
    Python loop over rows for any type.
    """

    def __init__(self) -> None:
        self._values = hashlib.sha256()
        self._lengths = hashlib.sha256()
        self._nulls = hashlib.sha256()
        self._num_rows = 0
        self._kind: str | None = None

    @property
    def num_rows(self) -> int:
        """Number of ids seen."""
        return self._num_rows

    def update(self, array: pa.Array | pa.ChunkedArray) -> None:
        """Add ids in order. Raises SourceError for nested ids or a kind other than before."""
        if isinstance(array, pa.ChunkedArray):
            for chunk in array.chunks:
                self.update(chunk)
            return
        if len(array) == 0:
            return
        array = _canonical(array)
        kind = _kind(array.type)
        if self._kind is None:
            self._kind = kind
        elif self._kind != kind:
            msg = f"ids of kind {kind} follow ids of kind {self._kind}; one column has one type"
            raise SourceError(msg)
        if array.null_count:
            where = np.flatnonzero(np.asarray(array.is_null())).astype("<i8")
            self._nulls.update((where + self._num_rows).data)
        self._num_rows += len(array)
        if pa.types.is_large_binary(array.type):
            data, offsets = _binary_cells(array)
            self._lengths.update(np.diff(offsets).astype("<u4").data)
            self._values.update(data[offsets[0] : offsets[-1]].data)
        elif not pa.types.is_null(array.type):
            self._values.update(_fixed_width_bytes(array).data)

    def hexdigest(self) -> str:
        """The checksum so far, 64 hexadecimal digits; more ids may follow."""
        whole = hashlib.sha256(f"{self._kind}:{self._num_rows}".encode())
        for part in (self._values, self._lengths, self._nulls):
            whole.update(part.digest())
        return whole.hexdigest()


def hash_ids(ids: pa.Array) -> Hashes:
    """A 64-bit hash of each id, the same for equal ids of any encoding; no Python loop over rows."""
    data, starts, lengths = _cells(_canonical(ids))
    hashes = _mix(lengths.astype(np.uint64))
    # Any 8 bytes as one word, wherever they begin: a view with a stride of one byte.
    padded = np.concatenate([data, np.zeros(_WORD, dtype=np.uint8)])
    words = np.ndarray(len(data) + 1, dtype="<u8", buffer=padded.data, strides=(1,))
    active = np.flatnonzero(lengths > 0)
    for begin in range(0, int(lengths.max(initial=0)), _WORD):
        active = active[lengths[active] > begin]
        left = np.minimum(lengths[active] - begin, _WORD).astype(np.uint64)
        shift = (np.uint64(_WORD) - left) * np.uint64(8)
        hashes[active] = _mix(hashes[active] ^ (words[starts[active] + begin] << shift))
    return hashes


def _mix(values: Hashes) -> Hashes:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): each bit of a value changes half of the hash."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _cells(array: pa.Array) -> tuple[Bytes, Positions, Positions]:
    """A canonical array as bytes, and where each value begins and how long it is."""
    if pa.types.is_null(array.type):
        nothing = np.zeros(len(array), dtype=np.int64)
        return np.zeros(0, dtype=np.uint8), nothing, nothing
    if pa.types.is_large_binary(array.type):
        data, offsets = _binary_cells(array)
        first, last = offsets[0], offsets[-1]
        return data[first:last], offsets[:-1] - first, np.diff(offsets)
    width = array.type.bit_width // 8
    starts = np.arange(len(array), dtype=np.int64) * width
    return _fixed_width_bytes(array), starts, np.full(len(array), width, dtype=np.int64)


def _binary_cells(array: pa.LargeBinaryArray) -> tuple[Bytes, Positions]:
    """The bytes that the values lie in, and the offsets of the values; a null is empty."""
    if array.null_count:
        array = array.fill_null(b"")
    _, offsets_buffer, data = array.buffers()
    offsets = np.frombuffer(offsets_buffer, dtype="<i8")[array.offset : array.offset + len(array) + 1]
    content = np.zeros(0, dtype=np.uint8) if data is None else np.frombuffer(data, dtype=np.uint8)
    return content, offsets


def _fixed_width_bytes(array: pa.Array) -> Bytes:
    """The values, little-endian, zero under nulls (where Arrow leaves them undefined)."""
    width = array.type.bit_width // 8
    values = np.frombuffer(array.buffers()[1], dtype=np.uint8)
    values = values[array.offset * width : (array.offset + len(array)) * width]
    if not array.null_count:
        return values
    valid = np.asarray(pc.is_valid(array))
    zeroed: Bytes = (values.reshape(len(array), width) * valid[:, None]).reshape(-1)
    return zeroed


def _canonical(array: pa.Array) -> pa.Array:
    """The same ids in the one type of their kind."""
    array = plain_ids(array)
    types, kind = pa.types, array.type
    if types.is_nested(kind):
        msg = f"ids of type {kind} are nested; an id is one value; name a scalar column"
        raise SourceError(msg)
    if (
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_binary(kind)
        or types.is_fixed_size_binary(kind)
    ):
        return array.cast(pa.large_binary())
    if types.is_boolean(kind):
        return array.cast(pa.uint8())
    if types.is_integer(kind) and kind != pa.uint64():
        return array.cast(pa.int64())
    return array


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_large_binary(kind):
        return "bytes"
    if kind == pa.uint8():
        return "bool"
    return str(kind)
