"""Maps that scale and shift logits: vector scaling, and Platt's logistic map.

Pure: both are convex and small, so Newton's method with exact second derivatives finds their one
minimum in a few steps. Axes: N rows, C classes.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from assay.calibrate.temperature import fit_temperature
from assay.errors import InputError
from assay.metrics import FloatArray, IntArray, log_softmax, sigmoid

_NUM_STEPS = 100
_SMALLEST_STEP = 1e-10
_PRECISION = 1e-13
"""Gains below this share of the value are the end of the descent."""


class _Local(NamedTuple):
    """A function at a point."""

    value: float
    gradient: FloatArray
    hessian: FloatArray


def fit_vector(logits_NC: FloatArray, labels_N: IntArray) -> tuple[FloatArray, FloatArray]:
    """Scale [C] and bias [C] that minimise the NLL of softmax(scale * logits + bias); checked rows in.

    Vector scaling, Guo et al. 2017, section 4.2. Each number is drawn to that of the best temperature
    with the weight of about one row (a normal prior of width 1), so that a label of few rows stays near
    it and separable rows have an answer.
    """
    try:
        unit = fit_temperature(logits_NC, labels_N)
        start = np.ones(logits_NC.shape[1])
    except InputError:
        # No temperature is best, as where one label is said too often throughout: a bias may fix that.
        unit = float(logits_NC.std()) or 1.0
        start = np.zeros(logits_NC.shape[1])
    z_NC = logits_NC / unit
    num_rows, num_classes = z_NC.shape
    prior = np.concatenate([start, np.zeros(num_classes)])
    true_NC = np.zeros_like(z_NC)
    true_NC[np.arange(num_rows), labels_N] = 1.0

    def objective(theta: FloatArray) -> _Local:
        log_p_NC = log_softmax(z_NC * theta[:num_classes] + theta[num_classes:])
        p_NC = np.exp(log_p_NC)
        pz_NC = p_NC * z_NC
        residual_NC = p_NC - true_NC
        gradient = np.concatenate([(residual_NC * z_NC).sum(axis=0), residual_NC.sum(axis=0)])
        corner = np.diag(pz_NC.sum(axis=0)) - pz_NC.T @ p_NC
        hessian = np.block(
            [
                [np.diag((pz_NC * z_NC).sum(axis=0)) - pz_NC.T @ pz_NC, corner],
                [corner.T, np.diag(p_NC.sum(axis=0)) - p_NC.T @ p_NC],
            ]
        )
        away = theta - prior
        return _Local(
            value=float(-log_p_NC[np.arange(num_rows), labels_N].sum() + away @ away / 2),
            gradient=gradient + away,
            hessian=hessian + np.eye(2 * num_classes),
        )

    theta = _minimum(objective, prior)
    return theta[:num_classes] / unit, theta[num_classes:]


def fit_logistic(scores_N: FloatArray, holds_N: NDArray[np.generic]) -> tuple[float, float]:
    """Scale and bias that minimise the NLL of sigmoid(scale * scores + bias); rows of both kinds in.

    Platt 1999 with his targets, (N+ + 1) / (N+ + 2) and 1 / (N- + 2) in place of 1 and 0, so that
    separable rows have an answer; solved as Lin, Lin & Weng 2007. Raises `InputError` where a higher
    score does not make the label likelier.
    """
    holds_N = holds_N.astype(bool)
    num_holding = int(holds_N.sum())
    target_N = np.where(holds_N, (num_holding + 1) / (num_holding + 2), 1 / (len(holds_N) - num_holding + 2))
    mean, unit = float(scores_N.mean()), float(scores_N.std()) or 1.0
    z_N = (scores_N - mean) / unit

    def objective(theta: FloatArray) -> _Local:
        x_N = theta[0] * z_N + theta[1]
        p_N = sigmoid(x_N)
        residual_N, weight_N = p_N - target_N, p_N * (1 - p_N)
        corner = float((weight_N * z_N).sum())
        hessian = np.array([[float((weight_N * z_N * z_N).sum()), corner], [corner, float(weight_N.sum())]])
        return _Local(
            value=float((np.logaddexp(0.0, x_N) - target_N * x_N).sum()),
            gradient=np.array([float((residual_N * z_N).sum()), float(residual_N.sum())]),
            # Scores that are all equal leave the scale open; this keeps it where it is.
            hessian=hessian + 1e-9 * np.eye(2),
        )

    prior = np.log((num_holding + 1) / (len(holds_N) - num_holding + 1))
    scale, bias = _minimum(objective, np.array([0.0, prior]))
    if scale <= 0:
        raise InputError(
            f"the scores of {len(holds_N)} rows say less of their labels than chance; no rising map helps;"
            " check the label column and train the model"
        )
    return float(scale / unit), float(bias - scale * mean / unit)


def _minimum(objective: Callable[[FloatArray], _Local], start: FloatArray) -> FloatArray:
    """Where a convex function is least: Newton's method, each step halved until it descends."""
    theta, here = start, objective(start)
    for _ in range(_NUM_STEPS):
        step = np.linalg.solve(here.hessian, here.gradient)
        descent, length = float(here.gradient @ step), 1.0
        if descent <= _PRECISION * max(1.0, abs(here.value)):
            break
        following = objective(theta - step)
        while following.value > here.value - 1e-4 * length * descent and length > _SMALLEST_STEP:
            length /= 2
            following = objective(theta - length * step)
        if following.value >= here.value:
            break
        theta, here = theta - length * step, following
    return theta
