"""The solver, its guesses, and the puzzles that are made with it, against plain Python."""

import numpy as np
import pytest
from support.pages import ROOT

from assay.sudoku.grids import BOXES, COLUMNS, ROWS, checked, keeps_rules, lines_of, num_givens, tokens_of
from assay.sudoku.puzzles import read_split
from assay.sudoku.search import make, solve

PUZZLE = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
UNITS = [unit.tolist() for unit in (*ROWS, *COLUMNS, *BOXES)]
PEERS = [{peer for unit in UNITS if cell in unit for peer in unit} - {cell} for cell in range(81)]
MADE = make(1, 0, 40)


def options(grid, cell):
    """Digits that the rules leave to an open cell of a list of tokens."""
    return [token for token in range(2, 11) if all(grid[peer] != token for peer in PEERS[cell])]


def count_solutions(grid, limit=2):
    """By definition: try every digit of the cell with the fewest options; the givens keep the rules."""
    cell, tokens = min(
        ((cell, options(grid, cell)) for cell in range(81) if grid[cell] == 1),
        key=lambda each: len(each[1]),
        default=(None, []),
    )
    if cell is None:
        return 1
    found = 0
    for token in tokens:
        grid[cell] = token
        found += count_solutions(grid, limit - found)
        grid[cell] = 1
        if found >= limit:
            break
    return found


def is_solved_by_singles(grid):
    """Whether placing what has one place, or one digit, fills the grid."""
    moved = True
    while moved:
        moved = False
        left = {cell: options(grid, cell) for cell in range(81) if grid[cell] == 1}
        for unit in UNITS:
            for token in range(2, 11):
                places = [cell for cell in unit if token in left.get(cell, ())]
                if len(places) == 1:
                    left[places[0]] = [token]
        for cell, tokens in left.items():
            if len(tokens) == 1 and tokens[0] in options(grid, cell):
                grid[cell] = tokens[0]
                moved = True
    return 1 not in grid


def test_the_number_of_solutions_is_that_of_plain_search():
    """No solution, one, or several: made puzzles as they are, with a given less, and with a wrong one more."""
    easy = np.flatnonzero(MADE.guesses == 0)[:5]
    plain, less, more = (MADE.inputs[easy].copy() for _ in range(3))
    for row in range(5):
        less[row, np.flatnonzero(less[row] > 1)[0]] = 1
        cell = np.flatnonzero(more[row] == 1)[row]
        more[row, cell] = (MADE.labels[easy[row], cell] - 1) % 9 + 2
    puzzles = np.concatenate([plain, less, more])
    is_possible = keeps_rules(puzzles)
    expected = [
        count_solutions(puzzle.tolist()) if possible else 0
        for puzzle, possible in zip(puzzles, is_possible, strict=True)
    ]
    assert set(expected) == {0, 1, 2}
    assert solve(puzzles).num_solutions.tolist() == expected


def test_solutions_are_found_and_where_there_is_none_there_is_padding():
    """Known puzzles, the empty grid, givens that meet, and a cell without digits."""
    empty = "." * 81
    puzzles = tokens_of([PUZZLE, empty, "11" + "." * 79, "12345678." + "." * 8 + "9" + "." * 63])
    found = solve(puzzles)
    assert found.num_solutions.tolist() == [1, 2, 0, 0]
    assert checked(found.solutions, puzzles).tolist() == [True, True, False, False]
    assert not found.solutions[2:].any()
    assert found.guesses[0] == 0 < found.guesses[1]
    official = read_split(ROOT / "tests" / "support" / "sudoku-tiny", "train")
    solved = solve(official.inputs)
    assert (solved.num_solutions == 1).all()
    assert np.array_equal(solved.solutions, official.labels)


def test_no_guess_means_that_singles_do():
    """A puzzle has no guesses exactly where plain Python fills it by the two rules."""
    expected = [is_solved_by_singles(puzzle.tolist()) for puzzle in MADE.inputs]
    assert 5 < sum(expected) < 35
    assert (MADE.guesses == 0).tolist() == expected
    assert np.array_equal(solve(MADE.inputs).guesses, MADE.guesses)


def test_made_puzzles_are_minimal_and_have_the_solution_given():
    """Without any one of its givens a puzzle has several solutions."""
    assert checked(MADE.labels, MADE.inputs).all()
    assert (solve(MADE.inputs).num_solutions == 1).all()
    for puzzle, num in zip(MADE.inputs, num_givens(MADE.inputs), strict=True):
        reduced = np.repeat(puzzle[None], num, axis=0)
        reduced[np.arange(num), np.flatnonzero(puzzle > 1)] = 1
        assert (solve(reduced).num_solutions == 2).all()


def test_the_row_of_a_seed_is_the_same_however_it_is_cut():
    """On any machine: the first puzzle is written here."""
    parts = [make(1, 0, 7), make(1, 7, 1), make(1, 8, 32)]
    for name in ("inputs", "labels", "guesses"):
        assert np.array_equal(np.concatenate([getattr(part, name) for part in parts]), getattr(MADE, name))
    assert lines_of(make(0, 0, 1).inputs) == [
        "......715.76.3.....5.....6.....97.5....2..4.8.1.4......4..76...9.......6.....1..2"
    ]
    assert len({*lines_of(MADE.labels), *lines_of(make(2, 0, 40).labels)}) == 80
    assert len(make(0, 5, 0).inputs) == 0


@pytest.mark.parametrize("dtype", ["uint8", "int64"])
def test_any_type_of_tokens_is_taken(dtype):
    """Strided arrays too."""
    puzzles = np.repeat(tokens_of([PUZZLE]).astype(dtype), 4, axis=0)[::2]
    assert solve(puzzles).num_solutions.tolist() == [1, 1]
    assert solve(puzzles[:0]).solutions.shape == (0, 81)
