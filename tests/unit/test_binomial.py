"""Bounds of shares against the binomial distribution, term by term, and as often right as they say."""

import math

import numpy as np
import pytest

from assay.binomial import lower_bound, upper_bound


def binomial_at_least(kept, num_pairs, share):
    """The chance of so many or more, term by term."""
    return math.fsum(
        math.comb(num_pairs, k) * share**k * (1 - share) ** (num_pairs - k)
        for k in range(kept, num_pairs + 1)
    )


@pytest.mark.parametrize("num_pairs", [1, 7, 60, 400])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_the_bound_is_that_of_clopper_and_pearson(num_pairs, confidence):
    """At the bound, as many kept or more have just the chance that the confidence leaves."""
    kept = np.arange(1, num_pairs + 1)[:: max(1, num_pairs // 9)]
    for count, bound in zip(kept, lower_bound(kept, num_pairs, confidence), strict=True):
        assert binomial_at_least(count, num_pairs, bound) == pytest.approx(1 - confidence, abs=1e-9)
    assert lower_bound(np.array([num_pairs]), num_pairs, confidence)[0] == pytest.approx(
        (1 - confidence) ** (1 / num_pairs)
    )
    assert lower_bound(np.array([0]), num_pairs, confidence)[0] == 0


def test_the_bound_holds_for_many_pairs():
    """A million pairs take no longer than some thousand steps, and the bound is near the normal one."""
    bound = lower_bound(np.array([950_000]), 1_000_000, 0.95)[0]
    assert bound == pytest.approx(0.95 - 1.645 * math.sqrt(0.95 * 0.05 / 1e6), abs=2e-6)


@pytest.mark.parametrize(("found", "num_drawn"), [(0, 1), (0, 256), (3, 256), (17, 40), (40, 40)])
def test_the_upper_bound_leaves_so_many_or_fewer_the_chance_that_remains(found, num_drawn):
    """None of 256 leaves 3 / 256 about: the rule of three; all of them leave 1."""
    bound = upper_bound(found, num_drawn, 0.95)
    if found == num_drawn:
        assert bound == 1
        return
    fewer = 1 - binomial_at_least(found + 1, num_drawn, bound)
    assert fewer == pytest.approx(0.05, abs=1e-9)


def test_nothing_drawn_says_nothing():
    """Any share may be."""
    assert upper_bound(0, 0, 0.95) == 1


def test_the_upper_bound_holds_for_samples_without_replacement():
    """Of 2,000 samples of 60 out of 300 with 9 such, at most a twentieth lie below the truth."""
    rng = np.random.default_rng(5)
    found = rng.hypergeometric(9, 291, 60, size=2_000)
    bounds = np.array([upper_bound(count, 60, 0.95) for count in range(10)])
    assert (bounds[found] < 9 / 300).mean() <= 0.05
