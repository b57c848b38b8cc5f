"""Rows of every format: in order, each once, with an error code where a row is bad."""

import csv
import gzip
import io
import json

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assay.data import reading, rows
from assay.data.finding import find_sources
from assay.data.formats import lines
from assay.data.ids import first_difference
from assay.data.reading import RowReader, read_rows
from assay.data.sources import Columns, id_column, id_type
from assay.data.storage import open_store
from assay.errors import SourceError

NUM_ROWS = 9_500
RECORDS = [
    {
        "id": number * 7,
        "text": "" if number % 50 == 0 else f'Text {number}: "a, b"\r\n\tzwei; ü{"x" * (number % 90)}',
    }
    for number in range(NUM_ROWS)
]


def jsonl(records):
    """The records as JSON Lines, with blank lines between some."""
    return "\n".join(
        json.dumps(record, ensure_ascii=bool(index % 2)) + ("\n \n" if index % 11 == 0 else "")
        for index, record in enumerate(records)
    ).encode()


def as_csv(records):
    """The records as CSV."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(records[0]))
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue().encode()


def parquet(records, **options):
    """The records as a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(records), sink, **options)
    return sink.getvalue()


def arrow_file(records):
    """The records as an Arrow IPC file."""
    table = pa.Table.from_pylist(records)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=1000)
    return sink.getvalue().to_pybytes()


def arrow_stream(records):
    """The records as an Arrow IPC stream."""
    table = pa.Table.from_pylist(records)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=1000)
    return sink.getvalue().to_pybytes()


CONTENTS = {
    "a.parquet": lambda: parquet(RECORDS, row_group_size=1234),
    "a.jsonl": lambda: jsonl(RECORDS),
    "a.jsonl.gz": lambda: gzip.compress(jsonl(RECORDS)),
    "a.jsonl.zst": lambda: pa.compress(jsonl(RECORDS), "zstd", asbytes=True),
    "a.csv": lambda: as_csv(RECORDS),
    "a.csv.gz": lambda: gzip.compress(as_csv(RECORDS)),
    "a.csv.zst": lambda: pa.compress(as_csv(RECORDS), "zstd", asbytes=True),
    "file.arrow": lambda: arrow_file(RECORDS),
    "stream.arrow": lambda: arrow_stream(RECORDS),
}


def one_source(path, columns=None):
    """The one source at a path."""
    (source,) = find_sources([str(path)], columns=columns or Columns())
    return source


def collect(batches):
    """Ids, texts and errors of batches, whole; checks that they follow each other without a gap."""
    ids, texts, errors, row = [], [], {}, None
    for batch in batches:
        assert row is None or batch.start == row
        row = batch.start + batch.num_rows
        for column in (batch.ids, batch.texts, batch.text_pairs, batch.input_ids, batch.labels):
            assert column is None or len(column) == batch.num_rows
        ids += [None] * batch.num_rows if batch.ids is None else batch.ids.to_pylist()
        texts += [None] * batch.num_rows if batch.texts is None else batch.texts.to_pylist()
        errors |= {batch.start + index: code for index, code in batch.errors.items()}
        if batch.texts is not None:
            nulls = np.flatnonzero(np.asarray(batch.texts.is_null())).tolist()
            assert sorted(batch.errors) == nulls
    return ids, texts, errors


def read_all(path, columns=None):
    """Ids, texts and errors of the source at a path."""
    columns = columns or Columns()
    source = one_source(path, columns)
    return collect(read_rows(source, columns, 0, source.num_rows))


@pytest.fixture(params=["local", "s3"])
def put(request, tmp_path):
    """A function that puts content at a name, on disk or in a bucket, and gives its URI."""
    root = str(tmp_path) if request.param == "local" else request.getfixturevalue("s3_url")

    def put(name, content):
        open_store(root).create(name, content)
        return f"{root}/{name}"

    return put


@pytest.mark.parametrize("name", CONTENTS)
def test_a_round_trip(put, name):
    """Each format gives back what was written, whole and by odd ranges, from disk and from a bucket."""
    source = one_source(put(name, CONTENTS[name]()))
    assert source.num_rows == NUM_ROWS
    assert source.splits[0] == 0
    expected = [record["id"] for record in RECORDS], [record["text"] for record in RECORDS], {}
    assert collect(read_rows(source, Columns(), 0, NUM_ROWS)) == expected
    for start, stop in [
        (0, 1),
        (1, 3),
        (1233, 1236),
        (4095, 4098),
        (5000, 9000),
        (NUM_ROWS - 1, NUM_ROWS),
        (7, 7),
    ]:
        ids, texts, _ = collect(read_rows(source, Columns(), start, stop, batch_rows=997))
        assert (ids, texts) == (expected[0][start:stop], expected[1][start:stop])


@pytest.mark.parametrize("name", CONTENTS)
def test_a_reader_goes_on_and_jumps(tmp_path, name):
    """One reader gives the right rows for ranges in order, backwards, and far apart."""
    (tmp_path / name).write_bytes(CONTENTS[name]())
    source = one_source(tmp_path / name)
    texts = [record["text"] for record in RECORDS]
    ranges = [(0, 100), (100, 5000), (5000, 5001), (9000, 9400), (10, 20), (20, 30), (8192, 9500), (0, 9500)]
    with RowReader(Columns()) as reader:
        for start, stop in ranges:
            assert collect(reader.read(source, start, stop, batch_rows=512))[1] == texts[start:stop]


def test_batches_are_bounded(tmp_path, monkeypatch):
    """No batch has more rows than asked for, and long texts make batches smaller, down to a row."""
    (tmp_path / "a.parquet").write_bytes(parquet(RECORDS))
    source = one_source(tmp_path / "a.parquet")
    assert max(batch.num_rows for batch in read_rows(source, Columns(), 0, NUM_ROWS, batch_rows=100)) == 100
    monkeypatch.setattr(reading, "BATCH_BYTES", 1_000_000)
    long = [{"text": str(number) * 100_000} for number in range(40)]
    for name, content in (("b.parquet", parquet(long)), ("b.jsonl", jsonl(long)), ("b.csv", as_csv(long))):
        (tmp_path / name).write_bytes(content)
        source = one_source(tmp_path / name)
        batches = list(read_rows(source, Columns(), 0, 40))
        assert collect(batches)[1] == [record["text"] for record in long]
        assert max(batch.num_rows for batch in batches) <= 10


@pytest.mark.parametrize("make", [parquet, jsonl, as_csv])
def test_a_text_of_ten_megabytes(tmp_path, make):
    """A text of 10 MB between small ones is read like these."""
    records = [{"text": "a"}, {"text": "ü x" * 2_500_000}, {"text": "b"}]
    name = {parquet: "a.parquet", jsonl: "a.jsonl", as_csv: "a.csv"}[make]
    (tmp_path / name).write_bytes(make(records))
    assert read_all(tmp_path / name)[1] == [record["text"] for record in records]


def test_a_saved_dataset(tmp_path):
    """A dataset saved by `datasets` is its data files, in order; cache files beside them are none."""
    datasets.disable_progress_bars()
    datasets.Dataset.from_list(RECORDS).save_to_disk(tmp_path / "saved", num_shards=3)
    (tmp_path / "saved" / "cache-1234.arrow").write_bytes(b"not a source")
    found = find_sources([str(tmp_path / "saved")], columns=Columns())
    assert [source.format for source in found] == ["arrow"] * 3
    texts = [
        text for source in found for text in collect(read_rows(source, Columns(), 0, source.num_rows))[1]
    ]
    assert texts == [record["text"] for record in RECORDS]


def test_a_folder_of_text_files(put):
    """Text files of a folder are one source: a row a file, the path its id; bad bytes are an error."""
    uri = put("books/b.txt", b"second")
    put("books/a/x.txt", b"first")
    put("books/c.txt", b"\xff\xfe")
    put("books/.hidden.txt", b"")
    put("books/d.txt", b"")
    folder = uri.rpartition("/")[0]
    columns = Columns()
    (source,) = find_sources([folder], columns=columns)
    assert (source.format, source.name, source.num_rows) == ("text", "books", 4)
    expected = ["a/x.txt", "b.txt", "c.txt", "d.txt"], ["first", "second", None, ""], {2: "not_utf8"}
    assert collect(read_rows(source, columns, 0, 4)) == expected
    assert collect(read_rows(source, columns, 1, 3, batch_rows=1))[0] == ["b.txt", "c.txt"]
    (globbed,) = find_sources([f"{folder}/*.txt"], columns=columns)
    assert collect(read_rows(globbed, columns, 0, 3))[0] == ["b.txt", "c.txt", "d.txt"]
    (single,) = find_sources([uri], columns=columns)
    assert collect(read_rows(single, columns, 0, 1))[:2] == (["b.txt"], ["second"])


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.binary(),
        pa.large_binary(),
        pa.dictionary(pa.int32(), pa.string()),
        pa.dictionary(pa.int8(), pa.large_string()),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_text_types(tmp_path, kind, name):
    """Every type that can hold text gives the same texts."""
    texts = ["one", "", None, "zwölf", "one"]
    table = pa.table({"text": pa.array(texts).cast(kind)})
    if name == "a.parquet":
        pq.write_table(table, tmp_path / name)
    else:
        with pa.ipc.new_file(str(tmp_path / name), table.schema) as writer:
            writer.write_table(table)
    assert read_all(tmp_path / name) == ([None] * 5, texts, {2: "null"})


def test_bad_text_in_parquet(tmp_path):
    """Null, non-UTF-8 and lone-surrogate texts get a code; empty and white-space texts are texts."""
    values = [b"good", None, b"\xff\xfe", b"", b"  \n", b"\xed\xa0\x80", "gut ü".encode()]
    content = pa.array(values, pa.binary())
    trusted = pa.StringArray.from_buffers(len(values), *content.buffers()[1:], content.buffers()[0])
    expected = ["good", None, None, "", "  \n", None, "gut ü"]
    for name, array in (("bytes", content), ("trusted", trusted)):
        pq.write_table(pa.table({"text": array}), tmp_path / f"{name}.parquet")
        _, texts, errors = read_all(tmp_path / f"{name}.parquet")
        assert texts == expected
        assert errors == {1: "null", 2: "not_utf8", 5: "not_utf8"}


def test_bad_lines_in_jsonl(tmp_path):
    """A line that is not an object, and a text that is none, keep their row and get a code; ids survive."""
    content = [
        b'{"id": "a", "text": "good"}',
        b'{"id": "b"}',
        b'{"id": "c", "text": null}',
        b'{"id": "d", "text": 5}',
        b'{"id": "e", "text": "\\ud800"}',
        b'{"id": "f", "text": "\xff"}',
        b'{"id": "g", "text": "cut',
        b"[1, 2]",
        b"[" * 100_000,
        b'{"id": "h", "text": "\\ud83d\\ude00"}',
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n\n".join(content) + b"\n\n")
    ids, texts, errors = read_all(tmp_path / "a.jsonl")
    assert ids == ["a", "b", "c", "d", "e", "f", None, None, None, "h"]
    assert texts == ["good", *[None] * 8, "😀"]
    assert list(errors.items()) == [
        (1, "null"),
        (2, "null"),
        (3, "not_text"),
        (4, "not_utf8"),
        (5, "not_utf8"),
        (6, "not_json"),
        (7, "not_json"),
        (8, "not_json"),
    ]


def test_bad_records_in_csv(tmp_path):
    """A record with another number of fields and a field that is not UTF-8 keep their row and get a code."""
    (tmp_path / "a.csv").write_bytes(b'id,text\n1,good\n2\n3,"a\nb"\n4,\xff\n5,too,many\n6,\n')
    ids, texts, errors = read_all(tmp_path / "a.csv")
    assert ids == [1, None, 3, 4, None, 6]
    assert texts == ["good", None, "a\nb", None, None, ""]
    assert errors == {1: "not_csv", 3: "not_utf8", 4: "not_csv"}


def test_files_from_windows(tmp_path):
    """A byte order mark and CRLF line ends change nothing."""
    (tmp_path / "a.csv").write_bytes(b'\xef\xbb\xbf"id",text\r\n1,"a\r\nb"\r\n\r\n2,b\r\n')
    assert read_all(tmp_path / "a.csv") == ([1, 2], ["a\r\nb", "b"], {})
    (tmp_path / "a.jsonl").write_bytes(
        b'\xef\xbb\xbf{"id": 1, "text": "a"}\r\n\r\n{"id": 2, "text": "b"}\r\n'
    )
    assert read_all(tmp_path / "a.jsonl") == ([1, 2], ["a", "b"], {})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"text\n" + b'"x\ny""z"\n' * 50),
        ("a.csv", b'text\n"' + b"long\n" * 200 + b'"\nshort\n'),
        ("a.jsonl", b'{"text": "x"}\n\n  \n' * 50 + b'{"text": "last"}'),
        ("a.csv", b'id,text\r1,a\r\r2,"b\rc"\r3,d'),
        ("a.csv", b'id,text\r\n1,a\r2,"b\r\nc"\n3,"d"\r\r\n\n4,e\r'),
        ("a.csv", b"id,text\r\n1,a\r\n2,b\r\n"),
        ("a.jsonl", b'{"text": "a"}\r{"text": "b"}\r\n{"text": "c"}\n\r{"text": "d"}'),
        ("a.jsonl", b"\n\n" + json.dumps({"text": "y" * 999}).encode() + b"\n"),
    ],
)
def test_records_across_reads(tmp_path, monkeypatch, name, content):
    """Records are the same however the file is cut into reads, in the scan and in the reader."""
    (tmp_path / name).write_bytes(content)
    expected = read_all(tmp_path / name)
    whole = lines.scan(str(tmp_path / name), name.rpartition(".")[2])
    for size in (1, 2, 3, 5, 7, 64):
        monkeypatch.setattr(lines, "SCAN_BYTES", size)
        monkeypatch.setattr(lines, "READ_BYTES", size)
        assert lines.scan(str(tmp_path / name), name.rpartition(".")[2]) == whole
        assert read_all(tmp_path / name) == expected


def test_nested_columns(tmp_path):
    """Dots reach into structs, a null struct is a null text, and a literal name with a dot wins."""
    docs = [{"text": "a"}, None, {"text": None}, {"text": "d"}]
    table = pa.table({"doc": docs, "meta.lang": ["w", "x", "y", "z"], "meta": [{"lang": "no"}] * 4})
    pq.write_table(table, tmp_path / "a.parquet")
    columns = Columns(text="doc.text")
    assert read_all(tmp_path / "a.parquet", columns)[1:] == (["a", None, None, "d"], {1: "null", 2: "null"})
    assert read_all(tmp_path / "a.parquet", Columns(text="meta.lang"))[1] == ["w", "x", "y", "z"]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in table.to_pylist()))
    assert read_all(tmp_path / "a.jsonl", columns)[1] == ["a", None, None, "d"]
    assert read_all(tmp_path / "a.jsonl", Columns(text="meta.lang"))[1] == ["w", "x", "y", "z"]


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.csv"])
def test_two_texts(tmp_path, name):
    """Pairs come as two columns; an error in either makes the row an error."""
    records = [{"q": "one", "text": "x"}, {"q": None, "text": "y"}, {"q": "three", "text": "z"}]
    make = {"a.parquet": parquet, "a.jsonl": jsonl, "a.csv": as_csv}[name]
    (tmp_path / name).write_bytes(make(records))
    columns = Columns(text="q", text_pair="text", label="text")
    source = one_source(tmp_path / name, columns)
    (batch,) = read_rows(source, columns, 0, 3)
    if name == "a.csv":
        assert batch.texts.to_pylist() == ["one", "", "three"]
        assert batch.text_pairs.to_pylist() == ["x", "y", "z"]
    else:
        assert batch.texts.to_pylist() == ["one", None, "three"]
        assert batch.text_pairs.to_pylist() == ["x", None, "z"]
        assert batch.errors == {1: "null"}
    assert batch.labels.to_pylist() == ["x", "y", "z"]


@pytest.mark.parametrize(
    "kind", [pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64()], ids=str
)
@pytest.mark.parametrize(
    "make", [pa.list_, pa.large_list, lambda kind: pa.list_(kind, 2)], ids=["l", "large", "fixed"]
)
def test_input_ids(tmp_path, kind, make):
    """Token ids of any integer and list type come as uint16 or int32; null lists get a code."""
    array = pa.array([[1, 2], None, [3, 100]], make(kind))
    with pa.ipc.new_file(str(tmp_path / "a.arrow"), pa.schema([("tokens", array.type)])) as writer:
        writer.write_batch(pa.record_batch([array], ["tokens"]))
    columns = Columns(input_ids="tokens")
    (batch,) = read_rows(one_source(tmp_path / "a.arrow", columns), columns, 0, 3)
    assert batch.texts is None
    assert batch.input_ids.type.value_type in {pa.uint16(), pa.int32()}
    assert batch.input_ids.to_pylist() == [[1, 2], None, [3, 100]]
    assert batch.errors == {1: "null"}


def test_input_ids_are_not_copied(tmp_path):
    """Token ids that are uint16 already point into the mapped file."""
    array = pa.array([[1, 2], [3]] * 1000, pa.list_(pa.uint16()))
    with pa.ipc.new_file(str(tmp_path / "a.arrow"), pa.schema([("input_ids", array.type)])) as writer:
        writer.write_batch(pa.record_batch([array], ["input_ids"]))
    before = pa.total_allocated_bytes()
    columns = Columns(input_ids="input_ids")
    source = one_source(tmp_path / "a.arrow", columns)
    batches = list(read_rows(source, columns, 0, 2000))
    assert pa.total_allocated_bytes() - before < 1000
    assert batches[0].input_ids[1].as_py() == [3]


def test_token_parts(tmp_path):
    """Of what `assay tokenize` writes, the truncation, the error codes and the second starts come along."""
    table = pa.table(
        {
            "id": [5, 6, 7],
            "input_ids": pa.array([[1, 2], [], [3]], pa.list_(pa.uint16())),
            "truncated": [True, False, False],
            "error": pa.array([None, "too_long", None], pa.string()),
            "second_start": pa.array([1, 0, 0], pa.int32()),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    columns = Columns(text=None, input_ids="input_ids")
    (batch,) = read_rows(one_source(tmp_path / "a.parquet", columns), columns, 0, 3)
    assert batch.errors == {1: "too_long"}
    assert batch.truncated.tolist() == [True, False, False]
    assert batch.second_starts.tolist() == [1, 0, 0]
    (part,) = read_rows(one_source(tmp_path / "a.parquet", columns), columns, 1, 2)
    assert part.errors == {0: "too_long"}
    assert part.truncated.tolist() == [False]


def test_input_ids_in_jsonl(tmp_path):
    """Lists of integers in JSON Lines are token ids; anything else names its row."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"ids": [1, 70000]}\n{"ids": null}\n{"ids": []}\n')
    columns = Columns(input_ids="ids")
    (batch,) = read_rows(one_source(path, columns), columns, 0, 3)
    assert batch.input_ids.to_pylist() == [[1, 70000], None, []]
    assert batch.errors == {1: "null"}
    path.write_text('{"ids": [1]}\n{"ids": [1, -2]}\n')
    with pytest.raises(SourceError, match="row 1: 'ids' is not a list of token ids"):
        list(read_rows(one_source(path, columns), columns, 0, 2))


def test_token_ids_that_do_not_fit(tmp_path):
    """A token id above int32, and a null among token ids, name the file."""
    columns = Columns(input_ids="ids")
    for values, message in (([[2**40]], "above"), ([[1, None]], "null")):
        pq.write_table(pa.table({"ids": values}), tmp_path / "a.parquet")
        with pytest.raises(SourceError, match=rf"a\.parquet.*{message}"):
            list(read_rows(one_source(tmp_path / "a.parquet", columns), columns, 0, 1))


@pytest.mark.parametrize(
    "ids",
    [
        pa.array([1, None, 3], pa.int32()),
        pa.array([2**63, None, 3], pa.uint64()),
        pa.array(["a", None, ""], pa.string()),
        pa.array(["a", None, ""]).cast(pa.large_string()),
        pa.array([b"0123456789abcdef", None, b"fedcba9876543210"], pa.binary(16)),
        pa.array([1.5, None, float("inf")], pa.float64()),
        pa.array([1, None, 3], pa.timestamp("ns")),
        pa.array([1, None, 3], pa.time64("ns")),
        pa.array([1, None, 3], pa.duration("s")),
        pa.array([1, None, 3], pa.timestamp("us", "UTC")),
        pa.array([1, None, 3], pa.date32()),
        pa.array([True, None, False]),
        pa.array(["1.23", None, "4.56"]).cast(pa.decimal128(10, 2)),
    ],
    ids=lambda array: str(array.type),
)
def test_typed_ids(tmp_path, ids):
    """Ids of any scalar type come through as they are typed, nulls included."""
    pq.write_table(pa.table({"key": ids, "text": ["a", "b", "c"]}), tmp_path / "a.parquet")
    columns = Columns(id="key")
    source = one_source(tmp_path / "a.parquet", columns)
    (batch,) = read_rows(source, columns, 0, 3)
    assert batch.ids.type == id_type(source, columns) == ids.type
    assert batch.ids.to_pylist() == ids.to_pylist()


@pytest.mark.parametrize(
    ("ids", "plain"),
    [
        (pa.array(["x", None, "x"]).dictionary_encode(), pa.string()),
        (pa.array(["x", None, "x"], pa.string_view()), pa.string()),
        (pa.array([b"x", None, b"x"], pa.binary_view()), pa.binary()),
        (pa.array([b"0123456789abcdef", None, b"fedcba9876543210"], pa.uuid()), pa.binary(16)),
        (
            pa.ExtensionArray.from_storage(
                pa.json_(pa.string_view()), pa.array(["1", None, "2"], pa.string_view())
            ),
            pa.string(),
        ),
        (pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, None, 0], pa.int8())), pa.int8()),
        (pa.array([1, None, 3], pa.timestamp("s", "UTC")), pa.timestamp("ms", "UTC")),
        (pa.array([1, None, 3], pa.time32("s")), pa.time32("ms")),
        (pa.array([86_400_000, None, 0], pa.date64()), pa.date32()),
        (pa.array([1, None, 3], pa.decimal32(5, 2)), pa.decimal128(5, 2)),
    ],
    ids=lambda value: str(getattr(value, "type", value)),
)
@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_ids_in_wrapped_types_become_plain(tmp_path, ids, plain, ending):
    """Ids in a dictionary, a view, an extension or a unit that Parquet lacks come as the values themselves."""
    table = pa.table({"key": ids, "text": ["a", "b", "c"]})
    if ending == "parquet":
        pq.write_table(table, tmp_path / "a.parquet")
    else:
        with pa.ipc.new_stream(str(tmp_path / "a.arrow"), table.schema) as stream:
            stream.write_table(table)
    columns = Columns(id="key")
    source = one_source(tmp_path / f"a.{ending}", columns)
    (batch,) = read_rows(source, columns, 0, 3)
    assert batch.ids.type == id_type(source, columns) == plain
    assert batch.ids.is_null().to_pylist() == [False, True, False]
    assert first_difference(batch.ids, ids) is None


def test_extension_texts_are_their_storage(tmp_path):
    """A text column of an extension type over strings is text."""
    texts = pa.ExtensionArray.from_storage(pa.json_(), pa.array(["a", None]))
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    (batch,) = read_rows(one_source(tmp_path / "a.parquet"), Columns(), 0, 2)
    assert batch.texts.to_pylist() == ["a", None]


def test_rows_are_counted_where_there_is_no_id(tmp_path):
    """Without an id column the ids are the rows of the source, int64."""
    pq.write_table(pa.table({"text": ["a", "b"]}), tmp_path / "a.parquet")
    source = one_source(tmp_path / "a.parquet")
    assert id_type(source, Columns()) == pa.int64()
    assert id_column(source, Columns()) is None
    assert next(read_rows(source, Columns(), 0, 2)).ids is None


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2, None], pa.int64()),
        ([1, 2.5], pa.float64()),
        ([True, False], pa.bool_()),
        (["a", "b"], pa.string()),
        ([2**70, 1], pa.string()),
        (["a", 1, True, None], pa.string()),
        ([None, None], pa.string()),
    ],
)
def test_types_of_json_ids(tmp_path, values, kind):
    """The first rows of a JSON Lines file type its ids; a mixture is strings, and no digit is lost."""
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"id": value, "text": ""}) for value in values))
    source = one_source(tmp_path / "a.jsonl")
    assert id_type(source, Columns()) == kind
    ids = read_all(tmp_path / "a.jsonl")[0]
    if kind == pa.string():
        assert ids == [
            value if value is None or isinstance(value, str) else json.dumps(value) for value in values
        ]
    else:
        assert ids == values


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "-20", ""], pa.int64()),
        (["007", "1"], pa.string()),
        (["1", "1.5"], pa.string()),
        (["", ""], pa.string()),
        (["99999999999999999999", "1"], pa.string()),
    ],
)
def test_types_of_csv_ids(tmp_path, values, kind):
    """CSV ids are integers only where each gives its characters back."""
    (tmp_path / "a.csv").write_text("id,text\n" + "".join(f"{value},t\n" for value in values))
    source = one_source(tmp_path / "a.csv")
    assert id_type(source, Columns()) == kind
    as_written = [int(value) if value else None for value in values] if kind == pa.int64() else values
    assert read_all(tmp_path / "a.csv")[0] == as_written


@pytest.mark.parametrize("late", ['"late"', "1.5", "true", "[1]", str(2**70)])
def test_a_late_json_id_that_does_not_fit(tmp_path, late):
    """An id of another type after the first rows names the file, the row and the value."""
    rows_ = [json.dumps({"id": number, "text": ""}) for number in range(1500)]
    (tmp_path / "a.jsonl").write_text("\n".join([*rows_, f'{{"id": {late}, "text": ""}}']))
    with pytest.raises(SourceError, match=r"a\.jsonl row 1500: 'id' is .*int64; "):
        read_all(tmp_path / "a.jsonl")


@pytest.mark.parametrize("late", ["late", "007", str(2**70), "0x1F"])
def test_a_late_csv_id_that_does_not_fit(tmp_path, late):
    """An id that is not an integer after the first rows names the file, the row and the value."""
    (tmp_path / "a.csv").write_text("id,text\n" + "".join(f"{number},t\n" for number in [*range(1500), late]))
    with pytest.raises(SourceError, match=rf"a\.csv row 1500: 'id' is '{late}'"):
        read_all(tmp_path / "a.csv")


def test_a_damaged_page(tmp_path):
    """A Parquet file whose pages are damaged is named when these are read."""
    content = bytearray(parquet(RECORDS, compression="snappy", write_page_checksum=True))
    content[20_000:20_100] = bytes(100)
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(SourceError, match=r"a\.parquet cannot be read .*corrupt or cut short"):
        read_all(tmp_path / "a.parquet", Columns())


def test_a_file_cut_after_the_plan(tmp_path):
    """A file that lost rows since it was planned is named, not read short."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(jsonl(RECORDS))
    source = one_source(path)
    path.write_bytes(jsonl(RECORDS[:5000]))
    with pytest.raises(SourceError, match=r"a\.jsonl ends at row 5000 of 9500"):
        list(read_rows(source, Columns(), 4000, NUM_ROWS))


def test_zero_rows(tmp_path):
    """A source without rows is a source, in every format."""
    empty = pa.schema([("text", pa.string())]).empty_table()
    pq.write_table(empty, tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_bytes(b"\n\n")
    (tmp_path / "c.csv").write_bytes(b"text\n")
    (tmp_path / "d.csv").write_bytes(b"")
    with pa.ipc.new_file(str(tmp_path / "e.arrow"), empty.schema):
        pass
    found = find_sources([str(tmp_path)], columns=Columns())
    assert [(source.name, source.num_rows, source.splits) for source in found] == [
        (name, 0, (0,)) for name in "abcde"
    ]
    assert [list(read_rows(source, Columns(), 0, 0)) for source in found] == [[]] * 5


def test_zero_row_row_groups(tmp_path):
    """Row groups without rows, anywhere in a file, change nothing."""
    schema = pa.schema([("text", pa.string())])
    some, none = pa.table({"text": ["a", "b"]}, schema=schema), schema.empty_table()
    with pq.ParquetWriter(tmp_path / "a.parquet", schema) as writer:
        for table in (none, some, none, none, some, none):
            writer.write_table(table)
    source = one_source(tmp_path / "a.parquet")
    assert source.splits == (0, 2)
    assert read_all(tmp_path / "a.parquet")[1] == ["a", "b", "a", "b"]
    assert collect(read_rows(source, Columns(), 1, 4))[1] == ["b", "a", "b"]


def test_a_file_of_one_bad_line(tmp_path):
    """A JSON Lines file whose only line is not an object is a row with an error, not a crash."""
    (tmp_path / "a.jsonl").write_text("nonsense\n")
    for columns in (Columns(), Columns(id="key")):
        assert read_all(tmp_path / "a.jsonl", columns) == ([None], [None], {0: "not_json"})


def test_objects_without_members(tmp_path):
    """Lines that are all `{}` are JSON Lines whose rows have no text."""
    (tmp_path / "a.jsonl").write_text("{}\n" * 3)
    assert read_all(tmp_path / "a.jsonl")[2] == dict.fromkeys(range(3), "null")


def test_ranges_beyond_the_source(tmp_path):
    """A range that the source does not have is refused."""
    (tmp_path / "a.jsonl").write_bytes(jsonl(RECORDS[:10]))
    with pytest.raises(SourceError, match="rows 5 to 11 asked for, it has 10"):
        list(read_rows(one_source(tmp_path / "a.jsonl"), Columns(), 5, 11))


def test_ids_alone(tmp_path):
    """A check may read ids and no texts."""
    for name, content in CONTENTS.items():
        (tmp_path / name).write_bytes(content())
        source = one_source(tmp_path / name)
        batches = list(read_rows(source, Columns(text=None), 100, 300))
        assert [value for batch in batches for value in batch.ids.to_pylist()] == [
            record["id"] for record in RECORDS[100:300]
        ]
        assert all(batch.texts is None for batch in batches)


def test_codes_are_frozen():
    """The codes are written into parts, so they do not change."""
    assert (rows.NULL, rows.NOT_TEXT, rows.NOT_UTF8) == ("null", "not_text", "not_utf8")
    assert (rows.NOT_JSON, rows.NOT_CSV) == ("not_json", "not_csv")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "mixed"])
@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_every_line_end(tmp_path, end, packing, kind):
    """Lines end in LF, CRLF or a CR alone, mixed as they may be: the same rows, from wherever reading starts."""
    ends = ["\n", "\r\n", "\r"] if end == "mixed" else [end]
    num_rows = 3 * lines.INDEX_ROWS + 5
    texts = [f'no {row},\r"é"\r\n\n' if row % 7 == 0 else f"text {row}" for row in range(num_rows)]
    records = ["id,text"] if kind == "csv" else []
    for row, text in enumerate(texts):
        quoted = '"' + text.replace('"', '""') + '"' if row % 7 == 0 else text
        records.append(f"{row},{quoted}" if kind == "csv" else json.dumps({"id": row, "text": text}))
    content = "".join(record + ends[number % len(ends)] for number, record in enumerate(records)).encode()
    path = tmp_path / f"a.{kind}{packing}"
    if packing == ".gz":
        content = gzip.compress(content)
    with pa.CompressedOutputStream(str(path), "zstd") if packing == ".zst" else path.open("wb") as stream:
        stream.write(content)
    assert read_all(path)[:2] == (list(range(num_rows)), texts)
    source = one_source(path)
    with RowReader(Columns()) as reader:
        for start in (2 * lines.INDEX_ROWS, lines.INDEX_ROWS - 1, num_rows - 1, 0):
            (batch,) = reader.read(source, start, min(start + 3, num_rows))
            assert batch.texts.to_pylist() == texts[start : start + 3]


def test_a_carriage_return_in_a_csv_field_without_quotes(tmp_path):
    """It ends the record, as a newline does, so that no row swallows the next."""
    (tmp_path / "a.csv").write_bytes(b"id,text\n1,a\rb\n2,c\n")
    source = one_source(tmp_path / "a.csv")
    (batch,) = read_rows(source, Columns(), 0, 3)
    assert (batch.ids.to_pylist()[::2], batch.errors) == ([1, 2], {1: "not_csv"})
