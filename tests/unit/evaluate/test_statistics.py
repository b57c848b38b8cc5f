"""Metrics of weighted rows are those of the rows, each as often as its weight says."""

from dataclasses import replace

import numpy as np
import pytest

from assay import metrics
from assay.evaluate.measure import EvaluatedRows, families_of, point_values
from assay.evaluate.sums import metrics_at
from assay.tasks import Task

RNG = np.random.default_rng(0)


def single_label(num_rows=60, num_classes=4, decimals=2):
    """Rounded, so that there are ties."""
    labels = RNG.integers(0, num_classes, num_rows)
    logits = (RNG.normal(size=(num_rows, num_classes)) + np.eye(num_classes)[labels]).round(decimals)
    probabilities = metrics.softmax(logits)
    return EvaluatedRows(
        task=Task.SINGLE_LABEL,
        outputs_NC=probabilities,
        plain_NC=probabilities,
        predicted=probabilities.argmax(axis=1),
        targets=labels,
    )


def pairs(num_rows=60):
    """Two labels, some probabilities of exactly 0.5 and more within the band."""
    outcome = single_label(num_rows, num_classes=2)
    probability = outcome.outputs_NC[:, 1].round(1)
    return replace(outcome, outputs_NC=np.stack([1 - probability, probability], 1), unanswered_within=0.05)


def multi_label(num_rows=60):
    """Four labels of different frequency."""
    targets = (RNG.random((num_rows, 4)) < [0.5, 0.3, 0.1, 0.4]).astype(np.int64)
    probabilities = metrics.sigmoid(RNG.normal(size=(num_rows, 4)) + targets).round(2)
    return EvaluatedRows(
        task=Task.MULTI_LABEL,
        outputs_NC=probabilities,
        plain_NC=probabilities,
        predicted=(probabilities >= 0.5).astype(np.int64),
        targets=targets,
    )


def regression(num_rows=60):
    """Scores about 3, with whole scores and intervals."""
    targets = RNG.normal(3, 1, num_rows).round(1)
    values = (targets + RNG.normal(size=num_rows)).round(1)[:, None]
    return EvaluatedRows(
        task=Task.REGRESSION,
        outputs_NC=values,
        plain_NC=values,
        predicted=np.zeros(num_rows, dtype=np.int64),
        targets=targets,
        int_score=(1, 5),
        half_width=0.75,
    )


OUTCOMES = {
    "binary": single_label(num_classes=2),
    "pairs": pairs(),
    "four labels": single_label(),
    "many labels": multi_label(),
    "numbers": regression(),
}


@pytest.mark.parametrize("outcome", OUTCOMES.values(), ids=OUTCOMES)
def test_every_metric_of_a_report_has_a_weighted_twin_of_the_same_value(outcome):
    """Weights of 1: the very values of `assay.metrics`, under ties too."""
    found = metrics_at(families_of(outcome), np.ones((1, outcome.num_rows)))
    expected = point_values(outcome)
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name][0] == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize("outcome", OUTCOMES.values(), ids=OUTCOMES)
def test_weights_are_how_often_a_row_is_there(outcome):
    """Each of 20 resamples gives what the plain metrics give of the drawn rows; NaN where they say why not."""
    drawn = RNG.integers(0, outcome.num_rows, size=(20, outcome.num_rows))
    weights = np.stack([np.bincount(rows, minlength=outcome.num_rows) for rows in drawn]).astype(float)
    found = metrics_at(families_of(outcome), weights)
    for at, rows in enumerate(drawn):
        for name, value in point_values(outcome.take(rows)).items():
            expected = np.nan if isinstance(value, str) else value
            assert found[name][at] == pytest.approx(expected, abs=1e-9, nan_ok=True), name


def test_ranking_is_left_out_where_it_would_take_too_long():
    """Everything else is still there."""
    outcome = OUTCOMES["four labels"]
    found = metrics_at(families_of(outcome, most_rankings=3), np.ones((1, outcome.num_rows)))
    assert "auc" not in found
    assert "ece_equal_mass" in found
