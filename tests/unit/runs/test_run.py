"""A run on its store: created once, joined by the same, and parts that are whole or not there."""

import errno
import json
import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.fake_runs import (
    contents,
    footer_of,
    leftovers,
    make_run,
    part_file,
    plan_run,
    publish_unit,
    write_sources,
)
from support.fake_worker import FakeWork

from assay.data import row_groups as row_groups_module
from assay.data.ids import IdChecksum
from assay.errors import RefusedError, SourceError, StorageError, UnitError
from assay.runs.run import create_or_join, find_run, open_run


@pytest.fixture
def folder(tmp_path):
    """One source of 100 rows."""
    return write_sources(tmp_path / "sources", [100])


@pytest.fixture
def run(folder, tmp_path):
    """A run of five units, none published."""
    return make_run(tmp_path / "run", folder)


def batches(run, unit):
    """What a worker would publish for the unit."""
    work = FakeWork(run.manifest)
    return work.finish(unit, work.prepare(unit))


# ------------------------------------------------------------ create, join


def test_a_run_is_created_once_and_joined_after(folder, tmp_path):
    """The first driver creates the run, the second joins it, and both see the same units."""
    manifest = plan_run(folder)
    first, is_new = create_or_join(str(tmp_path / "run"), manifest)
    second, is_new_again = create_or_join(str(tmp_path / "run"), plan_run(folder))
    assert (is_new, is_new_again) == (True, False)
    assert second.manifest == first.manifest == open_run(str(tmp_path / "run")).manifest


def test_the_first_unit_plan_stands(run, folder, tmp_path):
    """Whoever joins with other unit sizes works on the units that were planned first."""
    joined, _ = create_or_join(run.url, plan_run(folder, unit_rows=7))
    assert joined.manifest.units() == run.manifest.units()


def test_another_run_is_refused(run, folder):
    """A directory of another run is refused with what changed, three changes at most spelled out."""
    other = plan_run(folder, identity={"max_length": 32, "a": 1, "b": 2, "c": 3})
    with pytest.raises(RefusedError) as refused:
        create_or_join(run.url, other)
    assert str(refused.value) == (
        f"{run.url} holds another run: a was null, now 1; b was null, now 2; c was null, now 3; and 1 more; "
        "put it back as it was, or use another --run"
    )


def test_parts_without_run_json_are_refused(run, folder):
    """Parts of nobody knows whom are not taken for one's own."""
    publish_unit(run, run.manifest.units()[0])
    (part_file(run, run.manifest.units()[0]).parents[1] / "run.json").unlink()
    with pytest.raises(RefusedError, match=r"has parts but no run.json; .* use another --run"):
        create_or_join(run.url, plan_run(folder))


def test_no_run(tmp_path):
    """A directory without run.json holds no run, and the message says where one is looked for."""
    assert find_run(str(tmp_path)) is None
    with pytest.raises(SourceError, match=r"holds no run .no run.json.; give the directory"):
        open_run(str(tmp_path))


# ------------------------------------------------------------ publish


def test_a_part_and_its_footer(run):
    """A part has the unit's rows in order, the run's schema, and a footer that says whose it is."""
    unit = run.manifest.units()[1]
    work = FakeWork(run.manifest)
    times = iter([100.0, 103.5])
    published = run.publish(
        unit,
        work.finish(unit, work.prepare(unit)),
        rows_in=lambda: work.rows_in,
        stats=work.stats,
        clock=lambda: next(times),
    )
    assert (published.unit, published.rows_out, published.created) == ("a-20-40", 20, True)
    table = pq.read_table(part_file(run, unit))
    assert table.schema.remove_metadata() == run.manifest.arrow_schema().remove_metadata()
    assert table["id"].to_pylist() == [f"0-{row}" for row in range(20, 40)]
    footer = footer_of(part_file(run, unit))
    checksum = IdChecksum()
    checksum.update(table["id"])
    assert footer[b"assay.run_id"] == run.manifest.run_id.encode()
    assert footer[b"assay.unit"] == b"a-20-40"
    assert footer[b"assay.rows_in"] == footer[b"assay.rows_out"] == b"20"
    assert footer[b"assay.id_checksum"] == checksum.hexdigest().encode()
    assert footer[b"assay.task"] == b"regression", "the schema's own metadata is kept"
    stats = json.loads(footer[b"assay.stats"])
    assert (stats["started_at"], stats["finished_at"], stats["num_rows"]) == (100.0, 103.5, 20)
    assert leftovers(run) == []
    assert run.is_published(unit)
    assert set(run.part_files()) == {"a-20-40"}


@pytest.mark.parametrize("change", ["fewer", "more", "none"])
def test_a_wrong_number_of_rows_is_no_part(run, change):
    """A unit whose rows do not add up fails by name, and leaves neither a part nor a temporary file."""
    unit = run.manifest.units()[0]
    (batch,) = batches(run, unit)
    given = {"fewer": [batch.slice(1)], "more": [batch, batch.slice(0, 1)], "none": []}[change]
    rows = sum(batch.num_rows for batch in given)
    with pytest.raises(
        UnitError,
        match=f"unit a-0-20 of 20 rows: 20 were read and {rows} came out; its source may have changed",
    ):
        run.publish(unit, given, rows_in=lambda: unit.num_rows)
    assert not run.is_published(unit)
    assert leftovers(run) == []
    assert publish_unit(run, unit).created


def test_an_error_midway_leaves_nothing(run):
    """An error while the batches are made goes on to the caller as it is, and nothing half is left."""
    unit = run.manifest.units()[0]

    def broken():
        yield from batches(run, unit)
        msg = "the device fell off"
        raise RuntimeError(msg)

    with pytest.raises(RuntimeError, match="the device fell off"):
        run.publish(unit, broken(), rows_in=lambda: unit.num_rows)
    assert run.part_files() == {}
    assert leftovers(run) == []


def test_the_second_publish_does_nothing(run):
    """Two workers on one unit are harmless: the first part stands, byte for byte."""
    unit = run.manifest.units()[0]
    assert publish_unit(run, unit).created
    before = part_file(run, unit).read_bytes()
    assert not publish_unit(run, unit).created
    assert part_file(run, unit).read_bytes() == before
    assert leftovers(run) == []


def test_a_source_without_rows(tmp_path):
    """An empty source becomes an empty part with the schema."""
    run = make_run(tmp_path / "run", write_sources(tmp_path / "sources", [0, 5]), publish=True)
    assert [unit.name for unit in run.manifest.units()] == ["a-0-0", "b-0-5"]
    table = pq.read_table(part_file(run, run.manifest.units()[0]))
    assert table.num_rows == 0
    assert table.schema.remove_metadata() == run.manifest.arrow_schema().remove_metadata()
    assert footer_of(part_file(run, run.manifest.units()[0]))[b"assay.rows_in"] == b"0"


def test_rows_are_counted_where_there_is_no_id(tmp_path):
    """Without an id column a part names its rows by number in their source."""
    folder = write_sources(tmp_path / "sources", [50], ids=False)
    run = make_run(tmp_path / "run", folder, publish=True)
    table = pq.read_table(part_file(run, run.manifest.units()[1]))
    assert table.schema.names[0] == "source_row"
    start, stop = run.manifest.units()[1].start, run.manifest.units()[1].stop
    assert table["source_row"].to_pylist() == list(range(start, stop))


def test_row_groups_are_gathered(run, monkeypatch):
    """Batches of any size become row groups of a bounded number of rows or bytes."""
    schema = run.manifest.arrow_schema()
    (batch,) = batches(run, run.manifest.units()[0])
    monkeypatch.setattr(row_groups_module, "ROW_GROUP_ROWS", 40)
    many = [pa.Table.from_batches([batch.slice(0, 15)], schema)] * 7
    assert [table.num_rows for table in row_groups_module.row_groups(many)] == [45, 45, 15]
    monkeypatch.setattr(row_groups_module, "ROW_GROUP_BYTES", 1)
    assert [table.num_rows for table in row_groups_module.row_groups(many)] == [15] * 7
    assert list(row_groups_module.row_groups([])) == []
    unit = run.manifest.units()[0]
    run.publish(unit, [batch.slice(start, 5) for start in range(0, 20, 5)], rows_in=lambda: 20)
    metadata = pq.read_metadata(part_file(run, unit))
    assert [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)] == [5] * 4


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "could not be written .No space left on device.; free space on that disk"),
        (errno.EROFS, "could not be written .Read-only file system.; name a folder on a disk that can"),
        (errno.EDQUOT, "could not be written .Disk quota exceeded.; raise the quota"),
    ],
)
@pytest.mark.parametrize("step", ["link", "fsync"])
def test_a_disk_that_cannot_be_written(run, monkeypatch, number, message, step):
    """A full or read-only disk is a storage error with a way out, and nothing half is left behind."""

    def fail(*_):
        raise OSError(number, os.strerror(number))

    unit = run.manifest.units()[0]
    with monkeypatch.context() as patched:
        patched.setattr(os, step, fail)
        with pytest.raises(StorageError, match=message):
            publish_unit(run, unit)
    assert run.part_files() == {}
    assert leftovers(run) == []
    assert publish_unit(run, unit).created


def test_a_run_may_be_moved(run, folder, tmp_path):
    """A run directory holds no path to itself: it can be copied and gone on with elsewhere."""
    publish_unit(run, run.manifest.units()[0])
    shutil.copytree(run.url, tmp_path / "copy")
    copy = make_run(tmp_path / "copy", folder)
    for unit in copy.manifest.units():
        publish_unit(copy, unit)
    assert len(contents(copy)) == 5


def test_batches_of_another_schema_are_refused(run):
    """A batch that lacks a column is an error, never a part."""
    unit = run.manifest.units()[0]
    (batch,) = batches(run, unit)
    with pytest.raises((pa.ArrowException, ValueError, KeyError)):
        run.publish(unit, [batch.drop_columns(["error"])], rows_in=lambda: unit.num_rows)
    assert run.part_files() == {}
    assert leftovers(run) == []
