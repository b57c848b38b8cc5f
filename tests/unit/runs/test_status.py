"""Where a run stands, from its directory alone."""

import json
import os

import pytest
from support.fake_runs import make_run, part_file, publish_unit, write_sources

from assay.errors import SourceError
from assay.runs.parts import published_parts
from assay.runs.status import status
from assay.runs.status import status_of as status_of_parts

NOW = 1_800_000_000.0


@pytest.fixture
def run(tmp_path):
    """A run of two sources and eight units of 20 rows, none published."""
    return make_run(tmp_path / "run", write_sources(tmp_path / "sources", [100, 60]))


def status_of(run, *, now):
    """The status of a run with the parts that it has."""
    return status_of_parts(run, published_parts(run), now=now)


def publish_at(run, ages):
    """Publish one unit for each age, in seconds before NOW."""
    units = [unit for unit in run.manifest.units() if not run.is_published(unit)]
    for unit, age in zip(units, ages, strict=False):
        publish_unit(run, unit)
        os.utime(part_file(run, unit), (NOW - age, NOW - age))


def test_a_new_run(run):
    """Before the first part there is no rate and no estimate, only what is to do."""
    found = status_of(run, now=NOW)
    assert (found.units_published, found.units_total) == (0, 8)
    assert (found.rows_published, found.rows_total) == (0, 160)
    assert (found.num_sources, found.size_bytes) == (2, 0)
    assert found.recent_rows_per_second == 0
    assert found.seconds_left is found.seconds_since_last_part is None
    assert not found.is_complete
    assert str(found) == "0 of 8 units are published (0 of 160 rows); no part yet"


def test_the_rate_is_that_of_the_last_minutes(run):
    """Rate and time left come from parts of the last ten minutes; older ones only count as done."""
    publish_at(run, [5000, 100, 90, 80])
    found = status_of(run, now=NOW)
    assert (found.units_published, found.rows_published) == (4, 80)
    assert found.recent_rows_per_second == pytest.approx(2.0)
    assert found.seconds_since_last_part == pytest.approx(80)
    assert found.seconds_left == pytest.approx(40)
    assert str(found).startswith(
        "4 of 8 units are published (80 of 160 rows); 2.0 docs/s lately, last part 1:20 ago"
    )


@pytest.mark.parametrize("ages", [[700, 650], [10], [10, 10]])
def test_no_rate_from_too_little(run, ages):
    """One recent part, none, or several of one moment give no rate, and no division by zero."""
    publish_at(run, ages)
    assert status_of(run, now=NOW).recent_rows_per_second == 0
    assert status_of(run, now=NOW).seconds_left is None


def test_a_clock_that_runs_behind(run):
    """A part from another machine's future is not a negative age."""
    publish_at(run, [-30])
    assert status_of(run, now=NOW).seconds_since_last_part == 0


def test_complete(run):
    """A run with every part says so, and its JSON can be read by a program."""
    publish_at(run, range(8))
    (part_file(run, run.manifest.units()[0]).parent / "stray-0-9.parquet").touch()
    found = status(run.url, clock=lambda: NOW)
    assert found.is_complete
    assert found.seconds_left == 0
    assert str(found) == (
        "8 of 8 units are published (160 of 160 rows): complete; `assay verify` proves what the parts hold"
    )
    document = json.loads(json.dumps(found.to_json()))
    assert document["is_complete"] is True
    assert document["rows_published"] == 160
    assert document["run_id"] == run.manifest.run_id


def test_no_run(tmp_path):
    """There is no status of what is not a run."""
    with pytest.raises(SourceError, match="holds no run"):
        status(str(tmp_path))
