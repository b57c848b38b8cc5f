"""Differences of bundles on the same rows, from outcomes that are made up."""

from dataclasses import replace

import numpy as np
import pytest

from assay import metrics
from assay.evaluate.measure import EvaluatedRows, Resampling, measure
from assay.tasks import Task

RESAMPLING = Resampling(num_resamples=400, method="percentile", confidence=0.95, seed=0)


def outcome_of(targets, scores):
    """What a two-label model says whose logit is `scores`."""
    second = metrics.sigmoid(scores)
    probabilities = np.stack([1 - second, second], axis=1)
    return EvaluatedRows(
        task=Task.SINGLE_LABEL,
        outputs_NC=probabilities,
        plain_NC=probabilities,
        predicted=probabilities.argmax(axis=1),
        targets=targets,
    )


def width(found):
    """Of an interval."""
    return found.interval.high - found.interval.low


@pytest.fixture
def variants():
    """Two models that judge 500 rows alike but for a little noise, the first a little better."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, 500)
    common = 1.5 * (2 * targets - 1) + 2 * rng.normal(size=500)
    lean = 0.2 * (2 * targets - 1)
    return tuple(outcome_of(targets, common + sign * lean + 0.2 * rng.normal(size=500)) for sign in (1, -1))


@pytest.mark.parametrize("name", ["auc", "nll", "accuracy"])
def test_a_paired_interval_is_narrower_than_two_apart(variants, name):
    """Models that err on the same rows: drawing rows for both at once takes that out of the difference."""
    first, second = variants
    part = measure("all", first, [second], RESAMPLING)
    compared = part.others[0]
    apart = np.hypot(width(part.metrics[name]), width(compared.metrics[name]))
    assert width(compared.differences[name]) < 0.6 * apart


def test_a_model_against_itself_is_exactly_zero(variants):
    """Every difference, in every resample: no interval, p of 1."""
    first, other = variants
    compared = measure("all", first, [other, first], RESAMPLING).others[1]
    for name, difference in compared.differences.items():
        assert difference.value == 0.0, name
        assert difference.p_value == 1.0, name
        assert difference.interval.undefined == "all resamples give the same value", name


def test_differences_of_like_rows_are_less_sure_where_their_groups_are_drawn():
    """One model is better on some authors and worse on others: rows alone would take that for certain."""
    rng = np.random.default_rng(1)
    sides = rng.integers(0, 12, size=(600, 2))
    targets = rng.integers(0, 2, 600)
    lean = rng.normal(size=12)[sides].sum(axis=1)
    common = (2 * targets - 1) + rng.normal(size=600)
    first = outcome_of(targets, common + (2 * targets - 1) * lean)
    second = outcome_of(targets, common)
    of_rows = measure("all", first, [second], RESAMPLING).others[0].differences
    of_sides = measure("all", first, [second], RESAMPLING, sides).others[0].differences
    of_first = measure("all", first, [second], RESAMPLING, sides[:, 0]).others[0].differences
    for name in ("nll", "auc"):
        assert of_rows[name].value == of_sides[name].value
        assert width(of_sides[name]) > 1.5 * width(of_rows[name])
        assert width(of_sides[name]) > width(of_first[name])


def test_a_metric_that_one_of_them_lacks_has_no_difference(variants):
    """PAN's metrics of the first alone are in its own column alone."""
    first, second = variants
    part = measure("all", replace(first, unanswered_within=0.0), [second], RESAMPLING)
    assert "c_at_1" in part.metrics
    assert "c_at_1" not in part.others[0].differences
