"""Maps that scale and shift logits."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from assay.calibrate.affine import fit_logistic, fit_vector
from assay.errors import InputError
from assay.metrics import log_softmax, sigmoid, softmax


def drawn(num_rows=20_000, *, num_classes=3, seed=0):
    """Logits and labels drawn from their softmax."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(num_rows, num_classes)) * 2
    return logits, np.array([rng.choice(num_classes, p=row) for row in softmax(logits)])


def test_the_vector_that_spoiled_the_logits_is_undone():
    """Stretched and shifted logits get the inverse: 20,000 rows settle it to a few percent."""
    logits, labels = drawn()
    stretch, shift = np.array([2.0, 0.5, 1.5]), np.array([1.0, -2.0, 0.5])
    scale, bias = fit_vector(logits * stretch + shift, labels)
    np.testing.assert_allclose(scale * stretch, 1.0, rtol=0.06)
    # A constant added to all biases changes nothing.
    fixed = bias + scale * shift
    np.testing.assert_allclose(fixed - fixed.mean(), 0.0, atol=0.1)


def test_no_nearby_vector_is_better():
    """The fit is the minimum of what its docstring states: the NLL, and the pull of one row."""
    logits, labels = drawn(300)
    scale, bias = fit_vector(logits, labels)
    rng = np.random.default_rng(1)

    def loss(scale, bias):
        return -log_softmax(logits * scale + bias)[np.arange(300), labels].sum()

    for _ in range(50):
        nudge = rng.normal(size=6) * 0.2
        assert loss(scale, bias) < loss(scale + nudge[:3], bias + nudge[3:]) + 0.5


def test_a_biased_model_that_no_temperature_helps_has_a_vector():
    """One label said too often throughout: temperature scaling gives up, a bias fixes it."""
    logits, labels = drawn(3_000)
    biased = logits * 0.2 + [8.0, 0.0, 0.0]
    scale, bias = fit_vector(biased, labels)
    before = log_softmax(biased)[np.arange(3_000), labels].mean()
    after = log_softmax(biased * scale + bias)[np.arange(3_000), labels].mean()
    assert after > before + 1


def test_separable_rows_have_a_finite_vector():
    """Where the likelihood alone would grow without end, the pull of one row holds it."""
    logits = np.array([[3.0, 0.0], [0.0, 3.0], [2.0, 0.1]] * 10)
    scale, bias = fit_vector(logits, np.array([0, 1, 0] * 10))
    assert np.isfinite([*scale, *bias]).all()
    assert (scale > 0).all()


def test_platts_map_is_found():
    """Scale and bias of the model that drew the labels."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=20_000) * 3 + 1
    holds = rng.random(20_000) < sigmoid(0.7 * scores - 1.5)
    scale, bias = fit_logistic(scores, holds)
    assert scale == pytest.approx(0.7, rel=0.05)
    assert bias == pytest.approx(-1.5, rel=0.05)


def test_platts_map_is_logistic_regression_with_his_targets():
    """scikit-learn, given each row twice with the weights of Platt's targets, finds the same."""
    rng = np.random.default_rng(3)
    scores = rng.normal(size=80)
    holds = rng.random(80) < sigmoid(2 * scores)
    high, low = (holds.sum() + 1) / (holds.sum() + 2), 1 / ((~holds).sum() + 2)
    target = np.where(holds, high, low)
    reference = LogisticRegression(C=np.inf, tol=1e-10).fit(
        np.concatenate([scores, scores])[:, None],
        [1] * 80 + [0] * 80,
        sample_weight=np.concatenate([target, 1 - target]),
    )
    scale, bias = fit_logistic(scores, holds)
    assert scale == pytest.approx(reference.coef_[0, 0], rel=1e-5)
    assert bias == pytest.approx(reference.intercept_[0], abs=1e-5)


def test_separable_scores_have_a_finite_map():
    """Platt's targets stop short of 0 and 1."""
    scale, bias = fit_logistic(np.array([-2.0, -1.0, 1.0, 2.0]), np.array([False, False, True, True]))
    assert 0 < scale < 10
    assert abs(bias) < 1e-6


@pytest.mark.parametrize("scores", [[3.0, 2.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
def test_scores_that_say_nothing_of_the_label_are_refused(scores):
    """A falling or flat map would turn the order of the documents round, or tie them all."""
    with pytest.raises(InputError, match="less of their labels than chance"):
        fit_logistic(np.array(scores), np.array([False, False, True, True]))
