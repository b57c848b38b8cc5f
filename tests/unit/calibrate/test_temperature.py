"""Fitting a temperature: the right one is found, hopeless input is refused."""

import numpy as np
import pytest

from assay.calibrate.temperature import fit_temperature
from assay.errors import InputError
from assay.metrics import ece, sigmoid, softmax
from assay.outcome.calibration import Calibration
from assay.outcome.maps import apply_calibration
from assay.tasks import Task


def drawn(num_rows, *, num_classes=4, seed=0):
    """Logits and labels drawn from their softmax: calibrated as they are."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(num_rows, num_classes)) * 2
    labels = np.array([rng.choice(num_classes, p=row) for row in softmax(logits)])
    return logits, labels


@pytest.mark.parametrize("true_temperature", [0.3, 1.0, 4.0])
def test_the_temperature_that_spoiled_the_logits_is_found(true_temperature):
    """Logits multiplied by T need T; 20,000 rows settle it to a few percent."""
    logits, labels = drawn(20_000)
    assert fit_temperature(logits * true_temperature, labels) == pytest.approx(true_temperature, rel=0.05)


def test_one_temperature_for_the_sigmoids_of_a_multi_label_head():
    """Logits of three labels multiplied by 2.5 need 2.5."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(10_000, 3)) * 2
    holds = rng.random(logits.shape) < sigmoid(logits)
    assert fit_temperature(2.5 * logits, holds, Task.MULTI_LABEL) == pytest.approx(2.5, rel=0.05)


@pytest.mark.parametrize(
    ("targets", "match"),
    [
        ([[1, 0], [0, 1]], "all 2 calibration rows are predicted right"),
        ([[0, 1], [1, 0]], "less of their labels than chance"),
        ([[1, 0.5], [0, 1]], "targets other than 0 and 1"),
        ([[1, np.nan], [0, 1]], "1 targets are not finite"),
        ([0, 1], r"targets \[N, C\]"),
    ],
)
def test_hopeless_multi_label_input_is_refused(targets, match):
    """As for one label a row."""
    with pytest.raises(InputError, match=match):
        fit_temperature([[2.0, -1.0], [-2.0, 1.0]], targets, Task.MULTI_LABEL)


def test_calibration_lowers_the_ece_on_rows_it_has_not_seen():
    """Overconfident logits become honest, measured on other rows than the fit's."""
    logits, labels = drawn(8_000)
    overconfident = logits * 3
    calibration = Calibration(temperature=fit_temperature(overconfident[:4_000], labels[:4_000]))
    before = ece(softmax(overconfident[4_000:]), labels[4_000:])
    after = ece(apply_calibration(overconfident[4_000:], calibration, Task.SINGLE_LABEL), labels[4_000:])
    assert before > 0.1
    assert after < 0.02


def test_huge_float32_logits_do_not_overflow():
    """Logits of 1e4 are far beyond exp() in float32; the answer is still a finite temperature."""
    logits, labels = drawn(500)
    with pytest.raises(InputError, match="no temperature helps"):
        fit_temperature(-1e4 * logits.astype(np.float32), labels)
    assert 50 < fit_temperature(60 * logits.astype(np.float32), labels) < 70


def test_without_a_calibration_logits_are_taken_as_they_are():
    """None means temperature 1."""
    np.testing.assert_array_equal(
        apply_calibration([[1.0, 2.0]], None, Task.SINGLE_LABEL), softmax([[1.0, 2.0]])
    )


@pytest.mark.parametrize(
    ("logits", "labels", "match"),
    [
        ([[2.0, 0.0], [0.0, 2.0]], [0, 1], "all 2 calibration rows are predicted right"),
        ([[2.0, 2.0], [1.0, 1.0]], [0, 1], "all labels have the same logit in each of 2 rows"),
        ([[2.0, 0.0], [0.0, 2.0]], [1, 0], "less of their labels than chance"),
        ([[np.nan, 0.0], [0.0, 2.0]], [1, 0], "1 rows have logits that are not finite"),
        ([[1.0, 0.0]], [2], r"class indices 0\.\.1"),
        ([[1.0]], [0], "C > 1"),
        (np.zeros((0, 2)), np.zeros(0, int), "N > 0"),
    ],
)
def test_hopeless_input_is_refused(logits, labels, match):
    """No silent bound, no NaN: one line that says what is wrong with the rows."""
    with pytest.raises(InputError, match=match):
        fit_temperature(logits, labels)
