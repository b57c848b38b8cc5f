"""Grids as tokens: what the tokens mean, which rules a grid keeps, lines of 81 characters. Pure.

A grid is a row of 81 tokens in reading order, in the encoding of HRM's data: 0 pads, 1 is a blank, 2 to 10 are the
digits 1 to 9. Everything here takes N x 81 arrays of any integer type and gives one answer a grid.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from assay.errors import InputError

PAD, BLANK, FIRST_DIGIT = 0, 1, 2
"""Tokens; digit d is `FIRST_DIGIT` + d - 1."""
NUM_CELLS = 81
NUM_TOKENS = 11
"""Size of the vocabulary."""

Tokens = NDArray[np.integer]
Flags = NDArray[np.bool_]

_CELLS = np.arange(NUM_CELLS).reshape(9, 9)
ROWS: NDArray[np.intp] = _CELLS
"""The cells of each row, 9 x 9."""
COLUMNS: NDArray[np.intp] = _CELLS.T
"""The cells of each column."""
BOXES: NDArray[np.intp] = _CELLS.reshape(3, 3, 3, 3).swapaxes(1, 2).reshape(9, 9)
"""The cells of each box of 3 x 3, in reading order."""
_BIT_OF_BYTE = np.zeros(256, dtype=np.uint16)
_BIT_OF_BYTE[FIRST_DIGIT:NUM_TOKENS] = 1 << np.arange(9)


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """What each of N answers keeps; each field has one flag an answer."""

    is_full: Flags
    """Every cell holds a digit."""
    keeps_givens: Flags
    """Every digit of the puzzle stands where it stood."""
    keeps_rows: Flags
    """No digit stands twice in a row."""
    keeps_columns: Flags
    """No digit stands twice in a column."""
    keeps_boxes: Flags
    """No digit stands twice in a box."""

    @property
    def passed(self) -> Flags:
        """Whether an answer keeps all of it: it is *the* solution where the puzzle has one solution alone."""
        return self.is_full & self.keeps_givens & self.keeps_rows & self.keeps_columns & self.keeps_boxes


def check(answers: Tokens, puzzles: Tokens) -> Check:
    """Which rules each answer to a puzzle keeps, by kind, for a diagnosis; N x 81 each."""
    bits = _bits(answers)
    return Check(
        is_full=is_full(answers),
        keeps_givens=keeps_givens(answers, puzzles),
        keeps_rows=_no_digit_twice(bits, ROWS),
        keeps_columns=_no_digit_twice(bits, COLUMNS),
        keeps_boxes=_no_digit_twice(bits, BOXES),
    )


def checked(answers: Tokens, puzzles: Tokens) -> Flags:
    """Whether each answer solves its puzzle: it is full and keeps the rules and the givens. Needs no solution."""
    passed = is_full(answers) & keeps_givens(answers, puzzles)
    likely = np.flatnonzero(passed)  # most answers that are wrong fail here, and the rules cost more
    passed[likely] = keeps_rules(answers[likely])
    return passed


def is_full(grids: Tokens) -> Flags:
    """Whether every cell of each grid holds a digit."""
    grids = as_grids(grids)
    return _all((grids >= FIRST_DIGIT) & (grids < NUM_TOKENS))


def keeps_rules(grids: Tokens) -> Flags:
    """Whether no row, column or box of each grid holds a digit twice; blanks break nothing."""
    bits = _bits(grids)
    return _no_digit_twice(bits, ROWS) & _no_digit_twice(bits, COLUMNS) & _no_digit_twice(bits, BOXES)


def keeps_givens(answers: Tokens, puzzles: Tokens) -> Flags:
    """Whether each answer has every digit of its puzzle in its place."""
    answers, puzzles = as_grids(answers), as_grids(puzzles)
    if len(answers) != len(puzzles):
        raise InputError(f"{len(answers):,} answers to {len(puzzles):,} puzzles; give one answer a puzzle")
    return _all((puzzles < FIRST_DIGIT) | (answers == puzzles))


def num_givens(puzzles: Tokens) -> NDArray[np.int64]:
    """How many digits each puzzle shows."""
    counts: NDArray[np.int64] = (as_grids(puzzles) >= FIRST_DIGIT).sum(axis=1)
    return counts


def as_grids(grids: Tokens) -> Tokens:
    """The array itself where it is N x 81 of whole numbers; `InputError` where it is not."""
    if grids.ndim != 2 or grids.shape[1] != NUM_CELLS or not np.issubdtype(grids.dtype, np.integer):
        raise InputError(
            f"grids are {grids.dtype} of shape {grids.shape}; they must be whole numbers, {NUM_CELLS} to a row"
        )
    return grids


def _bits(grids: Tokens) -> NDArray[np.uint16]:
    """One bit for the digit of each cell, none for a blank or for what is not a token; 81 x N."""
    grids = as_grids(grids)
    if grids.dtype != np.uint8:
        grids = np.where((grids >= 0) & (grids < NUM_TOKENS), grids, PAD).astype(np.uint8)
    return np.ascontiguousarray(_BIT_OF_BYTE.take(grids).T)


def _no_digit_twice(bits: NDArray[np.uint16], units: NDArray[np.intp]) -> Flags:
    """Bits add up to their union exactly where none of them stands twice."""
    cells = bits[units]
    return _all((cells.sum(axis=1, dtype=np.uint16) == np.bitwise_or.reduce(cells, axis=1)).T)


def _all(flags: Flags) -> Flags:
    """Whether all flags of each row are set; the types of numpy know no axis here."""
    found: Flags = np.logical_and.reduce(flags, axis=1)
    return found


# ---------------------------------------------------------------- lines of 81 characters


def tokens_of(lines: Iterable[str]) -> NDArray[np.uint8]:
    """Grids of lines of 81 characters each: 1 to 9, and `.`, `0`, `_` or `*` for a blank; N x 81."""
    grids = [
        np.frombuffer(line.translate(_TO_TOKENS).encode("latin-1", "replace"), np.uint8) for line in lines
    ]
    for number, grid in enumerate(grids, start=1):
        if len(grid) != NUM_CELLS:
            raise InputError(f"grid {number} has {len(grid)} characters; a grid has {NUM_CELLS}, row by row")
        if grid.max() >= NUM_TOKENS:
            raise InputError(
                f"grid {number} has characters other than 1 to 9, and . or 0 for a blank; fix it"
            )
    return np.array(grids, dtype=np.uint8).reshape(-1, NUM_CELLS)


def lines_of(grids: Tokens) -> list[str]:
    """Each grid as 81 characters, `.` for a blank; the inverse of `tokens_of`."""
    return ["".join(_CHARACTERS[token] for token in grid) for grid in as_grids(grids).tolist()]


_CHARACTERS = "#.123456789"
_TO_TOKENS = {
    **dict.fromkeys(range(NUM_TOKENS), "ÿ"),
    **{ord(character): chr(token) for token, character in enumerate(_CHARACTERS) if token != PAD},
    **{ord(character): chr(BLANK) for character in "0_*"},
}
