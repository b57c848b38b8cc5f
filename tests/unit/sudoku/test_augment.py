"""Symmetric forms of many grids at once."""

import numpy as np

from assay.sudoku.augment import random_forms
from assay.sudoku.grids import keeps_givens, keeps_rules, num_givens


def solution():
    """A valid grid."""
    return (
        np.array([[(3 * row + row // 3 + column) % 9 + 2 for column in range(9)] for row in range(9)])
    ).reshape(81)


def test_forms_keep_the_rules_and_belong_together():
    """A solution stays one, its puzzle's digits stay where it has them, and every row has a form of its own."""
    rng = np.random.default_rng(0)
    solutions = np.tile(solution(), (500, 1)).astype(np.uint8)
    puzzles = np.where(rng.random(solutions.shape) < 0.4, solutions, 1).astype(np.uint8)
    shown, answers = random_forms(rng, puzzles, solutions)
    assert shown.dtype == answers.dtype == np.uint8
    assert keeps_rules(answers).all()
    assert keeps_givens(answers, shown).all()
    assert (num_givens(shown) == num_givens(puzzles)).all()
    assert len(np.unique(answers, axis=0)) == 500


def test_forms_are_drawn_evenly():
    """Each digit lands on each other one, and each cell in each place, about equally often."""
    rng = np.random.default_rng(1)
    blank = np.ones((8100, 81), np.int64)
    blank[:, 10] = 5
    (shown,) = random_forms(rng, blank)
    where, values = np.nonzero(shown > 1)[1], shown[shown > 1]
    assert np.bincount(where, minlength=81).min() > 50
    assert np.bincount(where, minlength=81).max() < 160
    assert np.bincount(values, minlength=11)[2:].min() > 780
