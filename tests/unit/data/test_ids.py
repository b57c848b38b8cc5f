"""The checksum of ids, and the hash of each."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assay.data.ids import IdChecksum, first_difference, hash_ids, shown_ids
from assay.errors import SourceError

STRINGS = ["a", "bb", None, "", "ccc", "a"]


def checksum(*arrays):
    """The checksum of arrays, one after the other."""
    ids = IdChecksum()
    for array in arrays:
        ids.update(array)
    return ids.hexdigest()


@pytest.mark.parametrize(
    "kind",
    [
        pa.large_string(),
        pa.string_view(),
        pa.binary(),
        pa.large_binary(),
        pa.binary_view(),
        pa.dictionary(pa.int8(), pa.string()),
    ],
    ids=str,
)
def test_encodings_do_not_matter(kind):
    """The same ids have one checksum in every encoding of strings and bytes."""
    assert checksum(pa.array(STRINGS).cast(kind)) == checksum(pa.array(STRINGS))


def test_parquet_does_not_matter(tmp_path):
    """Ids have the same checksum after they went through a Parquet file."""
    for ids in (
        pa.array([1, None, 3], pa.timestamp("s", "UTC")),
        pa.array([1, None, 3], pa.time32("s")),
        pa.array([86_400_000, None, 0], pa.date64()),
        pa.array([1, None, 3], pa.duration("s")),
        pa.array([1, None, 3], pa.uint8()),
        pa.array([1.5, None, 3], pa.float16()) if hasattr(np, "float16") else None,
        pa.array([True, None, False]),
        pa.array(["1.25", None, "0"]).cast(pa.decimal128(5, 2)).cast(pa.decimal32(5, 2)),
        pa.array([b"0123456789abcdef", None, b"x" * 16], pa.uuid()),
        pa.array(STRINGS).dictionary_encode(),
    ):
        pq.write_table(pa.table({"id": ids}), tmp_path / "a.parquet")
        assert checksum(pq.read_table(tmp_path / "a.parquet")["id"]) == checksum(ids), ids.type


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pa.array(["ab", "c"]), pa.array(["a", "bc"])),
        (pa.array(["a", None]), pa.array(["a", ""])),
        (pa.array([0, None]), pa.array([0, 0])),
        (pa.array([None, 1]), pa.array([1, None])),
        (pa.array([1, 2]), pa.array([2, 1])),
        (pa.array([1]), pa.array([1, None])),
        (pa.array([1]), pa.array(["1"])),
        (pa.array([1]), pa.array([1.0])),
        (pa.array([1]), pa.array([True])),
        (pa.array([], pa.int64()), pa.array([None])),
    ],
)
def test_what_matters(one, other):
    """Values, order, nulls, count and kind all show in the checksum."""
    assert checksum(one) != checksum(other)


def test_bytes_under_a_null_do_not_matter():
    """What Arrow leaves under a null is not part of the ids."""
    mask = np.array([False, True, False])
    dirty = pa.array(np.array([1, 99, 3]), mask=mask)
    assert checksum(dirty) == checksum(pa.array([1, None, 3]))
    offsets, data = pa.array([0, 1, 3, 4], pa.int32()).buffers()[1], pa.py_buffer(b"axxb")
    validity = pa.array([1, None, 3]).buffers()[0]
    strings = pa.StringArray.from_buffers(3, offsets, data, validity)
    assert checksum(strings) == checksum(pa.array(["a", None, "b"]))


def test_nested_and_mixed_ids_are_refused():
    """Nested ids and a change of kind are SourceErrors."""
    with pytest.raises(SourceError, match="name a scalar column"):
        checksum(pa.array([[1]]))
    with pytest.raises(SourceError, match="one column has one type"):
        checksum(pa.array([1]), pa.array(["a"]))


def test_equal_ids_hash_alike():
    """Hashes depend on the value alone: not on the encoding, the place or the neighbours."""
    values = ["", "a", "b", "ab", "a" * 8, "a" * 9, "b" * 8 + "a", "a\0", "x" * 1000]
    hashes = hash_ids(pa.array(values))
    assert len(set(hashes.tolist())) == len(values)
    assert hash_ids(pa.array(["zzz", *values]).cast(pa.string_view()))[1:].tolist() == hashes.tolist()
    assert hash_ids(pa.array(values).slice(3)).tolist() == hashes[3:].tolist()
    numbers = hash_ids(pa.array([0, 1, -1, 2**62]))
    assert len(set(numbers.tolist())) == 4


@pytest.mark.parametrize(
    ("ids", "shown"),
    [
        (pa.array(["a", None], pa.string_view()), ["a", "null"]),
        (pa.array(["a"]).dictionary_encode(), ["a"]),
        (pa.array([b"caf\xc3\xa9", b"\xff\x00"], pa.binary_view()), ["café", "ff00"]),
        (pa.array([1, None]), ["1", "null"]),
        (pa.array([1.5]), ["1.5"]),
        (pa.array([1], pa.timestamp("ns")), ["1970-01-01 00:00:00.000000001"]),
        (pa.array([1], pa.timestamp("ns", "Europe/Paris")), ["1970-01-01 00:00:00.000000001Z"]),
        (pa.array([1], pa.timestamp("us", "Not/Known")), ["1970-01-01 00:00:00.000001Z"]),
        (pa.array([1], pa.time64("ns")), ["00:00:00.000000001"]),
        (pa.array([7, None], pa.duration("ns")), ["7 ns", "null"]),
        (pa.array([1], pa.date32()), ["1970-01-02"]),
        (pa.array(["1.20"]).cast(pa.decimal128(5, 2)), ["1.20"]),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
def test_how_ids_are_shown(ids, shown):
    """Every digit of an id is shown, of whatever type it is; times in UTC."""
    assert shown_ids(ids) == shown


def test_times_beyond_what_python_holds_are_shown():
    """A time or a date after the year 9999 is shown too, as Arrow shows it."""
    for ids in (pa.array([2**62], pa.timestamp("us")), pa.array([2**30], pa.date32())):
        assert "out of range" in shown_ids(ids)[0]


@pytest.mark.parametrize(
    ("one", "other", "place"),
    [
        (pa.array([1, 2, 3]), pa.array([1, 2, 3], pa.int32()), None),
        (pa.array([1, 2, 3]), pa.array([1, 5, 3]), 1),
        (pa.array([1, None, 3]), pa.array([1, 0, 3]), 1),
        (pa.array(["a", "b"]), pa.array(["a", "b"], pa.string_view()), None),
        (pa.array(["a", "b"]), pa.array(["a", "c"], pa.large_string()), 1),
        (pa.array([float("nan"), 1.0]), pa.array([float("nan"), 1.0]), None),
        (pa.array([float("nan"), 1.0]), pa.array([float("nan"), 2.0]), 1),
        (pa.array([0.0, None]), pa.array([None, 0.0]), 0),
        (pa.array([1], pa.timestamp("ns")), pa.array([2], pa.timestamp("ns")), 0),
        (pa.array(["1.2"]).cast(pa.decimal128(5, 1)), pa.array(["1.2"]).cast(pa.decimal64(5, 1)), None),
        (pa.array([1]), pa.array(["1"]), 0),
        (pa.array([None], pa.string()), pa.nulls(1), None),
    ],
)
def test_the_first_id_that_differs(one, other, place):
    """Ids are compared by value, whatever their encoding; NaN is equal to NaN, null to null alone."""
    assert first_difference(one, other) == place
