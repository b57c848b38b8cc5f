"""What is shown while an evaluation runs."""

import io
import json
from itertools import pairwise

import numpy as np
import pytest

from assay.evaluate.display import EvaluateDisplay
from assay.evaluate.measure import EvaluatedRows, Resampling, measure
from assay.tasks import Task


def test_a_line_a_minute_where_there_is_no_terminal():
    """With the step and its share; none before a minute has passed."""
    now, stream = [0.0], io.StringIO()
    with EvaluateDisplay("evaluate", stream=stream, clock=lambda: now[0]) as display:
        display.update("forward pass of model", 0.1)
        assert stream.getvalue() == ""
        now[0] = 61.0
        display.update("resampling all rows", 0.25)
    found = json.loads(stream.getvalue())
    assert (found["task"], found["step"], found["share"]) == ("evaluate", "resampling all rows", 0.25)


def test_a_terminal_shows_the_step_beside_a_bar():
    """In the columns that there are."""
    display = EvaluateDisplay("evaluate", stream=io.StringIO(), clock=lambda: 12.0)
    display.update("resampling all rows", 0.42)
    line = display.line(80)
    assert line.startswith("evaluate ━")
    assert "42% resampling all rows" in line
    assert len(line) <= 80


@pytest.mark.parametrize("num_rows", [300, 5_000])
def test_resampling_says_how_far_it_is(num_rows):
    """Rising to 1 over both bundles, few rows or many."""
    values = np.random.default_rng(0).normal(size=(num_rows, 1))
    outcome = EvaluatedRows(
        task=Task.REGRESSION,
        outputs_NC=values,
        plain_NC=values,
        predicted=np.zeros(num_rows, dtype=np.int64),
        targets=values[::-1, 0],
    )
    shares = []
    resampling = Resampling(num_resamples=200, method="bca", confidence=0.9, seed=0)
    measure("all rows", outcome, [outcome], resampling, advance=shares.append)
    assert all(first < second for first, second in pairwise(shares))
    assert shares[-1] == 1.0
    assert np.any(np.isclose(shares, 0.5))
