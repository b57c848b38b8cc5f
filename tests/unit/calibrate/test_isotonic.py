"""Isotonic regression of one label."""

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from assay.calibrate.isotonic import fit_isotonic
from assay.outcome.calibration import Calibration
from assay.outcome.maps import map_scores


def drawn(num_rows=400, seed=0):
    """Probabilities that are too sure, and whether each came true."""
    rng = np.random.default_rng(seed)
    probability = rng.random(num_rows)
    return probability, rng.random(num_rows) < probability**2


def test_the_curve_is_scikit_learns():
    """Applied with NumPy alone it predicts what IsotonicRegression.predict does, on other values too."""
    probability, holds = drawn()
    steps = fit_isotonic(probability, holds)
    bounds = {"y_min": 1 / 402, "y_max": 401 / 402}
    reference = IsotonicRegression(**bounds, out_of_bounds="clip").fit(probability, holds)
    grid = np.linspace(0, 1, 301)
    found = map_scores(grid, Calibration(method="isotonic", steps=(steps,)))
    np.testing.assert_allclose(found, reference.predict(grid), atol=1e-12)


def test_it_never_says_never():
    """400 rows show no probability of 0 or 1: a single surprise would cost an infinite NLL."""
    probability, _ = drawn()
    steps = fit_isotonic(probability, probability > 0.5)
    assert (steps.y[0], steps.y[-1]) == (pytest.approx(1 / 402), pytest.approx(401 / 402))
