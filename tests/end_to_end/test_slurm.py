"""`assay launch slurm` on a real Slurm of one node: whatever it does to the tasks of an array, the run is whole."""

import json
import shlex
import subprocess
import sys

import pytest
from support import slurm
from support.bundles import write_bundle
from support.fake_runs import SUPPORT, write_sources
from support.fake_worker import Orders

from assay.runs.verify import verify

pytestmark = pytest.mark.slow
UNIT_ROWS = 20


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A cluster for all tests."""
    if reason := slurm.missing():
        pytest.skip(reason)
    with slurm.one_node(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture
def launch(cluster, tmp_path):
    """Submit `assay score` on the sources in this folder, a unit of 20 rows; returns the number of the array job."""
    write_bundle(tmp_path / "bundle")
    tool = tmp_path / "bin" / "assay"
    tool.parent.mkdir()

    def call(workers, *options, orders=None):
        """With orders the workers are fake and do as they are told, else they are those of `assay score`."""
        program = ["-m", "assay"] if orders is None else [str(SUPPORT / "cli.py")]
        tool.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, *program])} "$@"\n')
        tool.chmod(0o755)
        words = ["assay", "launch", "slurm", "--workers", str(workers), "--cpus", "1", "--memory-gib", "1"]
        words += ["--shared", str(tmp_path), "--logs", str(tmp_path / "logs"), "--submit", *options, "--"]
        words += ["score", str(tmp_path / "sources"), "--bundle", str(tmp_path / "bundle")]
        words += ["--run", str(tmp_path / "run"), "--engine", "fake", "--unit-rows", str(UNIT_ROWS)]
        path = f"{tool.parent}:{cluster.environment['PATH']}"
        environment = {**cluster.environment, **(orders or Orders()).environment(), "PATH": path}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        job = done.stdout.strip()
        assert f"stop    scancel {job}" in done.stderr.splitlines()
        return job

    return call


def log_of(folder, job, index):
    """What a task wrote, in all its tries."""
    return (folder / "logs" / f"assay-run-{job}_{index}.log").read_text()


def check_ended_well(cluster, folder, job, indexes):
    """Each of these tasks ended with 0."""
    for index in indexes:
        task = cluster.task(job, index)
        assert (task["JobState"], task["ExitCode"]) == ("COMPLETED", "0:0"), (
            index,
            task,
            log_of(folder, job, index),
        )


def wait_for_parts(cluster, folder, count):
    """Wait until so many parts are published."""
    run = folder / "run"
    cluster.wait_for(lambda: sum(1 for _ in run.glob("parts/*.parquet")) >= count, f"{count} parts")


def wait_for_tasks(cluster, job, indexes, **wanted):
    """Wait until Slurm says so of each of these tasks."""
    cluster.wait_for(
        lambda: all(wanted.items() <= cluster.task(job, index).items() for index in indexes), wanted
    )


def places_seen(folder):
    """Rank and world size of every command that left a heartbeat."""
    notes = [json.loads(path.read_text()) for path in (folder / "run" / "workers").glob("*.json")]
    return {(note["rank"], note["world_size"]) for note in notes}


def check_whole(tmp_path):
    """Every row is there exactly once."""
    proof = verify(str(tmp_path / "run"), sources=True, duplicates=True)
    assert proof.holds, proof


def test_an_array_makes_one_run(cluster, launch, tmp_path):
    """Three tasks of the real command share a run, and each ends well once all is published; too large is refused."""
    write_sources(tmp_path / "sources", [900, 300])
    job = launch(3)
    cluster.wait_until_over(job)
    logs = [log_of(tmp_path, job, index) for index in range(3)]
    check_ended_well(cluster, tmp_path, job, range(3))
    for log in logs:
        assert "60 of 60 units published" in log or "All 60 units are published already" in log
        assert "workers: 1 on cpu, each with 1 thread" in log or "already" in log
    check_whole(tmp_path)
    words = [sys.executable, "-m", "assay", "launch", "slurm", "--workers", "12", "--", "join", "s3://b/run"]
    done = subprocess.run(words, env=cluster.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "workers is 12 and MaxArraySize 11 of this cluster; set --workers 11 or less" in done.stderr


def test_ahead_of_its_time_limit_a_task_drains_and_is_queued_again(cluster, launch, tmp_path):
    """Slurm's own signal: the task publishes what it has in hand, waits for its next turn and goes on with the rest."""
    write_sources(tmp_path / "sources", [3500, 2500])
    job = launch(2, "--hours", "0.1", orders=Orders(seconds_per_batch=0.3))
    wait_for_parts(cluster, tmp_path, 10)
    cluster.call("scontrol", "update", f"JobId={job}_0", "TimeLimit=2")
    wait_for_tasks(cluster, job, [0], JobState="PENDING", Restarts="1")
    assert "drained: nothing half is published" in log_of(tmp_path, job, 0)
    assert cluster.task(job, 1)["JobState"] == "RUNNING"
    cluster.call("scontrol", "update", f"JobId={job}_0", "TimeLimit=60")
    cluster.start_now(job, 0)
    cluster.wait_until_over(job)
    check_ended_well(cluster, tmp_path, job, range(2))
    assert log_of(tmp_path, job, 0).count("scored into") == 1, "its second try ends well, in the same log"
    check_whole(tmp_path)


def test_preempted_requeued_cancelled_and_finished_by_another_array(cluster, launch, tmp_path):
    """A task that Slurm takes away comes back, one that is cancelled does not; fewer tasks finish what is left."""
    write_sources(tmp_path / "sources", [4000, 2000])
    orders = Orders(seconds_per_batch=0.2)
    job = launch(3, orders=orders)
    wait_for_parts(cluster, tmp_path, 20)
    urgent = cluster.call(
        "sbatch", "--parsable", "-p", "high", "-n", "3", "-o", "/dev/null", "--wrap", "sleep 1"
    )
    cluster.wait_until_over(urgent.strip())
    wait_for_tasks(cluster, job, range(3), JobState="PENDING", Restarts="1")
    for index in range(3):
        assert "drained: nothing half is published" in log_of(tmp_path, job, index)
        cluster.start_now(job, index)
    wait_for_tasks(cluster, job, range(3), JobState="RUNNING")
    published = len(list((tmp_path / "run").glob("parts/*.parquet")))
    wait_for_parts(cluster, tmp_path, published + 10)
    cluster.call("scontrol", "requeue", f"{job}_1")
    wait_for_tasks(cluster, job, [1], JobState="PENDING", Restarts="2")
    cluster.call("scancel", job)
    cluster.wait_until_over(job)
    assert all(cluster.task(job, index)["JobState"] == "CANCELLED" for index in range(3))
    assert log_of(tmp_path, job, 0).count("drained: nothing half is published") == 2
    assert not verify(str(tmp_path / "run")).holds
    assert places_seen(tmp_path) == {(0, 3), (1, 3), (2, 3)}, "a task that comes back has the place it had"
    smaller = launch(2)
    cluster.wait_until_over(smaller)
    check_ended_well(cluster, tmp_path, smaller, range(2))
    check_whole(tmp_path)
