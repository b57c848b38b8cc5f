"""How far an estimate may be off: means and variances of slices, and intervals that hold what they should."""

import math
import random
from statistics import NormalDist

import pytest

from assay.score.estimate.intervals import (
    Mean,
    Slice,
    product,
    seconds_per_token,
    t_quantile,
    tokens_per_row,
    worker_spread,
)


def slices(rows, *, worker="w", seconds_per_token=0.01):
    """Slices of these numbers of rows and tokens, each timed, a second apart."""
    return [
        Slice(
            num_rows=num_rows,
            num_tokens=num_tokens,
            seconds=num_tokens * seconds_per_token,
            finished_at=float(k),
            worker=worker,
        )
        for k, (num_rows, num_tokens) in enumerate(rows)
    ]


@pytest.mark.parametrize(
    ("degrees", "expected"), [(3, 3.1824), (5, 2.5706), (10, 2.2281), (31, 2.0395), (1e9, 1.9600)]
)
def test_quantiles_of_student(degrees, expected):
    """As the tables have them, within 1%."""
    assert t_quantile(degrees, 0.975) == pytest.approx(expected, rel=0.01)


def test_a_sample_that_is_the_corpus_is_certain():
    """Where every row was looked at there is nothing to be unsure of; half as many leave half the variance."""
    seen = slices([(10, 100), (10, 300), (10, 200)])
    assert tokens_per_row(seen, 30) == Mean(value=20.0, variance=0.0, degrees=1.0)
    assert tokens_per_row(seen, 60).variance == pytest.approx(
        tokens_per_row(seen, 10**9).variance / 2, rel=1e-6
    )


def test_a_short_slice_counts_as_much_as_a_long_one():
    """It stands for a stretch of the same length: a short source is drawn as often as its rows deserve."""
    assert tokens_per_row(slices([(10, 100), (1, 30)]), 1000).value == 20.0


def test_a_machine_that_drifts_has_a_wider_interval():
    """Slices that slow down in the course of the sample leave more doubt than the same in another order."""
    rates = [1.0] * 8 + [1.2] * 8 + [1.4] * 8 + [1.6] * 8
    shuffled = random.Random(1).sample(rates, len(rates))

    def variance(rates):
        return seconds_per_token(
            [
                Slice(num_rows=1, num_tokens=10, seconds=rate, finished_at=float(k), worker="w")
                for k, rate in enumerate(rates)
            ]
        ).variance

    assert variance(rates) > 2 * variance(shuffled)


def test_slices_without_a_time_do_not_count():
    """The first of a worker warms up: its tokens are no part of the rate."""
    cold = Slice(num_rows=1, num_tokens=1000, seconds=None, finished_at=-1.0, worker="w")
    warm = slices([(1, 100), (1, 100)])
    assert seconds_per_token([cold, *warm]) == seconds_per_token(warm)
    assert seconds_per_token(warm).value == pytest.approx(0.01)


def test_the_spread_of_workers_needs_four():
    """Of three nothing is said; of four it is their standard deviation."""
    own = [
        slices([(1, 100)], worker=name, seconds_per_token=rate)
        for name, rate in zip("abcd", (1, 1, 2, 2), strict=True)
    ]
    assert worker_spread([each for part in own[:3] for each in part]) is None
    assert worker_spread([each for part in own for each in part]) == pytest.approx(0.385, abs=0.001)


def test_an_interval_holds_the_truth_as_often_as_it_says():
    """Of 400 samples of 32 slices, from lengths that are far from normal, about 95% have the mean inside."""
    chance, truth, inside = random.Random(0), 100.0, 0
    for _ in range(400):
        lengths = [sum(chance.lognormvariate(-0.32, 0.8) * truth for _ in range(20)) / 20 for _ in range(32)]
        sample = [Slice(num_rows=100, num_tokens=round(length * 100)) for length in lengths]
        found = product([tokens_per_row(sample, 10**9)])
        inside += found.low <= truth <= found.high
    assert 0.92 <= inside / 400 <= 0.98


@pytest.mark.parametrize("drift", [0.02, 0.1, 0.2])
def test_a_run_on_a_busy_machine_lies_within(drift):
    """Where the speed wanders from minute to minute, the speed of the ten minutes to come is inside, 19 of 20 times."""
    chance, inside, trials = random.Random(5), 0, 300
    for _ in range(trials):
        levels = [chance.gauss(0, drift)]
        for _ in range(43):
            levels.append(0.7 * levels[-1] + chance.gauss(0, drift * (1 - 0.7**2) ** 0.5))
        rates = [math.exp(level) for level in levels]
        sample = [
            Slice(
                num_rows=1,
                num_tokens=100,
                seconds=100 * rates[k // 8] * math.exp(chance.gauss(0, 0.02)),
                finished_at=float(k),
                worker="w",
            )
            for k in range(32)
        ]
        found, truth = product([seconds_per_token(sample)]), sum(rates[4:]) / 40
        inside += found.low <= truth <= found.high
    assert inside / trials > 0.93


def test_doubts_add_up():
    """A product is as unsure as its factors together; one that is certain adds nothing."""
    one, sure = Mean(value=2.0, variance=0.01, degrees=1e9), Mean(value=3.0, variance=0.0, degrees=1.0)
    single, both = product([one, sure], 10), product([one, one])
    assert single.value == 60.0
    z = NormalDist().inv_cdf(0.975)
    assert single.high / single.value == pytest.approx(single.value / single.low)
    assert single.high == pytest.approx(60 * 2.718281828 ** (z * 0.1), rel=1e-4)
    assert both.high / both.value > single.high / single.value
    assert product([sure]).low == product([sure]).high == 3.0
