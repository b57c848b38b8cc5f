"""From logits to calibrated probabilities: what each calibration method does. Pure.

    temperature   softmax or sigmoid of logits / T                     Guo et al. 2017, section 4.2
    vector        softmax of scale * logits + bias, label by label     the same
    logistic      sigmoid of scale * x + bias                          Platt 1999
    isotonic      a rising curve over the uncalibrated probability     Zadrozny & Elkan 2002
    conformal     nothing here: `outcome.decide` makes the intervals of a regression

x is the log-odds of the second of two labels, or the logit of each label of a multi-label head. With
more than two labels each has its curve, and the results are divided by their sum.

Axes: N rows, C outputs.
"""

import numpy as np
from numpy.typing import ArrayLike

from assay.metrics import FloatArray, sigmoid, softmax
from assay.outcome.calibration import Calibration, Curve
from assay.tasks import TWO_LABELS, Task


def apply_calibration(logits_NC: ArrayLike, calibration: Calibration | None, task: Task) -> FloatArray:
    """Probabilities [N, C] in float64 for a classifier; the values themselves for a regression.

    A row with NaN among its logits is NaN. A temperature, and a logistic map of two labels, keep the
    order of a row's outputs; a vector or an isotonic map may change the most probable label.
    """
    logits = np.asarray(logits_NC, dtype=np.float64)
    if calibration is None or not task.is_classifier:
        return apply_link(logits, task)
    if task.link == "sigmoid":
        return _multi_label(logits, calibration)
    return _single_label(logits, calibration)


def apply_link(logits_NC: ArrayLike, task: Task) -> FloatArray:
    """Uncalibrated outputs [N, C] in float64: softmax, sigmoids, or the logits themselves."""
    logits = np.asarray(logits_NC, dtype=np.float64)
    if task.link == "identity":
        return logits
    return softmax(logits) if task.link == "softmax" else sigmoid(logits)


def map_scores(scores_N: ArrayLike, calibration: Calibration) -> FloatArray:
    """Probabilities [N] of scores of any kind, by a logistic or isotonic calibration of one curve.

    For `bundle.calibration.load_style_calibration`, whose scores are cosine similarities.
    """
    scores = np.asarray(scores_N, dtype=np.float64)
    if calibration.method == "isotonic":
        return _climb(scores, calibration.steps[0])
    return sigmoid(calibration.scale[0] * scores + calibration.bias[0])


def log_odds(logits_N2: ArrayLike) -> FloatArray:
    """Log-odds [N] of the second of two labels: what a logistic map of two labels acts on."""
    logits = np.asarray(logits_N2, dtype=np.float64)
    difference: FloatArray = logits[:, 1] - logits[:, 0]
    return difference


def _multi_label(logits_NC: FloatArray, calibration: Calibration) -> FloatArray:
    if calibration.method == "logistic":
        return sigmoid(logits_NC * np.array(calibration.scale) + np.array(calibration.bias))
    if calibration.method == "isotonic":
        return _climb_each(sigmoid(logits_NC), calibration.steps)
    return sigmoid(logits_NC / calibration.temperature)


def _single_label(logits_NC: FloatArray, calibration: Calibration) -> FloatArray:
    if calibration.method == "vector":
        return softmax(logits_NC * np.array(calibration.scale) + np.array(calibration.bias))
    if calibration.method == "logistic":
        x_N = calibration.scale[0] * log_odds(logits_NC) + calibration.bias[0]
        return np.stack([sigmoid(-x_N), sigmoid(x_N)], axis=1)
    if calibration.method == "isotonic" and logits_NC.shape[1] == TWO_LABELS:
        second_N = _climb(softmax(logits_NC)[:, 1], calibration.steps[0])
        return np.stack([1.0 - second_N, second_N], axis=1)
    if calibration.method == "isotonic":
        unscaled_NC = _climb_each(softmax(logits_NC), calibration.steps)
        # A file from elsewhere may have curves that start at 0: a row of zeros is spread evenly.
        total_N1 = unscaled_NC.sum(axis=1, keepdims=True)
        even = 1.0 / logits_NC.shape[1]
        return np.where(total_N1 == 0, even, unscaled_NC / np.where(total_N1 == 0, 1.0, total_N1))
    return softmax(logits_NC / calibration.temperature)


def _climb_each(probabilities_NC: FloatArray, steps_C: tuple[Curve, ...]) -> FloatArray:
    return np.stack([_climb(probabilities_NC[:, c], steps) for c, steps in enumerate(steps_C)], axis=1)


def _climb(values_N: FloatArray, steps: Curve) -> FloatArray:
    climbed: FloatArray = np.interp(values_N, steps.x, steps.y)
    return climbed
