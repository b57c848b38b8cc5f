"""Plans of runs: every row in exactly one unit, every unit in exactly one share, whoever works."""

from hypothesis import given
from hypothesis import strategies as st

from assay.runs.plan import limit_boundaries, own_share, plan_boundaries, units_of
from assay.runs.verify import is_partition


@st.composite
def sources(draw):
    """Rows of a source, the rows at which its row groups start, and the rows wanted of a unit."""
    sizes = draw(st.lists(st.integers(0, 500), max_size=20))
    splits, num_rows = [0], 0
    for size in sizes:
        num_rows += size
        splits.append(num_rows)
    return num_rows, tuple(splits), draw(st.integers(1, 1200))


@given(sources())
def test_units_partition_the_rows(source):
    """Whatever the row groups and the size asked for, every row is in exactly one unit, in order."""
    num_rows, splits, unit_rows = source
    units = list(units_of(0, "s", plan_boundaries(num_rows, splits, unit_rows)))
    assert [row for unit in units for row in range(unit.start, unit.stop)] == list(range(num_rows))
    assert len({unit.name for unit in units}) == len(units)
    assert is_partition([units[0].start, *(unit.stop for unit in units)], num_rows)


@given(sources())
def test_no_unit_is_larger_than_asked_for(source):
    """A unit has at most `unit_rows` rows, and none is empty unless the source is."""
    num_rows, splits, unit_rows = source
    for unit in units_of(0, "s", plan_boundaries(num_rows, splits, unit_rows)):
        assert unit.num_rows <= unit_rows
        assert unit.num_rows > 0 or num_rows == 0


@given(sources())
def test_a_row_group_is_cut_only_where_it_is_larger_than_a_unit(source):
    """A boundary that is not a row-group start lies inside a row group of more than `unit_rows` rows."""
    num_rows, splits, unit_rows = source
    ends = sorted({*splits, num_rows})
    for boundary in plan_boundaries(num_rows, splits, unit_rows):
        if boundary not in ends:
            start = max(end for end in ends if end < boundary)
            stop = min(end for end in ends if end > boundary)
            assert stop - start > unit_rows


@given(sources(), st.integers(0, 12_000))
def test_a_limit_keeps_the_first_rows(source, limit):
    """A trial of `limit` rows plans exactly the first ones; whole units keep their names."""
    num_rows, splits, unit_rows = source
    boundaries = plan_boundaries(num_rows, splits, unit_rows)
    limited = limit_boundaries(boundaries, limit)
    if limit == 0:
        assert limited == ()
        return
    assert is_partition(limited, min(num_rows, limit))
    assert set(limited) <= {*boundaries, limit}


@given(st.integers(0, 3000), st.integers(1, 40))
def test_shares_partition_the_units(num_units, world_size):
    """Every unit is in exactly one rank's share, and shares differ by at most one unit."""
    shares = [own_share(num_units, rank, world_size) for rank in range(world_size)]
    assert [unit for share in shares for unit in share] == list(range(num_units))
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1


@given(sources(), st.integers(1, 20))
def test_units_do_not_know_who_works_on_them(source, world_size):
    """However many workers share a run, together they have the units of one worker, by the same names."""
    num_rows, splits, unit_rows = source
    units = list(units_of(3, "s", plan_boundaries(num_rows, splits, unit_rows)))
    shared = [
        units[index].name for rank in range(world_size) for index in own_share(len(units), rank, world_size)
    ]
    assert shared == [unit.name for unit in units]
