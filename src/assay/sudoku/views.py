"""Views of a grid: the symmetries that keep a solution a solution, each with its exact inverse. Pure.

A view relabels the digits and moves the cells: it may transpose, shuffle bands, rows within a band, stacks, and columns
within a stack. There are 9! * 2 * 6**8 of them, a group: `inverse` and `then` stay in it.

    puzzle --view--> model --> answer --view.inverse()--> answer to the puzzle
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from assay.errors import InputError
from assay.sudoku.grids import BOXES, COLUMNS, FIRST_DIGIT, NUM_CELLS, NUM_TOKENS, ROWS, Tokens, as_grids

Draws = np.random.Generator | np.random.RandomState
DIGITS = tuple(range(1, 10))
_CELLS = tuple(range(NUM_CELLS))
_UNITS = frozenset(frozenset(unit) for unit in np.concatenate([ROWS, COLUMNS, BOXES]).tolist())


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """One symmetry. A plain value: equal views are equal, and its fields can be written to JSON."""

    digits: tuple[int, ...] = DIGITS
    """What each digit from 1 to 9 is shown as."""
    cells: tuple[int, ...] = _CELLS
    """The cell of the grid, 0 to 80, that each cell of the view shows."""

    def __post_init__(self) -> None:
        """Raise `InputError` for what would make a solution something else."""
        if tuple(sorted(self.digits)) != DIGITS:
            raise InputError(f"digits are shown as {self.digits}; each of 1 to 9 must be there once")
        if tuple(sorted(self.cells)) != _CELLS:
            raise InputError(
                "cells of a view must be each of 0 to 80 once; shuffle rows, columns and digits alone"
            )
        if any(frozenset(self.cells[cell] for cell in unit) not in _UNITS for unit in _UNITS):
            raise InputError(
                "cells of a view must keep rows, columns and boxes; shuffle whole rows and columns"
            )

    def show(self, grids: Tokens) -> Tokens:
        """Grids as the view shows them, N x 81 tokens of the same type; blanks and padding stay what they are."""
        grids = as_grids(grids)
        shown = np.arange(NUM_TOKENS, dtype=grids.dtype)
        shown[FIRST_DIGIT:] = np.array(self.digits) + (FIRST_DIGIT - 1)
        return shown[grids[:, self.cells]]

    def inverse(self) -> "View":
        """The view that brings shown grids back: `view.inverse().show(view.show(grids))` is `grids`."""
        return View(digits=_inverse(self.digits, first=1), cells=_inverse(self.cells, first=0))

    def then(self, other: "View") -> "View":
        """The view that shows what `other` shows of this one's grids."""
        return View(
            digits=tuple(other.digits[digit - 1] for digit in self.digits),
            cells=tuple(self.cells[cell] for cell in other.cells),
        )


def _inverse(permutation: tuple[int, ...], *, first: int) -> tuple[int, ...]:
    inverse = [0] * len(permutation)
    for index, value in enumerate(permutation):
        inverse[value - first] = index + first
    return tuple(inverse)


# ---------------------------------------------------------------- views by kind

IDENTITY = View()
TRANSPOSITION = View(cells=tuple(COLUMNS.ravel().tolist()))


def cyclic(shift: int) -> View:
    """Digit d as d + shift, from 9 on to 1; nine different views, of which 0 is the identity."""
    return View(digits=tuple((digit - 1 + shift) % 9 + 1 for digit in DIGITS))


def shuffled(*, rows: Sequence[int] = range(9), columns: Sequence[int] = range(9)) -> View:
    """Row r of the view shows row `rows[r]` of the grid, and columns so too; bands and stacks stay together."""
    for name, lines in (("rows", rows), ("columns", columns)):
        if sorted(lines) != list(range(9)):
            raise InputError(f"{name} are {list(lines)}; each of 0 to 8 must be there once")
    return View(cells=tuple(int(row) * 9 + int(column) for row in rows for column in columns))


def random_digits(rng: Draws) -> View:
    """Any relabeling of the digits, all equally likely."""
    return View(digits=_digits(rng))


def random_view(rng: Draws) -> View:
    """Any view, all equally likely.

    What HRM's data builder augments with, in the order of its draws: digits, whether to transpose, bands, rows of each
    band, stacks, columns of each stack. From a `RandomState` in the same state come the same views.
    """
    digits = _digits(rng)
    first = TRANSPOSITION if rng.random() < 0.5 else IDENTITY
    rows, columns = _lines(rng), _lines(rng)
    return View(digits=digits, cells=first.then(shuffled(rows=rows, columns=columns)).cells)


def _digits(rng: Draws) -> tuple[int, ...]:
    return tuple(rng.permutation(np.arange(1, 10)).tolist())


def _lines(rng: Draws) -> list[int]:
    """An order of nine rows that keeps bands together."""
    bands: NDArray[np.int64] = rng.permutation(3)
    return [int(band) * 3 + int(line) for band in bands for line in rng.permutation(3)]
