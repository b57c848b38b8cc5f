"""Intervals around a regression's prediction that hold a promised share of the targets. Pure.

Split conformal prediction (Lei et al. 2018, "Distribution-Free Predictive Inference for Regression",
algorithm 2): the interval is the prediction plus and minus a quantile of the absolute errors on rows
that the model has not seen. A later row that is exchangeable with these lies inside with at least the
promised probability, whatever the model; rows of other kinds (a later year, another source) may not.
"""

import math
from fractions import Fraction

import numpy as np

from assay.errors import InputError
from assay.metrics import FloatArray, IntArray


def needed_rows(coverage: float) -> int:
    """Least number of calibration rows for a coverage: with 0.9 it takes 9, with 0.99 it takes 99."""
    # As a fraction of what was written: 0.9 / (1 - 0.9) in floats is a little above 9.
    exact = Fraction(str(coverage))
    return math.ceil(exact / (1 - exact))


def fit_half_width(errors_N: FloatArray, coverage: float) -> float:
    """The ceil((N + 1) * coverage)-th smallest absolute error; raises `InputError` for too few rows."""
    num_rows = len(errors_N)
    if num_rows < needed_rows(coverage):
        raise InputError(
            f"{num_rows} rows; intervals of coverage {coverage:g} need {needed_rows(coverage)} or more;"
            " add rows or lower --coverage"
        )
    rank = math.ceil((num_rows + 1) * Fraction(str(coverage)))
    return float(np.partition(np.abs(errors_N), rank - 1)[rank - 1])


def measured_coverage(errors_N: FloatArray, coverage: float, fold_N: IntArray) -> float:
    """Share of the rows inside the interval that the rows of the other folds give."""
    inside = 0
    for fold in np.unique(fold_N):
        held_out = fold_N == fold
        half_width = fit_half_width(errors_N[~held_out], coverage)
        inside += int((np.abs(errors_N[held_out]) <= half_width).sum())
    return inside / len(errors_N)
