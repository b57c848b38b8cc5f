"""Canonical forms: one for all views of a grid, others for other grids, the first of all views."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.pages import ROOT

from assay.errors import InputError
from assay.sudoku.canonical import canonical_forms
from assay.sudoku.grids import checked
from assay.sudoku.puzzles import read_split
from assay.sudoku.search import make
from assay.sudoku.views import random_view

SOLUTIONS = make(3, 0, 100).labels
FORMS = canonical_forms(SOLUTIONS)


def first_of_all_views(grid):
    """By definition: every transposition, first row and order of columns; rows and bands in order."""
    found = []
    for square in (grid.reshape(9, 9), grid.reshape(9, 9).T):
        for stacks in itertools.permutations(range(3)):
            for of_stack in itertools.product(itertools.permutations(range(3)), repeat=3):
                columns = [
                    3 * stack + column for stack, of in zip(stacks, of_stack, strict=True) for column in of
                ]
                moved = square[:, columns]
                for top in range(9):
                    shown = np.zeros(11, np.uint8)
                    shown[moved[top]] = range(2, 11)
                    rows = shown[moved].tolist()
                    found.append(sorted(sorted(rows[band : band + 3]) for band in (0, 3, 6)))
    return np.array(min(found)).ravel()


def test_a_form_is_the_first_of_all_views():
    """Against every view of a grid, relabeled so that some row is 1 to 9."""
    assert np.array_equal(first_of_all_views(SOLUTIONS[0]), FORMS[0])


@given(st.integers(0, 2**32 - 1))
def test_every_view_has_the_form_of_its_grid(seed):
    """And a form is its own form."""
    view = random_view(np.random.default_rng(seed))
    assert np.array_equal(canonical_forms(view.show(SOLUTIONS[:5])), FORMS[:5])
    assert np.array_equal(canonical_forms(view.show(FORMS[:5])), FORMS[:5])


def test_forms_are_solutions_that_differ():
    """Random grids are hardly ever views of each other."""
    assert checked(FORMS, FORMS).all()
    assert len(np.unique(FORMS, axis=0)) == len(FORMS)


def test_official_augmentations_share_the_form_of_their_group():
    """24 puzzles with two augmentations each: 24 forms, one a group."""
    train = read_split(ROOT / "tests" / "support" / "sudoku-tiny", "train")
    forms = canonical_forms(train.labels).reshape(24, 3, 81)
    assert (forms == forms[:, :1]).all()
    assert len(np.unique(forms[:, 0], axis=0)) == 24


def test_what_is_not_a_solution_has_no_form():
    """An open cell, or a digit twice."""
    for cell, token in ((0, 1), (0, int(SOLUTIONS[0, 1]))):
        wrong = SOLUTIONS[:1].copy()
        wrong[0, cell] = token
        with pytest.raises(InputError, match="has no canonical form"):
            canonical_forms(wrong)
