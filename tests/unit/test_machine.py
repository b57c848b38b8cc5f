"""What the machine offers, read from files that a container would show."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from assay import machine
from assay.errors import UsageError


def write(root: Path, **files: str) -> None:
    """Write files given as `folder__name="content"`."""
    for name, content in files.items():
        path = root.joinpath(*name.split("__"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


@pytest.mark.parametrize(
    ("content", "cores"),
    [
        ("max 100000", None),
        ("150000 100000", 1.5),
        ("garbage", None),
        ("400000 100000\n", 4),
        ("100000 0", None),
        ("0 100000", None),
        ("", None),
    ],
)
def test_quota_of_a_container(tmp_path, content, cores):
    """cpu.max holds quota and period in microseconds, or "max"; what is neither is not a quota."""
    (tmp_path / "cpu.max").write_text(content)
    assert machine.cpu_quota(tmp_path, tmp_path / "none") == cores


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize(("quota", "cores"), [("250000\n", 2.5), ("-1\n", None), ("what", None)])
def test_quota_of_the_older_kind(tmp_path, mount, quota, cores):
    """The files of control groups v1 count too, under either name of their mount."""
    folder = tmp_path / mount
    folder.mkdir()
    (folder / "cpu.cfs_quota_us").write_text(quota)
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "own").write_text(f"4:memory:/\n1:{mount}:/not/here\n0::/\n")
    assert machine.cpu_quota(tmp_path, tmp_path / "own") == cores


def test_no_control_groups(tmp_path):
    """Without any there is no quota."""
    assert machine.cpu_quota(tmp_path, tmp_path / "none") is None


@pytest.mark.parametrize(("outer", "inner", "cores"), [("max", "100000", 1), ("200000", "300000", 2)])
def test_the_smallest_quota_on_the_way_counts(tmp_path, outer, inner, cores):
    """A service's own quota and that of every group around it hold at once."""
    write(tmp_path, slice__cpu_max="")
    (tmp_path / "slice" / "job").mkdir()
    (tmp_path / "slice" / "cpu.max").write_text(f"{outer} 100000")
    (tmp_path / "slice" / "job" / "cpu.max").write_text(f"{inner} 100000")
    (tmp_path / "own").write_text("0::/slice/job\n")
    assert machine.cpu_quota(tmp_path, tmp_path / "own") == cores


@pytest.mark.parametrize(
    ("allowed", "quota", "cores"), [(8, None, 8), (8, 2.5, 3), (8, 0.3, 1), (2, 6.0, 2), (2, 1.0, 1)]
)
def test_cores_are_the_fewer_of_affinity_and_quota(monkeypatch, allowed, quota, cores):
    """A quota below the cores wins, is rounded, and never goes below one core."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(allowed)), raising=False)
    monkeypatch.setattr(machine, "cpu_quota", lambda: quota)
    assert machine.usable_cores() == cores


@pytest.mark.parametrize(("given", "cores"), [("3", 3), ("16", 8), ("", 8), ("0", 8), ("many", 8)])
def test_a_job_of_slurm_keeps_to_its_cores(monkeypatch, given, cores):
    """Tasks that share a node and are not bound to cores do not each use all of them."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(machine, "cpu_quota", lambda: None)
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", given)
    assert machine.usable_cores() == cores
    assert machine.describe_cores() == (f"{cores} of 8 cores by Slurm" if cores < 8 else "8 cores")


def test_more_processes_than_cores_can_serve_are_refused(monkeypatch):
    """Eight for each core are taken; a slip of the hand does not start a thousand."""
    monkeypatch.setattr(machine, "usable_cores", lambda: 2)
    machine.check_num_processes(16)
    with pytest.raises(UsageError, match=r"^devices 17; .* set --devices 2 or less$"):
        machine.check_num_processes(17)


@pytest.mark.parametrize(
    ("asked", "num_processes", "environment", "threads"),
    [
        (None, 1, {}, 8),
        (None, 3, {}, 2),
        (None, 20, {}, 1),
        (None, 1, {"OMP_NUM_THREADS": "3"}, 3),
        (None, 2, {"OMP_NUM_THREADS": "5,2"}, 5),
        (None, 1, {"OMP_NUM_THREADS": "0"}, 8),
        (None, 1, {"OMP_NUM_THREADS": "99999999999999999999"}, 8),
        (None, 1, {"OMP_NUM_THREADS": "many"}, 8),
        (1, 1, {"OMP_NUM_THREADS": "3"}, 1),
    ],
)
def test_threads_are_as_asked_or_as_the_environment_says(
    monkeypatch, asked, num_processes, environment, threads
):
    """A setting comes first, then OMP_NUM_THREADS; else processes share the cores, one at least each."""
    monkeypatch.setattr(machine, "usable_cores", lambda: 8)
    chosen = machine.choose_threads(asked, num_processes=num_processes, environment=environment)
    assert chosen.count == threads
    assert chosen.reason in str(chosen)


def test_memory_is_that_of_the_container(tmp_path):
    """A limit below the machine's memory counts; "max" and none do not."""
    whole = machine.memory(tmp_path, tmp_path / "none")
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.memory(tmp_path, tmp_path / "none").total_bytes == whole.total_bytes
    (tmp_path / "memory.max").write_text("1048576\n")
    limited = machine.memory(tmp_path, tmp_path / "none")
    assert limited == machine.Memory(total_bytes=1048576, available_bytes=1048576)


def test_a_gpu_driver_is_seen_by_its_file(monkeypatch, tmp_path):
    """Whether to import torch and count GPUs is decided by a file, which takes no time."""
    driver = tmp_path / "driver"
    monkeypatch.setattr(machine, "GPU_DRIVER_FILES", (tmp_path / "other", driver))
    assert not machine.has_gpu_driver()
    driver.touch()
    assert machine.has_gpu_driver()


def test_how_threads_wait_is_the_users_to_say():
    """Ours is a default; a wait policy of the user's is not mixed with another variable of ours."""
    assert machine.yielding({"A": "1"}) == machine.YIELDING
    assert machine.yielding({"GOMP_SPINCOUNT": "7"}) == {"OMP_WAIT_POLICY": "PASSIVE"}
    assert machine.yielding({"OMP_WAIT_POLICY": "ACTIVE"}) == {}


def test_the_environment_of_a_child():
    """It has the wait policy and its number of threads, for OpenMP and the tokenizers; the rest is handed on."""
    own = {"A": "1", "OMP_NUM_THREADS": "8", "OMP_WAIT_POLICY": "ACTIVE"}
    assert machine.child_environment(own, num_threads=None) == own
    made = machine.child_environment({"A": "1"}, num_threads=2)
    assert made == {
        "A": "1",
        **machine.YIELDING,
        "OMP_NUM_THREADS": "2",
        "RAYON_NUM_THREADS": "2",
        "TOKENIZERS_PARALLELISM": "true",
    }
    assert machine.child_environment(own, num_threads=1)["OMP_NUM_THREADS"] == "1"
    assert machine.child_environment(own, num_threads=1)["TOKENIZERS_PARALLELISM"] == "false"


ADDRESSES = [f"0000:{bus:02x}:00.0" for bus in (0x1B, 0x43, 0x52, 0x9D)]
TWO_NODES = ["0-31,64-95", "0-31,64-95", "32-63,96-127", "32-63,96-127"]


def write_nodes(root: Path, nodes: list[str]) -> None:
    """Devices on the bus, each beside the cores of its node."""
    for address, cores in zip(ADDRESSES, nodes, strict=True):
        (root / address).mkdir()
        (root / address / "local_cpulist").write_text(f"{cores}\n")


def near(
    root: Path, index: int, *, allowed: range = range(128), num_threads: int = 32
) -> frozenset[int] | None:
    """The cores for the worker of a device."""
    return machine.cores_near(index, ADDRESSES, allowed=allowed, num_threads=num_threads, root=root)


def test_a_worker_stays_on_the_node_of_its_device(tmp_path):
    """Four workers share two nodes evenly; each may use every core of its own node."""
    write_nodes(tmp_path, TWO_NODES)
    assert near(tmp_path, 1) == frozenset([*range(32), *range(64, 96)])
    assert near(tmp_path, 2) == frozenset([*range(32, 64), *range(96, 128)])


def test_of_a_node_the_cores_that_one_may_use(tmp_path):
    """A job that was given some cores of each node stays within them."""
    write_nodes(tmp_path, TWO_NODES)
    assert near(tmp_path, 3, allowed=range(16, 48), num_threads=8) == frozenset(range(32, 48))


@pytest.mark.parametrize(
    ("nodes", "allowed", "num_threads"),
    [
        (["0-127"] * 4, 128, 32),  # one node
        (TWO_NODES, 128, 128),  # one worker has the machine to itself
        (TWO_NODES, 128, 33),  # two of a node would be short of cores
        (["0-31,64-95"] * 3 + ["32-63,96-127"], 128, 32),  # three of a node would be
        (TWO_NODES, 32, 8),  # every core that is allowed is on one node, for the devices of the other too
        (["what"] * 4, 128, 32),
        ([""] * 4, 128, 32),
    ],
)
def test_a_worker_stays_free(tmp_path, nodes, allowed, num_threads):
    """Nothing is gained on one node, and a worker is never left with fewer cores than threads."""
    write_nodes(tmp_path, nodes)
    assert near(tmp_path, 0, allowed=range(allowed), num_threads=num_threads) is None


def test_a_worker_stays_free_where_no_bus_is_shown(tmp_path):
    """A container need not show the devices of its machine."""
    assert near(tmp_path, 0) is None


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_every_thread_of_a_process_stays(tmp_path):
    """Threads that run already move too, and those that start later follow."""
    script = """
import os, threading
from assay import machine
core = min(os.sched_getaffinity(0))
go, ids, found = threading.Event(), [], []
early = threading.Thread(target=lambda: (go.wait(), found.append(os.sched_getaffinity(0))))
early.start()
machine.stay_on({core})
go.set()
early.join()
late = threading.Thread(target=lambda: found.append(os.sched_getaffinity(0)))
late.start()
late.join()
assert [*found, os.sched_getaffinity(0)] == [{core}] * 3, found
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
