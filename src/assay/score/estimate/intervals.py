"""How far an estimate from a sample of slices may be off. Pure.

A slice is some consecutive rows. Slices are drawn one from each stretch of a corpus that is cut into equal ones,
and their variance is taken as that of a plain random sample: no smaller, whatever the order of the corpus
(Cochran, Sampling Techniques, 1977, section 5A.11).

    tokens a row        the mean over slices
    seconds a token     of the slices that were run, a ratio (section 6.4); its variance is that by slices, and twice
                        what four stretches of time differ by beyond that, since a machine's speed drifts: once for the
                        sample's level and once for the run's. It is not divided by the number of stretches: they
                        follow each other, and a drift that is slower than the sample does not even out in it
    together            relative variances add up; the interval is t standard errors of the logarithm either way,
                        with the degrees of freedom of Welch and Satterthwaite

Axes: K slices.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95
NUM_STRETCHES = 4
"""Of time, between which the speed is compared."""
LEAST_DRIFT = 0.01
"""Relative standard deviation between times that is assumed at the least: four stretches may agree by chance."""
FEWEST_SLICES = 8
"""That are compared by stretches of time."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """Some consecutive rows, and what they took."""

    num_rows: int
    num_tokens: int
    seconds: float | None = None
    """Of one worker, from the end of its slice before to the end of this one; None where it was not timed."""
    finished_at: float = 0.0
    """Unix seconds."""
    worker: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mean:
    """A figure from a sample."""

    value: float
    variance: float
    """Relative, of the value as an estimate."""
    degrees: float
    """Of freedom."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimated:
    """A figure, and what it lies between at the confidence of the estimate."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> "Estimated":
        """The same in another unit."""
        return Estimated(value=self.value * factor, low=self.low * factor, high=self.high * factor)


def tokens_per_row(slices: Sequence[Slice], num_rows: int) -> Mean:
    """The mean over slices, each of a stretch of its own of the `num_rows` rows; certain where they are all of them."""
    seen = sum(each.num_rows for each in slices)
    if seen >= num_rows:
        return Mean(value=sum(each.num_tokens for each in slices) / max(seen, 1), variance=0.0, degrees=1.0)
    means_K = np.array([each.num_tokens / each.num_rows for each in slices if each.num_rows])
    found = _ratio(means_K, np.ones(len(means_K)))
    return Mean(value=found.value, variance=found.variance * (1 - seen / num_rows), degrees=found.degrees)


def seconds_per_token(slices: Sequence[Slice]) -> Mean:
    """Of one worker, over the slices that were timed and hold tokens; at least two."""
    timed = sorted(
        (each for each in slices if each.seconds is not None and each.num_tokens),
        key=lambda each: each.finished_at,
    )
    seconds_K = np.array([each.seconds for each in timed], dtype=np.float64)
    tokens_K = np.array([each.num_tokens for each in timed], dtype=np.float64)
    by_slice = _ratio(seconds_K, tokens_K)
    if len(timed) < FEWEST_SLICES:
        return by_slice
    cuts = [len(timed) * k // NUM_STRETCHES for k in range(NUM_STRETCHES)]
    by_time = _ratio(np.add.reduceat(seconds_K, cuts), np.add.reduceat(tokens_K, cuts))
    drift = 2 * max(NUM_STRETCHES * (by_time.variance - by_slice.variance), LEAST_DRIFT**2)
    variance = by_slice.variance + drift
    degrees = variance**2 / (by_slice.variance**2 / by_slice.degrees + drift**2 / by_time.degrees)
    return replace(by_slice, variance=variance, degrees=degrees)


def worker_spread(slices: Sequence[Slice]) -> float | None:
    """How far apart workers are in speed, a relative standard deviation; None of fewer than four."""
    by_worker: dict[str, list[Slice]] = {}
    for each in slices:
        by_worker.setdefault(each.worker, []).append(each)
    rates = [
        sum(each.seconds or 0.0 for each in own) / tokens
        for own in by_worker.values()
        if (tokens := sum(each.num_tokens for each in own if each.seconds is not None))
    ]
    return float(np.std(rates, ddof=1) / np.mean(rates)) if len(rates) >= 4 else None


def product(parts: Sequence[Mean], scale: float = 1.0) -> Estimated:
    """The product of independent figures, times `scale`, and its interval at `CONFIDENCE`."""
    value = scale * math.prod(part.value for part in parts)
    variance = sum(part.variance for part in parts)
    if not variance:
        return Estimated(value=value, low=value, high=value)
    degrees = variance**2 / sum(part.variance**2 / part.degrees for part in parts)
    factor = math.exp(t_quantile(degrees, (1 + CONFIDENCE) / 2) * math.sqrt(variance))
    return Estimated(value=value, low=value / factor, high=value * factor)


def t_quantile(degrees: float, probability: float) -> float:
    """Of Student's distribution, by the series in Abramowitz and Stegun, 26.7.5: within 1% from three degrees on."""
    z = NormalDist().inv_cdf(probability)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92_160,
    )
    return sum(term / degrees**power for power, term in enumerate(terms))


def _ratio(y_K: Floats, x_K: Floats) -> Mean:
    """The sum of one over that of the other."""
    count, total = len(y_K), float(x_K.sum())
    value = float(y_K.sum()) / total if total else 0.0
    if count < 2 or not value:
        return Mean(value=value, variance=0.0, degrees=1.0)
    residuals_K = y_K - value * x_K
    variance = count / (count - 1) * float(residuals_K @ residuals_K) / float(y_K.sum()) ** 2
    return Mean(value=value, variance=variance, degrees=count - 1.0)
