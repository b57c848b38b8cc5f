"""Many grids at once, each in a symmetric form of its own; views.py has one symmetry for all. Pure."""

import numpy as np
from numpy.typing import NDArray

from assay.sudoku.grids import FIRST_DIGIT, NUM_CELLS, NUM_TOKENS, Tokens


def random_forms(rng: np.random.Generator, *grids: Tokens) -> tuple[Tokens, ...]:
    """The grids in forms drawn evenly from all symmetries: row n of each argument in the same one.

    Digits are relabeled, half of the grids transposed, bands, stacks and the lines within them shuffled.
    """
    number = len(grids[0])
    shown = np.tile(np.arange(NUM_TOKENS), (number, 1))
    shown[:, FIRST_DIGIT:] = _orders(rng, number, NUM_TOKENS - FIRST_DIGIT) + FIRST_DIGIT
    rows, columns = _lines(rng, number), _lines(rng, number)
    straight = rows[:, :, None] * 9 + columns[:, None, :]
    turned = columns[:, None, :] * 9 + rows[:, :, None]
    cells = np.where((rng.random(number) < 0.5)[:, None, None], straight, turned).reshape(number, NUM_CELLS)
    return tuple(
        np.take_along_axis(shown, np.take_along_axis(each, cells, 1).astype(np.int64), 1).astype(each.dtype)
        for each in grids
    )


def _lines(rng: np.random.Generator, number: int) -> NDArray[np.int64]:
    """Orders of nine lines that keep bands together, [number, 9]."""
    bands = _orders(rng, number, 3)
    within = np.stack([_orders(rng, number, 3) for _ in range(3)], axis=1)
    return (bands[:, :, None] * 3 + within).reshape(number, 9)


def _orders(rng: np.random.Generator, number: int, size: int) -> NDArray[np.int64]:
    """Random orders of `size` things, [number, size]."""
    orders: NDArray[np.int64] = rng.random((number, size)).argsort(1)
    return orders
