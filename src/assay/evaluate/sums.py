"""What metrics are made of: weighted sums over cells of the rows, which resampling needs again and again. Pure.

A metric of weighted rows is a function of sums of the weights (or of weights times a value) over cells: rows
of one label, rows whose scores rank alike. What does not depend on the weights (orders, bins, logarithms) is
found once. Where rows are drawn in blocks, the sums of a block are found once too, and those of a resample
are one product of matrices.

All products of matrices are exact, so that they are the same in any order, on any number of threads: counts
are whole numbers, and values are rounded to a grid on which their sums fit a float64.

Axes: N rows, M entries of a row, K cells, U units (blocks), B resamples.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from assay.metrics import BoolArray, FloatArray, IntArray

CellArray = NDArray[np.int32]
Values = Callable[[FloatArray], Mapping[str, FloatArray]]
"""Sums [B, K] to metrics [B] by name; NaN where one is undefined."""
_HEADROOM_BITS = 4
"""A resample's sum may be so many times (as a power of 2) that of all rows before it is rounded."""


class Sums(Protocol):
    """Sums over cells of weighted rows."""

    are_counts: bool
    """Whether the sums are of weights alone, not of values."""

    def of_rows(self, weights_BN: FloatArray) -> FloatArray:
        """The sums, [B, K], of rows of these weights."""
        ...

    def of_units(self, unit_N: IntArray, num_units: int) -> FloatArray:
        """The sums of each unit's rows, each once, [U, K]."""
        ...


class Columns:
    """Sums of values that each row has, a cell a column."""

    def __init__(self, columns: Sequence[FloatArray | BoolArray]) -> None:
        """Of columns [N] each; an extra one, of ones, follows: the total weight."""
        self._columns = [
            each if each.dtype == np.bool_ else _on_grid(each.astype(np.float64)) for each in columns
        ]
        self._columns.append(np.ones(len(columns[0]), dtype=np.bool_))
        self.are_counts = all(each.dtype == np.bool_ for each in self._columns)

    def of_rows(self, weights_BN: FloatArray) -> FloatArray:
        """The sums [B, K]."""
        return weights_BN @ self._stacked

    def of_units(self, unit_N: IntArray, num_units: int) -> FloatArray:
        """The sums of each unit's rows [U, K]."""
        sums = [np.bincount(unit_N, weights=each, minlength=num_units) for each in self._columns]
        return np.stack(sums, axis=1)

    @cached_property
    def _stacked(self) -> FloatArray:
        return np.stack(self._columns, axis=1).astype(np.float64)


class Cells:
    """Sums of the rows (or of values) that fall in each cell; a row may be in several."""

    def __init__(
        self, cell_MN: NDArray[np.integer], num_cells: int, value_MN: FloatArray | None = None
    ) -> None:
        """`cell_MN`: the cells of each row's entries, 0..K-1; `value_MN`: what each entry adds, 1 by default."""
        self._cell_MN = cell_MN.astype(np.int32)
        self._value_MN = None if value_MN is None else _on_grid(value_MN)
        self._num_cells = num_cells
        self.are_counts = value_MN is None

    def of_rows(self, weights_BN: FloatArray) -> FloatArray:
        """The sums [B, K]."""
        rows, starts, cells, values = self._sorted
        taken_BD = weights_BN.take(rows, axis=1)
        if values is not None:
            taken_BD *= values
        found = taken_BD if starts.size == rows.size else np.add.reduceat(taken_BD, starts, axis=1)
        if cells.size == self._num_cells:
            return found
        sums_BK = np.zeros((len(weights_BN), self._num_cells))
        sums_BK[:, cells] = found
        return sums_BK

    def of_units(self, unit_N: IntArray, num_units: int) -> FloatArray:
        """The sums of each unit's rows [U, K]."""
        size = num_units * self._num_cells
        first_N = unit_N * self._num_cells
        sums = np.zeros(size)
        for index, cell_N in enumerate(self._cell_MN):
            weights = None if self._value_MN is None else self._value_MN[index]
            sums += np.bincount(first_N + cell_N, weights=weights, minlength=size)
        return sums.reshape(num_units, self._num_cells)

    @cached_property
    def _sorted(self) -> tuple[IntArray, IntArray, CellArray, FloatArray | None]:
        """Rows of the entries by cell, where each cell begins, the cells that occur, the entries' values."""
        flat = self._cell_MN.ravel()
        order = np.argsort(flat, kind="stable")
        cells, starts = np.unique(flat[order], return_index=True)
        values = None if self._value_MN is None else self._value_MN.ravel()[order]
        return order % self._cell_MN.shape[1], starts, cells, values


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """Metrics that are found together."""

    parts: tuple[tuple[Sums, Values], ...]
    """Sums, and what is found from them alone."""
    join: Callable[[Sequence[Mapping[str, FloatArray]]], Mapping[str, FloatArray]] = field(
        default=lambda found: found[0]
    )
    """The metrics from what was found from each of the parts."""


def metrics_at(families: Sequence[Family], weights_BN: FloatArray) -> dict[str, FloatArray]:
    """Every metric of rows of these weights, [B] by name; NaN where one is undefined."""
    return joined(
        families,
        [[metrics_of(values, sums.of_rows(weights_BN)) for sums, values in each.parts] for each in families],
    )


def metrics_of(values: Values, sums_BK: FloatArray) -> Mapping[str, FloatArray]:
    """The metrics of sums; NaN where one is undefined."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return values(sums_BK)


def joined(
    families: Sequence[Family], found: Sequence[Sequence[Mapping[str, FloatArray]]]
) -> dict[str, FloatArray]:
    """All metrics by name, from what was found from each part of each family."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            name: values
            for family, parts in zip(families, found, strict=True)
            for name, values in family.join(parts).items()
        }


def _on_grid(values: FloatArray) -> FloatArray:
    """The values to so many bits that sums of them, each some times, are exact in float64."""
    total = float(np.abs(values).sum())
    if not 0 < total < np.inf:
        return values
    step = 2.0 ** (int(np.frexp(total)[1]) + _HEADROOM_BITS - 53)
    rounded: FloatArray = np.rint(values / step) * step
    return rounded
