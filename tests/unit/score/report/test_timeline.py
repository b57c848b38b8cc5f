"""When the parts of a run were made: throughput over working time, hours of work."""

import pytest

from assay.score.report.timeline import PartSpan, throughput_curve, worker_seconds


def span(start, stop, rows, worker="w"):
    """A part, in short."""
    return PartSpan(started_at=start, finished_at=stop, num_rows=rows, worker=worker)


def test_throughput_adds_up():
    """The rates times the bins' widths give the rows; workers are summed."""
    spans = [span(0, 60, 600, "a"), span(0, 60, 600, "b"), span(60, 120, 300, "a")]
    found = throughput_curve(spans)
    width = found.active_seconds / len(found.seconds)
    assert sum(found.rows_per_second) * width == pytest.approx(1500)
    assert found.rows_per_second[0] == pytest.approx(20)
    assert found.rows_per_second[-1] == pytest.approx(5)
    assert found.cuts == ()


def test_idle_stretches_are_cut_and_told():
    """A day between two tries is not working time."""
    found = throughput_curve([span(0, 60, 600), span(86_460, 86_520, 600)])
    assert found.active_seconds == pytest.approx(120)
    assert [(cut.at, cut.seconds) for cut in found.cuts] == [(60, 86_400)]
    assert sum(found.rows_per_second) * 120 / len(found.seconds) == pytest.approx(1200)


def test_overlapping_units_of_a_worker_count_once():
    """A worker that reads ahead has two units under way; its time counts once."""
    assert worker_seconds([span(0, 60, 1), span(50, 100, 1), span(0, 100, 1, "v")]) == 200
    assert worker_seconds([span(0, 60, 1, None), span(50, 100, 1, None)]) == 110
