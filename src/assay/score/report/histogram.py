"""Counts of numbers whose range is not known beforehand. Pure."""

import math

import numpy as np
import numpy.typing as npt

GROWING_BINS = 4096

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating]


class GrowingHistogram:
    """A histogram of finite numbers, made in one pass and bounded memory.

    Bins are a power of two wide and begin at multiples of it; when the range outgrows the bins,
    neighbours are put together. Exact at that resolution: at least 2,048 bins over the range seen,
    once the range is known.
    """

    def __init__(self) -> None:
        self.width = 0.0
        self.first = 0
        """Index of the first bin: it begins at `first * width`."""
        self.counts: Counts = np.zeros(0, np.int64)
        self.low = math.inf
        self.high = -math.inf

    def add(self, values: Floats) -> None:
        """Count finite values."""
        if not len(values):
            return
        low, high = float(values.min()), float(values.max())
        if not self.width:
            reach = max((high - low) / GROWING_BINS, max(abs(low), abs(high)) * 2.0**-20, 2.0**-100)
            self.width = 2.0 ** math.ceil(math.log2(reach))
            self.first = math.floor(low / self.width)
        self._make_room(low, high)
        index = np.floor(values.astype(np.float64) / self.width).astype(np.int64) - self.first
        self.counts += np.bincount(index, minlength=len(self.counts))

    def merge(self, other: "GrowingHistogram") -> None:
        """Add the counts of another histogram."""
        if not other.width:
            return
        if not self.width:
            self.width, self.first = other.width, other.first
        while other.width < self.width:
            other.coarsen()
        while self.width < other.width:
            self.coarsen()
        self._make_room(other.low, other.high)
        while other.width < self.width:
            other.coarsen()
        index = other.first - self.first + np.arange(len(other.counts))
        filled = other.counts > 0
        np.add.at(self.counts, index[filled], other.counts[filled])

    def coarsen(self) -> None:
        """Put neighbouring bins together: half as many, twice as wide."""
        front = self.first % 2
        padded = np.pad(self.counts, (front, (front + len(self.counts)) % 2))
        self.counts = padded.reshape(-1, 2).sum(axis=1)
        self.first //= 2
        self.width *= 2

    def _make_room(self, low: float, high: float) -> None:
        self.low, self.high = min(self.low, low), max(self.high, high)
        while math.floor(self.high / self.width) - math.floor(self.low / self.width) >= GROWING_BINS:
            self.coarsen()
        first = min(self.first, math.floor(self.low / self.width))
        stop = max(self.first + len(self.counts), math.floor(self.high / self.width) + 1)
        self.counts = np.pad(self.counts, (self.first - first, stop - self.first - len(self.counts)))
        self.first = first

    def shown(self, num_bins: int) -> tuple[list[float], list[int], int]:
        """Edges and counts of at most `num_bins` bins, and how many values lie outside of them.

        The bins span all but the outermost 0.05% at either end, so that a single outlier does not
        press all the others into one bin.
        """
        if not self.width:
            return [0.0, 1.0], [0], 0
        reached = np.cumsum(self.counts)
        total = int(reached[-1])
        start = int(np.searchsorted(reached, total * 0.0005, side="right"))
        stop = int(np.searchsorted(reached, total * 0.9995)) + 1
        if reached[-1] < 2 * GROWING_BINS:
            start, stop = int(np.argmax(self.counts > 0)), len(np.trim_zeros(self.counts, "b"))
        step = -(-(stop - start) // num_bins)
        stop += -(stop - start) % step
        inside = np.pad(self.counts, (0, max(0, stop - len(self.counts))))[start:stop]
        edges = [(self.first + start + index) * self.width for index in range(0, stop - start + 1, step)]
        return edges, inside.reshape(-1, step).sum(axis=1).tolist(), total - int(inside.sum())
