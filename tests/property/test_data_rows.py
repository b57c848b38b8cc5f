"""Whatever the rows and however they are cut: each comes once, in order, and ids keep one checksum."""

import csv
import gzip
import io
import itertools
import json
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.data.finding import find_sources
from assay.data.formats import lines
from assay.data.ids import IdChecksum, hash_ids
from assay.data.reading import RowReader
from assay.data.sources import Columns

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
QUOTED_TEXT = st.one_of(TEXT, st.text(st.sampled_from('a",\n\r'), max_size=12))
FORMATS = ["parquet", "jsonl", "jsonl.gz", "csv", "csv.gz", "arrow"]


def write(path, texts, group):
    """The texts with counted ids, in the format that the path's ending names."""
    table = pa.table({"id": pa.array(range(len(texts)), pa.int64()), "text": pa.array(texts, pa.string())})
    kind = path.name.partition(".")[2]
    if kind == "parquet":
        pq.write_table(table, path, row_group_size=group)
        return
    if kind == "arrow":
        with pa.ipc.new_stream(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=group)
        return
    text = io.StringIO(newline="")
    if kind.startswith("csv"):
        writer = csv.writer(text)
        writer.writerow(table.column_names)
        writer.writerows(zip(range(len(texts)), texts, strict=True))
    else:
        text.write("\n".join(json.dumps(row) for row in table.to_pylist()))
    content = text.getvalue().encode()
    path.write_bytes(gzip.compress(content) if kind.endswith(".gz") else content)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(FORMATS),
    texts=st.lists(QUOTED_TEXT, max_size=30),
    cuts=st.lists(st.integers(0, 30), max_size=5),
    group=st.integers(1, 10),
    batch_rows=st.integers(1, 12),
    order=st.randoms(use_true_random=False),
    read_bytes=st.sampled_from([1, 7, 1 << 20]),
)
def test_ranges_partition_the_rows(kind, texts, cuts, group, batch_rows, order, read_bytes):
    """The rows of any partition, read in any order by one reader, are the rows of the whole."""
    bounds = sorted({0, len(texts), *(cut for cut in cuts if cut <= len(texts))})
    ranges = list(itertools.pairwise(bounds))
    order.shuffle(ranges)
    columns = Columns()
    index_rows, read, scan = lines.INDEX_ROWS, lines.READ_BYTES, lines.SCAN_BYTES
    lines.INDEX_ROWS, lines.READ_BYTES, lines.SCAN_BYTES = 4, read_bytes, read_bytes
    try:
        with tempfile.TemporaryDirectory() as folder, RowReader(columns) as reader:
            path = Path(folder) / f"a.{kind}"
            write(path, texts, group)
            (source,) = find_sources([str(path)], columns=columns)
            assert source.num_rows == len(texts)
            found = {}
            for start, stop in ranges:
                for rows in reader.read(source, start, stop, batch_rows=batch_rows):
                    assert rows.num_rows <= batch_rows
                    assert not rows.errors
                    pairs = zip(rows.ids.to_pylist(), rows.texts.to_pylist(), strict=True)
                    for offset, pair in enumerate(pairs):
                        assert found.setdefault(rows.start + offset, pair) is pair
            assert [found[row] for row in range(len(texts))] == list(enumerate(texts))
    finally:
        lines.INDEX_ROWS, lines.READ_BYTES, lines.SCAN_BYTES = index_rows, read, scan


IDS = st.one_of(
    st.lists(st.one_of(st.none(), TEXT)).map(lambda ids: pa.array(ids, pa.string())),
    st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))).map(
        lambda ids: pa.array(ids, pa.int64())
    ),
    st.lists(st.one_of(st.none(), st.floats(allow_nan=False))).map(lambda ids: pa.array(ids, pa.float64())),
    st.lists(st.one_of(st.none(), st.booleans())).map(lambda ids: pa.array(ids, pa.bool_())),
    st.lists(st.one_of(st.none(), st.binary(min_size=4, max_size=4))).map(
        lambda ids: pa.array(ids, pa.binary(4))
    ),
)


@given(ids=IDS, cuts=st.lists(st.integers(0, 50), max_size=6))
def test_the_checksum_ignores_batches(ids, cuts):
    """However ids are cut into batches, chunked or sliced, the checksum is the same."""
    whole, pieces, chunked = IdChecksum(), IdChecksum(), IdChecksum()
    whole.update(ids)
    bounds = sorted({0, len(ids), *(cut for cut in cuts if cut <= len(ids))})
    batches = [ids.slice(start, stop - start) for start, stop in itertools.pairwise(bounds)]
    for batch in batches:
        pieces.update(batch)
    chunked.update(pa.chunked_array(batches, ids.type))
    assert whole.hexdigest() == pieces.hexdigest() == chunked.hexdigest()
    assert whole.num_rows == len(ids)


@given(one=IDS, other=IDS)
def test_other_ids_have_another_checksum(one, other):
    """Two columns have one checksum exactly where they hold the same ids."""
    sums = []
    for ids in (one, other):
        checksum = IdChecksum()
        checksum.update(ids)
        sums.append(checksum.hexdigest())
    bytes_like = {pa.string(), pa.binary(4)}
    same_kind = one.type == other.type or {one.type, other.type} <= bytes_like
    if not len(one) and not len(other):
        return
    values = [
        [value.encode() if isinstance(value, str) else value for value in ids.to_pylist()]
        for ids in (one, other)
    ]
    # Floats are compared by their bits: 0.0 and -0.0 are two ids.
    equal = same_kind and list(map(repr, values[0])) == list(map(repr, values[1]))
    assert (sums[0] == sums[1]) == equal


@given(ids=st.lists(TEXT, unique=True, max_size=60))
def test_hashes_tell_ids_apart(ids):
    """Different ids have different 64-bit hashes, equal ids the same."""
    hashes = hash_ids(pa.array(ids, pa.string())).tolist()
    assert len(set(hashes)) == len(ids)
    assert hash_ids(pa.array([*ids, *ids], pa.large_string())).tolist() == hashes * 2
