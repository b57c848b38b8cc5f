"""Intervals and p values: known cases, the promised coverage, the same numbers again."""

import time

import numpy as np
import pytest

from assay import metrics
from assay.evaluate import statistics
from assay.evaluate.bootstrap import Resamples, interval, p_value, resample
from assay.evaluate.draws import row_weights


def mean_of(values):
    """The weighted mean."""
    return [statistics.means_of({"mean": values})]


def bounds(values, *, method="bca", seed=0, group=None, confidence=0.95, num_resamples=1000):
    """The interval of the mean."""
    found = resample(mean_of(values), values.size, num_resamples=num_resamples, seed=seed, group_N=group)
    point = float(values.mean())
    return interval(point, "mean", found, confidence=confidence, method=method)


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_the_interval_of_a_mean_is_that_of_the_normal_distribution(method):
    """Mean of 2,000 rows: 1.96 standard errors to either side."""
    values = np.random.default_rng(0).normal(size=2000)
    found = bounds(values, method=method, num_resamples=5000)
    error = values.std() / np.sqrt(values.size)
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_bca_agrees_with_scipy():
    """On skewed values, within the noise of the resamples."""
    from scipy.stats import bootstrap

    values = np.random.default_rng(1).exponential(size=150)
    expected = bootstrap(
        (values,), np.mean, method="BCa", n_resamples=20_000, rng=np.random.default_rng(0)
    ).confidence_interval
    found = resample(mean_of(values), values.size, num_resamples=20_000, seed=0)
    ours = interval(float(values.mean()), "mean", found, confidence=0.95, method="bca")
    assert (ours.low, ours.high) == pytest.approx((expected.low, expected.high), abs=0.01)


def test_intervals_hold_the_truth_as_often_as_they_promise():
    """Of 200 samples of a skewed distribution about 90% have it inside."""
    rng = np.random.default_rng(2)
    held = 0
    for seed in range(200):
        found = bounds(rng.exponential(size=80), confidence=0.9, seed=seed)
        held += found.low <= 1.0 <= found.high
    assert 0.82 <= held / 200 <= 0.96


def test_groups_of_like_rows_make_the_interval_wide():
    """Ten rows a group that say the same thing are worth one: the interval is as wide as that of the groups."""
    of_group = np.random.default_rng(3).normal(size=100)
    group = np.repeat(np.arange(100), 10)
    rows, by_group = bounds(of_group[group]), bounds(of_group[group], group=group)
    alone = bounds(of_group)
    assert by_group.high - by_group.low == pytest.approx(alone.high - alone.low, rel=0.1)
    assert by_group.high - by_group.low > 2.5 * (rows.high - rows.low)


def test_a_pair_is_there_as_often_as_its_two_groups_together():
    """The product of how often each was drawn; a pair of one group as often as that."""
    drawn = np.array([[2.0, 0.0, 3.0]])
    sides = np.array([[0, 2], [2, 0], [0, 0], [2, 2], [0, 1], [1, 1]])
    assert row_weights(drawn, sides).tolist() == [[6, 6, 2, 3, 0, 0]]


def author_pairs(rng, num_authors=40, num_mixed=500, num_same=150):
    """Pairs of authors, [N, 2], and values that lean as their two authors do."""
    sides = rng.integers(0, num_authors, size=(num_mixed, 2))
    sides[:, 1] = np.where(sides[:, 0] == sides[:, 1], (sides[:, 0] + 1) % num_authors, sides[:, 1])
    sides = np.concatenate([sides, np.repeat(rng.integers(0, num_authors, num_same)[:, None], 2, axis=1)])
    of_author = rng.normal(size=num_authors)
    return sides, of_author[sides].sum(axis=1) + 0.5 * rng.normal(size=len(sides))


def test_drawing_authors_of_pairs_gives_the_spread_of_new_authors():
    """The interval is as wide as means of pairs of other authors are spread; drawing rows gives under half of that."""
    rng = np.random.default_rng(5)
    spread = np.std([author_pairs(rng)[1].mean() for _ in range(300)])
    widths, of_rows = [], []
    for _ in range(10):
        sides, values = author_pairs(rng)
        found, rows = bounds(values, group=sides, num_resamples=500), bounds(values, num_resamples=500)
        widths.append((found.high - found.low) / 3.92)
        of_rows.append((rows.high - rows.low) / 3.92)
    assert np.mean(widths) == pytest.approx(spread, rel=0.2)
    assert np.mean(of_rows) < 0.4 * spread


def test_resamples_of_authors_hold_the_mixture_of_pairs_that_the_rows_hold():
    """The share of pairs of one author stays, on average, what it is; squared counts would near double it."""
    sides, _ = author_pairs(np.random.default_rng(6))
    is_same = (sides[:, 0] == sides[:, 1]).astype(float)
    found = resample(mean_of(is_same), is_same.size, num_resamples=2000, seed=0, group_N=sides)
    assert np.nanmean(found.drawn["mean"]) == pytest.approx(is_same.mean(), rel=0.05)


def test_the_same_seed_gives_the_same_numbers():
    """And another seed others."""
    values = np.random.default_rng(4).normal(size=50)
    assert bounds(values, seed=5) == bounds(values, seed=5)
    assert bounds(values, seed=5) != bounds(values, seed=6)


@pytest.mark.parametrize(
    ("drawn", "value", "reason"),
    [
        ([1.0] * 100, 1.0, "all resamples give the same value"),
        ([0.5] * 50 + [np.nan] * 50, 0.5, "50% of the resamples leave it undefined"),
        (np.linspace(0.2, 0.3, 100), 0.1, "to one side of the value"),
        (np.linspace(0.2, 0.3, 100), 0.201, "to one side of the value"),
    ],
)
def test_an_interval_that_would_mislead_is_none_and_says_why(drawn, value, reason):
    """No [1, 1] for a perfect score, nothing from the few resamples that have a value."""
    resamples = Resamples(drawn={"m": np.array(drawn)}, left_out={"m": np.array([1.0, 2.0])})
    found = interval(value, "m", resamples, confidence=0.95, method="bca")
    assert found.low is None
    assert reason in found.undefined


def p_of(drawn, value=1.0, left_out=(1.0, 2.0), method="percentile"):
    """The p value of a difference with these resamples."""
    resamples = Resamples(drawn={"m": np.array(drawn)}, left_out={"m": np.array(left_out)})
    return p_value(value, "m", resamples, method=method)


def test_p_value_is_of_the_resamples_beyond_zero():
    """Twice the smaller side; 1 where nothing differs, none of resamples without a value, never 0."""
    assert p_of([1.0] * 95 + [-1.0] * 5) == pytest.approx(2 * 4.5 / 99)
    assert p_of(np.ones(999)) == pytest.approx(2 / 1000)
    assert p_of(-np.ones(999), -1.0) == pytest.approx(2 / 1000)
    assert p_of(np.zeros(99), 0.0, (0.0, 0.0), "bca") == 1.0
    assert p_of(np.full(9, np.nan)) is None
    assert p_of(np.linspace(0.2, 0.3, 100), 0.1, method="bca") is None, "and no interval either"


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_p_value_and_interval_never_contradict_each_other(method):
    """Whatever the skew: the interval at confidence 1 - p ends at 0; a little wider holds it, a little narrower not."""
    chance = np.random.default_rng(8)
    seen = set()
    for _ in range(100):
        drawn = chance.gamma(chance.uniform(0.5, 4), size=chance.integers(200, 2000)) - chance.uniform(0, 3)
        drawn = np.round(drawn, int(chance.integers(1, 6)))  # ties, at 0 too
        value = float(np.quantile(drawn, chance.uniform(0.3, 0.7)))
        left_out = chance.gamma(0.7, size=50)
        resamples = Resamples(drawn={"m": drawn}, left_out={"m": left_out})
        p = p_value(value, "m", resamples, method=method)
        for confidence in (0.5, 0.8, 0.9, 0.95, 1 - 0.999 * p, 1 - 1.001 * p):
            if not 0.5 <= confidence < 1 - 3 / drawn.size:
                continue
            found = interval(value, "m", resamples, confidence=confidence, method=method)
            if found.low is None:
                continue
            holds = found.low <= 1e-12 and found.high >= -1e-12
            assert holds == (p >= 1 - confidence), (p, confidence, found)
            seen.add(holds)
    assert seen == {True, False}


def test_two_thousand_resamples_of_ten_thousand_rows_take_seconds():
    """All metrics of a binary classifier, on a busy machine too."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 10_000)
    probabilities = metrics.softmax(rng.normal(size=(10_000, 2)) + np.eye(2)[labels])
    found = statistics.single_label(probabilities, labels, probabilities.argmax(axis=1), all_ranks=False)
    began = time.process_time()
    drawn = resample(found, 10_000, num_resamples=2_000, seed=0)
    assert time.process_time() - began < 20
    assert drawn.drawn["auc"].shape == (2_000,)
