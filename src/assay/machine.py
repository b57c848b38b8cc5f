"""What this machine offers a process: cores, threads, memory, a GPU driver. Every room asks here.

Nothing here imports torch: whether torch can use a GPU that has a driver, `engine.devices` knows.
"""

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from assay.errors import UsageError

MAX_THREADS = 1024
"""More threads than any machine has cores for; beyond, OpenMP does not start."""
PROCESSES_PER_CORE = 8
"""Processes that compute, for each usable core at most; more only wait for each other."""
CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
YIELDING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}
"""How OpenMP's threads wait for each other, some hundred times a forward pass: a tenth of a millisecond awake,
then asleep. By default they stay awake for longer, and where others use the cores, they wait for threads that
do not run: half of the speed is lost, or nine tenths. Asleep at once, a short text takes a third longer
(docs/decisions/2026-11-22-serving.md)."""
PCI_DEVICES = Path("/sys/bus/pci/devices")
OWN_THREADS = Path("/proc/self/task")
GPU_DRIVER_FILES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
"""What a driver for CUDA leaves: on Linux, and under Windows' WSL."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Threads:
    """How many CPU threads a process computes with."""

    count: int
    reason: str
    """Where the number comes from, in a few words for people."""

    def __str__(self) -> str:
        """`2 threads (all cores)`."""
        return f"{self.count} thread{'' if self.count == 1 else 's'} ({self.reason})"


def choose_threads(
    asked: int | None = None, *, num_processes: int = 1, environment: Mapping[str, str] | None = None
) -> Threads:
    """The threads of one of `num_processes` processes that share this machine's cores.

    What the user asked for comes first, then OMP_NUM_THREADS where it is a number that can be, else the
    usable cores are shared out.
    """
    if asked is not None:
        return Threads(count=asked, reason="as set")
    # a list names nested levels: "4,2" is 4 threads that may start 2 each
    first = (os.environ if environment is None else environment).get("OMP_NUM_THREADS", "").split(",")[0]
    if first.isascii() and first.strip().isdecimal() and 0 < int(first) <= MAX_THREADS:
        return Threads(count=int(first), reason="OMP_NUM_THREADS")
    count = max(1, usable_cores() // num_processes)
    among = f" / {num_processes} processes" if num_processes > 1 else ""
    return Threads(count=count, reason=describe_cores() + among)


def yielding(own: Mapping[str, str]) -> dict[str, str]:
    """The variables by which OpenMP's threads sleep soon while they wait, unless `own` has others.

    Read when torch is loaded, so they are set before. Nothing is mixed with a wait policy of the user's.
    """
    if "OMP_WAIT_POLICY" in own:
        return {}
    return {name: value for name, value in YIELDING.items() if name not in own}


def child_environment(own: Mapping[str, str], *, num_threads: int | None) -> dict[str, str]:
    """The environment of a process that computes with so many threads; None leaves their number to it."""
    made = {**yielding(own), **own}
    if num_threads is None:
        return made
    threads = str(num_threads)
    parallel = "true" if num_threads > 1 else "false"
    # the tokenizers' own threads and their warning about them
    others = {"TOKENIZERS_PARALLELISM": parallel, **made, "RAYON_NUM_THREADS": threads}
    return {**others, "OMP_NUM_THREADS": threads}


def check_num_processes(devices: int) -> None:
    """Raise `UsageError` for more processes than make sense where there is no GPU; `devices` as the user set it."""
    cores = usable_cores()
    if devices > PROCESSES_PER_CORE * cores:
        raise UsageError(
            f"devices {devices}; without a GPU each is a process, and this machine has {describe_cores()};"
            f" set --devices {cores} or less"
        )


def usable_cores() -> int:
    """CPU cores that this process may use: its affinity, Slurm's allocation, the container's quota, at least 1."""
    allowed, quota = _allowed_cores(), cpu_quota()
    return allowed if quota is None else max(1, min(allowed, int(quota + 0.5)))


def describe_cores() -> str:
    """The cores of this machine and what keeps this process from using all of them, for people."""
    total, allowed, quota = os.cpu_count() or 1, _allowed_cores(), cpu_quota()
    if quota is not None and quota < allowed:
        return f"CPU quota of {quota:g} on {total} cores"
    if allowed < _affine_cores():
        return f"{allowed} of {total} cores by Slurm"
    return f"{allowed} of {total} cores by affinity" if allowed < total else f"{total} cores"


def _allowed_cores() -> int:
    """By affinity, and by a job of Slurm: a cluster need not bind a job to the cores that it gives it."""
    of_job = os.environ.get("SLURM_CPUS_ON_NODE", "")
    given = int(of_job) if of_job.isascii() and of_job.isdecimal() else 0
    return min(_affine_cores(), given or MAX_THREADS)


def _affine_cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def cpu_quota(root: Path = CGROUPS, own: Path = OWN_CGROUPS) -> float | None:
    """Cores that the CPU quota of this process's control groups allows (v2 and v1); None without one.

    A quota of a group holds for all groups within it, so the smallest on the way up counts.
    """
    return min(
        (
            int(words[0]) / int(words[1])
            for folder in _own_folders(root, own, "cpu")
            for words in (
                _words(folder / "cpu.max"),
                _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us"),
            )
            if len(words) == 2 and all(word.isdecimal() and int(word) for word in words)
        ),
        default=None,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Main memory that this process may use."""

    total_bytes: int
    available_bytes: int


def memory(root: Path = CGROUPS, own: Path = OWN_CGROUPS) -> Memory:
    """The machine's memory, or that of the container where it is limited to less."""
    page = os.sysconf("SC_PAGE_SIZE")
    total, available = os.sysconf("SC_PHYS_PAGES") * page, os.sysconf("SC_AVPHYS_PAGES") * page
    for folder in _own_folders(root, own, "memory"):
        limits = _words(folder / "memory.max") + _words(folder / "memory.limit_in_bytes")
        total = min([total, *(int(limit) for limit in limits if limit.isdecimal())])
    return Memory(total_bytes=total, available_bytes=min(available, total))


def _own_folders(root: Path, own: Path, controller: str) -> Iterator[Path]:
    """The folders of a controller's groups that this process is in, from the mounts down to its own.

    Within a container the path in `own` may be the host's and not exist; the mount is its own group then.
    """
    for line in _lines(own) or ["0::/"]:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            mounts = [root]
        elif controller in controllers.split(","):
            mounts = [root / name for name in dict.fromkeys((controllers, controller))]
        else:
            continue
        for mount in mounts:
            folder = mount
            yield folder
            for name in path.split("/"):
                folder /= name
                if name and folder.is_dir():
                    yield folder


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()


def cores_near(
    index: int,
    addresses: Sequence[str],
    *,
    allowed: Collection[int],
    num_threads: int,
    root: Path = PCI_DEVICES,
) -> frozenset[int] | None:
    """The cores on the NUMA node of a device, for a worker of so many threads; None where it had better stay free.

    `addresses` are those of all devices that this process sees on the PCI bus (`0000:1b:00.0`), `index` is the worker's
    own one among them, and `allowed` are the cores that it may use. It is free where the node is unknown, where it is
    the whole machine, and where its cores are fewer than the threads of one worker for each device of the node.
    """
    nodes = [parse_cores(" ".join(_lines(root / address / "local_cpulist"))) for address in addresses]
    node = nodes[index]
    near = node & frozenset(allowed)
    num_devices = nodes.count(node)
    if len(near) == len(allowed) or len(near) < num_threads * num_devices:
        return None
    return near


def parse_cores(listed: str) -> frozenset[int]:
    """The numbers of a list as the kernel writes it: `0-2,8` is 0, 1, 2 and 8; no number where it is not one."""
    found: set[int] = set()
    for piece in filter(None, listed.strip().split(",")):
        first, _, last = piece.partition("-")
        if not (first.isdecimal() and (last or first).isdecimal()):
            return frozenset()
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def stay_on(cores: Collection[int]) -> None:
    """Let every thread of this process, and those that it starts from now on, run on these cores alone."""
    seen: set[Path] = set()
    # a thread that another one starts meanwhile may have been started too early
    while new := set(OWN_THREADS.iterdir()) - seen:
        for thread in new:
            with contextlib.suppress(ProcessLookupError):  # it ended
                os.sched_setaffinity(int(thread.name), cores)
        seen |= new


def has_gpu_driver() -> bool:
    """Whether a driver for CUDA devices is there; without one there is no need to import torch to count them."""
    return any(path.exists() for path in GPU_DRIVER_FILES)


def processor_name() -> str:
    """The processor's name from the kernel's list, or "CPU"."""
    names = (
        line.partition(":")[2].strip()
        for line in _lines(Path("/proc/cpuinfo"))
        if line.startswith("model name")
    )
    return next(names, "CPU")
