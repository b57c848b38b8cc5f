"""Labelled rows as a value: columns of one length, taken in any order, sampled by a seed."""

import pytest

from assay.errors import InputError
from assay.labelled.rows import LabelledRows

ROWS = LabelledRows(
    texts=("a", "b", "c"), labels=(1.0, 2.0, 3.0), groups=("g", "h", "g"), ids=("1", "2", "3")
)


def test_columns_of_different_length_are_refused():
    """Texts and labels go row by row."""
    with pytest.raises(InputError, match=r"columns of \[1, 2\] rows"):
        LabelledRows(texts=("a", "b"), labels=("x",))


def test_rows_can_be_taken_in_any_order():
    """All columns together."""
    taken = ROWS.take([2, 0])
    assert taken == LabelledRows(texts=("c", "a"), labels=(3.0, 1.0), groups=("g", "g"), ids=("3", "1"))
    assert taken.num_rows == 2


def test_a_sample_is_of_the_seed_and_in_order():
    """So many different rows, another seed others; all where there are no more."""
    rows = LabelledRows(texts=tuple(map(str, range(100))), labels=tuple(map(float, range(100))))
    first, again, other = (rows.sample(10, seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    assert len(set(first.texts)) == 10
    assert list(first.labels) == sorted(first.labels)
    assert ROWS.sample(3, seed=0) == ROWS.sample(9, seed=0) == ROWS


def test_the_beginning_of_a_row_is_one_line():
    """White space is taken together, a long text is cut, and of a pair both texts are shown."""
    rows = LabelledRows(texts=("a\n b", "c" * 300), labels=("x", "y"))
    assert rows.beginning(0) == "a b"
    assert rows.beginning(1) == "c" * 199 + "…"
    pairs = LabelledRows(texts=("a",), labels=("x",), text_pairs=(" b ",))
    assert pairs.beginning(0) == "a | b"
