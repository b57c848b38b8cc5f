"""Numbers for people: rates, the time left, and the line that holds them."""

import itertools
import random

import pytest

from assay.telemetry import Counters, Progress, TimeLeft, bar_line, format_rate, run_figures


@pytest.mark.parametrize(
    ("rate", "shown"),
    [
        (0, "0"),
        (0.0314, "0.031"),
        (0.5, "0.50"),
        (1, "1.0"),
        (4.26, "4.3"),
        (88.3, "88"),
        (12_345.6, "12,346"),
        (1.234e6, "1.23M"),
    ],
)
def test_a_rate_has_two_digits_at_least(rate, shown):
    """A slow rate is not rounded to 0 or to one digit."""
    assert format_rate(rate) == shown


def answers(readings, total):
    """What is said to be left after each reading."""
    left = TimeLeft(done=0)
    return [left.add(seconds, done, total) for seconds, done in readings]


def test_a_steady_rate_counts_down():
    """At ten rows a second what is left falls by a second each second, and is 0 at the end."""
    found = answers([(second, 10 * second) for second in range(1, 101)], 1000)
    assert found == pytest.approx([100 - second for second in range(1, 101)])


def test_nothing_is_said_before_anything_is_done():
    """Without a row there is no answer; what was done before is no rate."""
    assert answers([(1.0, 0), (30.0, 0)], 1000) == [None, None]
    left = TimeLeft(done=900)
    assert left.add(10.0, 900, 1000) is None
    assert left.add(20.0, 950, 1000) == pytest.approx(20.0)


@pytest.mark.parametrize("seed", range(5))
def test_bursts_do_not_make_it_jump(seed):
    """Units of a minute that end in bursts: read every second, the answer moves by seconds, never by minutes."""
    chance = random.Random(seed)
    ends = sorted(
        worker * 7 + 60 * unit + chance.uniform(-9, 9) for worker in range(1, 5) for unit in range(1, 31)
    )
    readings = [(float(second), 500 * sum(end <= second for end in ends)) for second in range(1, 1800)]
    found = answers(readings, 500 * len(ends))
    late = [
        (second, left) for (second, _), left in zip(readings, found, strict=True) if second >= 300 and left
    ]
    steps = [abs(after - before) for (_, before), (_, after) in itertools.pairwise(late)]
    assert max(steps) < 10
    errors = [abs(ends[-1] - second - left) / ends[-1] for second, left in late if second >= 900]
    assert max(errors) < 0.15


def test_a_standstill_is_noticed_without_a_jump():
    """Where nothing more gets done the answer does not go on falling."""
    found = answers([(float(second), min(10 * second, 3000)) for second in range(1, 900)], 6000)
    assert found[299] == pytest.approx(300)
    steps = [after - before for before, after in itertools.pairwise(found)]
    assert max(map(abs, steps)) < 5
    assert found[-1] > 300, "ten minutes later no less is left"


def test_rows_that_are_lost_make_no_jump():
    """A worker that dies takes its unpublished rows with it: the answer moves by seconds."""
    left = TimeLeft(done=0)
    before = [left.add(float(second), 10 * second, 10_000) for second in range(1, 101)][-1]
    after = left.add(100.2, 900, 10_000)
    assert abs(after - before) < 5


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_a_line_keeps_what_matters(width):
    """However narrow, title, share, rate and time left stay, beside a bar; wider lines hold more."""
    progress = Progress(
        units_total=10,
        units_done=4,
        rows_total=123_456_789,
        rows_done=51_851_851,
        counters=Counters(rows=3, tokens=700, padded_tokens=720),
        seconds=10.0,
    )
    line = bar_line("tokenize", 0.42, run_figures(progress, 3_723.0, 100.0), width)
    assert len(line) <= width
    assert line.startswith("tokenize ━")
    assert "─ " in line
    assert " 42% 0.30 docs/s, 1:02:03 left" in line
    assert ("padding" in line) == (width >= 120)


def test_a_line_before_the_first_row():
    """Until then the line says what is done and how long the command has been running."""
    progress = Progress(units_total=1, units_done=0, rows_total=10, rows_done=0, phase="parity")
    figures = run_figures(progress, None, 75.0)
    assert figures == ["parity", "1:15"]
    assert bar_line("score", 0.0, figures, 80) == f"score {'─' * 24}   0% parity, 1:15"


def test_no_share_is_called_whole_before_the_end():
    """99.9% is not shown as 100%."""
    assert " 99% " in bar_line("score", 0.999, ["a", "b"], 80)
    assert "100% " in bar_line("score", 1.0, ["a", "b"], 80)
