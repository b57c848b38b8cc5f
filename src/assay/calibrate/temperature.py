"""One number that makes confidences honest: temperature scaling.

Pure: NumPy arrays in, a temperature or probabilities out. Axes: N rows, C classes.
"""

import numpy as np
from numpy.typing import ArrayLike

from assay.bundle import Calibration, Task
from assay.errors import InputError
from assay.metrics import FloatArray, IntArray, sigmoid, softmax

_NUM_STEPS = 200
_RELATIVE_PRECISION = 1e-10


def fit_temperature(logits_NC: ArrayLike, labels_N: ArrayLike) -> float:
    """The temperature above 0 that minimises the NLL of softmax(logits / T).

    Guo et al. 2017, section 4.2. The NLL is convex in 1 / T, so its one minimum is found by Newton's
    method on the derivative, kept inside a shrinking bracket. Raises `InputError` where no finite
    temperature is best: every row right (the NLL falls for ever as T does), or logits that say less
    of the labels than chance.
    """
    logits, labels = _checked(logits_NC, labels_N)
    true_logit_N = logits[np.arange(labels.size), labels]

    def slopes(inverse: float) -> tuple[float, float]:
        """First and second derivative of the mean NLL by 1 / T: E[z] - z_true, and Var[z]."""
        probabilities = softmax(logits * inverse)
        mean_N = (probabilities * logits).sum(axis=1)
        variance_N = (probabilities * np.square(logits - mean_N[:, None])).sum(axis=1)
        return float((mean_N - true_logit_N).mean()), float(variance_N.mean())

    if (true_logit_N >= logits.max(axis=1)).all():
        raise InputError(
            f"all {labels.size} calibration rows are predicted right; no temperature is best;"
            " calibrate on more rows or harder ones"
        )
    if slopes(0.0)[0] >= 0:
        raise InputError(
            f"the logits of {labels.size} rows say less of their labels than chance; no temperature helps;"
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


def apply_calibration(logits_NC: ArrayLike, calibration: Calibration | None, task: Task) -> FloatArray:
    """Probabilities [N, C] in float64 for a classifier; the values themselves for a regression.

    Dividing by one positive temperature keeps the order of the logits, so the prediction too.
    """
    logits = np.asarray(logits_NC, dtype=np.float64)
    if task == "regression":
        return logits
    scaled = logits if calibration is None else logits / calibration.temperature
    return softmax(scaled) if task == "single_label" else sigmoid(scaled)


def _checked(logits_NC: ArrayLike, labels_N: ArrayLike) -> tuple[FloatArray, IntArray]:
    logits = np.asarray(logits_NC, dtype=np.float64)
    labels = np.asarray(labels_N)
    if logits.ndim != 2 or logits.shape[1] < 2 or labels.shape != logits.shape[:1] or labels.size == 0:
        raise InputError(
            f"shapes {logits.shape} and {labels.shape}; a temperature needs logits [N, C] and labels [N],"
            " N > 0 and C > 1"
        )
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise InputError(f"labels up to {labels.max()}; labels are class indices 0..{logits.shape[1] - 1}")
    finite = np.isfinite(logits).all(axis=1)
    if not finite.all():
        raise InputError(
            f"{int((~finite).sum())} rows have logits that are not finite; a temperature needs finite ones;"
            " check the model's weights and precision"
        )
    return logits, labels.astype(np.int64)
