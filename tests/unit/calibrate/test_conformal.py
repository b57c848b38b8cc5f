"""Intervals with a promised coverage."""

import numpy as np
import pytest

from assay.calibrate.conformal import fit_half_width, measured_coverage, needed_rows
from assay.calibrate.folds import fold_rows
from assay.errors import InputError


@pytest.mark.parametrize(("coverage", "rows"), [(0.9, 9), (0.95, 19), (0.99, 99), (0.5, 1), (0.8, 4)])
def test_the_least_number_of_rows(coverage, rows):
    """Exact in spite of floats: 0.9 takes 9 rows, not 10, and with one row fewer it is refused."""
    assert needed_rows(coverage) == rows
    errors = np.arange(1.0, rows + 1)
    assert fit_half_width(errors, coverage) == rows
    with pytest.raises(InputError, match=f"{rows - 1} rows; intervals of coverage {coverage:g} need {rows}"):
        fit_half_width(errors[:-1], coverage)


def test_the_quantile_is_that_of_one_row_more():
    """ceil((N + 1) c): of 19 errors 1..19 at 0.9 the 18th, of either sign."""
    errors = np.arange(1.0, 20.0) * np.where(np.arange(19) % 2, 1, -1)
    assert fit_half_width(errors, 0.9) == 18.0


def test_measured_coverage_is_of_rows_left_out():
    """One wild error a fold: the interval of the other folds does not know it, so it lies outside."""
    errors = np.ones(100)
    errors[::10] = 50.0
    fold_N = fold_rows(100, num_folds=5, seed=0)
    assert measured_coverage(errors, 0.5, fold_N) == 0.9


def test_measured_coverage_needs_rows_in_the_other_folds():
    """9 rows are enough for 0.9, two thirds of them are not."""
    with pytest.raises(InputError, match=r"6 rows; intervals of coverage 0\.9 need 9"):
        measured_coverage(np.arange(9.0), 0.9, np.arange(9) % 3)
