"""Views by kind: what each does to a grid, and what is not a view."""

import numpy as np
import pytest

from assay.errors import InputError
from assay.sudoku.grids import tokens_of
from assay.sudoku.views import IDENTITY, TRANSPOSITION, View, cyclic, random_view, shuffled

GRID = tokens_of(["1234567.." + "." * 72])


def test_cyclic_shifts_are_those_of_the_reference():
    """Token t from 2 to 10 becomes (t - 2 + shift) mod 9 + 2; blanks and padding stay; shift 9 is shift 0."""
    tokens = np.arange(81, dtype=np.int64).reshape(1, 81) % 11
    for shift in range(9):
        expected = np.where(tokens >= 2, (tokens - 2 + shift) % 9 + 2, tokens)
        assert np.array_equal(cyclic(shift).show(tokens), expected)
    assert cyclic(9) == cyclic(0) == IDENTITY
    assert len({cyclic(shift) for shift in range(9)}) == 9


def test_rows_columns_and_transposition_move_cells():
    """Row r shows the named row; a transposed row is a column."""
    assert shuffled(rows=[3, 4, 5, 0, 1, 2, 6, 7, 8]).show(GRID)[0, 27:36].tolist() == GRID[0, :9].tolist()
    assert shuffled(columns=[2, 1, 0, *range(3, 9)]).show(GRID)[0, :3].tolist() == [4, 3, 2]
    assert TRANSPOSITION.show(GRID)[0, ::9].tolist() == GRID[0, :9].tolist()
    assert TRANSPOSITION.inverse() == TRANSPOSITION


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: View(digits=(1, 2, 3, 4, 5, 6, 7, 8, 8)), "each of 1 to 9 must be there once"),
        (lambda: View(digits=tuple(range(9))), "each of 1 to 9 must be there once"),
        (lambda: View(cells=(0, *range(80))), "each of 0 to 80 once"),
        (lambda: View(cells=(1, 0, *range(2, 81))), "must keep rows, columns and boxes"),
        (lambda: shuffled(rows=[3, 1, 2, 0, 4, 5, 6, 7, 8]), "must keep rows, columns and boxes"),
        (lambda: shuffled(columns=[0] * 9), "columns are"),
        (lambda: IDENTITY.show(np.ones((1, 80), np.uint8)), "81 to a row"),
    ],
)
def test_what_would_break_a_solution_is_refused(make, said):
    """Digits that meet, rows torn from their band, cells moved alone."""
    with pytest.raises(InputError, match=said):
        make()


def test_random_views_differ_and_repeat():
    """All parts vary; one seed gives one row of views."""
    first, again = ([random_view(rng) for _ in range(50)] for rng in map(np.random.default_rng, (3, 3)))
    assert first == again
    assert len({view.cells for view in first}) == len({view.digits for view in first}) == 50
    rows_stay_rows = [{cell // 9 for cell in view.cells[:9]} for view in first]
    assert 10 < sum(len(rows) == 1 for rows in rows_stay_rows) < 40


def test_random_views_are_drawn_as_the_reference_draws_them():
    """From one RandomState, the definition of its builder, written out, gives the same grids."""
    grids = np.random.default_rng(5).integers(1, 11, (20, 81)).astype(np.uint8)
    ours, theirs = np.random.RandomState(11), np.random.RandomState(11)
    for grid in grids:
        digit_of = [0, 1, *(theirs.permutation(np.arange(1, 10)) + 1)]
        square = grid.reshape(9, 9)
        if theirs.rand() < 0.5:
            square = square.T
        for _ in range(2):  # rows, then columns: the square is turned over twice
            bands = theirs.permutation(3)
            square = square[np.concatenate([band * 3 + theirs.permutation(3) for band in bands])].T
        expected = np.array(digit_of)[square.ravel()]
        assert np.array_equal(random_view(ours).show(grid[None])[0], expected)
