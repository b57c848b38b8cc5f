"""What evaluation promises for any probabilities, labels and draws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.evaluate.measure import EvaluatedRows, Resampling, families_of, measure, point_values
from assay.evaluate.sums import metrics_at
from assay.tasks import Task


@st.composite
def outcomes(draw):
    """A single-label outcome with many ties, sometimes of one class or one prediction only."""
    num_rows, num_classes = draw(st.integers(1, 12)), draw(st.integers(2, 4))
    labels = draw(st.lists(st.integers(0, num_classes - 1), min_size=num_rows, max_size=num_rows))
    cell = st.integers(1, 4)
    parts = draw(
        st.lists(
            st.lists(cell, min_size=num_classes, max_size=num_classes), min_size=num_rows, max_size=num_rows
        )
    )
    probabilities = np.array(parts, dtype=float)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return EvaluatedRows(
        task=Task.SINGLE_LABEL,
        outputs_NC=probabilities,
        plain_NC=probabilities,
        predicted=probabilities.argmax(axis=1),
        targets=np.array(labels),
    )


@given(outcomes(), st.data())
def test_weighted_metrics_are_those_of_the_drawn_rows(outcome, data):
    """For any draw; where the plain metric is undefined the weighted one is NaN."""
    rows = data.draw(st.lists(st.integers(0, outcome.num_rows - 1), min_size=1, max_size=15))
    weights = np.bincount(rows, minlength=outcome.num_rows).astype(float)[None]
    found = metrics_at(families_of(outcome), weights)
    for name, value in point_values(outcome.take(np.array(rows))).items():
        expected = np.nan if isinstance(value, str) else value
        assert found[name][0] == pytest.approx(expected, abs=1e-9, nan_ok=True), name


@given(outcomes(), st.integers(0, 5))
def test_a_metric_is_a_finite_number_or_says_why_it_is_none(outcome, seed):
    """Never NaN; an interval holds the value, or there is a reason for none; a bundle differs from itself by 0."""
    resampling = Resampling(num_resamples=100, method="bca", confidence=0.9, seed=seed)
    part = measure("all rows", outcome, [outcome], resampling)
    for metric in part.metrics.values():
        assert (metric.value is None) == (metric.undefined is not None)
        assert metric.value is None or np.isfinite(metric.value)
        low, high, why = metric.interval.low, metric.interval.high, metric.interval.undefined
        assert (low is None) == (high is None) == (why is not None)
        assert low is None or low - 1e-9 <= metric.value <= high + 1e-9
    for name, difference in part.others[0].differences.items():
        assert difference.value in {None, 0.0}, name
        assert difference.p_value in {None, 1.0}, name
