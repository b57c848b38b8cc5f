"""Rules of grids over arrays of tokens, and lines of 81 characters."""

import numpy as np
import pytest

from assay.errors import InputError
from assay.sudoku.grids import (
    BLANK,
    BOXES,
    COLUMNS,
    ROWS,
    check,
    checked,
    is_full,
    keeps_givens,
    keeps_rules,
    lines_of,
    num_givens,
    tokens_of,
)

PUZZLE = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
SOLUTION = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"


def changed(line, *cells):
    """A line with characters put into cells."""
    characters = list(line)
    for cell, character in cells:
        characters[cell] = character
    return "".join(characters)


def test_units_are_rows_columns_and_boxes():
    """Each kind of unit has every cell once; the second box starts at the fourth cell."""
    for units in (ROWS, COLUMNS, BOXES):
        assert sorted(units.ravel()) == list(range(81))
    assert COLUMNS[2].tolist() == [2, 11, 20, 29, 38, 47, 56, 65, 74]
    assert BOXES[1].tolist() == [3, 4, 5, 12, 13, 14, 21, 22, 23]


def test_lines_and_tokens_are_each_others_inverse():
    """A blank is token 1 and digit d is d + 1; ., 0, _ and * are blanks."""
    tokens = tokens_of([PUZZLE, SOLUTION])
    assert (tokens.dtype, tokens.shape) == (np.uint8, (2, 81))
    assert tokens[0, :5].tolist() == [6, 4, BLANK, BLANK, 8]
    assert lines_of(tokens) == [PUZZLE, SOLUTION]
    for blank in "0_*":
        assert lines_of(tokens_of([PUZZLE.replace(".", blank)])) == [PUZZLE]
    assert tokens_of([]).shape == (0, 81)
    assert num_givens(tokens).tolist() == [30, 81]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (PUZZLE[:-1], "grid 2 has 80 characters"),
        (changed(PUZZLE, (3, "x")), "grid 2 has characters other than 1 to 9"),
        (changed(PUZZLE, (3, "\u0663")), "grid 2 has characters other than 1 to 9"),
        (changed(PUZZLE, (3, "\x05")), "grid 2 has characters other than 1 to 9"),
        (changed(PUZZLE, (3, "#")), "grid 2 has characters other than 1 to 9"),
    ],
)
def test_another_line_is_refused(line, said):
    """The message has its number and what is wrong with it."""
    with pytest.raises(InputError, match=said):
        tokens_of([PUZZLE, line])


CASES = {
    "solved": (SOLUTION, set()),
    "one cell open": (changed(SOLUTION, (2, ".")), {"is_full"}),
    # Cells 2 and 3 swapped: the row keeps its digits, two columns and two boxes do not.
    "swapped in a row": (changed(SOLUTION, (2, "6"), (3, "4")), {"keeps_columns", "keeps_boxes"}),
    # Rows 1 and 4 swapped: rows and columns hold, boxes and givens do not.
    "rows swapped": (
        SOLUTION[27:36] + SOLUTION[9:27] + SOLUTION[:9] + SOLUTION[36:],
        {"keeps_boxes", "keeps_givens"},
    ),
    # Rows 1 and 2 swapped: another full grid that keeps every rule.
    "another solution": (SOLUTION[9:18] + SOLUTION[:9] + SOLUTION[18:], {"keeps_givens"}),
    "relabeled": (SOLUTION.translate(str.maketrans("123456789", "234567891")), {"keeps_givens"}),
    "one digit wrong": (changed(SOLUTION, (2, "5")), {"keeps_rows", "keeps_columns", "keeps_boxes"}),
    "the puzzle itself": (PUZZLE, {"is_full"}),
}


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_a_check_names_what_an_answer_breaks(dtype):
    """Each kind of rule by itself, many answers at a time, for any integer type."""
    answers = tokens_of([line for line, _ in CASES.values()]).astype(dtype)
    puzzles = np.repeat(tokens_of([PUZZLE]).astype(dtype), len(CASES), axis=0)
    found = check(answers, puzzles)
    kinds = ("is_full", "keeps_givens", "keeps_rows", "keeps_columns", "keeps_boxes")
    broken = [{kind for kind in kinds if not getattr(found, kind)[row]} for row in range(len(CASES))]
    assert broken == [expected for _, expected in CASES.values()]
    assert checked(answers, puzzles).tolist() == [name == "solved" for name in CASES]
    assert keeps_rules(answers).tolist() == [
        name in {"solved", "one cell open", "another solution", "relabeled", "the puzzle itself"}
        for name in CASES
    ]


def test_what_is_not_a_digit_fills_no_cell():
    """Padding, and numbers that are not tokens, leave a cell open and break no rule."""
    answers = np.repeat(tokens_of([SOLUTION]).astype(np.int64), 4, axis=0)
    answers[[0, 1, 2], 80] = [0, 11, -1]
    assert is_full(answers).tolist() == [False, False, False, True]
    assert keeps_rules(answers).all()


def test_the_checks_agree_with_sets_on_random_grids():
    """Against the definition in plain Python, on grids that break few rules."""
    rng = np.random.default_rng(7)
    grids = np.repeat(tokens_of([SOLUTION]), 200, axis=0)
    for grid in grids:
        cells = rng.integers(0, 81, rng.integers(0, 3))
        grid[cells] = rng.integers(1, 11, len(cells))
    expected = [
        all(
            len(set(digits)) == len(digits)
            for unit in (*ROWS, *COLUMNS, *BOXES)
            for digits in [[token for token in grid[unit].tolist() if token > 1]]
        )
        for grid in grids
    ]
    assert 20 < sum(expected) < 180
    assert keeps_rules(grids).tolist() == expected


def test_arrays_that_are_not_grids_are_refused():
    """One line with the type and the shape seen."""
    with pytest.raises(
        InputError, match=r"grids are uint8 of shape \(3, 80\); they must be whole numbers, 81"
    ):
        is_full(np.ones((3, 80), np.uint8))
    with pytest.raises(InputError, match="float64"):
        keeps_rules(np.ones((3, 81)))
    with pytest.raises(InputError, match="2 answers to 3 puzzles"):
        keeps_givens(np.ones((2, 81), np.uint8), np.ones((3, 81), np.uint8))
