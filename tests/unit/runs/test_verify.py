"""The proof that every row is there exactly once, and each way in which it fails."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.fake_runs import footer_of, make_run, part_file, plan_run, publish_unit, write_sources

from assay.data.ids import IdChecksum
from assay.errors import CheckError, RefusedError, SourceError
from assay.runs.run import create_or_join
from assay.runs.verify import is_partition, require, verify


@pytest.fixture
def folder(tmp_path):
    """Two sources."""
    return write_sources(tmp_path / "sources", [100, 60])


@pytest.fixture
def run(folder, tmp_path):
    """A whole run of eight units."""
    return make_run(tmp_path / "run", folder, publish=True)


REMOVE = "remove it, or take it out with `assay verify {} --repair`"


def problem(run, **options):
    """The one problem that verify finds."""
    proof = verify(run.url, **options)
    assert not proof.holds
    (found,) = proof.problems
    return found


def rewrite(run, unit, change=lambda table: table, *, seal=False, **footer):
    """Write a unit's part again: `change` for its rows, `footer` for its keys; `seal` corrects the id checksum."""
    path = part_file(run, unit)
    old = pq.read_table(path)
    table = change(old)
    metadata = {key: value for key, value in footer_of(path).items() if key != b"ARROW:schema"}
    metadata |= {f"assay.{key}".encode(): value for key, value in footer.items()}
    if seal:
        checksum = IdChecksum()
        checksum.update(table["id"])
        metadata[b"assay.id_checksum"] = checksum.hexdigest().encode()
    path.unlink()
    pq.write_table(table.replace_schema_metadata(metadata), path)


def put(table, column, row, value):
    """The table with one value changed."""
    values = table[column].to_pylist()
    values[row] = value
    index = table.schema.get_field_index(column)
    return table.set_column(index, table.schema.field(index), pa.array(values, table[column].type))


@pytest.mark.parametrize("sources", [False, True])
def test_a_whole_run(run, sources):
    """Of a whole run the proof holds, counts the rows with errors, and prints that it does."""
    proof = verify(run.url, sources=sources, duplicates=True)
    assert proof.holds
    assert (proof.units_total, proof.units_missing) == (8, 0)
    assert (proof.rows_total, proof.rows_out, proof.error_rows) == (160, 160, 3)
    assert (proof.duplicate_ids, proof.checked_sources) == (0, sources)
    assert "verified: every row is there exactly once" in str(proof)
    assert ("against the sources" in str(proof)) is sources
    assert json.loads(json.dumps(proof.to_json()))["holds"] is True
    require(proof)


def test_an_unfinished_run(run):
    """A missing part is a problem that says how many, and how to go on."""
    part_file(run, run.manifest.units()[3]).unlink()
    assert problem(run) == "1 of 8 units are not published; run the same command to go on"
    proof = verify(run.url)
    assert (proof.units_missing, proof.rows_in) == (1, 140)
    assert "PROBLEM  1 of 8 units" in str(proof)
    with pytest.raises(CheckError, match=f"run {proof.run_id} is not whole: 1 of 8 units are not published"):
        require(proof)


def test_a_run_not_begun(folder, tmp_path):
    """A run without any part is only unfinished."""
    run = make_run(tmp_path / "new", folder)
    assert problem(run, duplicates=True).startswith("8 of 8 units are not published")


def test_an_extra_file(run):
    """A Parquet file among the parts that is not a unit would be read by others as results: it is named."""
    part_file(run, run.manifest.units()[0]).with_name("mine.parquet").write_bytes(b"anything")
    assert problem(run) == f"parts/mine.parquet is not a unit of this run; {REMOVE.format(run.url)}"


def test_a_unit_of_other_boundaries(run):
    """A part of overlapping rows is not a unit of this run."""
    part = part_file(run, run.manifest.units()[0])
    part.with_name("a-0-40.parquet").write_bytes(part.read_bytes())
    assert problem(run) == f"parts/a-0-40.parquet is not a unit of this run; {REMOVE.format(run.url)}"


def test_a_part_of_another_run(run, folder, tmp_path):
    """A part that another run made, of the same unit, is told by its run id."""
    other = make_run(tmp_path / "other", folder, identity={"bundle": "c" * 32}, publish=True)
    unit = run.manifest.units()[2]
    part_file(run, unit).write_bytes(part_file(other, unit).read_bytes())
    found = problem(run)
    assert found == (
        f"parts/a-40-60.parquet: assay.run_id is '{other.manifest.run_id}', not '{run.manifest.run_id}'; "
        f"take it out with `assay verify {run.url} --repair`, then run the same command as before to make it again"
    )


def test_swapped_parts(run):
    """Two parts under each other's names are both found."""
    first, second = (part_file(run, run.manifest.units()[index]) for index in (0, 1))
    held = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(held)
    proof = verify(run.url)
    assert [text.split(";")[0] for text in proof.problems] == [
        "parts/a-0-20.parquet: assay.unit is 'a-20-40', not 'a-0-20'",
        "parts/a-20-40.parquet: assay.unit is 'a-0-20', not 'a-20-40'",
    ]


@pytest.mark.parametrize("size", [0, 3, 100, -1])
def test_a_truncated_part(run, size):
    """A part cut short anywhere is named as unreadable; the others are still checked."""
    path = part_file(run, run.manifest.units()[0])
    content = path.read_bytes()
    path.write_bytes(content[:size])
    found = problem(run)
    assert found.startswith("parts/a-0-20.parquet cannot be read (")
    assert found.endswith("then run the same command as before to make it again")
    assert verify(run.url).rows_out == 140


def test_a_damaged_page(run):
    """Bytes overwritten within any column of a part do not pass, and repair takes the part out."""
    path = part_file(run, run.manifest.units()[0])
    whole = path.read_bytes()
    footer = pq.read_metadata(path)
    for column in range(footer.num_columns):
        chunk = footer.row_group(0).column(column)
        stop = chunk.data_page_offset + chunk.total_compressed_size
        path.write_bytes(whole[: stop - 24] + bytes(24) + whole[stop:])
        assert problem(run).startswith("parts/a-0-20.parquet"), footer.schema.column(column).name
    repaired = verify(run.url, repair=True)
    assert list(repaired.taken_out) == ["parts/a-0-20.parquet"]
    with pytest.raises(CheckError, match="taken out; run the same command as before"):
        require(repaired)


def test_rows_are_missing_from_a_part(run):
    """A part with fewer rows than its footer says is found, by rows and by checksum."""
    rewrite(run, run.manifest.units()[0], lambda table: table.slice(0, 19))
    proof = verify(run.url)
    assert proof.problems[0].startswith("parts/a-0-20.parquet has 19 rows, not 20;")
    assert proof.rows_out == 159


def test_a_footer_with_another_count(run):
    """A footer that counts other rows in than the unit has, or other rows out than the part has, is found."""
    rewrite(run, run.manifest.units()[0], rows_in=b"19")
    assert problem(run).startswith("parts/a-0-20.parquet: assay.rows_in is '19', not '20';")
    rewrite(run, run.manifest.units()[0], rows_in=b"20", rows_out=b"21")
    assert problem(run).startswith("parts/a-0-20.parquet has 20 rows and its footer says '21';")


def test_a_part_without_footer_keys(run):
    """A Parquet file that is not part of ours, though named like one, is found."""
    path = part_file(run, run.manifest.units()[0])
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    assert problem(run).startswith("parts/a-0-20.parquet: assay.run_id is '', not ")


@pytest.mark.parametrize("value", ["0-999", "", None])
def test_a_changed_id(run, value):
    """An id that is not what was written does not give the checksum in the footer."""
    rewrite(run, run.manifest.units()[0], lambda table: put(table, "id", 5, value))
    assert problem(run).startswith("parts/a-0-20.parquet: its ids do not give the checksum in its footer;")


def test_swapped_rows(run):
    """Two rows in each other's place are found: order is part of the checksum."""
    order = np.array([1, 0, *range(2, 20)])
    rewrite(run, run.manifest.units()[0], lambda table: table.take(order))
    assert problem(run).startswith("parts/a-0-20.parquet: its ids do not give the checksum")


def test_ids_that_are_not_the_sources(run):
    """A part consistent in itself whose ids are not the source's is found when sources are read too."""
    unit = run.manifest.units()[0]
    rewrite(run, unit, lambda table: put(table, "id", 5, "forged"), seal=True)
    assert verify(run.url).holds
    found = problem(run, sources=True)
    assert found.startswith("parts/a-0-20.parquet: its ids are not those of source a;")


@pytest.mark.parametrize("value", [None, float("nan")])
def test_a_null_without_an_error(run, value):
    """A row without a score (null or not a number) must say why; one that says so is fine."""
    unit = run.manifest.units()[0]
    rewrite(run, unit, lambda table: put(table, "prediction", 5, value))
    assert problem(run).startswith("parts/a-0-20.parquet: 1 rows have no prediction and no error code;")
    rewrite(run, unit, lambda table: put(table, "error", 5, "not_finite"))
    proof = verify(run.url)
    assert proof.holds
    assert proof.error_rows == 4


def test_another_schema(run):
    """A part with other columns than the run's is found."""
    rewrite(run, run.manifest.units()[0], lambda table: table.drop_columns(["num_tokens"]))
    assert problem(run).startswith("parts/a-0-20.parquet has another schema than the run;")


def test_a_changed_source(run, folder):
    """A source that changed after its rows were scored is named."""
    write_sources(folder, [101, 60])
    found = problem(run)
    assert "a.parquet changed since the run began (" in found
    assert "put it back as it was, or start a new run" in found


def test_a_missing_source(run, folder):
    """A source that is gone is named; the parts are still checked."""
    (folder / "b.parquet").unlink()
    assert "b.parquet is gone since the run began" in problem(run)


def test_a_touched_source_is_no_other(run, folder):
    """A source copied back with a new time and the same content is not a problem."""
    content = (folder / "a.parquet").read_bytes()
    (folder / "a.parquet").unlink()
    (folder / "a.parquet").write_bytes(content)
    assert verify(run.url).holds


def test_duplicate_ids_are_counted(tmp_path):
    """Rows whose id an earlier row has too are counted, across sources; they are not a problem by themselves."""
    folder = write_sources(tmp_path / "sources", [30])
    content = (folder / "a.parquet").read_bytes()
    (folder / "b.parquet").write_bytes(content)
    run = make_run(tmp_path / "run", folder, publish=True)
    proof = verify(run.url, duplicates=True)
    assert proof.holds
    assert proof.duplicate_ids == 30
    assert "30 rows have an id that an earlier row has too" in str(proof)
    assert verify(run.url).duplicate_ids is None


def test_boundaries_that_overlap(folder, tmp_path):
    """A plan that does not cover each row once is found, though every part of it is there."""
    manifest = plan_run(folder)
    cut = manifest.sources[1].model_copy(update={"boundaries": (0, 20, 60)})
    overlapping = manifest.sources[0].model_copy(update={"boundaries": (20, 60, 40, 100)})
    damaged = manifest.model_copy(update={"sources": (overlapping, cut)})
    run, _ = create_or_join(str(tmp_path / "run"), damaged)
    assert verify(run.url).problems[1].startswith("the units of a do not partition its rows;")


def test_many_problems_are_shortened(run):
    """People see five problems and how many more there are; the JSON has them all."""
    for unit in run.manifest.units():
        part_file(run, unit).write_bytes(b"")
    proof = verify(run.url)
    assert len(proof.problems) == 8
    assert str(proof).count("PROBLEM") == 5
    assert "and 3 more problems" in str(proof)
    assert len(proof.to_json()["problems"]) == 8
    with pytest.raises(CheckError, match=r"cannot be read .* \(and 7 more\)"):
        require(proof)


def test_a_limited_run(folder, tmp_path):
    """A trial is whole when the rows that it planned are there, though sources have more."""
    run = make_run(tmp_path / "trial", folder, limit_rows=50, publish=True)
    proof = verify(run.url, sources=True)
    assert proof.holds, proof
    assert proof.rows_out == 50


@pytest.mark.parametrize(
    ("boundaries", "num_rows", "fits"),
    [
        ((0, 5, 9), 9, True),
        ((0, 0), 0, True),
        ((0, 9), 8, False),
        ((1, 9), 9, False),
        ((0, 5, 5, 9), 9, False),
    ],
)
def test_partitions(boundaries, num_rows, fits):
    """Boundaries cover the rows exactly where they rise from 0 to the end."""
    assert is_partition(boundaries, num_rows) is fits


def test_no_run(tmp_path):
    """What is not a run cannot be verified; what another Assay wrote is refused."""
    with pytest.raises(SourceError, match="holds no run"):
        verify(str(tmp_path))
    (tmp_path / "run.json").write_text('{"format_version": 99}')
    with pytest.raises(RefusedError, match="run format version 99"):
        verify(str(tmp_path))


def test_verify_reruns_to_whole(run):
    """The way out that a problem names works: delete the part, make it again."""
    unit = run.manifest.units()[0]
    part_file(run, unit).write_bytes(b"")
    part_file(run, unit).unlink()
    publish_unit(run, unit)
    assert verify(run.url, sources=True).holds
