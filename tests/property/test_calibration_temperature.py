"""What temperature scaling promises for any logits."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from assay.calibrate.temperature import fit_temperature
from assay.errors import InputError
from assay.metrics import log_softmax
from assay.outcome.calibration import Calibration
from assay.outcome.maps import apply_calibration
from assay.tasks import Task

LOGITS = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 20), st.integers(2, 6)),
    elements=st.floats(-50, 50, width=32),
)
TEMPERATURES = st.floats(0.01, 100)


@given(LOGITS, TEMPERATURES)
def test_temperature_scaling_keeps_the_argmax(logits, temperature):
    """The most probable label of the raw logits is still (one of) the most probable."""
    probabilities = apply_calibration(logits, Calibration(temperature=temperature), Task.SINGLE_LABEL)
    chosen = probabilities[np.arange(len(logits)), logits.argmax(axis=1)]
    np.testing.assert_array_equal(chosen, probabilities.max(axis=1))


@given(LOGITS, TEMPERATURES)
def test_probabilities_are_probabilities(logits, temperature):
    """Single-label rows sum to 1; multi-label values lie in 0..1; a regression is left alone."""
    calibration = Calibration(temperature=temperature)
    single = apply_calibration(logits, calibration, Task.SINGLE_LABEL)
    np.testing.assert_allclose(single.sum(axis=1), 1.0)
    multi = apply_calibration(logits, calibration, Task.MULTI_LABEL)
    assert ((multi >= 0) & (multi <= 1)).all()
    np.testing.assert_array_equal(apply_calibration(logits, calibration, Task.REGRESSION), logits)


@settings(deadline=None)
@given(LOGITS, st.integers(0, 2**32 - 1))
def test_no_other_temperature_has_a_lower_nll(logits, seed):
    """The fit is the minimum: every temperature of a wide grid does at best as well."""
    labels = np.random.default_rng(seed).integers(0, logits.shape[1], len(logits))

    def loss(temperature):
        return -log_softmax(logits.astype(np.float64) / temperature)[np.arange(len(labels)), labels].mean()

    try:
        best = fit_temperature(logits, labels)
    except InputError:
        assume(condition=False)
    assert 0 < best < np.inf
    grid = np.geomspace(1e-3, 1e3, 97)
    assert loss(best) <= min(loss(temperature) for temperature in grid) + 1e-9


@settings(deadline=None)
@given(st.floats(0.2, 5.0))
def test_scaled_logits_give_a_scaled_temperature(factor):
    """Multiplying the logits by k multiplies the temperature by k: probabilities do not move."""
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(200, 3)) * 2
    labels = np.array([rng.choice(3, p=np.exp(row) / np.exp(row).sum()) for row in logits])
    expected = fit_temperature(logits, labels) * factor
    assert fit_temperature(logits * factor, labels) == pytest.approx(expected, rel=1e-6)
