"""What an estimate is made from: rows from all over the sources, and times from the footers of parts."""

import random

import pytest
from support.fake_runs import plan_run, write_sources

from assay.score.estimate.sample import draw, draw_timed, timed


@pytest.fixture
def manifest(tmp_path):
    """A plan of four sources, 10 to 500 rows."""
    return plan_run(write_sources(tmp_path / "sources", [500, 10, 250, 240]))


@pytest.mark.parametrize(("count", "num_rows"), [(1, 20), (7, 20), (20, 20), (64, 256), (64, 1)])
def test_slices_lie_within_their_sources(manifest, count, num_rows):
    """Whatever is asked for: one source each, within its rows, as long as asked where the source is."""
    for unit in draw(manifest, count, num_rows, random.Random(0)):
        record = manifest.sources[unit.source]
        assert record.name == unit.source_name
        assert 0 <= unit.start < unit.stop <= record.num_rows
        assert unit.num_rows <= num_rows


def test_each_stretch_has_a_slice(manifest):
    """Ten slices of a thousand rows: one from each hundred, another with another seed."""
    first = draw(manifest, 10, 5, random.Random(0))
    begins = {0: 0, 1: 500, 2: 510, 3: 760}
    assert [(begins[unit.source] + unit.start) // 100 for unit in first] == list(range(10))
    assert draw(manifest, 10, 5, random.Random(0)) == first
    assert draw(manifest, 10, 5, random.Random(1)) != first


def test_every_row_is_as_likely(manifest):
    """Over many seeds a source is drawn in proportion to its rows, the short one too."""
    rows = [0, 0, 0, 0]
    for seed in range(2000):
        for unit in draw(manifest, 4, 1, random.Random(seed)):
            rows[unit.source] += 1
    assert rows[1] / sum(rows) == pytest.approx(0.01, abs=0.004)
    assert rows[0] / sum(rows) == pytest.approx(0.5, abs=0.02)


def test_what_is_scored_comes_in_random_order(manifest):
    """So that a machine that slows down does not make the end of the corpus look long."""
    units = draw_timed(manifest, 1, 1000, random.Random(0))
    assert len(units) == 31
    places = [(unit.source, unit.start) for unit in units]
    assert places != sorted(places)


@pytest.mark.parametrize(("asked", "num_slices"), [(1, 9), (320, 10), (100_000, 31), (None, 31)])
def test_as_many_documents_are_scored_as_are_asked_for(manifest, asked, num_slices):
    """Few documents are fewer slices, never so few that the spread of the rate is not known."""
    assert len(draw_timed(manifest, 1, asked, random.Random(0))) == num_slices


def footer(worker, started_at, finished_at, num_tokens=10):
    """What a worker leaves in a part's footer."""
    return {
        "worker": worker,
        "started_at": started_at,
        "finished_at": finished_at,
        "num_tokens": num_tokens,
    }


def test_a_part_takes_from_the_end_of_the_one_before():
    """By worker; the first is not timed, a worker that waited is not slow, and what has no times is left out."""
    parts = [
        (4, footer("a", 0.0, 2.0)),
        (4, footer("b", 0.0, 5.0)),
        (4, footer("a", 2.5, 6.0)),
        (4, footer("b", 5.0, 7.5)),
        (4, footer("a", 100.0, 103.0)),
        (4, {"worker": "c"}),
        (4, {}),
    ]
    found = [(each.worker, each.seconds) for each in timed(parts)]
    assert found == [("a", None), ("b", None), ("a", 4.0), ("b", 2.5), ("a", 8.0)]
