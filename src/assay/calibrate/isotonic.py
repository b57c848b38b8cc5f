"""Isotonic regression of one label's truth on its uncalibrated probability (Zadrozny & Elkan 2002).

scikit-learn fits, here alone and imported when asked for; applying needs NumPy only.
"""

import numpy as np
from numpy.typing import NDArray

from assay.metrics import FloatArray
from assay.outcome.calibration import Curve


def fit_isotonic(probability_N: FloatArray, holds_N: NDArray[np.generic]) -> Curve:
    """The rising curve that is nearest to the truth in squared error, for rows of both kinds.

    Kept within 1 / (N + 2) and (N + 1) / (N + 2), Laplace's rule: N rows show no probability of 0 or
    1, and the NLL of a single later surprise would be infinite.
    """
    from sklearn.isotonic import IsotonicRegression

    num_rows = len(holds_N)
    regression = IsotonicRegression(y_min=1 / (num_rows + 2), y_max=(num_rows + 1) / (num_rows + 2))
    regression.fit(probability_N, holds_N.astype(np.float64))
    return Curve(
        x=tuple(float(value) for value in regression.X_thresholds_),
        # scikit-learn's averages of equal values may differ in the last digit.
        y=tuple(float(value) for value in np.maximum.accumulate(regression.y_thresholds_)),
    )
