"""Rows to units, and who takes which."""

import pytest

from assay.errors import UsageError
from assay.runs.plan import (
    MAX_UNIT_ROWS,
    MIN_UNIT_ROWS,
    Unit,
    choose_unit_rows,
    last_unit_cost,
    limit_boundaries,
    own_share,
    plan_boundaries,
    units_of,
)


@pytest.mark.parametrize(
    ("num_rows", "splits", "unit_rows", "boundaries"),
    [
        (10, (0, 4, 6), 6, (0, 6, 10)),
        (10, (0, 4, 6), 3, (0, 2, 4, 6, 8, 10)),
        (10, (0,), 4, (0, 3, 6, 10)),
        (10, (0, 5), 100, (0, 10)),
        (10, (), 10, (0, 10)),
        (10, (0, 0, 5, 5, 10), 5, (0, 5, 10)),
        (1, (0,), 1, (0, 1)),
        (0, (0,), 5, (0, 0)),
    ],
)
def test_boundaries(num_rows, splits, unit_rows, boundaries):
    """Whole row groups go together up to the size asked for; a larger one is cut evenly."""
    assert plan_boundaries(num_rows, splits, unit_rows) == boundaries


@pytest.mark.parametrize(
    ("limit", "boundaries"),
    [(0, ()), (-3, ()), (1, (0, 1)), (4, (0, 4)), (5, (0, 4, 5)), (10, (0, 4, 8, 10)), (99, (0, 4, 8, 10))],
)
def test_a_limit_cuts_the_last_unit(limit, boundaries):
    """A trial covers exactly so many rows; () where an earlier source used them up."""
    assert limit_boundaries((0, 4, 8, 10), limit) == boundaries


def test_an_empty_source_stays_within_a_limit():
    """A source without rows is one empty unit in a trial too."""
    assert limit_boundaries((0, 0), 5) == (0, 0)


def test_a_unit_is_named_by_content():
    """The name is the source's and the row range, whatever else the run holds."""
    first, second = units_of(7, "books__a", (0, 4, 10))
    assert (first.name, second.name) == ("books__a-0-4", "books__a-4-10")
    assert second == Unit(source=7, source_name="books__a", start=4, stop=10)
    assert (first.num_rows, second.num_rows) == (4, 6)


def test_a_unit_is_about_a_minute():
    """Rows of a unit follow from the expected speed, within bounds that keep parts manageable."""
    assert choose_unit_rows(tokens_per_row=100, tokens_per_second=10_000) == 6_000
    assert choose_unit_rows(tokens_per_row=1e6, tokens_per_second=1) == MIN_UNIT_ROWS
    assert choose_unit_rows(tokens_per_row=0, tokens_per_second=1e9) == MAX_UNIT_ROWS


def test_shares():
    """Contiguous shares that differ by at most one unit; none where there are fewer units than ranks."""
    assert [list(own_share(5, rank, 3)) for rank in range(3)] == [[0], [1, 2], [3, 4]]
    assert [len(own_share(2, rank, 4)) for rank in range(4)] == [0, 1, 0, 1]


@pytest.mark.parametrize(("rank", "world_size"), [(2, 2), (-1, 2), (0, 0)])
def test_a_rank_is_below_the_world_size(rank, world_size):
    """An impossible place is refused with both numbers and the flags."""
    with pytest.raises(UsageError, match=f"rank {rank} of world size {world_size}.*--rank and --world-size"):
        own_share(10, rank, world_size)


def test_what_the_last_units_cost():
    """Three equal units on two workers take 2 in place of 1.5; a large unit at the end costs more than at the front."""
    assert last_unit_cost([5, 5, 5], 2) == pytest.approx(1 / 3)
    assert last_unit_cost([5] * 200, 2) == 0.0
    assert last_unit_cost([9, 1, 1, 1], 2) < last_unit_cost([1, 1, 1, 9], 2)
    assert last_unit_cost([5], 4) == pytest.approx(3.0)
    assert last_unit_cost([], 4) == last_unit_cost([0], 4) == 0.0
