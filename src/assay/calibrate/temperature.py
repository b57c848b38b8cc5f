"""One number that makes confidences honest: temperature scaling.

Pure: NumPy arrays in, a temperature out. Axes: N rows, C classes.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from assay.calibrate.targets import TargetArray, check_logits_and_targets, refuse_all_right
from assay.errors import InputError
from assay.metrics import FloatArray, sigmoid, softmax
from assay.tasks import Task

_NUM_STEPS = 200
_RELATIVE_PRECISION = 1e-10


def fit_temperature(logits_NC: ArrayLike, targets: ArrayLike, task: Task = Task.SINGLE_LABEL) -> float:
    """The temperature above 0 that minimises the NLL of softmax(logits / T), or of sigmoids (multi-label).

    Guo et al. 2017, section 4.2. `targets` are class indices [N], or 0/1 [N, C] for a multi-label
    head. The NLL is convex in 1 / T, so its one minimum is found by Newton's method on the derivative,
    kept inside a shrinking bracket: exact to ten digits, where L-BFGS stops at its tolerance. Raises
    `InputError` where no finite temperature is best: every row right (the NLL falls for ever as T
    does), or logits that say less of the labels than chance.
    """
    logits, checked = check_logits_and_targets(logits_NC, targets, task)
    refuse_all_right(logits, checked)
    slopes = _slopes(logits, checked)
    if slopes(0.0)[0] >= 0:
        raise InputError(
            f"the logits of {len(logits)} rows say less of their labels than chance; no temperature helps;"
            " check the label column and train the model"
        )
    # Convex, falling at 0 and rising in the end: the minimum lies in between.
    low, high = 0.0, 1.0
    while slopes(high)[0] < 0:
        low, high = high, 2 * high
    inverse = high
    for _ in range(_NUM_STEPS):
        slope, curvature = slopes(inverse)
        if slope > 0:
            high = inverse
        else:
            low = inverse
        newton = inverse - slope / curvature if curvature > 0 else high
        following = newton if low < newton < high else (low + high) / 2
        if abs(following - inverse) <= _RELATIVE_PRECISION * inverse:
            break
        inverse = following
    return 1.0 / inverse


def _slopes(logits: FloatArray, targets: TargetArray) -> Callable[[float], tuple[float, float]]:
    """First and second derivative of the mean NLL by 1 / T, as a function of 1 / T."""

    def of_sigmoids(inverse: float) -> tuple[float, float]:
        probabilities = sigmoid(logits * inverse)
        slope_N = ((probabilities - targets) * logits).sum(axis=1)
        curvature_N = (probabilities * (1 - probabilities) * np.square(logits)).sum(axis=1)
        return float(slope_N.mean()), float(curvature_N.mean())

    def of_softmax(inverse: float) -> tuple[float, float]:
        """E[z] - z_true, and Var[z]."""
        probabilities = softmax(logits * inverse)
        mean_N = (probabilities * logits).sum(axis=1)
        variance_N = (probabilities * np.square(logits - mean_N[:, None])).sum(axis=1)
        return float((mean_N - true_logit_N).mean()), float(variance_N.mean())

    if targets.ndim == 2:
        return of_sigmoids
    true_logit_N = logits[np.arange(len(logits)), targets]
    return of_softmax
