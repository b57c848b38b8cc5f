"""Finding and inspecting sources: what is found, what it is called, what is refused and how."""

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
import time
import zipfile

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assay.data.finding import find_sources, reinspect
from assay.data.formats import lines
from assay.data.formats.lines import INDEX_ROWS
from assay.data.reading import read_rows
from assay.data.sources import Columns, Source, id_column
from assay.data.storage import open_store
from assay.errors import RefusedError, SourceError, UsageError

ANY = Columns(text=None)


@pytest.fixture(params=["local", "s3"])
def root(request, tmp_path):
    """A folder or a bucket prefix, as text."""
    return str(tmp_path / "data") if request.param == "local" else request.getfixturevalue("s3_url")


def put(root, *names, content=b'{"text": "x"}\n'):
    """Files below a root, with the same content."""
    for name in names:
        assert open_store(root).create(name, content)


def parquet_bytes(table, **options):
    """A Parquet file in memory."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **options)
    return sink.getvalue().to_pybytes()


def names(patterns, **options):
    """The names of the sources that patterns find."""
    return [source.name for source in find_sources(patterns, columns=options.pop("columns", ANY), **options)]


def refusal(patterns, **options):
    """The one-line message with which patterns are refused."""
    with pytest.raises(SourceError) as caught:
        find_sources(patterns, columns=options.pop("columns", ANY), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_folders_and_globs(root):
    """A path, a folder and a glob find what they name, sorted, wherever the files lie."""
    put(
        root, "b.jsonl", "a.jsonl", "x/c.jsonl", "x/y/d.jsonl", ".hidden.jsonl", "_tmp/e.jsonl", "x/README.md"
    )
    assert names([f"{root}/b.jsonl", f"{root}/a.jsonl"]) == ["b", "a"]
    assert names([root]) == names([f"{root}/"]) == ["a", "b", "x__c", "x__y__d"]
    assert names([f"{root}/*.jsonl"]) == ["a", "b"]
    assert names([f"{root}/?.jsonl"]) == ["a", "b"]
    assert names([f"{root}/[!b].jsonl"]) == ["a"]
    assert names([f"{root}/**/*.jsonl"]) == ["_tmp__e", "a", "b", "x__c", "x__y__d"]
    assert names([f"{root}/x/**/*.jsonl"]) == ["c", "y__d"]
    assert names([f"{root}/*/*.jsonl"]) == ["_tmp__e", "x__c"]


def test_a_folder_mixes_tables_but_not_text(root):
    """A folder gives all its tables; text files count only where there is nothing else."""
    put(root, "a.jsonl", "note.txt", "sub/b.ndjson")
    put(root, "c.parquet", content=parquet_bytes(pa.table({"text": ["x"]})))
    assert names([root]) == ["a", "c", "sub__b"]
    assert names([root], format="parquet") == ["c"]
    assert names([root], format="text") == [root.rpartition("/")[2]]


def test_overlapping_patterns(root):
    """A file that a glob and another pattern reach is one source; typed twice it is refused."""
    put(root, "a.jsonl", "b.jsonl")
    assert names([f"{root}/*.jsonl", f"{root}/a*"]) == ["a", "b"]
    assert names([f"{root}/b.jsonl", root]) == ["b", "a"]
    message = refusal([f"{root}/a.jsonl", f"{root}/b.jsonl", f"{root}/a.jsonl"])
    assert message == f"{root}/a.jsonl is named twice; each row is scored once: name it once"


def test_two_spellings_of_one_file(tmp_path, monkeypatch):
    """The same file typed as a relative and an absolute path is the same file."""
    put(tmp_path, "a.jsonl")
    monkeypatch.chdir(tmp_path)
    assert "named twice" in refusal(["a.jsonl", f"{tmp_path}/./a.jsonl"])
    (source,) = find_sources(["a.jsonl"], columns=ANY)
    assert source.uri == f"{tmp_path}/a.jsonl"


def test_unique_names(tmp_path):
    """Names drop endings and shared folders, keep what tells files apart, and fit a file name."""
    put(
        tmp_path,
        "x/a.jsonl",
        "x/a.ndjson",
        "y/a.jsonl",
        "y/ü b?.jsonl",
        "y/ü b*.jsonl",
        f"z/{'n' * 240}.jsonl",
    )
    found = names([str(tmp_path)])
    assert found[:3] == ["x__a.jsonl", "x__a.ndjson", "y__a"]
    assert len(set(found)) == 6
    assert all(len(name.encode()) < 180 and "/" not in name and "?" not in name for name in found)


def test_a_name_with_glob_characters(tmp_path):
    """A file whose name looks like a glob is found by its name."""
    put(tmp_path, "a[1].jsonl", "a1.jsonl")
    (source,) = find_sources([f"{tmp_path}/a[1].jsonl"], columns=ANY)
    assert source.uri.endswith("a[1].jsonl")


def test_nothing_found(root):
    """A path, folder or glob that finds nothing is named."""
    put(root, "a.jsonl")
    assert f"{root}/b.jsonl" in refusal([f"{root}/b.jsonl"])
    assert f"{root}/*.csv" in refusal([f"{root}/*.csv"])
    assert "no sources in an empty list" in refusal([])
    put(root, "docs/README.md")
    assert "holds no file in a known format (parquet .parquet/.pq, jsonl" in refusal([f"{root}/docs"])


def test_unknown_formats(root):
    """A file in an unknown format is refused with the known ones; `format` overrides."""
    put(root, "a.data", "b.data", "c.jsonl")
    message = refusal([f"{root}/a.data"])
    assert message.startswith(
        f"{root}/a.data is not in a known format (parquet .parquet/.pq, jsonl .jsonl/.ndjson, csv"
    )
    assert message.endswith("set --format")
    assert "narrow the glob" in refusal([f"{root}/*"])
    assert names([f"{root}/*.data"], format="jsonl") == ["a.data", "b.data"]
    assert "use one of parquet, jsonl, csv, arrow, npy, text" in refusal([root], format="xml")


def test_text_files_want_a_glob_of_their_own(root):
    """A glob that matches text files and others says so; text sources of folders and globs are one each."""
    put(root, "a.txt", "b.txt", "c.jsonl")
    assert "give text files a glob of their own" in refusal([f"{root}/*"])
    (source,) = find_sources([f"{root}/*.txt"], columns=Columns())
    assert (source.num_rows, source.uri) == (2, f"{root}/*.txt")


MISSING = "has no column 'txt'; nearest: 'text'. Columns: id, text, doc.title. Set --text-column."


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.csv", "a.arrow"])
def test_a_missing_column(tmp_path, name):
    """A missing column is named with the nearest names and the option that sets it."""
    table = pa.table({"id": [1], "text": ["x"], "doc": [{"title": "t"}]})
    expected = MISSING
    if name == "a.csv":
        (tmp_path / name).write_text("id,text\n1,x\n")
        expected = MISSING.replace(", doc.title", "")
    elif name == "a.jsonl":
        (tmp_path / name).write_text(json.dumps(table.to_pylist()[0]))
    elif name == "a.arrow":
        with pa.ipc.new_stream(str(tmp_path / name), table.schema) as writer:
            writer.write_table(table)
    else:
        pq.write_table(table, tmp_path / name)
    assert refusal([f"{tmp_path}/{name}"], columns=Columns(text="txt")) == f"{tmp_path}/{name} {expected}"
    for columns, option in [
        (Columns(text_pair="second"), "--text-pair-column"),
        (Columns(id="key"), "--id-column"),
        (Columns(input_ids="tokens"), "--input-ids-column"),
        (Columns(label="class"), "--label-column"),
    ]:
        assert refusal([f"{tmp_path}/{name}"], columns=columns).endswith(f"Set {option}.")


def test_columns_of_a_wrong_type(tmp_path):
    """A column that cannot be what it is asked to be is named with its type and the option."""
    table = pa.table({"text": [1], "doc": [{"a": 1}], "words": [["x"]], "good": ["x"]})
    pq.write_table(table, tmp_path / "a.parquet")
    uri = f"{tmp_path}/a.parquet"
    message = refusal([uri], columns=Columns())
    assert (
        message == f"{uri}: column 'text' is int64; a text column holds strings: set --text-column to another"
    )
    assert "struct<a: int64>" in refusal([uri], columns=Columns(text="doc"))
    assert "an id is one value: set --id-column" in refusal([uri], columns=Columns(text="good", id="doc"))
    assert "token ids are a list of integers" in refusal([uri], columns=Columns(input_ids="words"))
    (tmp_path / "b.jsonl").write_text('{"text": 1}\n{"text": 2}\n')
    assert "column 'text' is int64" in refusal([f"{tmp_path}/b.jsonl"], columns=Columns())
    (tmp_path / "c.csv").write_text("text\n1\n2\n")
    assert names([f"{tmp_path}/c.csv"], columns=Columns()) == ["c"]


def test_the_id_column_is_found(tmp_path):
    """A column "id" is the id unless another is named; without one there is none."""
    pq.write_table(pa.table({"id": [1], "key": ["k"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"key": ["k"]}), tmp_path / "b.parquet")
    one, other = find_sources([str(tmp_path)], columns=ANY)
    assert id_column(one, ANY) == ("id",)
    assert id_column(one, Columns(text=None, id="key")) == ("key",)
    assert id_column(other, ANY) is None


def broken_files():
    """Name and content of files that are cut short or are not what their name says."""
    parquet = parquet_bytes(pa.table({"text": ["x" * 100] * 1000}))
    packed = gzip.compress(b'{"text": "some text"}\n' * 1000)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, pa.schema([("text", pa.string())])) as writer:
        writer.write_table(pa.table({"text": ["x"] * 100}))
    arrow = sink.getvalue().to_pybytes()
    yield "cut.parquet", parquet[:-10]
    yield "start.parquet", parquet[:100]
    yield "empty.parquet", b""
    yield "footer.parquet", parquet[:-60] + bytes(52) + parquet[-8:]
    yield "length.parquet", parquet[:-8] + b"\xff\xff\xff\x7fPAR1"
    yield "cut.jsonl.gz", packed[:-20]
    table = gzip.compress(b"id,text\n" + b"1,some text\n" * 1000)
    yield "cut.csv.gz", table[: len(table) // 2]
    yield "empty.jsonl.gz", b""
    yield "text.jsonl.gz", b'{"text": "plain"}\n'
    yield "cut.jsonl.zst", pa.compress(b'{"text": "some text"}\n' * 1000, "zstd", asbytes=True)[:-5]
    yield "empty.csv.zst", b""
    yield "cut.arrow", arrow[: len(arrow) // 2]


@pytest.mark.parametrize(
    ("name", "content"), list(broken_files()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_broken_files(root, name, content):
    """A corrupt or truncated file is named when the run is planned, beside good ones."""
    put(root, name, content=content)
    put(root, "good.jsonl")
    message = refusal([root])
    assert message.startswith(f"{root}/{name} cannot be read (")
    assert message.endswith("it is corrupt or cut short: write it again")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'id,text\n1,"open\n2,x\n', "is opened and never closed"),
        (b'id,text\n1,x\n2,5" wide\n3,"y"\n', "near line 3"),
        (b'id,text\n1,"x"y\n', "near line 2"),
        (b"id,text,text\n1,a,b\n", "names 'text' twice"),
        (b"id,t\xff\n1,a\n", "not UTF-8"),
    ],
)
def test_csv_that_cannot_be_read_for_sure(tmp_path, content, message):
    """Quotes that leave the rows in doubt, and headers that leave the columns in doubt, are refused."""
    (tmp_path / "a.csv").write_bytes(content)
    assert message in refusal([f"{tmp_path}/a.csv"])


def test_a_source_that_is_a_saved_dataset_without_its_files(tmp_path):
    """A saved dataset that lacks a file, or whose state is damaged, is refused."""
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict({"text": ["x"]}).save_to_disk(tmp_path / "saved")
    assert names([f"{tmp_path}/saved"]) == ["data-00000-of-00001"]
    (tmp_path / "saved/data-00000-of-00001.arrow").unlink()
    assert "is named in state.json and missing" in refusal([f"{tmp_path}/saved"])
    (tmp_path / "saved/state.json").write_text("{}")
    assert "is not a state.json of a saved dataset" in refusal([f"{tmp_path}/saved"])


def test_splits_and_offsets(tmp_path):
    """Ranges start cheaply at row groups, at indexed lines, and only at the top of a compressed file."""
    pq.write_table(pa.table({"text": ["x"] * 25}), tmp_path / "a.parquet", row_group_size=10)
    content = b'{"text": "xy"}\n' * (2 * INDEX_ROWS + 1)
    (tmp_path / "b.jsonl").write_bytes(content)
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(content))
    a, b, c = find_sources([str(tmp_path)], columns=Columns())
    assert a.splits == (0, 10, 20)
    assert b.splits == (0, INDEX_ROWS, 2 * INDEX_ROWS)
    assert c.splits == (0,)
    assert b.offsets == c.offsets == (0, 15 * INDEX_ROWS, 30 * INDEX_ROWS)
    assert b.bytes_per_row == c.bytes_per_row == 15
    assert b.fingerprint == c.fingerprint


def test_a_copy_has_the_same_fingerprint(root, tmp_path):
    """The fingerprint is of the content: a copy elsewhere has it, other content has not."""
    table = pa.table({"text": ["x", "y"]})
    put(root, "a.parquet", content=parquet_bytes(table))
    put(tmp_path, "b.parquet", content=parquet_bytes(table))
    put(tmp_path, "c.parquet", content=parquet_bytes(table.slice(1)))
    one, copy, other = find_sources(
        [root + "/a.parquet", *map(str, sorted(tmp_path.glob("*.parquet")))], columns=ANY
    )
    assert one.fingerprint == copy.fingerprint != other.fingerprint


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.parquet", "a.txt"])
def test_reinspect(root, name):
    """An unchanged source passes, a rewritten one with the same content too; changed or gone is refused."""
    contents = [b'{"text": "x"}\n', b'{"text": "y"}\n']
    if name.endswith(".gz"):
        contents = [gzip.compress(content, mtime=0) for content in contents]
    if name.endswith(".parquet"):
        contents = [parquet_bytes(pa.table({"text": [text]})) for text in "xy"]
    put(root, name, content=contents[0])
    (source,) = find_sources([f"{root}/{name}"], columns=Columns())
    reinspect(source)
    time.sleep(0.01)
    open_store(root).replace(name, contents[0])
    reinspect(source)
    open_store(root).replace(name, contents[1])
    with pytest.raises(RefusedError, match=r"changed since the run began .*; put it back"):
        reinspect(source)
    open_store(root).replace(name, contents[1][:5])
    with pytest.raises(RefusedError, match="changed since the run began"):
        reinspect(source)
    open_store(root).delete(name)
    with pytest.raises(RefusedError, match=r"is gone since the run began; put it back"):
        reinspect(source)


def test_a_source_holds_no_footer(tmp_path):
    """A source keeps numbers and one shared schema, so that ten thousand of them stay small."""
    table = pa.table({f"column{index}": ["x"] for index in range(50)} | {"text": ["x"]})
    for number in range(20):
        pq.write_table(table, tmp_path / f"{number:02}.parquet")
    found = find_sources([str(tmp_path)], columns=Columns())
    assert len({id(source.schema) for source in found}) == 1
    assert {type(getattr(found[0], field)) for field in Source.__slots__} <= {
        str,
        int,
        float,
        tuple,
        pa.Schema,
        type(None),
    }


def test_inspecting_many_footers_is_fast(tmp_path, monkeypatch):
    """A thousand Parquet sources are inspected in well under three seconds, reading their ends alone."""
    content = parquet_bytes(pa.table({"id": range(1000), "text": ["some text"] * 1000}), row_group_size=100)
    for number in range(1000):
        (tmp_path / f"{number:04}.parquet").write_bytes(content)
    monkeypatch.setattr(lines, "scan", None)
    begin = time.process_time()
    found = find_sources([f"{tmp_path}/*.parquet"], columns=Columns())
    assert time.process_time() - begin < 3
    assert sum(source.num_rows for source in found) == 1_000_000


def test_a_large_footer_is_read_whole(root):
    """A footer larger than the first read is fetched in a second one."""
    table = pa.table({f"a_long_name_for_a_column_{index}": [1] for index in range(2000)} | {"text": ["x"]})
    put(root, "a.parquet", content=parquet_bytes(table))
    (source,) = find_sources([f"{root}/a.parquet"], columns=Columns())
    assert (source.num_rows, len(source.schema)) == (1, 2001)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    """A file without read permission is one line with a way out."""
    put(tmp_path, "a.jsonl")
    opener = pa.OSFile

    def refuse(path, *args):
        if str(path).endswith("a.jsonl"):
            raise PermissionError(13, os.strerror(13), path)
        return opener(path, *args)

    monkeypatch.setattr(pa, "OSFile", refuse)
    assert "Permission denied" in refusal([f"{tmp_path}/a.jsonl"])


# ------------------------------------------------------------ what a file is


def zstd(content):
    """The content as a zstd frame."""
    packed = pa.BufferOutputStream()
    with pa.CompressedOutputStream(packed, "zstd") as stream:
        stream.write(content)
    return packed.getvalue().to_pybytes()


ROWS = b'{"id": 1, "text": "a"}\n{"id": 2, "text": "b"}\n'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", gzip.compress(ROWS, mtime=0)),
        ("a.jsonl", zstd(ROWS)),
        ("a.csv", gzip.compress(b"id,text\n1,a\n2,b\n", mtime=0)),
        ("a.jsonl.zst", gzip.compress(ROWS, mtime=0)),
        ("a.jsonl", ROWS.decode().encode("utf-16")),
        ("a.csv", "id,text\r\n1,a\r\n2,b\r\n".encode("utf-16")),
        ("a.csv", b"\xfe\xff" + "id,text\n1,a\n2,b".encode("utf-16-be")),
        ("a.csv", "id,text\n1,a\n2,b".encode("utf-32")),
        ("a.csv.gz", gzip.compress("id,text\n1,a\n2,b".encode("utf-16"), mtime=0)),
        ("a.csv", b"ORC,id,text,PAR1\n0,1,a,0\n0,2,b,0\n"),
    ],
    ids=range(10),
)
def test_files_are_read_by_their_first_bytes(tmp_path, name, content):
    """Compressed text and UTF-16 with its mark are read whatever the name; a column called ORC misleads nobody."""
    (tmp_path / name).write_bytes(content)
    (source,) = find_sources([str(tmp_path / name)], columns=Columns())
    (rows,) = read_rows(source, Columns(), 0, source.num_rows)
    assert (rows.ids.to_pylist(), rows.texts.to_pylist()) == ([1, 2], ["a", "b"])
    (rows,) = read_rows(source, Columns(), 1, 2)
    assert rows.texts.to_pylist() == ["b"]


def other_files():
    """Content that is not text in lines, by what the refusal calls it."""
    table = pa.table({"text": ["a"], "id": [1]})
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    file = pa.BufferOutputStream()
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.jsonl", ROWS)
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.jsonl"))
    return {
        "Parquet": parquet_bytes(table),
        "Arrow": stream.getvalue().to_pybytes(),
        "Arrow ": file.getvalue().to_pybytes(),
        "zip": packed.getvalue(),
        "tar": tar.getvalue(),
        "bzip2": bz2.compress(ROWS),
        "xz": lzma.compress(ROWS),
        "UTF-16 without": ROWS.decode().encode("utf-16-le"),
        "gzip inside gzip": gzip.compress(gzip.compress(ROWS)),
    }


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.ndjson", "a.log"])
@pytest.mark.parametrize("what", other_files())
def test_files_that_are_not_text_are_refused(tmp_path, name, what):
    """What a file is by its first bytes stands in the refusal, whether its name or --format said otherwise."""
    (tmp_path / name).write_bytes(other_files()[what])
    format_ = "jsonl" if name.endswith("log") else None
    assert what.strip() in refusal([str(tmp_path / name)], columns=Columns(), format=format_)


@pytest.mark.parametrize(
    "content",
    [
        b'[{"id": 1, "text": "a"}, {"id": 2, "text": "b"}]',
        b'  [\n  {"id": 1, "text": "a"},\n  {"id": 2, "text": "b"}\n]\n',
        b'[{"id": 1,\n"text": "a"},\n{"id": 2, "text": "b"}]',
        b'[\n{"id": 1, "text": "a"}\n,\n{"id": 2, "text": "b"}\n]',
        b"\xef\xbb\xbf[\r\n1,\r\n2\r\n]",
        b'["a", "b"]\n["c", "d"]\n',
        b'{\n  "id": 1,\n  "text": "a"\n}\n',
        b'{"rows": [\n{"id": 1, \n"text": "a"}\n]}',
        gzip.compress(b'[{"id": 1, "text": "a"}]'),
    ],
    ids=range(9),
)
def test_json_that_is_not_lines_is_refused(tmp_path, content):
    """One array or object over many lines, and lines of arrays, are named for what they are."""
    (tmp_path / "a.jsonl").write_bytes(content)
    assert "is JSON, but not JSON Lines" in refusal([str(tmp_path / "a.jsonl")], columns=Columns())


@pytest.mark.parametrize(
    "content",
    [
        b"id,text\n1,a\n",
        b"<!DOCTYPE html>\n<html>404</html>\n",
        b'<?xml version="1.0"?>\r<a/>\r',
        b"%PDF-1.4\n%\xe2\xe3\n",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
        b"{'text': 'a'}\n{'text': 'b'}\n",
        b'"a"\n"b"\n',
        b"null\nnull\n",
    ],
    ids=range(8),
)
def test_lines_none_of_which_is_an_object_are_refused(tmp_path, content):
    """A file of another kind named .jsonl is refused with its first words, not scored as rows of errors alone."""
    (tmp_path / "a.jsonl").write_bytes(content)
    told = refusal([str(tmp_path / "a.jsonl")], columns=Columns())
    assert "none of its first" in told
    assert repr(content.splitlines()[0][:4].decode())[1:-1] in told


@pytest.mark.parametrize(
    "first", [b"[2024-01-01] log\n", b'["a"]\n', b'{"id": 1, "te\n', b"oops\n", b'{"id":\n']
)
def test_a_bad_first_line_is_a_bad_row(tmp_path, first):
    """A first line that is not an object does not make JSON Lines something else: it is one bad row."""
    (tmp_path / "a.jsonl").write_bytes(first + ROWS)
    (source,) = find_sources([str(tmp_path / "a.jsonl")], columns=Columns())
    (rows,) = read_rows(source, Columns(), 0, 3)
    assert rows.errors == {0: "not_json"}


@pytest.mark.parametrize(
    ("header", "delimiter", "missing", "hint"),
    [
        (b"id|text", None, ",", " '|'"),
        (b"id:text", None, ",", " ':'"),
        (b"id^text", ",", ",", " '^'"),
        (b"id;text", "\t", "\t", " ';'"),
        (b"id,text", "|", "|", " ','"),
        (b"id\ttext", ",", ",", " tab"),
        (b"id|my:column|text", ":", ":", " '|'"),
        (b'"id text"', None, ",", ""),
    ],
)
def test_a_header_of_one_field_points_at_the_delimiter(tmp_path, header, delimiter, missing, hint):
    """Where a CSV header has not the column asked for, and with another delimiter has, that one is named."""
    (tmp_path / "a.csv").write_bytes(header + b"\n1|a\n")
    told = refusal([str(tmp_path / "a.csv")], columns=Columns(), delimiter=delimiter)
    assert f"Set --text-column, or --delimiter{hint}: no {missing!r} parts its header." in told


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", b'id|text\n1|"a, b"\n', "no ',' parts its header 'id|text'; set --delimiter '|'"),
        ("a.csv", b'"id"|"text"\n1|"a, b"\n', "set --delimiter '|'"),
        ("a.tsv", b'id,text\n1,"a, b"\n', "no '\\t' parts its header 'id,text'; set --delimiter ','"),
        ("a.csv", b'my text\n1,"a" b\n', "quote the field"),
    ],
)
def test_quotes_under_another_delimiter(tmp_path, name, content, told):
    """What is wrong is the delimiter, not the quotes; where no other parts the header, it is the quotes."""
    (tmp_path / name).write_bytes(content)
    assert told in refusal([str(tmp_path / name)], columns=Columns())


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", b'[{"id": 1, "text": "a"}]', "begins like JSON, not like CSV; write one object a line"),
        ("a.csv", b'\xef\xbb\xbf\n [\n  {"id": 1}]', "JSON, not like CSV; write one object a line"),
        ("a.csv", b'{\n  "id": 1}', "JSON, not like CSV; write one object a line"),
        ("a.tsv", b'{"id": 1, "text": "a"}\n', "JSON, not like CSV; set --format jsonl, or rename it"),
        ("a.csv", gzip.compress(b'["a", "b"]'), "JSON, not like CSV"),
        ("a.csv", '[{"id": 1}]'.encode("utf-16"), "JSON, not like CSV"),
        ("a.csv", b"<!doctype html><p>", "HTML or XML, not like CSV; write the table"),
        ("a.csv", b"PAR1\x15", "those of Parquet, not of text in lines; set --format parquet"),
        ("a.csv", b"ARROW1\x00\x00", "those of Arrow, not of text in lines; set --format arrow"),
        ("a.parquet", b'[{"id": 1, "text": "a"}]', "those of JSON, not of Parquet; write one object"),
        (
            "a.parquet",
            b"id,text\n1,Z\xc3\xbcrich\n",
            "those of text, not of Parquet; set --format csv or jsonl",
        ),
        ("a.arrow", b"PAR1\x15", "those of Parquet, not of Arrow; set --format parquet"),
        ("a.parquet", b"PAR1\x15", "corrupt or cut short"),
        ("a.parquet", b"", "corrupt or cut short"),
        ("a.arrow", b"not arrow at all", "those of text, not of Arrow"),
    ],
)
def test_a_file_that_is_not_what_its_name_says(tmp_path, name, content, told):
    """It is refused with what it is, and with what to do."""
    (tmp_path / name).write_bytes(content)
    assert told in refusal([str(tmp_path / name)], columns=Columns())


def test_a_name_that_says_compressed_over_plain_bytes(tmp_path):
    """A `.gz` whose first bytes are not gzip's is corrupt, not text."""
    (tmp_path / "a.csv.gz").write_bytes(b"id,text\n1,a\n")
    assert "first bytes are not those of gzip" in refusal([str(tmp_path / "a.csv.gz")], columns=Columns())


# ------------------------------------------------------------ columns of one name


def twice(*names):
    """A table with columns of these names; those called "s" are structs that have a field twice."""
    pair = pa.StructArray.from_arrays([pa.array(["u", "v"]), pa.array(["w", "x"])], names=["f", "f"])
    columns = [pair if name == "s" else pa.array([1, 2] if name == "id" else ["a", "b"]) for name in names]
    return pa.Table.from_arrays(columns, names=list(names))


def write_as(table, path):
    """The table as a Parquet file or an Arrow stream, by the ending."""
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_stream(str(path), table.schema) as stream:
            stream.write_table(table)
    return str(path)


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
@pytest.mark.parametrize(
    ("names", "columns", "shown"),
    [
        (("text", "id", "text"), Columns(), "'text'"),
        (("text", "id", "id"), Columns(), "'id'"),
        (("text", "key", "key"), Columns(id="key"), "'key'"),
        (("text", "s"), Columns(text="s.f"), "'s.f'"),
        (("s", "s", "text"), Columns(text="s.f"), "'s'"),
        (("text", "l", "l"), Columns(label="l"), "'l'"),
        (("text", "g", "g"), Columns(group="g"), "'g'"),
    ],
)
def test_a_column_that_is_there_twice_is_refused(tmp_path, ending, names, columns, shown):
    """A column to be read that two columns could be is refused by its name."""
    uri = write_as(twice(*names), tmp_path / f"a.{ending}")
    assert f"has 2 columns named {shown}" in refusal([uri], columns=columns)


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_columns_that_are_not_read_may_have_one_name(tmp_path, ending):
    """Columns of equal names that nobody reads hurt nobody."""
    uri = write_as(twice("x", "text", "s", "id", "x", "s"), tmp_path / f"a.{ending}")
    (source,) = find_sources([uri], columns=Columns())
    (rows,) = read_rows(source, Columns(), 0, 2)
    assert (rows.ids.to_pylist(), rows.texts.to_pylist()) == ([1, 2], ["a", "b"])


# ------------------------------------------------------------ delimiters


@pytest.mark.parametrize(
    ("name", "delimiter", "content"),
    [
        ("a.tsv", None, b'id\ttext\n1\ta, b\n2\t"c\td"\n'),
        ("a.tsv.gz", None, gzip.compress(b'id\ttext\n1\ta, b\n2\t"c\td"\n', mtime=0)),
        ("a.csv", None, b'id\ttext\n1\ta, b\n2\t"c\td"\n'),
        ("a.csv", None, b'id;text\n1;a, b\n2;"c\td"\n'),
        ("a.csv", None, b'id,text,"x;y;z"\n1,"a, b",0\n2,"c\td",0\n'),
        ("a.csv", "|", b"id|text\n1|a, b\n2|c\td\n"),
        ("a.csv", "|", b'id|text\r1|"a, b"\r2|"c\td"\r'),
        ("a.tsv", ",", b'id,text\n1,"a, b"\n2,c\td\n'),
        ("a.csv", "\\t", b'id\ttext\n1\ta, b\n2\t"c\td"\n'),
    ],
)
def test_delimiters(tmp_path, name, delimiter, content):
    """A tab in `.tsv`, what the header has most of in `.csv`, and whatever the user says before either."""
    (tmp_path / name).write_bytes(content)
    (source,) = find_sources([str(tmp_path / name)], columns=Columns(), delimiter=delimiter)
    (rows,) = read_rows(source, Columns(), 0, 2)
    assert (rows.ids.to_pylist(), rows.texts.to_pylist()) == ([1, 2], ["a, b", "c\td"])
    os.utime(tmp_path / name, (1, 1))
    reinspect(source)


@pytest.mark.parametrize("delimiter", ["", ",,", "a", "7", '"', "\n", "\r", "é", "\0"])
def test_what_cannot_be_a_delimiter(tmp_path, delimiter):
    """A delimiter is one ASCII character that ends no line and no quoted field."""
    put(str(tmp_path), "a.csv", content=b"text\nx\n")
    with pytest.raises(UsageError, match="--delimiter is"):
        find_sources([f"{tmp_path}/a.csv"], columns=Columns(), delimiter=delimiter)


def test_a_delimiter_without_csv(tmp_path):
    """A delimiter for sources that have none is refused."""
    put(str(tmp_path), "a.jsonl")
    assert "no source is CSV" in refusal([f"{tmp_path}/a.jsonl"], columns=Columns(), delimiter=";")
