"""How documents are put into bins by length."""

import numpy as np
import pytest

from assay.score.report.scores import length_bins
from assay.score.report.tally import LONGEST_COUNTED


@pytest.mark.parametrize("longest", [0, 1, 5, 100, 128, 129, 512, 131_072, 200_000])
def test_the_chart_of_lengths_ends_at_the_longest_document(longest):
    """Every document is in one bin, the last edge is the longest, and a power of two closes its bin."""
    lengths = np.zeros(LONGEST_COUNTED + 1, np.int64)
    for length in {0, 1, 2, 7, 64, longest // 2, longest}:
        lengths[min(length, longest, LONGEST_COUNTED)] += 1
    edges, counts = length_bins(lengths, longest)
    assert edges[-1] == max(longest, 1)
    assert edges == sorted(set(edges))
    assert sum(counts) == lengths.sum()
    assert counts[-1] > 0
    inside = lengths[edges[-2] + 1 if edges[-2] else 0 :].sum()
    assert counts[-1] == inside


def test_texts_cut_at_one_length_are_in_the_bin_that_ends_there():
    """All of 128 tokens: the axis ends at 128."""
    lengths = np.zeros(LONGEST_COUNTED + 1, np.int64)
    lengths[128] = 9
    assert length_bins(lengths, 128) == ([64, 96, 128], [0, 9])
