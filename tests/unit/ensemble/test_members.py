"""A member's passes keep within memory."""

from itertools import pairwise

import numpy as np
import pytest

from assay.ensemble.members import Passes, in_pieces, noise_seeds, rows_that_fit
from assay.ensemble.reasoners import batch_sizes


def test_what_runs_out_of_memory_is_tried_in_smaller_pieces():
    """Half the size until it fits, and no larger from then on; the answers come in order."""
    sizes = []

    def solve(puzzles, seeds):
        sizes.append(len(puzzles))
        assert seeds.tolist() == puzzles[:, 0].tolist()
        if len(puzzles) > 3:
            raise MemoryError
        values = puzzles[:, 0].astype(np.float32)
        is_valid = np.zeros((1, len(puzzles)), dtype=np.bool_)
        return Passes(
            grids_KNS=puzzles[None],
            valid_KN=is_valid,
            q_halt_N=values,
            q_continue_N=values,
            halted_N=values > 0,
        )

    puzzles = np.arange(10, dtype=np.uint8)[:, None]
    found, most = in_pieces(solve, puzzles, np.arange(10), 10, lambda error: isinstance(error, MemoryError))
    assert found.q_halt_N.tolist() == list(range(10))
    assert most == 3
    assert sizes == [10, 5, 3, 3, 3, 1]


def test_a_single_puzzle_that_does_not_fit_is_an_error():
    """Nothing is smaller than one puzzle: the error of it is raised, and the member has failed."""

    def solve(puzzles, seeds):
        raise MemoryError("none left")

    with pytest.raises(MemoryError, match="none left"):
        in_pieces(solve, np.zeros((4, 1), dtype=np.uint8), None, 4, lambda _: True)


@pytest.mark.parametrize(("limit", "expected"), [(10_000, 100), (1_000, 90), (260, 16), (259, 0)])
def test_batches_keep_within_the_memory_limit(limit, expected):
    """100 bytes and 10 a row: as many rows as the limit takes, all that are wanted, or none."""

    def peak_bytes(num_rows):
        return 100 + 10 * num_rows

    assert rows_that_fit(peak_bytes, wanted=100, limit_bytes=limit) == expected


def test_memory_that_grows_faster_than_the_line_is_noticed():
    """What two small batches promise is tried before it is believed."""
    found = rows_that_fit(lambda rows: rows * rows, wanted=4_096, limit_bytes=40_000)
    assert 100 < found <= 200


def test_noise_belongs_to_a_puzzle_and_a_member():
    """The same row has the same seed in any batch; another row or member has another."""
    whole = noise_seeds(np.arange(100), 0)
    np.testing.assert_array_equal(noise_seeds(np.array([7, 3]), 0), whole[[7, 3]])
    assert len(set(whole.tolist()) | set(noise_seeds(np.arange(100), 1).tolist())) == 200


def test_what_is_left_over_is_padded_little():
    """Large batches shrink by less than a quarter; small ones, each recorded once, by halves."""
    sizes = batch_sizes(2323)
    assert sizes[-1] == 2323
    assert sizes[0] <= 8
    large = [size for size in sizes if size >= 580]
    assert all(after / before < 1.26 for before, after in pairwise(large))
    assert all(after / before <= 2 for before, after in pairwise(sizes))
    assert len(sizes) < 20
