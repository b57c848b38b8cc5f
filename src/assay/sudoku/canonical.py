"""Which full grids are the same but for a view: the canonical form, in compiled code (numba, of the extra sudoku).

The canonical form of a grid is the first, in the order of its digits row by row, of all its 9! * 2 * 6**8 views. Two
puzzles whose solutions have one form are views of puzzles of one grid, so a split keeps them together.
"""

import numba
import numpy as np
from numpy.typing import NDArray

from assay.errors import InputError
from assay.sudoku.grids import FIRST_DIGIT, NUM_CELLS, Tokens, is_full, keeps_rules

_ORDERS = np.array([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]])
_compiled = numba.njit(cache=True, nogil=True)


def canonical_forms(solutions: Tokens) -> NDArray[np.uint8]:
    """The canonical form of each full grid that keeps the rules, N x 81 tokens; equal for all views of a grid.

    Its first row is 1 to 9.
    """
    if not (is_full(solutions) & keeps_rules(solutions)).all():
        raise InputError("a grid that is not full or breaks a rule has no canonical form; leave it out")
    grids = np.ascontiguousarray(solutions - FIRST_DIGIT, dtype=np.int64)
    forms = np.zeros(grids.shape, np.uint8)
    _write_forms(grids, forms, np.zeros(NUM_CELLS, np.int64), np.zeros(NUM_CELLS, np.int64))
    return forms


@_compiled
def _write_forms(grids, forms, turned, best):
    for index in range(len(grids)):
        grid = grids[index]
        best[0] = NUM_CELLS  # more than any digit: the first candidate is better
        _improve(grid, best)
        for cell in range(NUM_CELLS):
            turned[cell] = grid[cell % 9 * 9 + cell // 9]
        _improve(turned, best)
        for cell in range(NUM_CELLS):
            forms[index, cell] = best[cell] + FIRST_DIGIT


@_compiled
def _improve(grid, best):
    """Make `best` the first of itself and of the views of a grid that do not transpose it.

    A candidate is named by its first and second row, the order of its stacks, and the order of the columns in each.
    The first row is 0 to 8 by relabeling. The digits under it in the first stack stand, in the first row, in the other
    two stacks: those of the second stack come first there, in the order in which the second row shows them, and so in
    the third. Only columns that this leaves free are tried in every order.
    """
    columns, label = np.zeros(9, np.int64), np.zeros(9, np.int64)
    place = np.zeros(9, np.int64)
    for first in range(9):
        top = first * 9
        for column in range(9):
            place[grid[top + column]] = column
        band = first // 3 * 3
        for second in range(band, band + 3):
            if second == first:
                continue
            third = 3 * band + 3 - first - second
            for stacks in _ORDERS:
                for start in _ORDERS:
                    for each in range(3):
                        columns[each] = stacks[0] * 3 + start[each]
                    num = np.array([3, 6])
                    for each in range(3):
                        under = place[grid[second * 9 + columns[each]]]
                        which = 0 if under // 3 == stacks[1] else 1
                        columns[num[which]] = under
                        num[which] += 1
                    _fill(columns, num[0], 6, stacks[1])
                    _fill(columns, num[1], 9, stacks[2])
                    _try_orders(grid, best, columns, label, num, top, second * 9, third * 9)


@_compiled
def _fill(columns, start, stop, stack):
    """Put the columns of a stack that are not in it yet into the places from `start` to `stop`."""
    for column in range(stack * 3, stack * 3 + 3):
        if start == stop:
            return
        is_there = False
        for each in range(stop - 3, start):
            is_there |= columns[each] == column
        if not is_there:
            columns[start] = column
            start += 1


@_compiled
def _try_orders(grid, best, columns, label, num, top, second, third):
    """Try every order of the columns from `num[0]` to 6 and from `num[1]` to 9."""
    order = np.zeros(9, np.int64)
    for each in range(9):
        order[each] = columns[each]
    for of_second in _ORDERS:
        if not _keeps(of_second, num[0] - 3):
            continue
        for each in range(3):
            order[3 + each] = columns[3 + of_second[each]]
        for of_third in _ORDERS:
            if not _keeps(of_third, num[1] - 6):
                continue
            for each in range(3):
                order[6 + each] = columns[6 + of_third[each]]
            for each in range(9):
                label[grid[top + order[each]]] = each
            _take_better(grid, best, order, label, second, third)


@_compiled
def _keeps(order, num):
    """Whether an order leaves the first so many, up to three, where they are."""
    return (num < 1 or order[0] == 0) and (num < 2 or order[1] == 1) and (num < 3 or order[2] == 2)


@_compiled
def _take_better(grid, best, order, label, second, third):
    """Write a candidate over `best` where it comes before it."""
    if _compare(grid, best, order, label, second, 1) > 0:
        return
    rows = np.zeros(9, np.int64)
    rows[1], rows[2] = second, third
    _put_bands(grid, order, label, rows)
    for row in range(1, 9):
        sign = _compare(grid, best, order, label, rows[row], row)
        if sign > 0:
            return
        if sign < 0:
            break
    for each in range(9):
        best[each] = each
    for row in range(1, 9):
        for each in range(9):
            best[row * 9 + each] = label[grid[rows[row] + order[each]]]


@_compiled
def _compare(grid, best, order, label, start, row):
    """Below 0 where the row of the grid that starts there comes before a row of `best`, 0 where it is that row."""
    if best[0] == NUM_CELLS:
        return -1
    for each in range(9):
        sign = label[grid[start + order[each]]] - best[row * 9 + each]
        if sign != 0:
            return sign
    return 0


@_compiled
def _put_bands(grid, order, label, rows):
    """Into `rows` from the fourth on: where the rows of the other two bands start, in their order."""
    found = 3
    for band in range(0, NUM_CELLS, 27):
        if band == rows[1] // 27 * 27:
            continue
        for row in range(band, band + 27, 9):
            at = found
            while at > found // 3 * 3 and label[grid[rows[at - 1] + order[0]]] > label[grid[row + order[0]]]:
                rows[at] = rows[at - 1]
                at -= 1
            rows[at] = row
            found += 1
    if label[grid[rows[6] + order[0]]] < label[grid[rows[3] + order[0]]]:
        for each in range(3, 6):
            rows[each], rows[each + 3] = rows[each + 3], rows[each]
