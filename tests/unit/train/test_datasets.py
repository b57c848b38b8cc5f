"""Rows for a training: split or taken as given, checked before the first step, with what is odd said."""

import dataclasses
import random
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assay.errors import InputError
from assay.labelled import provenance
from assay.labelled.provenance import count_seen, text_hashes
from assay.labelled.rows import LabelledRows
from assay.train import datasets
from assay.train.datasets import prepare_given, prepare_rows
from assay.train.settings import TrainSettings


def sentences(num_rows, *, seed=0):
    """Texts of twelve words that resemble no other."""
    rng = random.Random(seed)
    words = [f"w{index}" for index in range(2000)]
    return tuple(" ".join(rng.choices(words, k=12)) for _ in range(num_rows))


def settings(*data, **changes):
    """Settings of a training on these sources."""
    return TrainSettings(**{"base": "base", "out": "out", "data": data or ("rows",), **changes})


def labelled(num_rows, *, seed=0, labels=("cat", "dog"), **columns):
    """Rows of `sentences`, labelled in turn."""
    texts = sentences(num_rows, seed=seed)
    return LabelledRows(
        texts=texts, labels=tuple(labels[row % len(labels)] for row in range(num_rows)), **columns
    )


@pytest.fixture
def save(tmp_path):
    """Writes columns to a Parquet file and returns its path."""

    def write(name="rows", **columns):
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table({key: pa.array(list(value)) for key, value in columns.items()}), path)
        return str(path)

    return write


# ---------------------------------------------------------------- rows that are split here


def test_rows_are_split_in_the_share_asked_for(save):
    """A tenth of each label is set aside; every row is on one side, in the order of the source."""
    texts = sentences(200)
    prepared = prepare_rows(settings(save(text=texts, label=[row % 2 for row in range(200)])))
    assert (prepared.train.num_rows, prepared.validation.num_rows) == (180, 20)
    assert prepared.split.num_rows_by_label == {
        "0": {"train": 90, "validation": 10},
        "1": {"train": 90, "validation": 10},
    }
    assert sorted(prepared.train.texts + prepared.validation.texts) == sorted(texts)
    assert list(prepared.train.texts) == [text for text in texts if text in set(prepared.train.texts)]
    assert prepared.names == ("0", "1")
    assert prepared.warnings == ()


@pytest.mark.parametrize(
    ("task", "labels", "names"),
    [
        ("multi_label", [["a", "b"], ["a"], [], ["b", "c"]] * 50, ("a", "b", "c")),
        ("regression", [1.0, 2.5, 4.0, 3.0] * 50, ("score",)),
    ],
)
def test_the_other_tasks_are_split_too(save, task, labels, names):
    """By their rarest label, or by their quantile."""
    prepared = prepare_rows(
        settings(save(text=sentences(200), label=labels), task=task, validation_share=0.2)
    )
    assert (prepared.train.num_rows, prepared.validation.num_rows) == (160, 40)
    assert prepared.names == names
    assert prepared.warnings == ()
    if task == "regression":
        assert prepared.split.ranges["validation"] == (1.0, pytest.approx(2.625), 4.0)


def test_groups_ids_and_near_duplicates_stay_on_one_side(save):
    """What shares an author, an id or nearly its words is tied together, through others too."""
    texts = list(sentences(300))
    for row in range(0, 60, 2):
        texts[row + 1] = " ".join([*texts[row].split()[:-1], "changed"])
    authors = [f"author {row // 3}" for row in range(300)]
    ids = [row if row < 298 else 7 for row in range(300)]
    path = save(text=texts, label=["a", "b"] * 150, author=authors, key=ids)
    prepared = prepare_rows(settings(path, group_column="author", id_column="key", validation_share=0.2))
    sides = (prepared.train, prepared.validation)
    assert not set(sides[0].groups) & set(sides[1].groups)
    assert not set(sides[0].ids) & set(sides[1].ids)
    starts = [{" ".join(text.split()[:8]) for text in side.texts} for side in sides]
    assert not starts[0] & starts[1]
    assert prepared.split.num_groups == 100
    assert (prepared.split.num_near_duplicate_groups, prepared.split.num_near_duplicates) == (30, 60)
    assert prepared.split.num_kept_together == 300
    assert prepared.validation.num_rows == pytest.approx(60, abs=3)


def test_equal_texts_are_kept_together_without_a_search_for_near_ones(save, monkeypatch):
    """`near_duplicates = false` needs no library, and still no text is on both sides."""
    monkeypatch.setitem(sys.modules, "rensa", None)
    texts = sentences(50) * 2
    path = save(text=texts, label=["a", "b"] * 50)
    prepared = prepare_rows(settings(path, near_duplicates=False, validation_share=0.2))
    assert not set(prepared.train.texts) & set(prepared.validation.texts)
    assert prepared.validation.num_rows == 20
    assert prepared.split.num_near_duplicate_groups is None
    assert prepared.split.num_kept_together == 100


def test_the_split_does_not_depend_on_the_order_of_the_rows(save):
    """A shuffled copy of the file gives the same two sides; another seed gives others."""
    texts = sentences(120)
    order = random.Random(1).sample(range(120), 120)
    label = [("a", "b", "c")[row % 3] for row in range(120)]
    first = prepare_rows(settings(save(text=texts, label=label)))
    path = save("shuffled", text=[texts[row] for row in order], label=[label[row] for row in order])
    assert set(prepare_rows(settings(path)).validation.texts) == set(first.validation.texts)
    assert set(prepare_rows(settings(path, seed=1)).validation.texts) != set(first.validation.texts)


def test_what_was_seen_can_be_counted_afterwards(save):
    """Texts, ids and groups by role, as a bundle keeps them."""
    path = save(
        text=sentences(40), label=["a", "b"] * 20, author=[row // 2 for row in range(40)], id=range(40)
    )
    prepared = prepare_rows(settings(path, group_column="author", id_column="id"))
    sizes = {"train": 36, "validation": 4}
    assert count_seen(text_hashes(sentences(40)), prepared.provenance) == sizes
    assert count_seen(text_hashes([str(row) for row in range(50)]), prepared.provenance, "id") == sizes
    seen = count_seen(text_hashes([str(row) for row in range(20)]), prepared.provenance, "group")
    assert seen == {"train": 18, "validation": 2}
    assert set(prepare_rows(settings(path)).provenance) == {"text_hashes"}


# ---------------------------------------------------------------- rows that were split before


def test_given_rows_are_taken_as_they_are(save):
    """From sources or handed in: nothing is moved, and the report says what there is."""
    train, validation = labelled(40), labelled(10, seed=1)
    first = prepare_given(settings(), train, validation)
    assert (first.train, first.validation) == (train, validation)
    assert first.split.num_kept_together is None
    assert first.warnings == ()
    paths = [
        save(str(number), text=rows.texts, label=rows.labels)
        for number, rows in enumerate((train, validation))
    ]
    assert prepare_rows(settings(paths[0], validation_data=(paths[1],))) == first


@pytest.mark.parametrize("column", ["ids", "groups"])
def test_an_id_or_group_on_both_sides_is_refused(column):
    """The user named the column: its promise is kept or the rows are refused."""
    train = labelled(20, **{column: tuple(f"x{row}" for row in range(20))})
    validation = labelled(4, seed=1, **{column: ("x3", "y", " x3", "z")})
    with pytest.raises(InputError, match=rf"2 of 4 validation rows have the {column[:-1]} of a training row"):
        prepare_given(settings(), train, validation)


def test_a_text_on_both_sides_is_refused():
    """Counted, white space at the ends ignored."""
    train = labelled(20)
    validation = dataclasses.replace(
        labelled(4, seed=1), texts=(f" {train.texts[0]}\n", *sentences(3, seed=1))
    )
    with pytest.raises(InputError, match="1 of 4 validation rows are training rows too"):
        prepare_given(settings(), train, validation)


def test_near_duplicates_on_both_sides_are_said(monkeypatch):
    """Counted as a warning; not looked for where told not to; said where they cannot be."""
    train = labelled(20)
    near = f"{train.texts[0].rpartition(' ')[0]} changed"
    validation = dataclasses.replace(labelled(4, seed=1), texts=(near, *sentences(3, seed=1)))
    (warning,) = prepare_given(settings(), train, validation).warnings
    assert warning.startswith("1 of 4 validation rows are near-duplicates of training rows")
    assert prepare_given(settings(near_duplicates=False), train, validation).warnings == ()
    monkeypatch.setitem(sys.modules, "rensa", None)
    (warning,) = prepare_given(settings(), train, validation).warnings
    assert "needs the package rensa of the extra train" in warning


def test_pairs_on_one_side_alone_are_refused():
    """A model reads one text or two."""
    pairs = labelled(4, seed=1, text_pairs=("a", "b", "c", "d"))
    with pytest.raises(InputError, match="has pairs and the other single texts"):
        prepare_given(settings(), labelled(20), pairs)


# ---------------------------------------------------------------- refused before the first step


@pytest.mark.parametrize(
    ("columns", "changes", "expected"),
    [
        ({"label": ["x"] * 40}, {}, r"labels \['x'\]; a classifier needs at least two"),
        ({"label": [["x"]] * 40}, {"task": "multi_label"}, r"all training rows have the labels \['x'\]"),
        ({"label": [[] for _ in range(39)] + [["a"]]}, {"task": "multi_label"}, None),
        ({"label": [3.0] * 40}, {"task": "regression"}, "all targets are 3.0; there is nothing to learn"),
        ({"label": [1.0] * 39 + [2.0]}, {"task": "regression"}, r"set best_by = mae, or give more rows"),
        ({"label": [1.0] * 39 + [2.0]}, {"task": "regression", "best_by": "mae"}, None),
        ({"label": ["x", "y"] * 20, "g": ["one"] * 39 + ["two"]}, {"group_column": "g"},
         r"group 'one' has 39 of 40 rows, the larger split 36;.*choose a finer group column"),
        ({"label": ["x", "y"] * 20, "text": ["same"] * 39 + ["other"]}, {},
         r"39 of 40 rows are tied together.*larger split has 36; drop the repeats"),
        ({"label": ["x", "y"] * 20, "g": ["one", "two"] * 20}, {"group_column": "g"},
         r"leave a split empty: that is 4.0 rows and the smallest group has 20"),
        ({"label": [f"label {row}" for row in range(20)], "text": sentences(20)}, {},
         "each label must occur in training first"),
        ({"label": ["x"], "text": ["one"]}, {}, "1 rows at validation_share=0.1 leave a split empty: there is one row"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_split_or_learnt_are_refused(save, columns, changes, expected):
    """One line: what was seen, the rule, the way out. What can be learnt is not refused."""
    path = save(**{"text": sentences(40), **columns})
    if expected is None:
        prepare_rows(settings(path, **changes))
        return
    with pytest.raises(InputError, match=expected) as caught:
        prepare_rows(settings(path, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("label_of", "expected"),
    [
        (
            lambda row: f"Title {row} of something",
            r"300 different labels in 300 rows, 300 of them in one row",
        ),
        (lambda row: f"id-{row // 2 if row < 60 else row}", r"270 different labels.*ids, titles or names"),
        (
            lambda row: row * 0.5 if row % 2 == 0 else row,
            r"look like numbers \(for numbers the task is regression",
        ),
        (
            lambda row: f"{row} is a sentence that nobody would take for the name of a label",
            "look like texts",
        ),
    ],
)
def test_a_column_that_holds_no_labels_is_named_as_such(save, label_of, expected):
    """A label a row or nearly so: the number of labels, some of them, and what the column may hold instead."""
    path = save(text=sentences(300), label=[label_of(row) for row in range(300)])
    with pytest.raises(InputError, match=expected) as caught:
        prepare_rows(settings(path))
    assert str(caught.value).startswith("label column 'label' has ")
    assert "name another one" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("num_labels", "is_said"), [(100, False), (101, True)])
@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_hundreds_of_labels_are_said(save, task, num_labels, is_said):
    """They may be meant; the number of labels is said before the training begins."""
    names = [f"label {row % num_labels}" for row in range(404)]
    labels = names if task == "single_label" else [[name] for name in names]
    prepared = prepare_rows(
        settings(save(text=sentences(404), label=labels), task=task, near_duplicates=False)
    )
    said = [line for line in prepared.warnings if f"{num_labels} different labels in" in line]
    assert bool(said) is is_said


def test_a_trial_takes_so_many_rows_drawn_by_the_seed(save):
    """Of a file that is sorted by label too; the same for the same seed, all rows where there are no more."""
    path = save(text=sentences(400), label=["cat"] * 200 + ["dog"] * 200)
    taken = [prepare_rows(settings(path, limit_rows=40, seed=seed)) for seed in (0, 0, 1)]
    texts = [set(each.train.texts + each.validation.texts) for each in taken]
    assert [len(each) for each in texts] == [40, 40, 40]
    assert texts[0] == texts[1] != texts[2]
    assert taken[0].names == ("cat", "dog")
    everything = prepare_rows(settings(path, limit_rows=4_000))
    assert everything.train.num_rows + everything.validation.num_rows == 400


def test_a_label_in_validation_alone_is_refused():
    """It could never be predicted; of label sets each name counts."""
    other = dataclasses.replace(labelled(4, seed=1), labels=("bird", "cat", "dog", "cat"))
    with pytest.raises(InputError, match=r"validation labels \['bird'\] never occur in training"):
        prepare_given(settings(), labelled(20), other)
    sets = labelled(20, labels=(("a",), ("a", "b")))
    with pytest.raises(InputError, match=r"\['c'\] never occur"):
        prepare_given(settings(task="multi_label"), sets, labelled(4, seed=1, labels=(("a",), ("a", "c"))))


@pytest.mark.parametrize(
    ("task", "labels", "expected"),
    [
        ("regression", ("a", "b"), r"20 of 20 labels are not regression labels, such as 'a'"),
        ("regression", (1.0, np.nan), r"10 of 20 targets are NaN or infinite"),
        ("regression", (1.0, np.inf), r"10 of 20 targets are NaN or infinite"),
        ("single_label", ("a", ("b",)), r"10 of 20 labels are not single_label labels"),
        ("multi_label", ("a", "b"), r"20 of 20 labels are not multi_label labels"),
    ],
)
def test_labels_of_another_task_are_refused(task, labels, expected):
    """Rows handed in by a caller are checked as those of a file are."""
    with pytest.raises(InputError, match=expected):
        prepare_given(settings(task=task), labelled(20, labels=labels), labelled(4, seed=1))


@pytest.mark.parametrize(("sizes", "expected"), [((20, 0), "0 validation rows"), ((0, 4), "0 training rows")])
def test_empty_sides_are_refused(sizes, expected):
    """Something must be learnt and something must choose the checkpoint."""
    with pytest.raises(InputError, match=expected):
        prepare_given(settings(), labelled(sizes[0]), labelled(sizes[1], seed=1))


# ---------------------------------------------------------------- said


def test_equal_texts_with_different_labels_are_said():
    """In training: how many rows, how many texts; not refused."""
    train = labelled(20)
    train = dataclasses.replace(train, texts=(train.texts[1], f"{train.texts[1]} ", *train.texts[2:]))
    (warning,) = prepare_given(settings(), train, labelled(4, seed=1)).warnings
    assert warning.startswith("2 training rows have the text of a row with another label (1 texts)")


def test_labels_without_validation_rows_are_said():
    """Their share of macro-F1 is not known."""
    (warning,) = prepare_given(
        settings(), labelled(20, labels=("a", "b", "c")), labelled(2, seed=1, labels=("a", "b"))
    ).warnings
    assert warning.startswith("1 of 3 labels have no validation row, such as ['c']")


def test_a_validation_that_large_groups_made_too_large_is_said(save):
    """Two groups of half the rows each: half is set aside where a fifth was asked for."""
    path = save(text=sentences(100), label=["a", "b"] * 50, g=[row // 34 for row in range(100)])
    prepared = prepare_rows(settings(path, group_column="g", validation_share=0.4))
    assert prepared.warnings == ()
    path = save("few", text=sentences(100), label=["a", "b"] * 50, g=[row // 60 for row in range(100)])
    prepared = prepare_rows(settings(path, group_column="g", validation_share=0.25))
    assert prepared.warnings[0].startswith("validation has 40 rows where validation_share=0.25 asks for 25")


def test_more_rows_than_a_bundle_remembers_are_said(monkeypatch):
    """Calibration could not tell whether a row was trained on."""
    monkeypatch.setattr(provenance, "MAX_HASHES", 10)
    monkeypatch.setattr(datasets, "MAX_HASHES", 10)
    prepared = prepare_given(settings(), labelled(20), labelled(4, seed=1))
    assert prepared.warnings[0].startswith("train has more than 10 rows: the bundle keeps no text hashes")
    assert list(prepared.provenance["text_hashes"]) == ["validation"]
