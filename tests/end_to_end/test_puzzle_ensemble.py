"""Checkpoints of the official HRM code times digit shifts, against what that code and the batch script give."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.hrm import reference
from support.puzzle_ensembles import CHECKPOINTS, PUZZLES, settings_of

from assay.cli.main import main
from assay.ensemble.grids import any_correct, halted_majority_any
from assay.ensemble.plan import plan_ensemble
from assay.ensemble.rows import from_table
from assay.ensemble.verb import read_findings
from assay.ensemble.worker import open_ensemble_work
from assay.runs.pipeline import run_unit
from assay.runs.run import create_or_join, part_path
from assay.runs.verify import verify_run
from assay.sudoku.puzzles import sudoku_split, write_split
from assay.sudoku.views import cyclic


@pytest.fixture(scope="module")
def official():
    """3 checkpoints x 5 shifts x 8 puzzles, as the official code answers them."""
    return reference("members_r1")


def by_puzzle(array):
    """[checkpoint, shift, puzzle, ...] as [puzzle, member, ...]."""
    return array.reshape(15, *array.shape[2:]).swapaxes(0, 1)


def test_members_grids_and_flags_are_those_of_the_official_code(official, tmp_path):
    """Each grid cell by cell, halting scores, correctness, the OR over all members, and the later majority rule."""
    inputs = official["inputs"].astype(np.uint8)
    write_split(tmp_path / "data", "test", sudoku_split(inputs, official["synthetic_labels"]))
    outcomes = {}
    for settled in ("never", "right"):
        settings = settings_of(
            tmp_path / settled, data=str(tmp_path / "data"), permutes=5, settled=settled, precision="fp32"
        )
        plan = plan_ensemble(settings, device_kind="cpu")
        run, _ = create_or_join(settings.run, plan.manifest)
        work = open_ensemble_work(run, device="cpu", num_threads=1)
        (unit,) = run.manifest.units()
        run_unit(run, work, unit)
        assert verify_run(run, sources=True).holds
        table = pq.read_table(f"{run.url}/{part_path(unit)}")
        outcomes[settled] = (
            from_table(table, 0, num_puzzles=8, num_members=15, num_cells=81),
            read_findings(run),
        )
    found, findings = outcomes["never"]
    assert found.ran_NM.all()
    correct = by_puzzle(official["correct"])
    np.testing.assert_array_equal(found.right_NM, correct)
    predictions = by_puzzle(official["predictions_shifted_space"])
    for member in range(15):
        shown = cyclic(member % 5).show(found.grids_NMS[:, member])
        np.testing.assert_array_equal(shown, predictions[:, member])
    np.testing.assert_allclose(found.q_halt_NM, by_puzzle(official["q_halt"]), atol=1e-4)
    np.testing.assert_allclose(found.q_continue_NM, by_puzzle(official["q_continue"]), atol=1e-4)
    np.testing.assert_array_equal(found.halted_NM, by_puzzle(official["halted"]))
    np.testing.assert_array_equal(any_correct(found.right_NM), official["r1_or"])
    checkpoints = np.repeat([0, 1, 2], 5)
    np.testing.assert_array_equal(
        halted_majority_any(found.right_NM, found.halted_NM, checkpoints), official["halted_majority"]
    )
    assert findings.rules["any-correct"].correct == official["r1_or"].sum()
    assert findings.rules["halted-majority-any"].correct == official["halted_majority"].sum()
    dropped, fewer = outcomes["right"]
    np.testing.assert_array_equal(any_correct(dropped.right_NM & dropped.ran_NM), official["r1_or"])
    assert fewer.member_runs < findings.member_runs


def test_noise_makes_members_that_batches_do_not_change(tmp_path):
    """Two seeds differ, the first of them is the same in batches of 16 and of 5."""
    found = []
    for batch_size in (16, 5):
        settings = settings_of(
            tmp_path / f"{batch_size}",
            checkpoints=CHECKPOINTS[2:],
            permutes=1,
            noise=0.5,
            noise_seeds=2,
            settled="never",
            batch_size=batch_size,
        )
        run, _ = create_or_join(settings.run, plan_ensemble(settings, device_kind="cpu").manifest)
        work = open_ensemble_work(run, device="cpu", num_threads=1)
        for unit in run.manifest.units():
            run_unit(run, work, unit)
        tables = [pq.read_table(f"{run.url}/{part_path(unit)}") for unit in run.manifest.units()]
        found.append(from_table(pa.concat_tables(tables), 0, num_puzzles=16, num_members=2, num_cells=81))
    whole, cut = found
    np.testing.assert_array_equal(whole.grids_NMS, cut.grids_NMS)
    np.testing.assert_allclose(whole.q_halt_NM, cut.q_halt_NM, atol=1e-4)
    assert (whole.grids_NMS[:, 0] != whole.grids_NMS[:, 1]).any()


def test_the_rules_are_those_of_the_official_code_on_its_own_arrays():
    """OR and halted-majority of 64 random items equal what the reference computed."""
    unit = reference("aggregation_unit")
    correct, halted = (unit[name].reshape(15, 64).T for name in ("correct", "halted"))
    np.testing.assert_array_equal(any_correct(correct), unit["r1_or"])
    found = halted_majority_any(correct, halted, np.repeat([0, 1, 2], 5))
    np.testing.assert_array_equal(found, unit["halted_majority"])


def test_the_command_takes_the_scripts_flags_and_writes_its_json(tmp_path, capsys, monkeypatch):
    """Underscores included; run again it finds all published; another run's results file is not written over."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    script = ["ensemble", str(PUZZLES), "--checkpoints", ",".join(CHECKPOINTS), "--permutes", "2"]
    script += ["--max_workers", "2", "--num_batch", "2", "--batch_size", "8", "--gpu_memory_limit", "0.9"]
    script += ["--output", str(tmp_path / "results.json")]
    run = ["--run", str(tmp_path / "run")]
    assert main([*script, *run, "--report", str(tmp_path / "report.html")]) == 0
    assert "oracle pass@6" in capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["config"]["max_workers"] == 2
    assert [batch["total"] for batch in results["batch_results"]] == [8, 8]
    assert len(results["members"]) == 6
    assert "oracle" in (tmp_path / "report.html").read_text()
    assert main([*script, *run, "--report", str(tmp_path / "report.html")]) == 0
    assert "All 2 units are published already" in capsys.readouterr().err
    assert json.loads((tmp_path / "results.json").read_text())["rules"] == results["rules"]
    assert main([*script, "--run", str(tmp_path / "other"), "--views", "digits"]) == 2
    refused = capsys.readouterr().err
    assert "exists and holds other results" in refused
    assert len(refused.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_any_moment_the_results_are_those_of_a_run_that_was_not(tmp_path):
    """SIGKILL to the command and its worker, twice; then on with two workers: equal rows in every part."""
    changes = {"permutes": 2, "batch_size": 3, "settled": "never"}
    words = [sys.executable, "-m", "assay", "ensemble", str(PUZZLES), "--checkpoints", ",".join(CHECKPOINTS)]
    words += ["--permutes", "2", "--batch-size", "3", "--settled", "never", "--run", str(tmp_path / "killed")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for num_parts in (1, 3):
        process = subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list((tmp_path / "killed").glob("parts/*.parquet"))) < num_parts:
            time.sleep(0.02)
        assert process.poll() is None, "killed before it was done"
        for each in (*psutil.Process(process.pid).children(recursive=True), process):
            each.kill()
        process.wait()
    subprocess.run([*words, "--max-workers", "2"], env=environment, check=True)
    settings = settings_of(tmp_path / "whole", **changes)
    run, _ = create_or_join(settings.run, plan_ensemble(settings, device_kind="cpu").manifest)
    work = open_ensemble_work(run, device="cpu", num_threads=1)
    for unit in run.manifest.units():
        run_unit(run, work, unit)
        whole = pq.read_table(f"{run.url}/{part_path(unit)}")
        assert whole.equals(pq.read_table(tmp_path / "killed" / part_path(unit)))
    assert len(run.manifest.units()) == 6
