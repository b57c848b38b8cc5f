"""Puzzle data in the official layout: read, refused where it does not fit, written the same."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from support.pages import ROOT

from assay.errors import SourceError
from assay.sudoku.grids import checked
from assay.sudoku.puzzles import (
    PuzzleSplit,
    SplitDescription,
    need_sudoku,
    read_split,
    sudoku_split,
    write_split,
)

TINY = ROOT / "tests" / "support" / "sudoku-tiny"
"""Written by the official builder: 16 puzzles to test, 24 with two augmentations each to train."""


@pytest.fixture
def tiny(tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(TINY, tmp_path / "tiny")


def test_official_data_is_read():
    """Both types of the official builder; groups hold a puzzle and its augmentations, all of them solved right."""
    test, train = read_split(TINY, "test"), read_split(TINY, "train")
    assert (test.inputs.dtype, test.inputs.shape, test.num_groups) == (np.uint8, (16, 81), 16)
    assert (train.inputs.dtype, train.num_rows, train.num_puzzles, train.num_groups) == (np.int64, 72, 72, 24)
    assert train.group_indices[:3].tolist() == [0, 3, 6]
    for split in (test, train):
        need_sudoku(split, "tiny")
        assert checked(split.labels, split.inputs).all()


@pytest.mark.parametrize("split", ["test", "train"])
def test_what_is_written_is_what_the_official_builder_wrote(split, tmp_path):
    """Every file is the same, byte for byte."""
    write_split(tmp_path, split, read_split(TINY, split))
    official = {path.relative_to(TINY) for path in TINY.glob(f"{split}/*")} | {
        (TINY / "identifiers.json").relative_to(TINY)
    }
    assert {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()} == official
    for path in official:
        assert (tmp_path / path).read_bytes() == (TINY / path).read_bytes(), path


def test_a_split_of_our_own_arrays_has_the_official_form():
    """Group sizes become indices; without them each puzzle is a group."""
    official = read_split(TINY, "train")
    made = sudoku_split(official.inputs, official.labels, group_sizes=np.full(24, 3))
    for name in ("puzzle_identifiers", "puzzle_indices", "group_indices"):
        assert np.array_equal(getattr(made, name), getattr(official, name))
    assert made.description == official.description
    assert sudoku_split(official.inputs, official.labels).num_groups == 72


def test_an_empty_split_is_a_split(tmp_path):
    """It is written and read like any other."""
    none = np.zeros((0, 81), np.uint8)
    write_split(tmp_path, "test", sudoku_split(none, none))
    assert read_split(tmp_path, "test").num_rows == 0


def wrong(**values):
    """A split of three rows with some arrays replaced."""
    rows = np.ones((3, 81), np.uint8)
    return replace(sudoku_split(rows, rows), **values)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"inputs": np.ones((3, 81))}, "inputs are float64; they must be uint8, int32, int64"),
        (
            {"labels": np.ones((3, 80), np.uint8)},
            r"labels have the shape \(3, 80\); they must have 81 tokens a row",
        ),
        ({"labels": np.ones(81, np.uint8)}, r"labels have the shape \(81,\)"),
        ({"labels": np.ones((2, 81), np.uint8)}, "a label belongs to each input"),
        ({"labels": np.ones((3, 81), np.int64)}, "in the same type"),
        (
            {"inputs": np.full((3, 81), 11, np.uint8)},
            "inputs have tokens from 11 to 11; they must be 0 to 10",
        ),
        ({"labels": np.full((3, 81), -100, np.int64)}, "labels have tokens from -100"),
        (
            {"puzzle_indices": np.array([0, 1, 2], np.int32)},
            "puzzle_indices go from 0 to 2; they must rise from 0 to 3",
        ),
        ({"puzzle_indices": np.array([0, 2, 1, 3], np.int32)}, "must rise"),
        ({"puzzle_indices": np.arange(4)}, "puzzle_indices are int64"),
        ({"group_indices": np.array([], np.int32)}, "group_indices are int32"),
        ({"group_indices": np.array([0, 3], np.int32)}, "total_groups is 3 and group_indices have 1"),
        ({"puzzle_identifiers": np.zeros(2, np.int32)}, "one for each of 3 puzzles"),
        ({"puzzle_identifiers": np.ones(3, np.int32)}, "puzzle_identifiers are 1 to 1; they must be 0 to 0"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(values, said):
    """In one line: which array, what it is, what it must be."""
    with pytest.raises(SourceError, match=said) as caught:
        wrong(**values)
    assert "\n" not in str(caught.value)


def spoil(name, content):
    """A function that overwrites or removes a file of the test split."""

    def act(data):
        path = data / "test" / name
        if content is None:
            path.unlink()
        elif isinstance(content, np.ndarray):
            np.save(path, content, allow_pickle=content.dtype == object)
        else:
            path.write_bytes(content)

    return act


def described(**values):
    """The description of the test split with some values replaced, as a file."""
    official = json.loads((TINY / "test" / "dataset.json").read_text())
    return spoil("dataset.json", json.dumps({**official, **values}).encode())


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (spoil("all__inputs.npy", None), "no file all__inputs.npy"),
        (spoil("all__inputs.npy", b""), "all__inputs.npy cannot be read"),
        (
            spoil("all__inputs.npy", (TINY / "test/all__inputs.npy").read_bytes()[:500]),
            "all__inputs.npy cannot be read",
        ),
        (spoil("all__labels.npy", np.array([{}, {}])), "all__labels.npy cannot be read"),
        (spoil("all__puzzle_indices.npy", np.arange(17.0)), "puzzle_indices are float64"),
        (spoil("dataset.json", None), "no file dataset.json"),
        (spoil("dataset.json", b"{"), "dataset.json cannot be read"),
        (spoil("dataset.json", b"[]"), "dataset.json cannot be read"),
        (spoil("dataset.json", b"{}"), "dataset.json cannot be read"),
        (described(seq_len="81"), "they are counts"),
        (described(seq_len=900), r"inputs have the shape \(16, 81\); they must have 900"),
        (described(sets=["all", "small"]), "has the sets all, small"),
        (described(total_groups=5), "total_groups is 5"),
    ],
)
def test_a_damaged_split_is_refused_with_its_folder(tiny, act, said):
    """Missing, cut off, pickled, of another type or at odds with its description: one line that names the folder."""
    act(tiny)
    with pytest.raises(SourceError, match=said) as caught:
        read_split(tiny, "test")
    assert str(caught.value).startswith(f"{tiny / 'test'}: ")
    assert "\n" not in str(caught.value)


def test_a_missing_split_says_which_there_are(tiny, tmp_path):
    """Or how to make one."""
    with pytest.raises(SourceError, match="has no split valid; it has test, train"):
        read_split(tiny, "valid")
    with pytest.raises(SourceError, match="assay sudoku build"):
        read_split(tmp_path / "nowhere", "test")


def test_unknown_facts_of_a_description_are_left_alone(tiny):
    """Other builders write more into dataset.json."""
    described(source="kaggle")(tiny)
    assert read_split(tiny, "test").description == read_split(TINY, "test").description


def test_other_puzzles_are_not_sudokus():
    """A maze has the same layout and is read, and refused where Sudokus are needed."""
    rows = np.ones((1, 900), np.uint8)
    starts = np.array([0, 1], np.int32)
    maze = PuzzleSplit(
        inputs=rows,
        labels=rows,
        puzzle_identifiers=np.zeros(1, np.int32),
        puzzle_indices=starts,
        group_indices=starts,
        description=SplitDescription(vocab_size=6, seq_len=900, total_groups=1),
    )
    with pytest.raises(SourceError, match="mazes/test has 900 cells and 6 tokens; Sudokus have 81 and 11"):
        need_sudoku(maze, "mazes/test")
