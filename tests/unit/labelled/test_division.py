"""Rows in two splits: what is tied together stays together, and what cannot be split says why."""

import random

import pytest

from assay.errors import InputError
from assay.labelled.division import SplitRules, divide, num_near
from assay.labelled.rows import LabelledRows
from assay.tasks import Task


def sentences(num_rows, *, seed=0):
    """Texts of twelve words that resemble no other."""
    rng = random.Random(seed)
    words = [f"w{index}" for index in range(2000)]
    return tuple(" ".join(rng.choices(words, k=12)) for _ in range(num_rows))


def labelled(num_rows, **columns):
    """Cats and dogs in turn."""
    values = {"texts": sentences(num_rows), "labels": ("cat", "dog") * (num_rows // 2)}
    return LabelledRows(**{**values, **columns})


@pytest.mark.parametrize("column", ["ids", "groups"])
def test_a_value_lies_in_one_split(column):
    """Every row once; no id and no group on both sides; the share of each label kept."""
    rows = labelled(200, **{column: tuple(f"x{row // 4}" for row in range(200))})
    division = divide(rows, Task.SINGLE_LABEL, SplitRules(validation_share=0.2))
    sides = [set(getattr(side, column)) for side in (division.train, division.validation)]
    assert not sides[0] & sides[1]
    assert sorted(division.train.texts + division.validation.texts) == sorted(rows.texts)
    assert division.validation.num_rows == 40
    assert division.validation.labels.count("cat") == 20


def test_near_duplicates_lie_in_one_split_unless_told_otherwise():
    """Ten texts that each resemble another one."""
    texts = sentences(40)
    near = tuple(f"{text.rpartition(' ')[0]} changed" for text in texts)
    rows = labelled(80, texts=texts + near)

    def crossings(rules):
        division = divide(rows, Task.SINGLE_LABEL, rules)
        return num_near(division.train, division.validation)

    assert crossings(SplitRules(validation_share=0.3)) == 0
    assert crossings(SplitRules(validation_share=0.3, near_duplicates=False)) > 0


def test_the_order_of_rows_does_not_matter():
    """The same rows and seed are the same splits; another seed another."""
    rows = labelled(60)
    shuffled = rows.take(random.Random(1).sample(range(60), 60))

    def held(rows, seed):
        rules = SplitRules(seed=seed, near_duplicates=False)
        return set(divide(rows, Task.SINGLE_LABEL, rules).validation.texts)

    assert held(rows, 0) == held(shuffled, 0) != held(rows, 1)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"groups": ("one",) * 39 + ("two",)}, "group 'one' has 39 of 40 rows, the larger split 36"),
        ({"texts": ("same",) * 39 + ("other",)}, "39 of 40 rows are tied together"),
        (
            {"groups": ("one", "two") * 20},
            "leave a split empty: that is 4.0 rows and the smallest group has 20",
        ),
    ],
)
def test_ties_that_cannot_be_split_are_refused(columns, expected):
    """One line with the way out."""
    with pytest.raises(InputError, match=expected) as caught:
        divide(labelled(40, **columns), Task.SINGLE_LABEL, SplitRules())
    assert "split the rows yourself" in str(caught.value)
