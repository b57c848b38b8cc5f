"""Merging: every source back with its scores, nothing else changed, no score on a wrong row."""

import csv
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from support.bundles import write_bundle
from support.records import score_identity, score_record

from assay.data import grafting
from assay.data.finding import find_sources
from assay.data.scratch import SUFFIX, scratch_file, sweep_scratch
from assay.data.sources import Columns
from assay.data.storage import open_store
from assay.errors import CheckError, InputError, RefusedError, UsageError
from assay.runs.cut import cut_evenly, id_field
from assay.runs.manifest import encode_schema, new_manifest
from assay.runs.pipeline import run_unit
from assay.runs.placement import place_workers
from assay.runs.run import create_or_join, part_path
from assay.score.kind import SCORE
from assay.score.merge.merge import merge
from assay.score.merge.outputs import MERGE_PATH, plan_outputs
from assay.score.plan import plan_score
from assay.score.settings import ScoreSettings
from assay.tokenize.plan import plan_tokenize
from assay.tokenize.settings import TokenizeSettings
from assay.tokenize.worker import open_tokenize_work

SCORES = ("num_tokens", "truncated", "error", "prediction", "probability")
LABELS = ["good", "bad, very", 'so "so"', "zażółć"]


def scores_of(rows):
    """The score columns of these rows of a source; every seventh row has an error."""
    bad = np.asarray(rows) % 7 == 6
    return {
        "num_tokens": pa.array(rows, pa.int32()),
        "truncated": pa.array([row % 2 == 0 for row in rows], pa.bool_()),
        "error": pa.array(["null" if is_bad else None for is_bad in bad], pa.string()),
        "prediction": pa.array([LABELS[row % 4] for row in rows], pa.string(), mask=bad),
        "probability": pa.array([row / 3 for row in rows], pa.float32(), mask=bad),
    }


def make_run(url, patterns, *, columns=None, unit_rows=30, limit=None, publish=True):
    """A run over `patterns` with every part published, scores made of the row number."""
    columns = columns or Columns()
    sources = find_sources([str(pattern) for pattern in patterns], columns=columns)
    fields = [pa.field(name, kind.type) for name, kind in scores_of([0]).items()]
    schema = pa.schema([id_field(sources, columns), *fields])
    manifest = new_manifest(
        kind=SCORE,
        assay_version="0",
        identity=score_identity(),
        settings=score_record(),
        columns=columns,
        sources=sources,
        boundaries=cut_evenly(sources, unit_rows, limit),
        part_schema=schema,
    )
    run, _ = create_or_join(str(url), manifest)
    if publish:
        publish_all(run)
    return run


def publish_all(run, change=lambda unit, ids: ids, first_row=lambda unit: 0):
    """Publish each unit's part; `change` may put other ids into it, scores count rows from `first_row`."""
    from assay.data.reading import read_rows

    schema = run.manifest.arrow_schema()
    for unit in run.manifest.units():
        if run.is_published(unit):
            continue
        rows = list(range(unit.start, unit.stop))
        ids = []
        source = run.manifest.source(unit.source)
        for batch in read_rows(source, run.manifest.source_columns(), unit.start, unit.stop):
            numbers = range(batch.start, batch.start + batch.num_rows)
            ids += batch.ids.to_pylist() if batch.ids is not None else list(numbers)
        scores = scores_of([first_row(unit) + row for row in rows])
        arrays = [pa.array(change(unit, ids), schema.field(0).type), *scores.values()]
        run.publish(
            unit,
            [pa.RecordBatch.from_arrays(arrays, schema=schema)] if rows else [],
            rows_in=lambda unit=unit: unit.num_rows,
        )


def write_row_groups(path, table, sizes, **options):
    """A Parquet file of `table` with row groups of these sizes."""
    with pq.ParquetWriter(path, table.schema, **options) as writer:
        start = 0
        for size in sizes:
            writer.write_table(table.slice(start, size), row_group_size=max(size, 1))
            start += size
    assert start == table.num_rows


def row_groups(path):
    """Rows of each row group of a file."""
    metadata = pq.read_metadata(path)
    return [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]


def rich_table(num_rows, prefix="doc"):
    """A table with a column of each troublesome type."""
    numbers = range(num_rows)
    columns = {
        "id": pa.array([f"{prefix}-{number}" for number in numbers], pa.string_view()),
        "text": pa.array(
            [None if number % 5 == 4 else f"text {number}" for number in numbers], pa.large_string()
        ),
        "kind": pa.array([f"k{number % 3}" for number in numbers]).dictionary_encode(),
        "small": pa.array([number % 200 for number in numbers], pa.uint8()),
        "price": pa.array([Decimal(number) / 100 for number in numbers], pa.decimal128(12, 2)),
        "at": pa.array(list(numbers), pa.timestamp("ns", "Europe/Warsaw")),
        "day": pa.array(list(numbers), pa.date32()),
        "raw": pa.array([bytes([number % 256, 0, 255]) for number in numbers], pa.binary(3)),
        "list": pa.array([[number] * (number % 3) for number in numbers], pa.large_list(pa.int16())),
        "meta": pa.array([{"url": f"u{number}", "tags": [{"t": number}]} for number in numbers]),
        "nothing": pa.nulls(num_rows),
        "half": pa.array(np.arange(num_rows, dtype=np.float16)),
    }
    table = pa.table(columns)
    field = table.schema.field("small").with_metadata({"unit": "pieces"})
    table = table.set_column(3, field, table.column("small"))
    return table.replace_schema_metadata({"origin": "a test", "huggingface": "{}"})


def assert_merged(merged, original, *, start=0):
    """`merged` is `original`, column by column, with the scores of its rows behind."""
    assert merged.schema.names == [*original.schema.names, *SCORES]
    for index, field in enumerate(original.schema):
        assert merged.schema.field(index).equals(field, check_metadata=True)
    # NaN-free by construction, so equality of tables is equality of rows.
    assert merged.select(original.schema.names).equals(original)
    rows = list(range(start, start + merged.num_rows))
    assert merged.select(list(SCORES)).combine_chunks().equals(pa.table(scores_of(rows)))


# ------------------------------------------------------------ Parquet


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zstd", "data_page_version": "2.0", "write_page_index": True},
        {"compression": "none", "use_dictionary": False, "write_page_checksum": True},
        {"compression": "gzip", "version": "1.0", "write_statistics": False},
    ],
)
def test_parquet_keeps_everything(tmp_path, options):
    """Columns, types, metadata, row order and row groups (an empty one too) are those of the source."""
    original = rich_table(100)
    if options.get("version") == "1.0":
        original = original.drop_columns(["at"])
    write_row_groups(tmp_path / "a.parquet", original, [40, 0, 7, 53], **options)
    original = pq.read_table(tmp_path / "a.parquet")
    run = make_run(tmp_path / "run", [tmp_path / "a.parquet"])
    report = merge(run.url, str(tmp_path / "out"))
    path = tmp_path / "out" / "a.parquet"
    assert_merged(pq.read_table(path), original)
    assert row_groups(path) == [40, 0, 7, 53]
    metadata = pq.read_schema(path).metadata
    assert metadata[b"origin"] == b"a test"
    assert metadata[b"assay.run_id"] == run.manifest.run_id.encode()
    assert metadata[b"assay.num_rows"] == b"100"
    assert pq.read_metadata(path).metadata[b"assay.run_id"] == run.manifest.run_id.encode()
    assert (report.files_written, report.files_skipped, report.rows, report.ids_checked) == (1, 0, 100, 100)
    assert (pq.read_metadata(path).row_group(0).column(1).compression) == (
        options.get("compression", "snappy").upper().replace("NONE", "UNCOMPRESSED")
    )


def test_parquet_data_is_kept_to_the_byte(tmp_path):
    """All of the source up to its footer is in the output, in place: pages are not written again."""
    write_row_groups(tmp_path / "a.parquet", rich_table(50), [50], compression="zstd")
    run = make_run(tmp_path / "run", [tmp_path / "a.parquet"])
    merge(run.url, str(tmp_path / "out"))
    source = (tmp_path / "a.parquet").read_bytes()
    footer = len(source) - 8 - int.from_bytes(source[-8:-4], "little")
    assert (tmp_path / "out" / "a.parquet").read_bytes()[:footer] == source[:footer]


def test_other_readers_open_a_merged_file(tmp_path):
    """DuckDB and Polars read the merged file, filters on old and new columns included."""
    duckdb, polars = pytest.importorskip("duckdb"), pytest.importorskip("polars")
    table = pa.table({"id": [f"d{number}" for number in range(1000)], "text": ["t"] * 1000, "n": range(1000)})
    write_row_groups(tmp_path / "a.parquet", table, [300, 700], write_page_index=True)
    make_run(tmp_path / "run", [tmp_path / "a.parquet"], unit_rows=400)
    merge(str(tmp_path / "run"), str(tmp_path / "out"))
    path = f"{tmp_path}/out/a.parquet"
    found = duckdb.read_parquet(path).filter("num_tokens >= 500 AND n < 800").aggregate("count(*), sum(n)")
    assert found.fetchall() == [(300, sum(range(500, 800)))]
    frame = polars.scan_parquet(path).filter(polars.col("num_tokens") >= 990).collect()
    assert frame["id"].to_list() == [f"d{number}" for number in range(990, 1000)]
    assert frame["prediction"].null_count() == sum(number % 7 == 6 for number in range(990, 1000))


@pytest.mark.parametrize("writer", ["duckdb", "polars"])
def test_files_of_other_writers(tmp_path, writer):
    """Files that DuckDB and Polars wrote get their scores too, and are theirs to read again."""
    library = pytest.importorskip(writer)
    path, out = str(tmp_path / "a.parquet"), str(tmp_path / "out" / "a.parquet")
    table = pa.table(
        {"id": [f"d{number}" for number in range(5000)], "text": ["zażółć"] * 5000, "l": [[1, 2]] * 5000}
    )
    if writer == "duckdb":
        library.from_arrow(table).write_parquet(path, row_group_size=2048)
    else:
        library.from_arrow(table).write_parquet(path, row_group_size=1000)
    make_run(tmp_path / "run", [path], unit_rows=700)
    merge(str(tmp_path / "run"), str(tmp_path / "out"))
    assert_merged(pq.read_table(out), pq.read_table(path))
    assert row_groups(out) == row_groups(path)
    frame = library.read_parquet(out)
    names = frame.columns
    assert names == ["id", "text", "l", *SCORES]


def test_parquet_without_an_arrow_schema(tmp_path):
    """A file of another writer, with no Arrow schema in its footer, gets plain columns."""
    table = pa.table({"id": pa.array(range(10), pa.int64()), "text": ["t"] * 10})
    write_row_groups(tmp_path / "a.parquet", table, [10], store_schema=False)
    make_run(tmp_path / "run", [tmp_path / "a.parquet"])
    merge(str(tmp_path / "run"), str(tmp_path / "out"))
    assert_merged(pq.read_table(tmp_path / "out" / "a.parquet"), table)


def test_nested_id_and_no_id(tmp_path):
    """Ids below a struct are checked; where there are none, positions are."""
    table = rich_table(20).drop_columns(["id"])
    write_row_groups(tmp_path / "a.parquet", table, [20])
    for name, columns in (("nested", Columns(id="meta.url")), ("counted", Columns())):
        make_run(tmp_path / name, [tmp_path / "a.parquet"], columns=columns)
        report = merge(str(tmp_path / name), str(tmp_path / f"{name}-out"))
        assert report.ids_checked == 20
        assert_merged(
            pq.read_table(tmp_path / f"{name}-out" / "a.parquet"), pq.read_table(tmp_path / "a.parquet")
        )


def test_sources_without_rows(tmp_path):
    """A file without rows, with or without an empty row group, becomes a valid file without rows."""
    table = rich_table(0)
    write_row_groups(tmp_path / "a.parquet", table, [])
    write_row_groups(tmp_path / "b.parquet", table, [0])
    make_run(tmp_path / "run", [tmp_path / "*.parquet"])
    report = merge(str(tmp_path / "run"), str(tmp_path / "out"))
    assert (report.files_written, report.rows) == (2, 0)
    for name, groups in (("a", []), ("b", [0])):
        path = tmp_path / "out" / f"{name}.parquet"
        assert_merged(pq.read_table(path), pq.read_table(tmp_path / f"{name}.parquet"))
        assert row_groups(path) == groups


def test_folders_below_the_common_one_are_kept(tmp_path):
    """Files of one name in two folders stay apart, in folders named alike."""
    for folder in ("en", "pl/x"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        table = pa.table({"id": [f"{folder}-{number}" for number in range(3)], "text": ["t"] * 3})
        pq.write_table(table, tmp_path / "in" / folder / "a.parquet")
    make_run(tmp_path / "run", [tmp_path / "in"])
    merge(str(tmp_path / "run"), str(tmp_path / "out"))
    found = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*"))
    assert found == [MERGE_PATH, "en/a.parquet", "pl/x/a.parquet"]
    assert not (tmp_path / "out" / "tmp").exists()


def test_output_names_never_clash(tmp_path):
    """Where two sources would become one file, their unique names are used."""
    run = fake_records(["/d/a.arrow", "/d/a.parquet"], ["arrow", "parquet"], ["a_arrow", "a_parquet"])
    assert [output.path for output in plan_outputs(run)] == ["a_arrow.parquet", "a_parquet.parquet"]
    run = fake_records(["s3://b/x/a.jsonl.gz", "/d/c.csv"], ["jsonl", "csv"], ["a", "c"])
    assert [output.path for output in plan_outputs(run)] == ["a.jsonl.gz", "c.csv"]


def fake_records(uris, formats, names):
    """Source records that matter only for naming."""
    from assay.runs.manifest import SourceRecord

    return [
        SourceRecord(
            uri=uri, name=name, format=kind, size_bytes=1, version="", fingerprint="", num_rows=1,
            boundaries=(0, 1), schema_index=0,
        )
        for uri, kind, name in zip(uris, formats, names, strict=True)
    ]  # fmt: skip


# ------------------------------------------------------------ other formats


def jsonl_lines():
    """Lines of many shapes; the fifth is not an object."""
    return [
        b'{"id": "a", "text": "x"}',
        b'  {"id":"b","text":"\\u0141 }","n":{"deep":[1,{}]}}  \r',
        '{"id": "c", "text": "zażółć"}'.encode(),
        b'{"text": "prediction", "id": "d", "big": 123456789012345678901234567890}',
        b"not json }",
        b"{ }",
        b'{"id": "g", "text": null , }',
        b'{"id": "h", "text": "last", "bad": "\xff"}',
    ]


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_jsonl_keeps_each_line(tmp_path, ending):
    """The bytes of a line stay, the scores stand before its closing brace; no object: kept as _line."""
    content = b"\xef\xbb\xbf" + b"\n".join([*jsonl_lines()[:3], b"", *jsonl_lines()[3:]])
    path = tmp_path / f"a.jsonl{ending}"
    write_compressed(path, content)
    make_run(tmp_path / "run", [path], unit_rows=3)
    merge(str(tmp_path / "run"), str(tmp_path / "out"))
    merged = read_compressed(tmp_path / "out" / path.name).removeprefix(b"\xef\xbb\xbf").split(b"\n")
    assert merged.pop() == b""
    assert len(merged) == 8
    expected = pa.table(scores_of(range(8))).to_pylist()
    for row, (line, original) in enumerate(zip(merged, jsonl_lines(), strict=True)):
        value = json.loads(line.decode("utf-8", "surrogateescape"))
        scores = {name: value[name] for name in SCORES}
        assert np.float32(scores.pop("probability") or 0) == np.float32(expected[row]["probability"] or 0)
        assert scores == {name: expected[row][name] for name in scores}
        if row in {4, 6}:
            assert value["_line"] == original.decode()
        else:
            head = original.rstrip()[:-1].rstrip()
            assert line.startswith(head)
            assert line.endswith(original[len(head) :])
            assert {key for key in value if key not in SCORES} == set(json.loads(original.decode("latin-1")))


def test_jsonl_taken_key_beyond_the_first_rows(tmp_path):
    """A key of a score's name is refused wherever it stands, as a value it is not."""
    lines = [json.dumps({"id": number, "text": '"prediction"'}) for number in range(3000)]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(lines))
    make_run(tmp_path / "run", [path], unit_rows=5000)
    merge(str(tmp_path / "run"), str(tmp_path / "out"))
    lines[2500] = json.dumps({"id": 2500, "text": "t", "prediction": 1})
    path.write_text("\n".join(lines))
    make_run(tmp_path / "run2", [path], unit_rows=5000)
    with pytest.raises(InputError, match=r"'prediction' already.*--prefix"):
        merge(str(tmp_path / "run2"), str(tmp_path / "out2"))
    assert not (tmp_path / "out2" / "a.jsonl").exists()


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_csv_keeps_each_record(tmp_path, ending):
    """Quotes, inner newlines and CRLF stay; the new fields follow and read back as they were."""
    records = [
        b"id,text",
        b'1,"two\nlines, ""quoted"""',
        b"2,plain\r",
        b'"3",""',
        b"4,\xc5\x82",
        b"5,one,too,many",
        b"6,e",
        b"7,f",
    ]
    path = tmp_path / f"a.csv{ending}"
    write_compressed(path, b"\n".join(records) + b"\n")
    make_run(tmp_path / "run", [path], unit_rows=2)
    merge(str(tmp_path / "run"), str(tmp_path / "out"))
    merged = read_compressed(tmp_path / "out" / path.name)
    position = 0
    for record in records:
        body = record.removesuffix(b"\r")
        assert merged[position:].startswith(body + b",")
        position = merged.index(b"\n", position + len(record)) + 1
    assert position == len(merged)
    rows = list(csv.reader(merged.decode().replace("\r\n", "\n").splitlines(keepends=True)))
    assert rows[0] == ["id", "text", *SCORES]
    for number, row in enumerate(rows[1:]):
        expected = [column[number].as_py() for column in scores_of(range(7)).values()]
        texts = ["" if value is None else str(value) for value in expected]
        assert row[-3:-1] == texts[-3:-1]
        assert np.float32(row[-1] or 0) == np.float32(expected[-1] or 0)


def test_lines_without_rows(tmp_path):
    """An empty JSON Lines file stays empty, a CSV file of a header alone gets a longer header."""
    (tmp_path / "a.jsonl").write_bytes(b"")
    (tmp_path / "b.csv").write_bytes(b"text,n\n")
    make_run(tmp_path / "run", [tmp_path / "a.jsonl", tmp_path / "b.csv"])
    merge(str(tmp_path / "run"), str(tmp_path / "out"))
    assert (tmp_path / "out" / "a.jsonl").read_bytes() == b""
    assert (tmp_path / "out" / "b.csv").read_bytes() == b"text,n," + ",".join(SCORES).encode() + b"\n"


def test_arrow_dataset_becomes_parquet(tmp_path):
    """The files of a saved dataset become Parquet files with the same columns and types."""
    original = rich_table(90)
    for name, opener in (("s", pa.ipc.new_stream), ("f", pa.ipc.new_file)):
        with opener(str(tmp_path / f"{name}.arrow"), original.schema) as writer:
            writer.write_table(original, max_chunksize=17)
    make_run(tmp_path / "run", [tmp_path / "*.arrow"])
    merge(str(tmp_path / "run"), str(tmp_path / "out"))
    for name in ("s", "f"):
        assert_merged(pq.read_table(tmp_path / "out" / f"{name}.parquet"), original)


def test_text_folder_becomes_parquet(tmp_path):
    """A folder of text files becomes one Parquet file of paths, texts and scores."""
    for number in range(5):
        (tmp_path / "docs" / f"d{number % 2}").mkdir(parents=True, exist_ok=True)
        (tmp_path / "docs" / f"d{number % 2}" / f"{number}.txt").write_text(f"text {number}")
    run = make_run(tmp_path / "run", [tmp_path / "docs"], unit_rows=2)
    merge(run.url, str(tmp_path / "out"))
    (path,) = (tmp_path / "out").glob("*.parquet")
    table = pq.read_table(path)
    assert table.column("id").to_pylist() == ["d0/0.txt", "d0/2.txt", "d0/4.txt", "d1/1.txt", "d1/3.txt"]
    assert table.column("text").to_pylist() == [f"text {number}" for number in (0, 2, 4, 1, 3)]
    assert table.column("num_tokens").to_pylist() == [0, 1, 2, 3, 4]
    assert path.stem == run.manifest.sources[0].name


# ------------------------------------------------------------ choices


def test_columns_and_prefix(tmp_path):
    """--columns chooses, --prefix names; a second classifier's scores go beside the first's."""
    pq.write_table(pa.table({"id": ["a", "b"], "text": ["x", "y"]}), tmp_path / "a.parquet")
    make_run(tmp_path / "run", [tmp_path / "a.parquet"])
    merge(str(tmp_path / "run"), str(tmp_path / "one"), columns=["prediction"])
    make_run(tmp_path / "run2", [tmp_path / "one" / "a.parquet"])
    with pytest.raises(InputError, match=r"'prediction' already.*--prefix"):
        merge(str(tmp_path / "run2"), str(tmp_path / "two"))
    merge(str(tmp_path / "run2"), str(tmp_path / "two"), columns=["probability", "prediction"], prefix="q_")
    table = pq.read_table(tmp_path / "two" / "a.parquet")
    assert table.schema.names == ["id", "text", "prediction", "q_prediction", "q_probability"]
    assert {b"assay.run_id", b"assay.q_run_id"} <= table.schema.metadata.keys()


def test_limited_run(tmp_path):
    """Of a trial run only the planned rows are written, row groups cut, and the report says so."""
    original = rich_table(100)
    write_row_groups(tmp_path / "a.parquet", original, [40, 60], compression="zstd")
    write_row_groups(tmp_path / "b.parquet", rich_table(10, "b"), [10])
    make_run(tmp_path / "run", [tmp_path / "*.parquet"], limit=55)
    report = merge(str(tmp_path / "run"), str(tmp_path / "out"))
    assert_merged(
        pq.read_table(tmp_path / "out" / "a.parquet"), pq.read_table(tmp_path / "a.parquet").slice(0, 55)
    )
    assert row_groups(tmp_path / "out" / "a.parquet") == [40, 15]
    assert pq.read_metadata(tmp_path / "out" / "a.parquet").row_group(1).column(0).compression == "ZSTD"
    assert not (tmp_path / "out" / "b.parquet").exists()
    assert report.rows == 55
    assert "55 rows are left out" in str(report)


def test_limited_lines(tmp_path):
    """A trial run over JSON Lines writes the planned lines alone."""
    (tmp_path / "a.jsonl").write_text("".join(f'{{"id": {number}, "text": "t"}}\n' for number in range(50)))
    make_run(tmp_path / "run", [tmp_path / "a.jsonl"], limit=20)
    merge(str(tmp_path / "run"), str(tmp_path / "out"))
    assert [
        json.loads(line)["id"] for line in (tmp_path / "out" / "a.jsonl").read_bytes().splitlines()
    ] == list(range(20))


def test_progress(tmp_path):
    """Progress ends at all rows and files."""
    write_row_groups(tmp_path / "a.parquet", rich_table(100), [100])
    make_run(tmp_path / "run", [tmp_path / "a.parquet"])
    seen = []
    merge(str(tmp_path / "run"), str(tmp_path / "out"), on_progress=lambda now: seen.append(replace(now)))
    assert (seen[-1].rows_done, seen[-1].rows_total) == (100, 100)
    assert (seen[-1].units_done, seen[-1].units_total) == (1, 1)


# ------------------------------------------------------------ tokenized once


def tokenize_sources(tmp_path, patterns, **settings):
    """A finished tokenize run over `patterns`."""
    manifest = plan_tokenize(
        TokenizeSettings(
            sources=tuple(map(str, patterns)),
            bundle=str(write_bundle(tmp_path / "bundle")),
            run=str(tmp_path / "tokens"),
            **settings,
        )
    )
    run, _ = create_or_join(str(tmp_path / "tokens"), manifest)
    work = open_tokenize_work(run)
    for unit in manifest.units():
        run_unit(run, work, unit)
    return run


def score_tokens(tmp_path, tokens, **settings):
    """A run over a tokenize run, planned as `assay score` does, scores made of the original row number."""
    settings = ScoreSettings(
        sources=(tokens.url,),
        bundle=str(tmp_path / "bundle"),
        run=str(tmp_path / "run"),
        engine="fake",
        **settings,
    )
    placement = place_workers("1", num_gpus=0)
    manifest, _ = plan_score(settings, placement, "fp32")
    fields = [pa.field(name, column.type) for name, column in scores_of([0]).items()]
    schema = pa.schema([manifest.arrow_schema().field(0), *fields])
    manifest = manifest.model_copy(update={"part_schema": encode_schema(schema)})
    run, _ = create_or_join(settings.run, manifest)
    publish_all(run, first_row=lambda unit: int(unit.source_name.rsplit("-", 2)[1]))
    return run


def parquet_and_lines(folder, num_rows, *, ids):
    """A Parquet file and a JSON Lines file of `num_rows` rows each, with an id column or without."""
    folder.mkdir()
    texts = [f"document of {row % 100}" for row in range(num_rows)]
    for name in ("a", "b"):
        named = {"id": [f"{name}-{row}" for row in range(num_rows)]} if ids else {}
        table = pa.table({**named, "text": texts})
        if name == "a":
            write_row_groups(folder / "a.parquet", table, [num_rows])
        else:
            lines = [json.dumps(row) + "\n" for row in table.to_pylist()]
            (folder / "b.jsonl").write_text("".join(lines))
    return [folder]


def assert_lines_merged(path, num_rows):
    """Each line of `path` has the scores of its row."""
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [line["text"] for line in lines] == [f"document of {row % 100}" for row in range(num_rows)]
    assert [line["num_tokens"] for line in lines] == list(range(num_rows))


@pytest.mark.parametrize("ids", [True, False], ids=["ids", "positions"])
def test_tokenized_sources_get_the_scores(tmp_path, ids):
    """Scores of token parts go onto the files that were tokenized, twelve units in row order each."""
    sources = parquet_and_lines(tmp_path / "in", 2400, ids=ids)
    tokens = tokenize_sources(tmp_path, sources, unit_rows=200)
    names = [unit.name for unit in tokens.manifest.units()]
    assert len(names) == 24
    assert names != sorted(names)
    run = score_tokens(tmp_path, tokens, unit_rows=130)
    assert len(run.manifest.units()) == 48
    report = merge(run.url, str(tmp_path / "out"))
    assert (report.files_written, report.rows, report.ids_checked, report.rows_left_out) == (2, 4800, 4800, 0)
    found = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert found == [MERGE_PATH, "a.parquet", "b.jsonl"]
    assert_merged(pq.read_table(tmp_path / "out" / "a.parquet"), pq.read_table(tmp_path / "in" / "a.parquet"))
    assert_lines_merged(tmp_path / "out" / "b.jsonl", 2400)
    metadata = pq.read_schema(tmp_path / "out" / "a.parquet").metadata
    assert metadata[b"assay.run_id"] == run.manifest.run_id.encode()
    assert merge(run.url, str(tmp_path / "out")).files_skipped == 2


@pytest.mark.parametrize(
    ("of_tokens", "of_scores", "rows"),
    [(None, 150, (100, 50)), (150, None, (100, 50)), (120, 70, (70, 0)), (70, 120, (70, 0))],
)
def test_limited_tokens(tmp_path, of_tokens, of_scores, rows):
    """A trial of either run has the first rows of the sources, not those of the first names."""
    sources = parquet_and_lines(tmp_path / "in", 100, ids=True)
    tokens = tokenize_sources(tmp_path, sources, unit_rows=8, limit_rows=of_tokens)
    run = score_tokens(tmp_path, tokens, limit_rows=of_scores)
    report = merge(run.url, str(tmp_path / "out"))
    assert (report.rows, report.rows_left_out) == (sum(rows), 200 - sum(rows))
    original = pq.read_table(tmp_path / "in" / "a.parquet")
    assert_merged(pq.read_table(tmp_path / "out" / "a.parquet"), original.slice(0, rows[0]))
    assert (tmp_path / "out" / "b.jsonl").exists() == bool(rows[1])
    if rows[1]:
        assert_lines_merged(tmp_path / "out" / "b.jsonl", rows[1])


def test_tokenized_sources_without_rows(tmp_path):
    """A source without rows comes back without rows."""
    write_row_groups(tmp_path / "a.parquet", pa.table({"text": pa.array([], pa.string())}), [])
    write_row_groups(tmp_path / "b.parquet", pa.table({"text": ["document"]}), [1])
    tokens = tokenize_sources(tmp_path, [tmp_path / "*.parquet"])
    report = merge(score_tokens(tmp_path, tokens).url, str(tmp_path / "out"))
    assert (report.files_written, report.rows) == (2, 1)
    assert_merged(pq.read_table(tmp_path / "out" / "a.parquet"), pq.read_table(tmp_path / "a.parquet"))


def token_scores(tmp_path, *, ids=True):
    """A scored tokenize run over a Parquet file and a JSON Lines file."""
    tokens = tokenize_sources(tmp_path, parquet_and_lines(tmp_path / "in", 60, ids=ids), unit_rows=20)
    return tokens, score_tokens(tmp_path, tokens)


def test_missing_part_of_tokens(tmp_path):
    """A unit that was not scored yet is named, and nothing is written."""
    _, run = token_scores(tmp_path)
    unit = run.manifest.units()[1]
    run.store.delete(part_path(unit))
    with pytest.raises(CheckError, match=r"1 of 6 units .* not published \(first: a-20-40-0-20\)"):
        merge(run.url, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["a.parquet", "b.jsonl"])
def test_changed_original(tmp_path, name):
    """A source that changed since it was tokenized is refused, though its token parts did not."""
    _, run = token_scores(tmp_path)
    if name == "a.parquet":
        write_row_groups(tmp_path / "in" / name, rich_table(60), [60])
    else:
        (tmp_path / "in" / name).write_text('{"id": "b-0", "text": "other"}\n')
    with pytest.raises(RefusedError, match=rf"{name} changed"):
        merge(run.url, str(tmp_path / "out"))
    assert not (tmp_path / "out" / name).exists()


def test_changed_tokens(tmp_path):
    """Token parts that are not those that were scored are refused, as is a run that is gone or cut again."""
    tokens, run = token_scores(tmp_path)
    part = tmp_path / "tokens" / part_path(tokens.manifest.units()[4])
    content = part.read_bytes()
    pq.write_table(pq.read_table(part).slice(1), part)
    with pytest.raises(RefusedError, match=r"b-20-40\.parquet changed"):
        merge(run.url, str(tmp_path / "out"))
    part.write_bytes(content)
    shutil.move(tmp_path / "tokens", tmp_path / "away")
    for unit_rows in (None, 30):
        if unit_rows is not None:
            tokenize_sources(tmp_path, [tmp_path / "in"], unit_rows=unit_rows)
        with pytest.raises(RefusedError, match="no longer holds the tokenize run"):
            merge(run.url, str(tmp_path / "out"))
    shutil.rmtree(tmp_path / "tokens")
    shutil.move(tmp_path / "away", tmp_path / "tokens")
    assert merge(run.url, str(tmp_path / "out")).files_written == 2


@pytest.mark.parametrize("ids", [True, False], ids=["ids", "positions"])
def test_token_ids_on_the_wrong_row(tmp_path, ids):
    """An id of a token part that is not the original row's stops the merge, which names that row."""
    _, run = token_scores(tmp_path, ids=ids)
    unit = run.manifest.units()[2]
    run.store.delete(part_path(unit))
    publish_all(run, lambda unit, ids: [ids[1], ids[0], *ids[2:]])
    shown = "'a-40', its part has 'a-41'" if ids else "'40', its part has '41'"
    with pytest.raises(CheckError, match=rf"a\.parquet row 40 has id {shown}"):
        merge(run.url, str(tmp_path / "out"))


def test_out_in_the_way_of_tokens(tmp_path):
    """Merged files go neither among the sources nor into either run."""
    tokens, run = token_scores(tmp_path)
    for out in (tmp_path / "in", tmp_path / "run" / "merged", tmp_path / "tokens" / "merged"):
        with pytest.raises(InputError, match="--out"):
            merge(run.url, str(out))
    with pytest.raises(InputError, match="tokenize run"):
        merge(tokens.url, str(tmp_path / "out"))


# ------------------------------------------------------------ what is refused


def two_sources(tmp_path):
    """Two Parquet files of 60 rows with ids that differ between them."""
    for name in ("a", "b"):
        write_row_groups(tmp_path / f"{name}.parquet", rich_table(60, name), [60])
    return [tmp_path / "*.parquet"]


def test_missing_part(tmp_path):
    """A run that is not finished is not merged, and the message says how to go on."""
    run = make_run(tmp_path / "run", two_sources(tmp_path))
    run.store.delete(part_path(run.manifest.units()[1]))
    with pytest.raises(CheckError, match=r"1 of 4 units .* not published .*assay score"):
        merge(run.url, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_swapped_parts(tmp_path):
    """Parts that change places are caught by their footers."""
    run = make_run(tmp_path / "run", two_sources(tmp_path))
    first, second = (tmp_path / "run" / part_path(unit) for unit in run.manifest.units()[1:3])
    first.rename(tmp_path / "x")
    second.rename(first)
    (tmp_path / "x").rename(second)
    with pytest.raises(CheckError, match=r"assay\.unit is 'b-0-30', not 'a-30-60'"):
        merge(run.url, str(tmp_path / "out"), num_threads=1)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [MERGE_PATH]


def test_id_on_the_wrong_row(tmp_path):
    """Two rows that changed places within a part are caught, with source, row and both ids."""
    run = make_run(tmp_path / "run", two_sources(tmp_path), publish=False)

    def swap(unit, ids):
        if unit.name == "b-30-60":
            ids[7], ids[8] = ids[8], ids[7]
        return ids

    publish_all(run, swap)
    with pytest.raises(CheckError, match=r"b\.parquet row 37 has id 'b-37', its part has 'b-38'"):
        merge(run.url, str(tmp_path / "out"))
    assert not (tmp_path / "out" / "b.parquet").exists()


def test_position_on_the_wrong_row(tmp_path):
    """Without ids the positions are checked."""
    pq.write_table(pa.table({"text": ["t"] * 10}), tmp_path / "a.parquet")
    run = make_run(tmp_path / "run", [tmp_path / "a.parquet"], publish=False)
    publish_all(run, lambda unit, ids: [*ids[:5], 4, *ids[6:]])
    with pytest.raises(CheckError, match="row 5 has id '5', its part has '4'"):
        merge(run.url, str(tmp_path / "out"))


def test_null_ids_are_ids(tmp_path):
    """A null id meets a null id, and nothing else."""
    pq.write_table(pa.table({"id": ["a", None, "c"], "text": ["t"] * 3}), tmp_path / "a.parquet")
    run = make_run(tmp_path / "run", [tmp_path / "a.parquet"], publish=False)
    publish_all(run, lambda unit, ids: ["a", "b", "c"])
    with pytest.raises(CheckError, match="row 1 has id 'null', its part has 'b'"):
        merge(run.url, str(tmp_path / "out"))
    shutil.rmtree(tmp_path / "run" / "parts")
    publish_all(run)
    assert merge(run.url, str(tmp_path / "out2")).rows == 3


def test_changed_source(tmp_path):
    """A source that changed since the run began is refused, before anything is written."""
    run = make_run(tmp_path / "run", two_sources(tmp_path))
    write_row_groups(tmp_path / "b.parquet", rich_table(60, "c"), [60])
    with pytest.raises(RefusedError, match=r"b\.parquet changed"):
        merge(run.url, str(tmp_path / "out"))
    assert not list((tmp_path / "out").glob("*.parquet"))


def test_out_in_the_way(tmp_path):
    """The output may lie neither among the sources nor in the run, nor over another's files."""
    sources = tmp_path / "in"
    sources.mkdir()
    run = make_run(tmp_path / "run", two_sources(sources) and [sources / "*.parquet"])
    for out in (sources, tmp_path, tmp_path / "run", tmp_path / "run" / "merged"):
        with pytest.raises(InputError, match="--out"):
            merge(run.url, str(out))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.parquet").write_text("precious")
    with pytest.raises(RefusedError, match="use another --out"):
        merge(run.url, str(tmp_path / "mine"))
    assert (tmp_path / "mine" / "a.parquet").read_text() == "precious"
    with pytest.raises(UsageError, match=r"'predictoin'.*prediction"):
        merge(run.url, str(tmp_path / "out"), columns=["predictoin"])


def test_folder_of_another_merge(tmp_path):
    """A folder belongs to one run, one choice of columns and one prefix."""
    run = make_run(tmp_path / "run", two_sources(tmp_path))
    merge(run.url, str(tmp_path / "out"))
    other = make_run(tmp_path / "run2", [tmp_path / "a.parquet"])
    for url, options in (
        (other.url, {}),
        (run.url, {"prefix": "x_"}),
        (run.url, {"columns": ["prediction"]}),
    ):
        with pytest.raises(RefusedError, match="holds a merge with"):
            merge(url, str(tmp_path / "out"), **options)


# ------------------------------------------------------------ going on


def test_rerun_skips_what_is_there(tmp_path):
    """A second merge writes what is missing and leaves the rest alone."""
    run = make_run(tmp_path / "run", two_sources(tmp_path))
    merge(run.url, str(tmp_path / "out"))
    kept = (tmp_path / "out" / "a.parquet").stat().st_mtime_ns
    content = (tmp_path / "out" / "b.parquet").read_bytes()
    (tmp_path / "out" / "b.parquet").unlink()
    report = merge(run.url, str(tmp_path / "out"))
    assert (report.files_written, report.files_skipped, report.rows, report.ids_checked) == (1, 1, 120, 60)
    assert (tmp_path / "out" / "a.parquet").stat().st_mtime_ns == kept
    assert (tmp_path / "out" / "b.parquet").read_bytes() == content


KILLED = """
import os, signal, sys
import assay.score.merge.merge as module
publish = module._publish
def kill(store, path, file):
    if path == "b.parquet":
        os.kill(os.getpid(), signal.SIGKILL)
    return publish(store, path, file)
module._publish = kill
module.merge(sys.argv[1], sys.argv[2], num_threads=1)
"""


def test_killed_merge_goes_on(tmp_path):
    """After SIGKILL nothing half is there under a final name; the rerun completes and clears up."""
    run = make_run(tmp_path / "run", two_sources(tmp_path))
    killed = subprocess.run([sys.executable, "-c", KILLED, run.url, str(tmp_path / "out")], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "out" / "tmp").iterdir())) == 1
    assert sorted(path.name for path in (tmp_path / "out").glob("*.parquet")) == ["a.parquet"]
    report = merge(run.url, str(tmp_path / "out"))
    assert (report.files_written, report.files_skipped) == (1, 1)
    assert not (tmp_path / "out" / "tmp").exists()
    assert_merged(pq.read_table(tmp_path / "out" / "b.parquet"), pq.read_table(tmp_path / "b.parquet"))


def test_sweeping_leaves_the_living_alone(tmp_path):
    """A temporary file that another merge is writing is not removed."""
    store = open_store(str(tmp_path / "out"))
    with scratch_file(store) as path:
        dead = path.with_name("dead" + SUFFIX)
        dead.touch()
        sweep_scratch(store)
        assert path.exists()
        assert not dead.exists()
    sweep_scratch(store)
    assert not path.parent.exists()


def test_two_merges_at_once(tmp_path):
    """Two merges of one run into one folder end with one whole set of files."""
    for number in range(6):
        write_row_groups(tmp_path / f"s{number}.parquet", rich_table(40, f"s{number}"), [40])
    run = make_run(tmp_path / "run", [tmp_path / "*.parquet"])
    code = "import sys; from assay.score.merge.merge import merge; print(merge(*sys.argv[1:]).files_written)"
    command = [sys.executable, "-c", code, run.url, str(tmp_path / "out")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    written = [int(process.communicate()[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum(written) == 6
    for number in range(6):
        original = pq.read_table(tmp_path / f"s{number}.parquet")
        assert_merged(pq.read_table(tmp_path / "out" / f"s{number}.parquet"), original)
    assert not (tmp_path / "out" / "tmp").exists()


def test_failure_of_one_file_ends_the_merge(tmp_path):
    """The first error is the one reported, and no thread goes on for long after it."""
    run = make_run(tmp_path / "run", two_sources(tmp_path))
    part = tmp_path / "run" / part_path(run.manifest.units()[0])
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(CheckError, match="cannot be read"):
        merge(run.url, str(tmp_path / "out"))
    assert not (tmp_path / "out" / "tmp").exists()


def test_a_flipped_byte_in_a_part_is_not_merged(tmp_path):
    """Values that decode to others than were published stop the merge, which names the part and the way out."""
    run = make_run(tmp_path / "run", two_sources(tmp_path))
    part = tmp_path / "run" / part_path(run.manifest.units()[0])
    content = bytearray(part.read_bytes())
    content[60] ^= 0xFF
    part.write_bytes(content)
    with pytest.raises(CheckError, match=rf"{part.name} cannot be read .*assay verify {run.url} --repair"):
        merge(run.url, str(tmp_path / "out"))


def test_bucket(tmp_path, s3_url):
    """Sources, run and output on an object store: the same files as on disk."""
    two_sources(tmp_path)
    (tmp_path / "c.jsonl").write_text(
        "".join(f'{{"id": "c-{number}", "text": "t"}}\n' for number in range(10))
    )
    store = open_store(s3_url)
    for name in ("a.parquet", "b.parquet", "c.jsonl"):
        store.create(f"in/{name}", (tmp_path / name).read_bytes())
    run = make_run(f"{s3_url}/run", [f"{s3_url}/in"])
    report = merge(run.url, f"{s3_url}/out")
    assert (report.files_written, report.rows) == (3, 130)
    assert merge(run.url, f"{s3_url}/out").files_skipped == 3
    for name in ("a", "b"):
        merged = pq.read_table(pa.BufferReader(store.read_bytes(f"out/{name}.parquet")))
        assert_merged(merged, pq.read_table(tmp_path / f"{name}.parquet"))
    assert len(store.read_bytes("out/c.jsonl").splitlines()) == 10
    with pytest.raises(InputError, match="--out"):
        merge(run.url, f"{s3_url}/in")


def test_full_disk(tmp_path, monkeypatch):
    """A disk that fills up is named, and leaves nothing behind."""
    from assay.errors import StorageError

    run = make_run(tmp_path / "run", two_sources(tmp_path))

    def fail(*arguments, **options):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("assay.data.sinks.parquet.graft_columns", fail)
    with pytest.raises(StorageError, match=r"\.parquet.*No space left.*free space"):
        merge(run.url, str(tmp_path / "out"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [MERGE_PATH]


# ------------------------------------------------------------ footers


def test_thrift_round_trip(tmp_path):
    """Splitting and joining a footer gives the same bytes."""
    write_row_groups(tmp_path / "a.parquet", rich_table(100), [50, 0, 50], write_page_index=True)
    content = (tmp_path / "a.parquet").read_bytes()
    footer = content[-8 - int.from_bytes(content[-8:-4], "little") : -8]
    fields, end = grafting.split_struct(footer)
    assert end == len(footer)
    assert grafting.join_struct(fields) == footer
    for kind, value in fields.values():
        if kind == 9:
            assert grafting.join_list(value[0] & 15, grafting.split_list(value)) == value


def test_no_torch_behind_merge():
    """Merging and checking import neither torch nor transformers."""
    code = "import sys, assay.score.merge.merge; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def write_compressed(path: Path, content: bytes) -> None:
    """Write a file in the compression its name says."""
    if path.suffix == ".gz":
        content = gzip.compress(content)
    elif path.suffix == ".zst":
        content = pa.Codec("zstd").compress(content, asbytes=True)
    path.write_bytes(content)


def read_compressed(path: Path) -> bytes:
    """Read a file in the compression its name says."""
    codec = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix)
    with pa.input_stream(str(path), compression=codec) as stream:
        return stream.read()


def test_scores_in_json_read_back_exactly(tmp_path):
    """float32 scores written as text are the same float32 when read."""
    from assay.data.sinks.lines import csv_fields, json_members

    values = np.random.default_rng(0).random(2000, dtype=np.float32)
    values[:4] = [0, 1, 1e-38, 3.4e38]
    table = pa.table({"p": values})
    assert all(
        np.float32(json.loads(b"{" + row + b"}")["p"]) == value
        for row, value in zip(json_members(table), values, strict=True)
    )
    assert all(
        np.float32(row.decode()) == value for row, value in zip(csv_fields(table), values, strict=True)
    )
    assert pc.sum(table.column("p")).is_valid
