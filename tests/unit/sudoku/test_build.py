"""`assay sudoku build`: what is asked for is there, nothing leaks, and nothing hangs on workers."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from support.pages import ROOT

from assay.cli.main import main
from assay.errors import InputError, StorageError, UsageError
from assay.sudoku.build import sudoku_build
from assay.sudoku.canonical import canonical_forms
from assay.sudoku.grids import checked, lines_of, num_givens
from assay.sudoku.puzzles import read_split
from assay.sudoku.search import make, solve
from assay.sudoku.settings import SudokuBuildSettings
from assay.sudoku.strata import strata_of
from assay.sudoku.views import cyclic, random_view

SHARES = ("0=0.5", "1-4=0.25", "10-29=0.25")


def built(out, **settings):
    """The report of a build."""
    return sudoku_build(SudokuBuildSettings(out=str(out), **settings), on_message=lambda line: None)


def files(folder):
    """The content of every file below a folder."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def forms_of(folder, split):
    """The canonical forms of a split's solutions, as a set of lines."""
    return set(lines_of(canonical_forms(read_split(folder, split).labels)))


def write_list(path, grids):
    """A list of puzzles."""
    path.write_text("\n".join(lines_of(grids)) + "\n")
    return str(path)


def test_what_was_asked_for_is_there(tmp_path):
    """Numbers, strata, splits, one solution each, guesses beside the rows, and the same again in build.json."""
    report = built(tmp_path / "out", num_puzzles=80, strata=SHARES, test_share=0.2)
    strata = {}
    for split, size in {"train": 56, "validation": 8, "test": 16}.items():
        found = read_split(tmp_path / "out", split)
        assert (found.num_rows, found.num_groups, found.inputs.dtype) == (size, size, np.uint8)
        assert checked(found.labels, found.inputs).all()
        solved = solve(found.inputs)
        assert (solved.num_solutions == 1).all()
        guesses = np.load(tmp_path / "out" / split / "all__guesses.npy")
        assert np.array_equal(guesses, solved.guesses)
        strata[split] = np.bincount(strata_of(guesses), minlength=5).tolist()
    assert np.sum(list(strata.values()), axis=0).tolist() == [40, 20, 0, 20, 0]
    assert {split: list(counts.values()) for split, counts in report.num_puzzles.items()} == strata
    assert (
        json.loads((tmp_path / "out" / "build.json").read_text())["num_puzzles"]["train"]["0"]
        == strata["train"][0]
    )
    splits = [forms_of(tmp_path / "out", split) for split in strata]
    assert len(set.union(*splits)) == sum(map(len, splits)) == report.num_grids == 80


def test_the_number_of_workers_changes_no_byte(tmp_path):
    """Another seed does."""
    for name, seed, workers in (("one", 5, "1"), ("three", 5, "3"), ("other", 6, "3")):
        built(
            tmp_path / name, num_puzzles=300, strata=SHARES, augment=2, hints=True, seed=seed, workers=workers
        )
    one, three, other = (files(tmp_path / name) for name in ("one", "three", "other"))
    assert one == three
    assert one != other


def test_training_puzzles_are_augmented_and_the_others_are_not(tmp_path):
    """Each group is a puzzle and its views, of one grid; a row with hints follows each, easier and as solved."""
    built(tmp_path / "out", num_puzzles=20, augment=3, hints=True)
    train, plain = read_split(tmp_path / "out", "train"), built(tmp_path / "plain", num_puzzles=20)
    assert (train.num_rows, train.num_groups) == (16 * 8, 16)
    assert plain.num_rows["train"] == 16
    inputs, labels = train.inputs.reshape(16, 4, 2, 81), train.labels.reshape(16, 4, 2, 81)
    assert np.array_equal(inputs[:, 0, 0], read_split(tmp_path / "plain", "train").inputs)
    assert checked(train.labels, train.inputs).all()
    forms = canonical_forms(train.labels).reshape(16, 8, 81)
    assert (forms == forms[:, :1]).all()
    assert len(np.unique(train.labels, axis=0)) == 16 * 4
    givens = num_givens(train.inputs).reshape(16, 4, 2)
    assert (givens[:, :, 0] == givens[:, :1, 0]).all()
    assert ((givens[:, :, 1] > givens[:, :, 0]) & (givens[:, :, 1] < 81)).all()
    assert np.array_equal(labels[:, :, 0], labels[:, :, 1])
    for split in ("validation", "test"):
        assert files(tmp_path / "out" / split) == files(tmp_path / "plain" / split)


def test_lists_are_read_and_views_of_one_grid_stay_together(tmp_path):
    """What breaks the rules, has no solution, several, or was seen before is counted apart and not used."""
    puzzles = make(9, 0, 30).inputs
    views = [random_view(np.random.default_rng(seed)).show(puzzles) for seed in range(3)]
    several, none, broken = puzzles[:2].copy(), puzzles[:3].copy(), puzzles[:1].copy()
    several[np.arange(2), (several > 1).argmax(axis=1)] = 1
    broken[0, :2] = 5
    for row in none:  # a digit that the rules allow where the solution has another
        label = solve(row[None]).solutions[0]
        for cell in np.flatnonzero(row == 1):
            tried = np.repeat(row[None], 9, axis=0)
            tried[:, cell] = range(2, 11)
            fits = checked(np.where(tried > 1, tried, 2), tried * 0) | (solve(tried).num_solutions == 0)
            fits &= np.array([cells_keep(grid) for grid in tried]) & (tried[:, cell] != label[cell])
            if fits.any():
                row[cell] = tried[fits.argmax(), cell]
                break
    path = write_list(
        tmp_path / "mine.txt", np.concatenate([puzzles, *views, several, none, broken, puzzles[:4]])
    )
    report = built(tmp_path / "out", puzzles=(path,), test_share=0.2)
    found = report.lists[path]
    assert (found.num_puzzles, found.num_used, found.num_repeated) == (130, 120, 4)
    assert (found.num_breaking_rules, found.num_without_solution, found.num_with_several) == (1, 3, 2)
    assert (
        "not used: 1 whose givens break the rules, 3 without a solution, 2 with several, 4 repeated"
        in str(report)
    )
    assert sum(sum(counts.values()) for counts in report.num_puzzles.values()) == 120
    splits = [forms_of(tmp_path / "out", split) for split in ("train", "validation", "test")]
    assert sum(map(len, splits)) == len(set.union(*splits)) == report.num_grids == 30
    fewer = built(tmp_path / "fewer", puzzles=(path,), num_puzzles=10)
    assert sum(sum(counts.values()) for counts in fewer.num_puzzles.values()) == 10


def cells_keep(grid):
    """Whether the givens of one grid keep the rules."""
    from assay.sudoku.grids import keeps_rules

    return keeps_rules(grid[None])[0]


def test_a_list_to_test_on_is_a_split_whose_grids_no_other_has(tmp_path):
    """Its name is the file's; a view of one of its puzzles is left out of the splits that are drawn, and said."""
    puzzles = make(9, 0, 40).inputs
    tested = write_list(tmp_path / "hard.v2.txt", puzzles[:5])
    drawn = write_list(tmp_path / "drawn.txt", np.concatenate([cyclic(3).show(puzzles[:5]), puzzles[5:]]))
    report = built(tmp_path / "out", puzzles=(drawn,), test_puzzles=(tested,))
    assert (report.num_held_back, report.num_grids) == (5, 35)
    assert "left out: 5 puzzles whose grid is in a list that is only tested on" in str(report)
    assert np.array_equal(read_split(tmp_path / "out", "hard").inputs, puzzles[:5])
    drawn_forms = set.union(*(forms_of(tmp_path / "out", split) for split in ("train", "validation", "test")))
    assert not drawn_forms & forms_of(tmp_path / "out", "hard")


def test_wrong_input_is_refused_and_nothing_is_left(tmp_path):
    """A folder that is there, names that are taken, lists without a use, more than fits into memory."""
    good = write_list(tmp_path / "test.txt", make(0, 0, 2).inputs)
    empty = write_list(tmp_path / "open.txt", np.ones((2, 81), np.uint8))
    (tmp_path / "there").mkdir()
    before = files(tmp_path)
    for error, said, settings in (
        (UsageError, "there is there already", {"out": tmp_path / "there"}),
        (UsageError, "a split named 'test', which is taken", {"test_puzzles": (good,)}),
        (InputError, "no puzzle with one solution", {"puzzles": (empty,)}),
        (
            InputError,
            "no puzzle is left to train on",
            {"puzzles": (good,), "test_puzzles": (str(tmp_path / "all.txt"),)},
        ),
        (UsageError, "GiB of memory are free; lower augment", {"num_puzzles": 20, "augment": 10**9}),
        (
            InputError,
            r"3 puzzles at validation_share=0.1 .* --validation-share to another",
            {"num_puzzles": 3},
        ),
        (UsageError, "strata has 'x'", {"strata": ("x",)}),
        (UsageError, "must be below 1", {"test_share": 0.95}),
    ):
        (tmp_path / "all.txt").write_bytes((tmp_path / "test.txt").read_bytes())
        with pytest.raises(error, match=said):
            built(**{"out": tmp_path / "out", **settings})
        (tmp_path / "all.txt").unlink()
        assert files(tmp_path) == before
        assert sorted(path.name for path in tmp_path.iterdir()) == ["open.txt", "test.txt", "there"]


def test_a_place_that_may_not_be_written_to_is_said_first(tmp_path, monkeypatch):
    """Before a puzzle is made."""
    monkeypatch.setattr("os.access", lambda folder, mode: not (Path(folder) == tmp_path and mode == os.W_OK))
    said = []
    settings = SudokuBuildSettings(out=str(tmp_path / "new" / "out"))
    with pytest.raises(StorageError, match=f"{tmp_path} may not be written to"):
        sudoku_build(settings, on_message=said.append)
    assert said == []


def test_the_command_says_what_it_built(tmp_path, capsys):
    """The table on stdout, news on stderr; a folder that is there is status 2 and one line."""
    out = tmp_path / "out"
    words = ["sudoku", "build", str(out), "--num-puzzles", "20", "--strata", "0=1", "--workers", "1"]
    assert main(words) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].split() == ["guesses", "train", "validation", "test"]
    assert said[1].split() == ["0", "16", "2", "2"]
    assert said[-1] == f"built {out}"
    assert main(words) == 2
    assert capsys.readouterr().err == f"assay: error: {out} is there already; name a folder that is not\n"


def test_without_numba_the_extra_is_named(tmp_path, monkeypatch, capsys):
    """Before any work."""
    monkeypatch.setitem(sys.modules, "numba", None)
    assert main(["sudoku", "build", str(tmp_path / "out")]) == 2
    assert "pip install 'assay-corpus[sudoku]'" in capsys.readouterr().err


def test_official_puzzles_can_be_built_from(tmp_path):
    """The puzzles of the official data as a list: all of them have one solution, the one that stands there."""
    official = read_split(ROOT / "tests" / "support" / "sudoku-tiny", "test")
    path = write_list(tmp_path / "list.txt", official.inputs)
    built(tmp_path / "out", puzzles=(path,), validation_share=0, test_share=0)
    train = read_split(tmp_path / "out", "train")
    order = [lines_of(official.inputs).index(line) for line in lines_of(train.inputs)]
    assert sorted(order) == list(range(16))
    assert np.array_equal(train.labels, official.labels[order])
