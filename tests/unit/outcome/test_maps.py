"""What each calibration does to logits."""

import numpy as np
import pytest

from assay.metrics import sigmoid, softmax
from assay.outcome.calibration import Calibration, Curve
from assay.outcome.maps import apply_calibration, log_odds, map_scores
from assay.tasks import Task

LOGITS_N2 = np.array([[0.0, 0.0], [1.0, -1.0], [-2.0, 3.0]])
LOGITS_N3 = np.array([[0.0, 1.0, -1.0], [2.0, 0.5, 0.0]])
CURVE = Curve(x=(0.2, 0.5, 0.9), y=(0.1, 0.3, 0.8))


def test_a_vector_scales_and_shifts_each_label():
    """softmax(scale * logits + bias)."""
    calibration = Calibration(method="vector", scale=(1.0, 2.0, 0.5), bias=(0.1, 0.0, -0.3))
    expected = softmax(LOGITS_N3 * [1.0, 2.0, 0.5] + [0.1, 0.0, -0.3])
    np.testing.assert_allclose(apply_calibration(LOGITS_N3, calibration, Task.SINGLE_LABEL), expected)


def test_a_logistic_map_of_two_labels_acts_on_their_log_odds():
    """P(second) = sigmoid(a (z1 - z0) + b), and the two sum to 1 without loss at either end."""
    calibration = Calibration(method="logistic", scale=(0.5,), bias=(-1.0,))
    found = apply_calibration(LOGITS_N2, calibration, Task.SINGLE_LABEL)
    np.testing.assert_allclose(found[:, 1], sigmoid(0.5 * log_odds(LOGITS_N2) - 1.0))
    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    far = apply_calibration([[200.0, 0.0]], calibration, Task.SINGLE_LABEL)
    assert 0 < far[0, 1] < 1e-40


def test_each_label_of_a_multi_label_head_has_its_own_map():
    """Logistic and isotonic go column by column, and rows need not sum to 1."""
    logistic = Calibration(method="logistic", scale=(1.0, 2.0, 3.0), bias=(0.0, 0.5, 1.0))
    found = apply_calibration(LOGITS_N3, logistic, Task.MULTI_LABEL)
    np.testing.assert_allclose(found[:, 2], sigmoid(3.0 * LOGITS_N3[:, 2] + 1.0))
    other = Curve(x=(0.0, 1.0), y=(0.0, 0.5))
    isotonic = Calibration(method="isotonic", steps=(CURVE, other, other))
    found = apply_calibration(LOGITS_N3, isotonic, Task.MULTI_LABEL)
    np.testing.assert_allclose(found[:, 1], sigmoid(LOGITS_N3[:, 1]) / 2)


def test_an_isotonic_curve_is_straight_between_its_points_and_flat_beyond():
    """0.35 lies half-way between 0.2 and 0.5; below the first point and above the last nothing moves."""
    values = np.array([0.0, 0.2, 0.35, 0.5, 0.9, 1.0])
    found = map_scores(values, Calibration(method="isotonic", steps=(CURVE,)))
    np.testing.assert_allclose(found, [0.1, 0.1, 0.2, 0.3, 0.8, 0.8])


def test_isotonic_maps_of_many_labels_are_brought_to_sum_1():
    """One against the rest each, then divided by their sum; a row of zeros is spread evenly."""
    calibration = Calibration(method="isotonic", steps=(CURVE,) * 3)
    found = apply_calibration(LOGITS_N3, calibration, Task.SINGLE_LABEL)
    climbed = np.interp(softmax(LOGITS_N3), CURVE.x, CURVE.y)
    np.testing.assert_allclose(found, climbed / climbed.sum(axis=1, keepdims=True))
    nothing = Calibration(method="isotonic", steps=(Curve(x=(0.0,), y=(0.0,)),) * 3)
    np.testing.assert_allclose(apply_calibration(LOGITS_N3, nothing, Task.SINGLE_LABEL), 1 / 3)


def test_a_style_calibration_maps_similarities():
    """sigmoid(coef * cosine + intercept), whatever the range of the scores."""
    found = map_scores([-0.2, 0.9], Calibration(method="logistic", scale=(12.0,), bias=(-6.0,)))
    np.testing.assert_allclose(found, sigmoid([-8.4, 4.8]))


@pytest.mark.parametrize(
    ("task", "calibration"),
    [
        (Task.SINGLE_LABEL, None),
        (Task.SINGLE_LABEL, Calibration(temperature=2.0)),
        (Task.SINGLE_LABEL, Calibration(method="vector", scale=(1.0, 1.0), bias=(0.0, 0.0))),
        (Task.SINGLE_LABEL, Calibration(method="logistic", scale=(1.0,), bias=(0.0,))),
        (Task.SINGLE_LABEL, Calibration(method="isotonic", steps=(CURVE,))),
        (Task.MULTI_LABEL, Calibration(method="logistic", scale=(1.0, 1.0), bias=(0.0, 0.0))),
        (Task.MULTI_LABEL, Calibration(method="isotonic", steps=(CURVE, CURVE))),
        (Task.REGRESSION, Calibration(method="conformal", half_width=1.0, coverage=0.9)),
    ],
)
def test_a_row_without_a_finite_score_stays_without(task, calibration):
    """NaN in, NaN out: no curve or sigmoid turns a broken document into a plausible one. No rows, no result."""
    logits = np.array([[np.nan, np.nan], [1.0, 2.0]])
    found = apply_calibration(logits, calibration, task)
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()
    assert apply_calibration(np.empty((0, 2)), calibration, task).shape == (0, 2)
