"""Strata by guesses, and how many of each are wanted."""

import numpy as np
import pytest

from assay.errors import UsageError
from assay.sudoku.strata import NAMES, Quotas, shares_of, strata_of


def test_strata_have_ends():
    """The first and last number of guesses of each."""
    guesses = np.array([0, 1, 4, 5, 9, 10, 29, 30, 10_000])
    expected = ["0", "1-4", "1-4", "5-9", "5-9", "10-29", "10-29", "30+", "30+"]
    assert [NAMES[stratum] for stratum in strata_of(guesses)] == expected


def test_shares_are_scaled_to_one():
    """A stratum without a share gets none; no words mean that any puzzle will do."""
    assert shares_of(["30+=1", "0=3"]) == {"0": 0.75, "1-4": 0.0, "5-9": 0.0, "10-29": 0.0, "30+": 0.25}
    assert shares_of([]) == {}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["2-4=1"], "strata has '2-4=1'; name each of 0, 1-4, 5-9, 10-29, 30\\+ at most once"),
        (["0=1", "0=2"], "at most once"),
        (["0"], "a share is a number from 0 on"),
        (["0=-1"], "a share is a number from 0 on"),
        (["0=nan"], "a share is a number from 0 on"),
        (["0=inf"], "a share is a number from 0 on"),
        (["0=0", "30+=0"], "add up to 0"),
    ],
)
def test_wrong_shares_are_refused(words, said):
    """In one line, with an example."""
    with pytest.raises(UsageError, match=said):
        shares_of(words)


def test_quotas_are_whole_and_are_counted_off():
    """They add up to what was asked for; the first puzzles of each stratum are taken, in order."""
    quotas = Quotas(10, shares_of(["0=1", "1-4=1", "30+=1"]))
    assert sum(quotas.left.values()) == 10
    assert quotas.left == {"0": 4, "1-4": 3, "30+": 3}
    assert quotas.take(np.array([0, 7, 50, 0, 2, 0, 0, 0])).tolist() == [0, 2, 3, 4, 5, 6]
    assert quotas.left == {"1-4": 2, "30+": 2}
    assert quotas.take(np.array([0, 0])).tolist() == []
    any_will_do = Quotas(3, {})
    assert any_will_do.take(np.array([0, 90])).tolist() == [0, 1]
    assert any_will_do.left == {"any": 1}
    assert any_will_do.take(np.array([5, 5])).tolist() == [0]
    assert any_will_do.left == {}
