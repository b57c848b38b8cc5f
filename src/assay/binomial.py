"""Bounds on a share from a random sample, exact for any size of it (Clopper & Pearson 1934). Pure.

They hold for a sample drawn without replacement too, where they are wider than they need be (Hoeffding 1963).

Axes: K shares.
"""

import math

import numpy as np

from assay.metrics import FloatArray, IntArray

_MOST_STEPS = 20_000
_BISECTIONS = 45
"""To 3e-14."""


def lower_bound(found_K: IntArray, num_drawn: int, confidence: float) -> FloatArray:
    """The one-sided lower bounds of shares of which `found_K` of `num_drawn` were found, [K]; 0 for none found."""
    found = np.asarray(found_K, dtype=np.float64)
    low_K, high_K = np.zeros(found.shape), np.ones(found.shape)
    shape_K, other_K = np.maximum(found, 1.0), num_drawn - found + 1
    for _ in range(_BISECTIONS):
        middle_K = (low_K + high_K) / 2
        is_below = _beta(middle_K, shape_K, other_K) < 1 - confidence
        low_K, high_K = np.where(is_below, middle_K, low_K), np.where(is_below, high_K, middle_K)
    bound_K: FloatArray = np.where(found == 0, 0.0, low_K)
    return bound_K


def upper_bound(found: int, num_drawn: int, confidence: float) -> float:
    """The one-sided upper bound of a share of which `found` of `num_drawn` were found; 1 for nothing drawn."""
    others = np.array([num_drawn - found])
    return 1.0 - float(lower_bound(others, num_drawn, confidence)[0])


def _beta(x_K: FloatArray, a_K: FloatArray, b_K: FloatArray) -> FloatArray:
    """The regularised incomplete beta function I_x(a, b), by its continued fraction (Numerical Recipes, 6.4)."""
    is_turned = x_K > (a_K + 1) / (a_K + b_K + 2)
    x, a, b = np.where(is_turned, 1 - x_K, x_K), np.where(is_turned, b_K, a_K), np.where(is_turned, a_K, b_K)
    logs = [math.lgamma(p + q) - math.lgamma(p) - math.lgamma(q) for p, q in zip(a, b, strict=True)]
    with np.errstate(divide="ignore"):
        front = np.exp(np.array(logs) + a * np.log(x) + b * np.log1p(-x)) / a
    tiny = 1e-300
    c, d = np.ones(x.shape), 1 / _away(1 - (a + b) * x / (a + 1), tiny)
    value = d.copy()
    for m in range(1, _MOST_STEPS):
        before = value
        for factor in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d, c = 1 / _away(1 + factor * d, tiny), _away(1 + factor / c, tiny)
            value = value * d * c
        if np.all(np.abs(value - before) <= 1e-14 * np.abs(value)):
            break
    found: FloatArray = np.where(is_turned, 1 - front * value, front * value)
    return found


def _away(value: FloatArray, tiny: float) -> FloatArray:
    return np.where(np.abs(value) < tiny, tiny, value)
