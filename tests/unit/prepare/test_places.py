"""Sides of k chunks, and two sides that share no sentence."""

import itertools
from random import Random

import numpy as np
import pytest

from assay.prepare.pairs.places import KeptChunks, Places


def windows(num, *, length=100, step=70, gap=0, kept=None):
    """Overlapping windows over a text."""
    positions = np.arange(num) if kept is None else np.array(kept, dtype=np.int64)
    return Places(positions=positions, starts=positions * step, stops=positions * step + length, gap=gap)


def spans(places, side):
    """Starts and stops of a side's chunks."""
    index = [int(np.flatnonzero(places.positions == position)[0]) for position in side]
    return [(int(places.starts[i]), int(places.stops[i])) for i in index]


@pytest.mark.parametrize("kind", ["contiguous", "spread"])
@pytest.mark.parametrize("num_chunks", [1, 3])
@pytest.mark.parametrize("gap", [0, 250])
def test_two_sides_never_share_a_sentence(kind, num_chunks, gap):
    """Neither with each other, where the gap holds, nor within a side."""
    places = windows(40, gap=gap, kept=[n for n in range(40) if n % 11])
    for seed in range(200):
        found = places.two_sides(Random(seed), num_chunks, kind)
        assert found is not None
        first, second = (spans(places, side) for side in found)
        assert len(first) == len(second) == num_chunks
        assert all(b[0] >= a[1] + gap or a[0] >= b[1] + gap for a in first for b in second)
        for side in (first, second):
            assert all(b[0] >= a[1] for a, b in itertools.pairwise(side))


def test_contiguous_chunks_follow_each_other_and_do_not_jump():
    """The next chunk is the first that does not overlap; a hole in the book ends a run."""
    places = windows(10, kept=[0, 1, 2, 3, 8, 9])
    assert places.runs(2).tolist() == [[0, 2], [1, 3]]
    assert places.side(Random(0), 3, "contiguous") is None


def test_every_pair_of_places_can_be_drawn():
    """Each two chunks that do not overlap come up, in both orders."""
    places = windows(5)
    drawn = {places.two_sides(Random(seed), 1, "contiguous") for seed in range(500)}
    wanted = {((a,), (b,)) for a in range(5) for b in range(5) if abs(a - b) > 1}
    assert drawn == wanted


@pytest.mark.parametrize("num", [0, 1, 2])
def test_a_short_book_has_no_two_sides(num):
    """Two windows that overlap are one place."""
    assert windows(num).two_sides(Random(0), 1, "contiguous") is None
    assert windows(num).two_sides(Random(0), 2, "spread") is None


def test_of_single_chunks_it_does_not_matter_where_they_lie():
    """The same are drawn without their places."""
    kept = [n for n in range(40) if n % 11]
    for seed in range(50):
        side = windows(40, kept=kept).side(Random(seed), 1, "contiguous")
        assert KeptChunks(kept).side(Random(seed), 1, "contiguous") == side
    assert KeptChunks([]).side(Random(0), 1, "spread") is None
