"""Where a run's workers go: which machines and devices, how many threads each, which share of the units.

The machines of a cluster are known here by a protocol alone; who opens a cluster, hands it to a verb.
"""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from assay import machine
from assay.errors import UsageError
from assay.runs.driver import WorkerSpec
from assay.runs.local import python_worker
from assay.runs.manifest import Manifest
from assay.runs.plan import UNITS_OF_A_WORKER, last_unit_cost
from assay.runs.ranks import find_rank
from assay.runs.run import Run
from assay.runs.settings import RunPlace
from assay.settings import count_of
from assay.telemetry import format_count


class Cluster(Protocol):
    """Machines that run the workers of a run in place of this one."""

    @property
    def name(self) -> str:
        """What a person calls it, after "on"."""
        ...

    def gpus(self) -> Sequence[bool]:
        """Each GPU of its machines, and whether it computes in bf16 itself."""
        ...

    def place(self, devices: str, *, num_gpus: int, num_threads: int | None) -> "Placement":
        """As `place_workers`, for these machines."""
        ...

    def workers(self, module: str, run: Run, placement: "Placement") -> Sequence[WorkerSpec]:
        """As `place_processes`; the sequence grows where machines join."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """The worker processes of one driver."""

    kind: str
    """`cpu` or `cuda`."""
    num_workers: int
    """Processes: one a GPU, or as many as asked for on a CPU."""
    threads: machine.Threads
    """CPU threads of each."""
    cluster: Cluster | None = None
    """Whose machines they are on; None for this one."""
    grows: bool = False
    """Whether there are more of them as machines join."""

    def __str__(self) -> str:
        """`2 on cpu, each with 1 thread (2 cores / 2 processes)`."""
        each = f", each with {self.threads}" if self.kind == "cpu" else ""
        where = f" of {self.cluster.name}" if self.cluster else ""
        return f"{self.num_workers} on {self.kind}{where}{each}"


def place_workers(
    devices: str, *, num_gpus: int, num_threads: int | None = None, cluster: Cluster | None = None
) -> Placement:
    """Every GPU, or one process with all cores; or as many of either as `devices` says; those of a cluster, if given.

    `num_threads` of each; None shares the cores out. Raises UsageError for more GPUs than there are, and for
    more processes than the cores can serve.
    """
    if cluster is not None:
        return cluster.place(devices, num_gpus=num_gpus, num_threads=num_threads)
    asked = count_of(devices)
    num_workers = asked or num_gpus or 1
    threads = machine.choose_threads(num_threads, num_processes=num_workers)
    if not num_gpus:
        machine.check_num_processes(num_workers)
        return Placement(kind="cpu", num_workers=num_workers, threads=threads)
    if asked is not None and asked > num_gpus:
        msg = f"devices {asked}; this machine has {num_gpus} GPUs; set --devices {num_gpus} or less"
        raise UsageError(msg)
    return Placement(kind="cuda", num_workers=num_workers, threads=threads)


def static_place(settings: RunPlace) -> tuple[int, int]:
    """Rank and world size of this driver: from flags or environment, or 0 of 1 where one driver has all workers."""
    if settings.executor == "static":
        return find_rank(os.environ, rank=settings.rank, world_size=settings.world_size)
    if settings.rank is not None or settings.world_size is not None:
        msg = "rank and world size are for the static executor; add --executor static"
        raise UsageError(msg)
    return 0, 1


def planned_workers(settings: RunPlace, placement: Placement) -> int:
    """The workers of all machines, as far as they are known: each is taken to be like this one."""
    return planned_machines(settings) * placement.num_workers


def planned_machines(settings: RunPlace) -> int:
    """The machines of a run, as far as they are known when it is planned."""
    if settings.world_size is not None or settings.executor != "static":
        return settings.world_size or 1
    with contextlib.suppress(UsageError):  # whether there is a rank is checked where work begins
        return find_rank(os.environ, rank=settings.rank)[1]
    return 1


def place_processes(module: str, run: Run, placement: Placement) -> Sequence[WorkerSpec]:
    """The workers, a process each."""
    if placement.cluster is not None:
        return placement.cluster.workers(module, run, placement)
    num_threads = placement.threads.count
    environment = machine.child_environment(os.environ, num_threads=num_threads)
    workers = []
    for index in range(placement.num_workers):
        device = "cpu" if placement.kind == "cpu" else f"cuda:{index}"
        name = f"worker {index + 1}" if placement.kind == "cpu" else f"the worker on {device}"
        arguments = (run.url, "--device", device, "--threads", str(num_threads))
        workers.append(python_worker(module, *arguments, name=name, environment=environment))
    return workers


def describe_plan(manifest: Manifest, placement: Placement, settings: RunPlace) -> str:
    """The plan of a run in a few lines, for `--dry-run`."""
    sizes = [unit.num_rows for unit in manifest.units()]
    return "\n".join(
        [
            f"run      {settings.run} ({manifest.run_id}), not created: this is a dry run",
            f"sources  {len(manifest.sources):,} with {format_count(manifest.planned_rows)} rows to do",
            f"units    {len(sizes):,} of {min(sizes, default=0):,} to {max(sizes, default=0):,} rows",
            f"workers  {placement}",
            f"tail     {_describe_tail(sizes, planned_workers(settings, placement))}",
            f"columns  {', '.join(manifest.arrow_schema().names)}",
        ]
    )


def _describe_tail(sizes: Sequence[int], num_workers: int) -> str:
    """What the last units cost, in a sentence."""
    each = len(sizes) / num_workers
    if num_workers == 1:
        return "none with one worker; with more, each waits at the end for about half a unit"
    units = f"{format_count(each) if each >= 10 else f'{each:.1f}'} units for each of {num_workers:,} workers"
    cost = f"{units}: the last ones cost {last_unit_cost(sizes, num_workers):.1%} over an even split"
    rows = sum(sizes) // (num_workers * UNITS_OF_A_WORKER)
    if each >= UNITS_OF_A_WORKER / 2 or not rows:
        return cost
    return f"{cost}; --unit-rows {rows} would give each {UNITS_OF_A_WORKER}, at the price of a publish each"
