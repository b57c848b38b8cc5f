"""Thresholds of a cascade: bounds against formulas and simulation, the choice, and what cannot be had."""

import math

import numpy as np
import pytest

from assay.cascade.choose import AuthorResampling, find_choices
from assay.errors import InputError
from assay.score.cascade.decide import Thresholds


def test_the_chosen_threshold_keeps_its_recall_as_often_as_promised():
    """Of 100 tunings on 60 pairs with the label, no more miss the true recall than the confidence leaves."""
    rng = np.random.default_rng(0)
    missed = 0
    for _ in range(100):
        # uniform: the true recall of a threshold is 1 - threshold
        first, holds = rng.uniform(size=80), np.arange(80) < 60
        choices = find_choices(first, holds, confidence=0.8, two_sided=False)
        missed += 1 - choices.choose(0.8).thresholds.low < 0.8
    assert 100 * 0.05 < missed < 100 * 0.2 + 3 * math.sqrt(100 * 0.2 * 0.8)


def test_authors_that_are_lost_together_lower_the_bound():
    """Four of 40 pairs are lost either way; where they are all of one author, the bound says less."""
    first = np.append(np.full(4, 0.1), np.linspace(0.5, 0.9, 36))
    holds = np.append(np.ones(40, dtype=bool), [False])
    first = np.append(first, 0.2)

    def bound_at(authors):
        resampling = AuthorResampling(
            authors_PA=np.stack([authors, authors], axis=1), num_resamples=500, seed=1
        )
        kept = find_choices(first, holds, confidence=0.95, two_sided=False, resampling=resampling).with_label
        return kept.bound_K[np.searchsorted(kept.threshold_K, 0.5)]

    together = np.append(np.arange(40) // 4, 0)
    alone = find_choices(first, holds, confidence=0.95, two_sided=False).with_label
    exact = alone.bound_K[np.searchsorted(alone.threshold_K, 0.5)]
    assert bound_at(together) < exact - 0.05
    assert bound_at(np.append(np.arange(40), 0)) == pytest.approx(exact, abs=0.02)


def test_a_pair_counts_where_both_of_its_authors_are_drawn():
    """With authors 0 and 1 in every pair, a resample that lacks one of them has no pair and says nothing."""
    first, holds = np.linspace(0.1, 0.9, 20), np.arange(20) % 2 == 0
    resampling = AuthorResampling(authors_PA=np.tile([[0, 1]], (20, 1)), num_resamples=200, seed=0)
    drawn = find_choices(first, holds, confidence=0.95, two_sided=False, resampling=resampling)
    plain = find_choices(first, holds, confidence=0.95, two_sided=False)
    np.testing.assert_allclose(drawn.with_label.bound_K, plain.with_label.bound_K)


@pytest.mark.parametrize("two_sided", [False, True])
def test_no_pair_is_decided_against_what_the_first_model_finds_likelier(two_sided):
    """Where it tells all pairs apart, the thresholds end at 0.5, though a recall of 0.9 could spare more."""
    first = np.concatenate([np.linspace(0.0, 0.3, 100), np.linspace(0.7, 1.0, 100)])
    holds = np.arange(200) >= 100
    chosen = find_choices(first, holds, confidence=0.95, two_sided=two_sided).choose(0.9)
    assert chosen.thresholds == Thresholds(low=0.5, high=0.5 if two_sided else None)
    assert chosen.recall == 1.0
    assert chosen.recall_bound == pytest.approx(0.05 ** (1 / 100))
    assert (chosen.thresholds.decided_no(first) == ~holds).all()
    assert (chosen.thresholds.decided_yes(first) == (holds & two_sided)).all()


@pytest.mark.parametrize("two_sided", [False, True])
def test_a_recall_that_the_pairs_cannot_show_is_refused_with_the_best(two_sided):
    """Ten pairs of a label show no recall of .95 at confidence .95, wherever the threshold; 59 or more would."""
    first = np.linspace(0, 1, 110)
    holds = np.arange(110) >= (10 if two_sided else 100)
    which = "without the label" if two_sided else "with the label"
    with pytest.raises(InputError) as caught:
        find_choices(first, holds, confidence=0.95, two_sided=two_sided).choose(0.95)
    assert str(caught.value) == (
        f"recall 0.95 cannot be shown at confidence 0.95 on 10 pairs {which}: the best lower bound is 0.7411;"
        f" give more pairs (at least 59 {which}, of more authors), or lower --recall"
    )
