"""Which rows are held out together."""

import numpy as np
import pytest

from assay.calibrate.folds import fold_rows
from assay.errors import InputError


def test_no_group_lies_in_two_folds():
    """Every row of a group is held out at once, and the folds are about equally large."""
    rng = np.random.default_rng(0)
    groups = tuple(f"author {number}" for number in rng.integers(0, 40, 1_000))
    fold_N = fold_rows(1_000, num_folds=5, seed=0, groups=groups)
    for group in set(groups):
        assert len({fold for fold, name in zip(fold_N, groups, strict=True) if name == group}) == 1
    assert np.bincount(fold_N).min() > 150


def test_a_group_larger_than_a_fold_has_one_to_itself():
    """The rest is shared out over the others; no fold is empty."""
    groups = ("big",) * 90 + tuple("abcdefghij")
    fold_N = fold_rows(100, num_folds=3, seed=0, groups=groups)
    assert len(set(fold_N[:90])) == 1
    assert sorted(np.bincount(fold_N)) == [5, 5, 90]


def test_labels_are_dealt_out_evenly():
    """A rare label with as many rows as folds is in each of them."""
    strata = np.array([0] * 95 + [1] * 5)
    fold_N = fold_rows(100, num_folds=5, seed=3, strata=strata)
    assert np.bincount(fold_N).tolist() == [20] * 5
    assert sorted(fold_N[95:]) == [0, 1, 2, 3, 4]


def test_the_seed_decides():
    """The same seed, the same folds; another seed, others."""
    first, again, other = (fold_rows(50, num_folds=5, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize(
    ("num_rows", "groups", "match"),
    [
        (3, None, "3 rows; 5-fold cross-validation needs as many"),
        (6, ("a", "b") * 3, "2 groups; 5-fold cross-validation by group needs as many"),
    ],
)
def test_too_few_are_refused(num_rows, groups, match):
    """A fold without rows measures nothing."""
    with pytest.raises(InputError, match=match):
        fold_rows(num_rows, num_folds=5, seed=0, groups=groups)
