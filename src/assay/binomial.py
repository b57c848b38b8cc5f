"""Bounds on a share from a random sample, exact for any size of it (Clopper & Pearson 1934). Pure.

They hold for a sample drawn without replacement too, where they are wider than they need be (Hoeffding 1963).

Axes: K shares.
"""

import math
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from assay.metrics import FloatArray, IntArray

_MOST_STEPS = 20_000
_BISECTIONS = 45
"""To 3e-14."""
_TINY = 1e-300
_EXACT = 1e-14

NumberT = TypeVar("NumberT", float, FloatArray)


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
    """The one-sided upper bound of a share of which `found` of `num_drawn` were found; 1 for nothing drawn.

    In plain numbers, many times as fast as arrays of one: a server makes some of them while it answers.
    """
    if found >= num_drawn:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if _beta_of(middle, num_drawn - found, found + 1.0) < 1 - confidence:
            low = middle
        else:
            high = middle
    return 1.0 - low


def _beta(x_K: FloatArray, a_K: FloatArray, b_K: FloatArray) -> FloatArray:
    """The regularised incomplete beta function I_x(a, b), by its continued fraction (Numerical Recipes, 6.4)."""
    is_turned = x_K > (a_K + 1) / (a_K + b_K + 2)
    x, a, b = np.where(is_turned, 1 - x_K, x_K), np.where(is_turned, b_K, a_K), np.where(is_turned, a_K, b_K)
    logs = [math.lgamma(p + q) - math.lgamma(p) - math.lgamma(q) for p, q in zip(a, b, strict=True)]
    with np.errstate(divide="ignore"):
        front = np.exp(np.array(logs) + a * np.log(x) + b * np.log1p(-x)) / a
    value = _fraction(x, a, b, _away, _are_still)
    found: FloatArray = np.where(is_turned, 1 - front * value, front * value)
    return found


def _beta_of(x: float, a: float, b: float) -> float:
    """The same for one x above 0 and below 1."""
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta_of_lower(1 - x, b, a)
    return _beta_of_lower(x, a, b)


def _beta_of_lower(x: float, a: float, b: float) -> float:
    log = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    value = _fraction(x, a, b, lambda value: value if abs(value) >= _TINY else _TINY, _is_still)
    return math.exp(log) / a * value


def _fraction(
    x: NumberT,
    a: NumberT,
    b: NumberT,
    away: Callable[[NumberT], NumberT],
    is_done: Callable[[NumberT, NumberT], bool],
) -> NumberT:
    """The continued fraction of the incomplete beta function; `away` keeps what is divided by from 0."""
    c = d = 1 / away(1 - (a + b) * x / (a + 1))
    c, value = c * 0 + 1, d
    for m in range(1, _MOST_STEPS):
        before = value
        for factor in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d, c = 1 / away(1 + factor * d), away(1 + factor / c)
            value = value * d * c
        if is_done(value, before):
            break
    return value


def _is_still(value: float, before: float) -> bool:
    return abs(value - before) <= _EXACT * abs(value)


def _are_still(value: FloatArray, before: FloatArray) -> bool:
    return bool(np.all(np.abs(value - before) <= _EXACT * np.abs(value)))


def _away(value: FloatArray) -> FloatArray:
    return np.where(np.abs(value) < _TINY, _TINY, value)
