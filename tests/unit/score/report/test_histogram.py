"""Histograms of numbers whose range is not known beforehand."""

from itertools import pairwise

import numpy as np
import pytest

from assay.score.report.histogram import GrowingHistogram


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_growing_histogram_keeps_every_value(scale):
    """Whatever the range and however it grows, each value is counted once, near where it lies."""
    rng = np.random.default_rng(5)
    pieces = [rng.normal(0, width * scale, 500).astype(np.float32) for width in (0.001, 1, 50)]
    whole, halves = GrowingHistogram(), [GrowingHistogram(), GrowingHistogram()]
    for index, piece in enumerate(pieces):
        whole.add(piece)
        halves[index % 2].add(piece)
    halves[0].merge(halves[1])
    for histogram in (whole, halves[0]):
        assert histogram.counts.sum() == 1500
        edges, counts, outside = histogram.shown(40)
        assert sum(counts) + outside == 1500
        assert len(edges) == len(counts) + 1 <= 41
        values = np.concatenate(pieces)
        expected = [int(((values >= low) & (values < high)).sum()) for low, high in pairwise(edges)]
        assert counts == expected


def test_constant_values_make_a_histogram():
    """A regression that always says the same is drawn."""
    histogram = GrowingHistogram()
    histogram.add(np.full(10, 3.5, np.float32))
    histogram.add(np.full(10, 3.5, np.float32))
    edges, counts, outside = histogram.shown(40)
    assert sum(counts) == 20
    assert outside == 0
    assert edges[0] <= 3.5 <= edges[-1]
