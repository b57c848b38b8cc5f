"""run.json: what was planned, read back whole, and what must not change."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.fake_runs import plan_run, write_sources

from assay.errors import RefusedError, SourceError
from assay.runs.manifest import decode_schema, differences, encode_schema, parse_manifest


@pytest.fixture
def folder(tmp_path):
    """Two sources."""
    return write_sources(tmp_path / "sources", [50, 30])


@pytest.fixture
def manifest(folder):
    """A plan over them."""
    return plan_run(folder)


def changed(manifest, **changes):
    """The JSON of a manifest with other fields."""
    return json.dumps({**json.loads(manifest.model_dump_json()), **changes}).encode()


def test_round_trip(manifest):
    """What is written is read back: units, sources, columns and the schema of parts with its metadata."""
    again = parse_manifest(manifest.model_dump_json(indent=1).encode(), "run.json")
    assert again == manifest
    assert again.units() == manifest.units()
    assert again.arrow_schema().equals(manifest.arrow_schema(), check_metadata=True)
    assert again.source(1).schema == manifest.source(1).schema
    assert again.source_columns() == manifest.source_columns()
    assert again.planned_rows == 80


def test_schemas_survive():
    """A schema of nested, dictionary and timezone types passes through JSON with its metadata."""
    schema = pa.schema(
        [
            pa.field("a", pa.dictionary(pa.int8(), pa.string())),
            pa.field("b", pa.struct([("c", pa.timestamp("us", "Europe/Paris"))]), nullable=False),
        ],
        metadata={"k": "v"},
    )
    assert decode_schema(encode_schema(schema)).equals(schema, check_metadata=True)


def test_sources_share_schemas(manifest):
    """Ten thousand sources of one schema store it once."""
    assert len(manifest.schemas) == 1
    assert [record.schema_index for record in manifest.sources] == [0, 0]


def test_the_run_id_leaves_out_what_changes_no_number(folder, manifest):
    """Another unit plan is the same run; another setting, source order or limit is another."""
    assert plan_run(folder, unit_rows=7).run_id == manifest.run_id
    assert plan_run(folder, identity={"max_length": 32}).run_id != manifest.run_id
    assert plan_run(folder, limit_rows=60).run_id != manifest.run_id
    (folder / "b.parquet").rename(folder / "0.parquet")
    assert plan_run(folder).run_id != manifest.run_id


def test_the_run_id_leaves_out_where_the_sources_lie(folder, manifest, tmp_path):
    """The same files in another folder are the same run: pods may mount a disk elsewhere."""
    folder.rename(tmp_path / "elsewhere")
    moved = plan_run(tmp_path / "elsewhere")
    assert moved.sources[0].uri != manifest.sources[0].uri
    assert moved.run_id == manifest.run_id


def test_no_difference(folder, manifest):
    """The same plan twice differs in nothing."""
    assert differences(manifest, plan_run(folder)) == []


def test_changed_settings_are_named(folder, manifest):
    """Every changed setting is named with its value then and now."""
    other = plan_run(folder, identity={"max_length": 32, "bundle": "c" * 32, "stride": 3})
    assert differences(manifest, other) == [
        f"bundle was {'b' * 32}, now {'c' * 32}",
        "max_length was 64, now 32",
        "stride was null, now 3",
    ]


def test_changed_columns_and_kind_are_named(manifest):
    """Another text column and another kind of run are named."""
    columns = manifest.columns.model_copy(update={"text": "body"})
    other = manifest.model_copy(update={"columns": columns, "kind": "tokenize"})
    assert differences(manifest, other) == [
        "the run is a score run, not a tokenize run",
        "text column was 'text', now 'body'",
    ]


def test_changed_sources_are_named(folder, manifest):
    """A source that is new, gone, longer, or of other content under the same size is named."""
    write_sources(folder, [50, 31, 5])
    found = differences(manifest, plan_run(folder))
    assert found[0] == "source c is new"
    assert found[1].startswith("source b was ")
    assert found[1].endswith("bytes and 31 rows")
    (folder / "b.parquet").unlink()
    assert "source b is gone" in differences(manifest, plan_run(folder))


def test_changed_content_of_one_size_is_named(folder, manifest):
    """Content that changed though size and rows did not is still a change."""
    table = pq.read_table(folder / "a.parquet")
    texts = [text and text.replace("document", "dOcument") for text in table["text"].to_pylist()]
    table = table.set_column(1, "text", pa.array(texts))
    pq.write_table(table, folder / "a.parquet", row_group_size=100)
    (found,) = differences(manifest, plan_run(folder))
    assert found.startswith(("the content of source a changed", "source a was"))


def test_other_limit_and_other_order_are_named(folder, manifest):
    """A limit and an order of sources are part of what was planned."""
    assert differences(manifest, plan_run(folder, limit_rows=60)) == [
        "source b was planned for 30 rows, now 10"
    ]
    swapped = manifest.model_copy(update={"sources": manifest.sources[::-1]})
    assert differences(manifest, swapped) == ["the sources come in another order"]


@pytest.mark.parametrize("version", [1, 3, "2", None])
def test_an_unknown_format_version_is_refused(manifest, version):
    """A run that another Assay wrote is left alone, and the message says which version it has."""
    with pytest.raises(
        RefusedError, match=f"r/run.json has run format version {version!r}.*reads version 2; .*another --run"
    ):
        parse_manifest(changed(manifest, format_version=version), "r/run.json")


@pytest.mark.parametrize("content", [b"", b'{"format_version": 1', b"\x00\xff\xfe"])
def test_damaged_json_is_named(content):
    """A run.json that is not JSON is an input error that names the file."""
    with pytest.raises(SourceError, match=r"r/run\.json is not JSON .*start a new run elsewhere"):
        parse_manifest(content, "r/run.json")


@pytest.mark.parametrize("content", [b"[]", b"7", b"{}"])
def test_json_of_another_kind_is_refused(content):
    """JSON that is not a manifest has no version, which is refused."""
    with pytest.raises(RefusedError, match="run format version None"):
        parse_manifest(content, "r/run.json")


def test_unknown_and_wrong_fields_are_named(manifest):
    """An unknown key and a value of the wrong type are named by their place in the file."""
    with pytest.raises(
        SourceError, match=r"colour: Extra inputs are not permitted; the run directory is damaged"
    ):
        parse_manifest(changed(manifest, colour="red"), "run.json")
    sources = json.loads(manifest.model_dump_json())["sources"]
    sources[1]["num_rows"] = "many"
    with pytest.raises(SourceError, match=r"sources\.1\.num_rows: "):
        parse_manifest(changed(manifest, sources=sources), "run.json")
