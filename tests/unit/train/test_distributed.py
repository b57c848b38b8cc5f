"""Ranks that train together: finding one's place, agreeing on values, and naming the one that has gone."""

import os
import re
import socket
import subprocess
import sys
import textwrap
import time
from datetime import timedelta

import numpy as np
import pytest
import torch
import torch.distributed as dist

from assay.errors import UsageError, WorkError
from assay.train import distributed, peers
from assay.train.distributed import join
from assay.train.launch import launch
from assay.train.world import RankPlace, World, find_place, first_host, pick_device

ALONE = World(rank=0, world_size=1, local_rank=0, device=torch.device("cpu"))


def test_no_launcher():
    """Without a launcher's variables a process trains by itself: no group, no port, no wait."""
    assert find_place({"PATH": "/bin"}) is None
    with join({}, way_out=lambda: "") as world:
        assert (world.rank, world.world_size) == (0, 1)
        assert not dist.is_initialized()


def test_torchrun():
    """Variables that torchrun sets; one process of torchrun is one by itself."""
    environment = {
        "RANK": "5",
        "WORLD_SIZE": "8",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "n0",
        "MASTER_PORT": "29500",
    }
    assert find_place(environment) == RankPlace(
        launcher="torchrun", rank=5, world_size=8, local_rank=1, host="n0", port=29500
    )
    with join({"RANK": "0", "WORLD_SIZE": "1"}, way_out=lambda: "") as world:
        assert world.world_size == 1


def test_slurm():
    """Tasks of one srun meet at the first node of the job, at a port made from the job's and step's ids."""
    environment = {
        "SLURM_PROCID": "3",
        "SLURM_NTASKS": "16",
        "SLURM_STEP_NUM_TASKS": "4",
        "SLURM_LOCALID": "1",
        "SLURM_STEP_ID": "2",
        "SLURM_JOB_ID": "812345",
        "SLURM_JOB_NODELIST": "gpu[003-010,12],login1",
    }
    place = find_place(environment)
    assert place == RankPlace(
        launcher="Slurm", rank=3, world_size=4, local_rank=1, host="gpu003", port=place.port
    )
    assert 15_000 <= place.port < 30_000
    assert find_place({**environment, "SLURM_STEP_ID": "3"}).port != place.port
    chosen = find_place({**environment, "MASTER_ADDR": "other", "MASTER_PORT": "1234"})
    assert (chosen.host, chosen.port) == ("other", 1234)
    assert (
        find_place(
            {**environment, "RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
        ).rank
        == 0
    )


def test_a_batch_script_without_srun():
    """A Slurm batch script sees the job's number of tasks, but is one process; it must not wait for the others."""
    assert find_place({"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "1"}) is None


@pytest.mark.parametrize(
    ("nodelist", "host"),
    [
        ("gpu7", "gpu7"),
        ("a,b", "a"),
        ("gpu[003-010,12],login1", "gpu003"),
        ("gpu[1,3-4]", "gpu1"),
        ("rack[1-2]node[01-04]-ib", "rack1node01-ib"),
        ("", ""),
    ],
)
def test_the_first_host_of_a_node_list(nodelist, host):
    """Slurm's short form of host names."""
    assert first_host(nodelist) == host


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2 and WORLD_SIZE=2"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK=-1"),
        ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK='x' is not a whole number"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_PORT=None is not a whole number"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": "1"}, "MASTER_ADDR is not set"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "0"}, "MASTER_PORT=0"),
        (
            {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1", "LOCAL_RANK": ""},
            "LOCAL_RANK=''",
        ),
    ],
)
def test_variables_that_do_not_fit(environment, said):
    """A rank that cannot be is refused before anything is started."""
    with pytest.raises(UsageError, match=said):
        find_place(environment)


def test_more_processes_than_gpus(monkeypatch):
    """A rank without a GPU of its own is refused; a task that sees one GPU alone takes that."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device(1) == torch.device("cuda", 1)
    with pytest.raises(
        UsageError, match="local rank 2; this machine has 2 GPUs; start 2 processes on it at most"
    ):
        pick_device(2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert pick_device(3) == torch.device("cuda", 0)


def test_alone():
    """With one process every reduction is what was given; row order is restored there too."""
    values = np.array([[1.5], [2.5], [0.5]])
    assert np.array_equal(distributed.sum_over_ranks(ALONE, values), values)
    gathered = distributed.gather_rows(ALONE, np.array([2, 0, 1]), values, num_rows=3)
    assert gathered.tolist() == [[2.5], [0.5], [1.5]]
    assert distributed.broadcast_flag(ALONE, flag=True)
    assert not distributed.any_rank(ALONE, flag=False)
    assert distributed.all_equal(ALONE, "x")
    with pytest.raises(AssertionError, match="2 of 3 rows"):
        distributed.gather_rows(ALONE, np.array([0, 2]), values[:2], num_rows=3)


# ---------------------------------------------------------------- with processes

CHILD = """
    import os, signal, sys, threading, time
    import numpy as np
    import torch
    import torch.distributed as dist
    from assay.train import distributed, peers
    from assay.train.distributed import *
    from assay.train.launch import child_main

    def body(job, send):
        peers.BEAT_SECONDS = job.get("beat", 1.0)
        with join(os.environ, way_out=lambda: "go on with --resume", timeout_seconds=job.get("timeout", 120)) as world:
            assert dist.get_backend() == "gloo" and dist.get_rank() == world.rank
            results = {}
            exec(job["orders"], globals() | locals())
        assert not dist.is_initialized()
        return results

    sys.exit(child_main(body))
"""


def run(orders, *, num_processes=2, **options):
    """Run the orders in each of two processes that have joined; returns rank 0's `results`."""
    command = [sys.executable, "-c", textwrap.dedent(CHILD)]
    job = {"orders": textwrap.dedent(orders), **options}
    return launch(
        command, job, num_processes=num_processes, num_threads=1, way_out=lambda: "go on with --resume"
    )


def test_agreeing():
    """Sums, rows and flags are the same on every rank, for odd numbers of rows, too few rows and any type.

    A rank may end seconds after the others: rank 0, at which all meet, goes last, and nobody fails.
    """
    run(
        """
        sums = sum_over_ranks(world, np.array([1.0, world.rank, 0.1]))
        assert sums.tolist() == [2.0, 1.0, 0.2] and sums.dtype == np.float64
        assert sum_over_ranks(world, np.array([2**40 + world.rank])).tolist() == [2**41 + 1]
        for num_rows in (0, 1, 2, 7):
            rows = np.arange(world.rank, num_rows, world.world_size)[::-1].copy()
            for dtype, width in ((np.float32, (3,)), (np.int64, ()), (np.bool_, (2, 2)), (np.float16, (1,))):
                everything = np.arange(num_rows * int(np.prod(width))).reshape(num_rows, *width).astype(dtype)
                found = gather_rows(world, rows, everything[rows], num_rows=num_rows)
                assert found.dtype == dtype and np.array_equal(found, everything), (num_rows, dtype)
        # the padding of a sampler: both ranks have row 1, the lower one's counts
        twice = gather_rows(world, np.array([1, 2 * world.rank]), np.array([world.rank, 10.0]), num_rows=3)
        assert twice.tolist() == [10.0, 0.0, 10.0]
        assert broadcast_flag(world, flag=world.rank == 0) and not broadcast_flag(world, flag=world.rank == 1)
        assert any_rank(world, flag=world.rank == 1) and not any_rank(world, flag=False)
        assert all_equal(world, {"a": [1, 2.5]}) and not all_equal(world, world.rank)
        time.sleep(2.5 * world.rank)
        """
    )


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "rank 1 of 2 was killed by SIGKILL"),
        ("raise RuntimeError('shapes do not fit')", "rank 1 of 2: RuntimeError: shapes do not fit"),
    ],
)
def test_a_rank_that_dies(end, said):
    """The launcher names the rank that died, within seconds, though the others noticed too."""
    began = time.monotonic()
    with pytest.raises(WorkError) as failed:
        run(f"if world.rank == 1: {end}\nsum_over_ranks(world, np.zeros(3))")
    assert str(failed.value).startswith(said)
    assert str(failed.value).endswith("; go on with --resume")
    assert time.monotonic() - began < 60


def start_ranks(orders, *, num_processes=2, **options):
    """Processes as another launcher starts them: none of them hears of another's end."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    import json

    job = json.dumps({"orders": textwrap.dedent(orders), **options})
    started = []
    for rank in range(num_processes):
        environment = {"RANK": str(rank), "WORLD_SIZE": str(num_processes), "LOCAL_RANK": str(rank)}
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCH_CPP_LOG_LEVEL": "ERROR"}
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(CHILD)],
                env={**os.environ, **environment, **place, "OMP_NUM_THREADS": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
            )
        )
        started[-1].stdin.write(job + "\n")
        started[-1].stdin.flush()
    return started


def ends(processes):
    """What each process said last on stdout, and its exit status."""
    said = []
    for process in processes:
        out = process.stdout.read()
        process.stderr.read()
        said.append((process.wait(timeout=60), out.splitlines()[-1] if out else ""))
        for pipe in (process.stdin, process.stdout, process.stderr):
            pipe.close()
    return said


@pytest.mark.parametrize(
    ("gone", "end", "reason"),
    [
        (1, "os.kill(os.getpid(), signal.SIGKILL)", "[^()]*by peer"),
        (0, "os.kill(os.getpid(), signal.SIGKILL)", "it no longer answers"),
        (1, "raise ValueError('bad value')", "ValueError: bad value"),
        (0, "raise ValueError('bad value')", "ValueError: bad value"),
    ],
)
def test_a_rank_that_goes_away(gone, end, reason):
    """Under any launcher the rank that is left names the one that has gone, why where it said so, and the way out."""
    processes = start_ranks(
        f"broadcast_flag(world, flag=True)\nif world.rank == {gone}: {end}\nsum_over_ranks(world, np.zeros(3))"
    )
    status, said = ends(processes)[1 - gone]
    assert status == 1
    assert '"kind": "WorkError"' in said
    assert re.search(rf"rank {gone} of 2 has gone \({reason}\b", said), said
    assert "; go on with --resume" in said


@pytest.mark.slow
def test_a_rank_that_hangs():
    """A rank that is there but never comes ends the wait after the timeout, with what there is to say."""
    processes = start_ranks(
        """
        if world.rank == 1: time.sleep(14)
        sum_over_ranks(world, np.zeros(3))
        """,
        timeout=8,
        beat=0.5,
    )
    status, said = ends(processes)[0]
    assert status == 1
    assert "the 2 ranks no longer reach one another (" in said
    assert "though all are there; check the network between their hosts; go on with --resume" in said


@pytest.mark.slow
def test_ranks_that_do_not_come():
    """Where not all ranks come in time the message says where they were to meet."""
    processes = start_ranks("", timeout=2)
    processes[0].kill()
    _, (status, said) = ends(processes)
    assert status == 1
    assert "rank 1 of 2 did not meet the others at 127.0.0.1:" in said
    assert "; start all of them within 2 s, where that address can be reached" in said


# ---------------------------------------------------------------- the watch


@pytest.fixture
def watch_of(monkeypatch):
    """Watches of three ranks on one store in this process, with fast beats."""
    monkeypatch.setattr(peers, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(peers, "LEAVE_SECONDS", 0.3)
    store = dist.TCPStore(
        "127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=5)
    )

    def make(rank, *, end_process=False):
        place = RankPlace(launcher="torchrun", rank=rank, world_size=3, local_rank=rank, host="", port=0)
        return peers.PeerWatch(store, place, way_out=lambda: "go on", end_process=end_process)

    return make


def test_a_stuck_gpu_rank_ends_itself(watch_of, monkeypatch, capsys):
    """Where no exception can reach the main thread the watch says who has gone and ends the process."""
    statuses = []
    watches = [watch_of(rank, end_process=rank == 0) for rank in range(3)]
    monkeypatch.setattr(os, "_exit", lambda status: (statuses.append(status), watches[0]._stop.set()))
    for watch in watches:
        watch.start(silent_seconds=0.5)
    watches[1].leave("interrupted")  # as ranks do while rank 0 writes the checkpoint
    time.sleep(0.8)
    assert statuses == []
    watches[1].leave("")
    watches[2].stop()
    deadline = time.monotonic() + 10
    while not statuses and time.monotonic() < deadline:
        time.sleep(0.02)
    watches[0].stop()
    watches[1].stop()
    assert statuses == [1]
    line = "assay: error: rank 2 of 3 has gone (nothing heard for 0 s); go on\n"
    assert capsys.readouterr().err == line


def test_a_rank_that_left_well_is_not_missed(watch_of):
    """Who has left with a good end is not taken for gone; who left first with an error is named first."""
    watches = [watch_of(rank) for rank in range(3)]
    watches[1].leave("")
    watches[2].leave("rank 0 of 3 has gone (x); go on")
    watches[0]._look()
    assert watches[0]._find_gone(1000.0) == (2, "rank 0 of 3 has gone (x); go on")
    watches[1].leave("ValueError: bad")
    watches[0]._look()
    assert watches[0]._find_gone(1000.0) == (1, "ValueError: bad")


def test_shared_gpus_are_refused():
    """Two ranks on one GPU are refused with a line that says so; NCCL would not."""
    store = dist.HashStore()
    place = RankPlace(launcher="torchrun", rank=1, world_size=2, local_rank=1, host="", port=0)
    cpu = torch.device("cpu")
    store.set("device/0", f"{socket.gethostname()} cpu 1")
    with pytest.raises(UsageError, match="ranks 0 and 1 both found GPU"):
        distributed._refuse_shared_gpus(store, place, cpu)
