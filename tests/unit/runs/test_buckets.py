"""A run in a bucket: refused where the promise cannot be kept, listed in pieces, and few requests a unit."""

import pytest
from support.fake_runs import make_run, plan_run, write_sources

from assay.errors import InputError
from assay.runs.run import create_or_join, find_run, open_run, part_path


@pytest.fixture
def folder(tmp_path):
    """One source of 5,000 rows."""
    return write_sources(tmp_path / "sources", [5000], row_group_rows=5000)


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_store_that_lets_two_win_is_refused(fake_store, folder, scheme):
    """Before any work, in one line with a way out, and nothing of the run stays."""
    fake_store.conditional = "ignored"
    url = f"{scheme}://bucket/run"
    with pytest.raises(
        InputError, match=r"bucket/run: this store has no conditional writes .*; use a bucket"
    ) as refused:
        create_or_join(url, plan_run(folder))
    assert "\n" not in str(refused.value)
    assert find_run(url) is None
    assert list(fake_store.buckets["bucket"].objects) == []


def test_creating_a_run_survives_conflicts(fake_store, folder):
    """A run.json whose put met a conflict or lost its answer is created once, and is no reason to refuse the store."""
    fake_store.orders = ["409", "done, then reset", "409"]
    _, is_new = create_or_join("s3://bucket/run", plan_run(folder))
    assert is_new


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_parts_are_listed_in_ranges(fake_store, folder, scheme):
    """Ranges are a page each, cover all names, strays too, and show what one listing shows."""
    run = make_run(f"{scheme}://bucket/run", folder, unit_rows=2)
    units = run.manifest.units()
    bucket = fake_store.buckets["bucket"]
    strays = ["0", "a-0-2x", "zz"]
    for name in [*(unit.name for unit in units), *strays]:
        bucket.put(f"run/parts/{name}.parquet", b"", {})
    bucket.put("run/parts.json", b"", {})
    bucket.put("run/parts/notes.txt", b"", {})
    fake_store.requests.clear()
    found = open_run(run.url).part_files()
    assert sorted(found) == sorted([*(unit.name for unit in units), *strays])
    assert found[units[7].name].path == part_path(units[7])
    assert len(units) == 2500
    # three pages of names; what lies among them and is no part may begin another page
    assert 3 <= fake_store.requests["list"] <= 6


def test_an_empty_run_takes_few_requests(fake_store, folder):
    """Of a run of many units that has no parts yet, no more ranges are listed than there are pages."""
    run = make_run("s3://bucket/run", folder, unit_rows=2)
    fake_store.requests.clear()
    assert run.part_files() == {}
    assert fake_store.requests == {"list": 3}
