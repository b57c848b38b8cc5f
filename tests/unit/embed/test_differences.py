"""Differences to fp32 as counts: they add up, bound what they say they bound, and follow from a unit's name."""

import functools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.binomial import upper_bound
from assay.embed.differences import EDGES, Differences, sample_rows, sum_of

DIFFERENCES = st.lists(st.floats(0, 3, allow_nan=False), max_size=30)


def counted(values, changed=0):
    """The counts of these differences, of which the first `changed` turn a label."""
    return Differences.of(np.array(values, dtype=float), np.arange(len(values)) < changed, milliseconds=3)


@given(DIFFERENCES, DIFFERENCES)
def test_parts_add_up(one, other):
    """Counts of two parts, through their footers, are those of both in one; what is beyond an edge is counted right."""
    both = one + other
    footers = [json.loads(json.dumps(counted(values).to_json())) for values in (one, other)]
    total = sum_of([*footers, None, {"counts": [1]}, 7])
    assert total == Differences.of(
        np.array(both, dtype=float), np.zeros(len(both), dtype=bool), milliseconds=6
    )
    assert total.num_documents == len(both)
    for edge in EDGES:
        assert total.num_beyond(edge) == sum(value > edge for value in both)


@given(st.lists(st.floats(0, 3), min_size=1, max_size=30), st.floats(0.01, 1))
def test_a_quantile_covers_its_share(values, share):
    """So many of the sample differ by no more, and it is the largest difference at the most."""
    found = counted(values)
    quantile = found.quantile(share)
    assert sum(value <= quantile for value in values) >= share * len(values) - 1e-9
    assert quantile <= max(values)


def test_nothing_says_nothing():
    """Without a sample there are no figures, and anything may be."""
    assert sum_of([]) is None
    assert (
        sum_of([{}, None, "x", {"counts": "no", "largest": 0, "labels_changed": 0, "milliseconds": 0}])
        is None
    )
    assert Differences().most_beyond(0.001) == 1
    assert Differences().quantile(0.5) == 0


def test_a_number_that_is_not_finite_is_beyond_all():
    """JSON has no infinity: the footer says null."""
    found = counted([0.1, math.inf])
    assert json.loads(json.dumps(found.to_json()))["largest"] is None
    assert sum_of([found.to_json()]).largest == math.inf
    assert found.num_beyond(1.0) == 1


def test_rows_follow_from_the_name_of_the_unit():
    """The same rows each time, others for another unit, rising, without repeats; all for 1 and none for 0."""
    rows = sample_rows("a-0-100000", 100_000, 0.01)
    assert np.array_equal(rows, sample_rows("a-0-100000", 100_000, 0.01))
    assert not np.array_equal(rows, sample_rows("b-0-100000", 100_000, 0.01))
    assert (np.diff(rows) > 0).all()
    assert rows.min() >= 0
    assert rows.max() < 100_000
    assert np.array_equal(sample_rows("a-0-50", 50, 1.0), np.arange(50))
    assert not len(sample_rows("a-0-50", 50, 0.0))
    assert not len(sample_rows("a-0-0", 0, 0.5))


def test_every_row_has_the_same_chance_whatever_its_unit():
    """Over many units, of few rows and of many: within four standard deviations."""
    share, num_units = 0.02, 2_000
    for num_rows in (1, 40):
        drawn = sum(len(sample_rows(f"u-{unit}-{num_rows}", num_rows, share)) for unit in range(num_units))
        expected = share * num_rows * num_units
        assert abs(drawn - expected) < 4 * math.sqrt(expected * (1 - share))
    first, last = (
        sum(row in sample_rows(f"u-{unit}-x", 40, 0.5) for unit in range(num_units)) for row in (0, 39)
    )
    assert abs(first - last) < 4 * math.sqrt(num_units / 2)


@pytest.mark.parametrize("cut", [(350,), (1,) * 40 + (310,), (200, 100, 49, 1)])
def test_the_bound_holds_over_units_of_any_size(cut):
    """Of 100 runs whose bad documents lie together, the bound fails to cover in about a twentieth at the most."""
    starts = np.cumsum([0, *cut])
    is_bad = np.arange(350) < 20
    bound = functools.cache(lambda found, drawn: upper_bound(found, drawn, 0.95))
    missed = 0
    for number in range(100):
        drawn = np.concatenate(
            [
                start + sample_rows(f"{number}-{start}", size, 0.15)
                for start, size in zip(starts, cut, strict=False)
            ]
        )
        missed += bound(int(is_bad[drawn].sum()), len(drawn)) < is_bad.mean()
    assert missed <= 100 * 0.05 + 3 * math.sqrt(100 * 0.05 * 0.95)
