"""How fast parts came, how sure that is, and when nobody can say how long the rest takes."""

import random

import pytest

from assay.runs.pace import NUM_BINS, history, pace_of

NOW = 1_000_000.0


def steady(count, *, every=10.0, rows=100, until=NOW):
    """Parts of so many rows at even distances, the last one at `until`."""
    return [(until - every * k, rows) for k in range(count)]


def test_even_parts_leave_no_doubt():
    """Ten rows a second, minute after minute: the interval is the rate."""
    found = pace_of(steady(60), NOW)
    assert found.rows_per_second == pytest.approx(10.0)
    assert found.low == pytest.approx(10.0, rel=0.2)
    assert found.high == pytest.approx(10.0, rel=0.2)
    assert not found.is_stalled


def test_few_parts_have_a_rate_and_no_interval():
    """Eight are needed for one, two for a rate."""
    assert pace_of(steady(5), NOW).low is None
    assert pace_of(steady(5), NOW).rows_per_second == pytest.approx(10.0)
    assert pace_of(steady(1), NOW).rows_per_second == 0.0
    assert pace_of([], NOW).rows_per_second == 0.0
    assert pace_of([(NOW, 5), (NOW, 5)], NOW).rows_per_second == 0.0


def test_the_interval_holds_the_rate_as_often_as_it_says():
    """Of 300 runs whose parts come at random, about 95% have the true rate inside."""
    chance, inside = random.Random(0), 0
    for _ in range(300):
        at, parts = NOW, []
        while at > NOW - 590:
            at -= chance.expovariate(0.5)
            parts.append((at, 100))
        found = pace_of(parts, NOW)
        inside += found.low <= 50.0 <= found.high
    assert 0.9 <= inside / 300 <= 0.99


def test_silence_is_no_pace():
    """Six minutes without a part where they came every ten seconds; not where they came every two minutes."""
    assert pace_of(steady(20, until=NOW - 360), NOW).is_stalled
    assert not pace_of(steady(20, until=NOW - 200), NOW).is_stalled
    assert not pace_of(steady(4, every=90.0, until=NOW - 310), NOW).is_stalled


def test_the_history_counts_every_row():
    """Rates times the width of a bin are the rows, pauses included."""
    parts = [*steady(30), *steady(30, until=NOW - 5000)]
    bins = history(parts, NOW)
    width = 2 * bins[0][0]
    assert len(bins) == NUM_BINS
    assert sum(rate for _, rate in bins) * width == pytest.approx(6000)
    assert min(rate for _, rate in bins) == 0.0
    assert history([], NOW) == ()
    assert sum(rate for _, rate in history([(NOW, 7)], NOW)) > 0
