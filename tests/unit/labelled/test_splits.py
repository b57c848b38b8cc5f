"""Splits: stratified, reproducible, and nothing that is tied together on two sides."""

from collections import Counter

import pytest

from assay.errors import UsageError
from assay.labelled.splits import SplitReport, split_report, split_rows, strata, unite_groups

TENTH = {"train": 0.9, "validation": 0.1}


def test_shares_hold_within_each_label():
    """A rare label is split in the same proportions as a common one."""
    labels = ["common"] * 200 + ["rare"] * 20
    splits = split_rows(labels, range(220), {"train": 0.7, "test": 0.3}, seed=3)
    assert Counter(zip(labels, splits, strict=True)) == {
        ("common", "train"): 140,
        ("common", "test"): 60,
        ("rare", "train"): 14,
        ("rare", "test"): 6,
    }


def test_many_rare_labels_fill_a_small_split_together():
    """A hundred labels of three rows: a tenth of all rows is set aside, never all rows of a label."""
    labels = [f"label {row // 3}" for row in range(300)]
    splits = split_rows(labels, range(300), TENTH, seed=0)
    assert Counter(splits) == {"train": 270, "validation": 30}
    trained = {label for label, split in zip(labels, splits, strict=True) if split == "train"}
    assert trained == set(labels)


def test_a_label_of_one_row_is_trained_on():
    """It could be predicted by no one if it were set aside."""
    labels = [f"only {row}" for row in range(50)] + ["common"] * 450
    splits = split_rows(labels, range(500), TENTH, seed=0)
    assert set(splits[:50]) == {"train"}
    assert Counter(splits) == {"train": 450, "validation": 50}


def test_a_group_lies_in_one_split():
    """Whatever its size."""
    groups = [row // 7 for row in range(140)]
    splits = split_rows(["x"] * 140, groups, {"a": 1, "b": 1, "c": 2}, seed=0)
    assert len(set(zip(groups, splits, strict=True))) == 20
    assert Counter(splits) == {"a": 35, "b": 35, "c": 70}


def test_groups_of_several_labels_keep_the_balance():
    """A hundred authors of ten rows, one in five of them bad: both splits have a fifth of bad ones."""
    labels = ["bad" if row % 5 == 0 else "good" for row in range(1000)]
    splits = split_rows(labels, [row // 10 for row in range(1000)], TENTH, seed=5)
    found = Counter(zip(labels, splits, strict=True))
    assert found["bad", "validation"] == pytest.approx(20, abs=4)
    assert found["good", "validation"] == pytest.approx(80, abs=8)


def test_a_label_within_one_group_of_many_labels_is_trained_on():
    """The group that holds all rows of a label goes to the first split, on every seed."""
    labels = ["rare" if row == 37 else "x" for row in range(100)]
    groups = [row // 5 for row in range(100)]
    for seed in range(20):
        splits = split_rows(labels, groups, {"train": 0.5, "validation": 0.5}, seed=seed)
        assert splits[37] == "train"


def test_a_large_group_goes_where_there_is_most_room():
    """A book of half of all rows is trained on; the others fill the rest."""
    groups = [0] * 50 + list(range(1, 51))
    splits = split_rows(["x"] * 100, groups, {"train": 0.8, "validation": 0.2}, seed=1)
    assert set(splits[:50]) == {"train"}
    assert Counter(splits) == {"train": 80, "validation": 20}


def test_the_split_depends_on_the_seed_alone():
    """The same seed gives the same split again, another seed another."""
    first, again, other = (
        split_rows(["x"] * 50, range(50), {"a": 1, "b": 1}, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_an_empty_share_is_refused():
    """A split of weight 0 is a mistake."""
    with pytest.raises(UsageError, match="weight above 0"):
        split_rows(["x"], [0], {"a": 1, "b": 0}, seed=0)


def test_rows_are_tied_through_others():
    """One by the author to the second, the second by its text to the third."""
    assert unite_groups(["a", "a", "b", "c"], [1, 2, 2, 3]) == [0, 0, 0, 3]
    assert unite_groups(["x", "y", "x"]) == [0, 1, 0]


def test_strata_of_the_three_tasks():
    """The label; the rarest label of a set; a number itself where there are few, else its tenth."""
    assert strata(["b", "a"], "single_label") == ["b", "a"]
    assert strata([("a", "b"), ("a",), ()], "multi_label") == ["b", "a", ""]
    assert strata([1.0, 5.0, 1.0, 3.0], "regression") == ["0", "2", "0", "1"]
    bins = strata([row / 7 for row in range(1000)], "regression")
    assert Counter(bins) == {str(number): 100 for number in range(10)}
    # Most targets alike: their quantiles are one value, the others are strata of their own.
    skewed = Counter(strata([0.0] * 900 + [float(row) for row in range(1, 101)], "regression"))
    assert sorted(skewed.values()) == [100, 900]


def test_nothing_kept_together_is_not_told():
    """Without a group column and without duplicates there is nothing to say."""
    report = split_report({"train": ["ham", "spam"]}, "single_label", near_duplicates=[0, 1], united=[0, 1])
    assert "kept together" not in str(report)


def test_the_report_reads_well():
    """Sizes, what was kept together, and a line a label, aligned."""
    report = split_report(
        {"train": ["ham"] * 1500 + ["spam"] * 300, "validation": ["ham"] * 190 + ["spam"] * 10},
        "single_label",
        groups=["a", "b"] * 1000,
        near_duplicates=[0, 0, *range(2, 2000)],
        united=[0, 0, 0, *range(3, 2000)],
    )
    assert str(report).splitlines() == [
        "split: train 1,800 rows (90.0%), validation 200 rows (10.0%)",
        "kept together: 3 rows (2 groups of the group column, 2 near-duplicates in 1 groups)",
        "label          train   validation",
        "ham    1,500 (83.3%)  190 (95.0%)",
        "spam     300 (16.7%)    10 (5.0%)",
    ]


def test_the_report_of_numbers_shows_their_range():
    """Least, mean and greatest target of each split; nothing about groups that were not looked at."""
    report = split_report({"train": [1.0, 2.0, 4.5], "validation": [3.0]}, "regression")
    assert str(report).splitlines() == [
        "split: train 3 rows (75.0%), validation 1 rows (25.0%)",
        "target      least  mean  greatest",
        "train           1   2.5       4.5",
        "validation      3     3         3",
    ]


def test_the_report_of_many_labels_stays_short():
    """Twenty of them, the most frequent ones; label sets count once for each label."""
    labels = [(f"l{row}", "every") for row in range(50)]
    report = split_report({"train": labels, "validation": labels[:5]}, "multi_label")
    assert isinstance(report, SplitReport)
    lines = str(report).splitlines()
    assert len(lines) == 23
    assert lines[2].split() == ["every", "50", "(100.0%)", "5", "(100.0%)"]
    assert lines[-1] == "and 31 rarer labels"
