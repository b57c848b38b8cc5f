"""Puzzles solved, rated by guesses and made, in compiled code (numba, of the extra sudoku).

The solver places digits that have one cell left in a unit, or cells that have one digit left, until neither is there,
then guesses: in the first of the cells with the fewest digits left, each of them in turn. It goes on until a second
solution is found or none is left, so one solution is a proof. **Guesses** are the digits it tried: 0 where the two
rules do, and the more the harder; they depend on the puzzle alone, and may differ between two views of it.

Everything is a function of its arguments on any machine, takes as many puzzles as it is given, and holds no lock of
Python meanwhile: threads share the work.
"""

from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from assay.sudoku.grids import BLANK, BOXES, COLUMNS, FIRST_DIGIT, NUM_CELLS, ROWS, Tokens, as_grids

_UNITS = np.concatenate([ROWS, COLUMNS, BOXES]).astype(np.int64)
_PEERS = np.array(
    [
        sorted({int(peer) for unit in _UNITS if cell in unit for peer in unit} - {cell})
        for cell in range(NUM_CELLS)
    ]
)
_ALL = 0b111_111_111
_PLACED = 1 << 9
"""Set beside the one digit that is left of a cell, once its peers know."""
Ints = NDArray[Any]
_compiled = numba.njit(cache=True, nogil=True)


class Solved(NamedTuple):
    """What became of N puzzles."""

    num_solutions: NDArray[np.int64]
    """0, 1, or 2 for two or more, N."""
    guesses: NDArray[np.int64]
    """Digits tried until that was certain, N."""
    solutions: NDArray[np.uint8]
    """The first solution found, N x 81 tokens; padding where there is none."""


class Made(NamedTuple):
    """N puzzles: one solution each, and two or more without any one of the givens."""

    inputs: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    guesses: NDArray[np.int64]


def solve(puzzles: Tokens) -> Solved:
    """How many solutions each puzzle has, up to two, the first of them, and the guesses that it took."""
    num = len(as_grids(puzzles))
    found = Solved(np.zeros(num, np.int64), np.zeros(num, np.int64), np.zeros((num, NUM_CELLS), np.uint8))
    _solve(np.ascontiguousarray(puzzles, dtype=np.uint8), *found, *_workspace())
    return found


def make(seed: int, first: int, count: int) -> Made:
    """Puzzles `first` to `first + count` of a seed's endless row: the same however the row is cut."""
    shape = (count, NUM_CELLS)
    made = Made(np.full(shape, BLANK, np.uint8), np.zeros(shape, np.uint8), np.zeros(count, np.int64))
    _make(np.uint64(seed), np.uint64(first), *made, np.arange(NUM_CELLS), *_workspace())
    return made


def _workspace() -> tuple[Ints, Ints, Ints, Ints]:
    """Room for a search: the state at each depth, the cell guessed there, its digits yet to try; a state of draws."""
    depth = NUM_CELLS + 1
    return (
        np.zeros((depth, NUM_CELLS), np.int64),
        np.zeros(depth, np.int64),
        np.zeros(depth, np.int64),
        np.zeros(1, np.uint64),
    )


@_compiled
def _solve(puzzles, num_solutions, guesses, solutions, states, cells, left, draws):
    for index in range(len(puzzles)):
        if _start(puzzles[index], states[0]) and _settle(states[0]):
            found, tried = _search(states, cells, left, draws, 2, solutions[index])
            num_solutions[index], guesses[index] = found, tried


@_compiled
def _make(seed, first, inputs, labels, guesses, order, states, cells, left, draws):
    for index in range(len(inputs)):
        draws[0] = seed
        draws[0] = _draw(draws) + first + np.uint64(index)
        draws[0] = _draw(draws) | np.uint64(1)  # 0 stands for no draws
        puzzle, state, solution = inputs[index], states[0], labels[index]
        _start(puzzle, state)
        _search(states, cells, left, draws, 1, solution)
        for cell in range(NUM_CELLS):
            puzzle[cell] = solution[cell]
            order[cell] = cell
        for last in range(NUM_CELLS - 1, 0, -1):
            other = _below(draws, last + 1)
            order[last], order[other] = order[other], order[last]
        draws[0] = 0
        for cell in order:
            given = puzzle[cell]
            puzzle[cell] = BLANK
            _start(puzzle, state)
            state[cell] &= ~(1 << (given - FIRST_DIGIT))  # is there a solution with another digit here?
            if state[cell] and _settle(state) and _search(states, cells, left, draws, 1, solution)[0]:
                puzzle[cell] = given
        _start(puzzle, state)
        _settle(state)
        guesses[index] = _search(states, cells, left, draws, 2, solution)[1]


@_compiled
def _start(puzzle, state):
    """The digits that the givens leave to each cell; False where givens meet."""
    used = np.zeros(27, np.int64)
    for cell in range(NUM_CELLS):
        if puzzle[cell] >= FIRST_DIGIT:
            bit = 1 << (puzzle[cell] - FIRST_DIGIT)
            row, column = cell // 9, 9 + cell % 9
            box = 18 + cell // 27 * 3 + cell % 9 // 3
            if (used[row] | used[column] | used[box]) & bit:
                return False
            used[row] |= bit
            used[column] |= bit
            used[box] |= bit
    for cell in range(NUM_CELLS):
        if puzzle[cell] >= FIRST_DIGIT:
            state[cell] = 1 << (puzzle[cell] - FIRST_DIGIT) | _PLACED
        else:
            state[cell] = _ALL & ~(
                used[cell // 9] | used[9 + cell % 9] | used[18 + cell // 27 * 3 + cell % 9 // 3]
            )
    return True


@_compiled
def _place(state, cell, bit):
    """Put a digit into a cell, and whatever is then the last digit of a cell; False where a cell has none left."""
    waiting = np.empty(NUM_CELLS + 1, np.int64)
    waiting[0] = cell
    num_waiting = 1
    state[cell] = bit
    while num_waiting:
        num_waiting -= 1
        cell = waiting[num_waiting]
        bit = state[cell]
        state[cell] = bit | _PLACED
        for peer in _PEERS[cell]:
            if state[peer] & bit:
                rest = state[peer] & ~bit
                if rest & _ALL == 0:
                    return False
                state[peer] = rest
                if rest & (rest - 1) == 0:
                    waiting[num_waiting] = peer
                    num_waiting += 1
    return True


@_compiled
def _place_singles(state):
    """Place the cells that have one digit left; False where a cell has none."""
    for cell in range(NUM_CELLS):
        rest = state[cell]
        if rest == 0 or (rest & (rest - 1) == 0 and not _place(state, cell, rest)):
            return False
    return True


@_compiled
def _settle(state):
    """Place all that needs no guess; False where a cell has no digit left, or a digit no cell."""
    if not _place_singles(state):
        return False
    moved = True
    while moved:
        moved = False
        for unit in range(27):
            once, twice, placed = 0, 0, 0
            for cell in _UNITS[unit]:
                rest = state[cell]
                twice |= once & rest
                once |= rest
                if rest & _PLACED:
                    placed |= rest
            if once & _ALL != _ALL:
                return False
            alone = once & ~twice & ~placed & _ALL
            if alone:
                for cell in _UNITS[unit]:
                    rest = state[cell]
                    if rest & alone and not rest & _PLACED:
                        bit = rest & alone
                        if bit & (bit - 1) or not _place(state, cell, bit):
                            return False
                        moved = True
    return True


@_compiled
def _cell_to_guess(state):
    """The first of the cells with the fewest digits left; -1 where all are placed."""
    best, fewest = -1, 10
    for cell in range(NUM_CELLS):
        rest = state[cell]
        if not rest & _PLACED:
            num = 0
            while rest:
                rest &= rest - 1
                num += 1
            if num < fewest:
                best, fewest = cell, num
                if num == 2:
                    break
    return best


@_compiled
def _search(states, cells, left, draws, limit, solution):
    """Solutions up to a limit, and digits tried; `states[0]` is settled, `solution` gets the first one.

    With a state of draws that is not 0, digits are tried in a random order.
    """
    num_found = num_tried = depth = 0
    cells[0] = _cell_to_guess(states[0])
    if cells[0] < 0:
        _write(states[0], solution)
        return 1, 0
    left[0] = states[0, cells[0]]
    while depth >= 0:
        if left[depth] == 0:
            depth -= 1
            continue
        bit = left[depth] & -left[depth]
        if draws[0]:
            bit = _random_bit(draws, left[depth])
        left[depth] ^= bit
        num_tried += 1
        deeper = states[depth + 1]
        for each in range(NUM_CELLS):
            deeper[each] = states[depth, each]
        if not (_place(deeper, cells[depth], bit) and _settle(deeper)):
            continue
        cell = _cell_to_guess(deeper)
        if cell >= 0:
            depth += 1
            cells[depth], left[depth] = cell, deeper[cell]
            continue
        if num_found == 0:
            _write(deeper, solution)
        num_found += 1
        if num_found == limit:
            break
    return num_found, num_tried


@_compiled
def _write(state, solution):
    """The digits of a state in which all are placed, as tokens."""
    for cell in range(NUM_CELLS):
        rest = state[cell] & _ALL
        token = FIRST_DIGIT
        while rest > 1:
            rest >>= 1
            token += 1
        solution[cell] = token


@_compiled
def _random_bit(draws, bits):
    """One of the bits that are set."""
    num, rest = 0, bits
    while rest:
        rest &= rest - 1
        num += 1
    for _ in range(_below(draws, num)):
        bits &= bits - 1
    return bits & -bits


@_compiled
def _below(draws, bound):
    """A number from 0 to below a small bound."""
    return np.int64(((_draw(draws) >> np.uint64(32)) * np.uint64(bound)) >> np.uint64(32))


@_compiled
def _draw(draws):
    """The next 64 bits (splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014)."""
    draws[0] += np.uint64(0x9E3779B97F4A7C15)
    bits = draws[0]
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
