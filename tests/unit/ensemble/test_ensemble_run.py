"""What an ensemble run counts, drops and says of members that fail."""

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.puzzle_ensembles import (
    CHECKPOINTS,
    OTTER,
    PUZZLES,
    Failing,
    knowing,
    run_in_process,
    settings_of,
)

from assay.ensemble.plan import plan_ensemble, views_of
from assay.ensemble.results import Stated, results_json
from assay.ensemble.verb import describe, refuse_failures
from assay.ensemble.work import EnsembleWork
from assay.errors import BundleError, SourceError, UsageError, WorkError
from assay.runs.pipeline import run_unit
from assay.runs.run import create_or_join, part_path
from assay.sudoku.puzzles import read_split, sudoku_split, write_split


@pytest.fixture
def full(tmp_path):
    """Every member on every puzzle: findings and run."""
    return run_in_process(settings_of(tmp_path / "full", settled="never", batch_size=6), knowing())


def flags(run):
    """The rows that some member got right, from the parts alone."""
    found = set()
    for info in run.part_files().values():
        table = pq.read_table(f"{run.url}/{info.path}")
        pairs = zip(table["source_row"].to_pylist(), table["right"].to_pylist(), strict=True)
        found |= {row for row, right in pairs if right}
    return found


def stated(run):
    """What the verb states of a run."""
    now = datetime(2026, 1, 22, 15, 55, tzinfo=UTC)
    return Stated(
        run_id=run.manifest.run_id,
        run_url=run.url,
        num_batch=1,
        batch_size=16,
        max_workers=1,
        precision="fp32",
        started=now,
        ended=now,
    )


@pytest.mark.parametrize("settled", ["checked", "right"])
def test_dropping_settled_puzzles_changes_no_flag(full, tmp_path, settled):
    """Puzzle by puzzle any-correct and checked are what all members together give, for a share of the passes."""
    solvers = knowing()
    found, run = run_in_process(settings_of(tmp_path / "run", settled=settled, batch_size=6), solvers)
    everything, full_run = full
    for name in ("any-correct", "checked", "checked-any-step"):
        assert found.rules[name] == everything.rules[name]
    assert [batch.correct for batch in found.batches] == [batch.correct for batch in everything.batches]
    assert found.in_order == everything.in_order
    assert flags(run) == flags(full_run)
    assert sum(solver.num_asked for solver in solvers.values()) == found.member_runs < everything.member_runs
    assert found.pass_at_k == ()
    count, share = found.equal_cost
    assert count == found.member_runs // found.total
    assert share == everything.in_order[count - 1]
    assert share.correct < found.rules["any-correct"].correct
    assert f"any-correct of the first {count} members" in describe(found)
    assert everything.equal_cost is None


def test_where_solutions_are_unique_checking_equals_the_oracle(full):
    """No label is needed to know which grid to take: checked is right exactly where some member is."""
    found, _ = full
    assert 0 < found.rules["checked"].correct < found.total
    assert found.rules["checked"] == found.rules["any-correct"]
    assert found.pass_at_k[-1].value == pytest.approx(found.rules["any-correct"].accuracy)
    mean = np.mean([member.right.accuracy for member in found.members])
    assert found.pass_at_k[0].value == pytest.approx(mean)
    assert found.num_several == 0


def test_a_failed_member_is_left_out_and_named(tmp_path):
    """The others' numbers are as without it; it is no wrong answer, and the command fails in the end."""
    solvers = {**knowing(), "step_9": Failing()}
    found, _ = run_in_process(settings_of(tmp_path / "one", settled="never", batch_size=6), solvers)
    two = (CHECKPOINTS[0], CHECKPOINTS[2])
    without, _ = run_in_process(
        settings_of(tmp_path / "two", settled="never", batch_size=6, checkpoints=two), knowing()
    )
    for name, share in without.rules.items():
        assert found.rules[name] == share, name
    assert found.pass_at_k == without.pass_at_k
    assert [batch.correct for batch in found.batches] == [batch.correct for batch in without.batches]
    failed = [member for member in found.members if "step_9" in member.name]
    assert all(member.right.total == 0 and member.right.accuracy is None for member in failed)
    assert all(member.num_failed == 16 and member.failed_batches == 3 for member in failed)
    message = r"brisk-heron/step_9 shift 0 failed in 3 batches of 3 .*TypeError: create_batch"
    with pytest.raises(WorkError, match=message):
        refuse_failures(found)


def test_a_run_in_which_every_member_fails_has_no_accuracy(tmp_path):
    """Nothing is counted as wrong answers: there is no accuracy, every error is named, and the command fails."""
    settings = settings_of(tmp_path / "run")
    found, run = run_in_process(settings, dict.fromkeys(("step_300", "step_9", "step_10"), Failing()))
    assert (found.correct, found.total) == (0, 0)
    results = results_json(settings, stated(run), found, ())
    assert results["overall_results"]["accuracy"] is None
    assert results["batch_results"][0]["accuracy"] is None
    assert [failure["puzzles"] for failure in results["failures"]] == [16] * 9
    assert all("TypeError: create_batch()" in failure["error"] for failure in results["failures"])
    assert "ran on nothing" in describe(found)
    with pytest.raises(WorkError, match="and 8 more members"):
        refuse_failures(found)


def test_the_json_has_the_scripts_names_and_the_honest_rules(full, tmp_path):
    """Names, types and meanings are the script's; correct is the oracle's count and is called so."""
    found, run = full
    settings = settings_of(tmp_path / "full", settled="never", batch_size=6)
    results = results_json(settings, stated(run), found, ())
    script = {"checkpoints", "permutes", "max_workers", "num_batch", "batch_size", "start_time"}
    assert script <= results["config"].keys()
    assert results["config"]["start_time"] == "2026-01-22 15:55:00"
    assert results["config"]["checkpoints"] == list(CHECKPOINTS)
    batches = results["batch_results"]
    names = ["batch_idx", "correct", "total", "accuracy", "time_seconds"]
    assert [list(batch) for batch in batches] == [names] * 3
    assert [batch["total"] for batch in batches] == [6, 6, 4], "the last batch is not taken for a full one"
    overall = results["overall_results"]
    assert overall["correct"] == sum(batch["correct"] for batch in batches)
    assert overall["total"] == 16
    assert overall["accuracy"] == round(overall["correct"] / 16, 6)
    assert {"elapsed_time", "end_time"} <= overall.keys()
    assert overall["rule"] == "any-correct"
    assert results["rules"]["any-correct"]["uses_labels"]
    assert not results["rules"]["checked"]["uses_labels"]
    assert len(results["members"]) == 9
    assert results["failures"] == []
    assert "oracle pass@9" in describe(found)


def test_the_parts_are_the_same_however_the_batches_are_shared_out(tmp_path):
    """A batch's rows depend on the batch alone: each done by a work of its own, in another order, they are equal."""
    first = run_in_process(settings_of(tmp_path / "a", batch_size=5), knowing())[1]
    settings = settings_of(tmp_path / "b", batch_size=5)
    plan = plan_ensemble(settings, device_kind="cpu")
    assert plan.manifest.run_id == first.manifest.run_id
    second, _ = create_or_join(settings.run, plan.manifest)
    for unit in reversed(second.manifest.units()):
        solvers = knowing()
        open_one = lambda path, held=solvers: held[Path(path).name]  # noqa: E731
        run_unit(second, EnsembleWork(second.manifest, plan.puzzles, open_one, device="cpu"), unit)
    for unit in first.manifest.units():
        tables = [pq.read_table(f"{run.url}/{part_path(unit)}") for run in (first, second)]
        assert tables[0].equals(tables[1])


def test_views_are_different_and_the_first_is_the_puzzle_itself():
    """More views of a kind begin with the same ones, so a longer run has the shorter one's members."""
    for kind in ("shift", "digits", "symmetry"):
        few, more = views_of(kind, 3, 7), views_of(kind, 9, 7)
        assert more[:3] == few
        assert len({view for _, view in more}) == 9
        grids = np.arange(81, dtype=np.uint8)[None] % 11
        np.testing.assert_array_equal(few[0][1].show(grids), grids)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"batch_size": 17}, UsageError, "batch_size is 17 and test has 16 puzzles; set 16 or less"),
        ({"batch_size": 5, "num_batch": 5}, UsageError, "16 puzzles, 4 batches of 5; set 4 or less"),
        ({"checkpoints": (str(OTTER), str(OTTER))}, UsageError, "holds the same weights as"),
        ({"checkpoints": ("nowhere/step_1",)}, BundleError, "no such file or folder"),
        ({"checkpoints": (str(PUZZLES / "identifiers.json"),)}, BundleError, "all_config.yaml"),
        ({"data": str(PUZZLES.parent / "nothing")}, SourceError, "no split test"),
        ({"split": "validation"}, SourceError, "it has test"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(tmp_path, changes, error, message):
    """One line with what was seen and the way out."""
    with pytest.raises(error, match=message):
        plan_ensemble(settings_of(tmp_path / "run", **changes), device_kind="cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"permutes": 0}, "permutes is 0; it must be at least 1"),
        ({"permutes": 10}, "there are 9 views of the kind shift; set 9 or less, or --views symmetry"),
        ({"gpu_memory_limit": 1.5}, "gpu_memory_limit is 1.5; it must be above 0 and at most 1"),
        ({"output": "results.txt"}, "it is a .json file"),
        ({"checkpoints": (" , ",)}, "checkpoints name no file"),
        ({"noise_seeds": 4}, "noise_seeds is 4 without noise"),
    ],
)
def test_settings_out_of_range_are_refused(tmp_path, changes, message):
    """Each says the value and the rule."""
    with pytest.raises(UsageError, match=message):
        settings_of(tmp_path / "run", **changes)


def test_puzzles_of_another_task_are_refused(tmp_path):
    """Another vocabulary is another task: the message gives both sizes."""
    split = read_split(PUZZLES, "test")
    other = dataclasses.replace(split.description, vocab_size=12)
    write_split(tmp_path, "test", dataclasses.replace(split, description=other))
    with pytest.raises(SourceError, match="Sudokus have 81"):
        plan_ensemble(settings_of(tmp_path / "run", data=str(tmp_path)), device_kind="cpu")


def test_puzzles_without_one_solution_are_said_and_counted_apart(tmp_path):
    """A label that is not a solution, and a puzzle that breaks the rules, are named before anything runs."""
    split = read_split(PUZZLES, "test")
    inputs, labels = np.array(split.inputs), np.array(split.labels)
    labels[3, :2] = labels[3, 1::-1]
    inputs[5, :2] = 7
    write_split(tmp_path, "test", sudoku_split(inputs, labels))
    notes = plan_ensemble(settings_of(tmp_path / "run", data=str(tmp_path)), device_kind="cpu").notes
    assert "1 puzzle breaks the rules as given, the first in row 5" in notes[0]
    assert "1 label is not a solution of the puzzle, the first in row 3" in notes[1]


def test_a_folder_of_one_split_is_data_too(tmp_path):
    """DATA/test and DATA with --split test are one run."""
    whole = plan_ensemble(settings_of(tmp_path / "run"), device_kind="cpu").manifest
    one = settings_of(tmp_path / "run", data=str(PUZZLES / "test"))
    assert plan_ensemble(one, device_kind="cpu").manifest.run_id == whole.run_id
