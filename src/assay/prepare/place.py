"""Where the steps of `assay prepare books` run."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypedDict

from assay import machine
from assay.embed.place import find_gpus
from assay.runs.driver import WorkerSpec
from assay.runs.pipeline import Work
from assay.runs.placement import Cluster, Placement, place_processes, place_workers
from assay.runs.run import Run
from assay.runs.within import thread_worker
from assay.settings import count_of

BOOKS_OF_A_WORKER = 200
"""Books whose pairs take as long to draw as a worker process to start."""
OpenWork = Callable[[], Work[Any, Any]]


class EnginePlace(TypedDict):
    """What a run with an engine is told."""

    devices: str
    num_threads: int | None
    executor: Literal["local", "ray"]


def worker_placement(devices: str, *, most: int | None = None, cluster: Cluster | None = None) -> Placement:
    """One worker process a core, `most` at most, or as many as asked for, of one thread each; here or on a cluster."""
    if cluster is not None:
        return place_workers(devices, num_gpus=0, num_threads=1, cluster=cluster)
    cores = machine.usable_cores()
    count = count_of(devices) or (cores if most is None else min(cores, most))
    return place_workers(str(count), num_gpus=0, num_threads=1)


def chunk_placement(devices: str, cluster: Cluster | None = None) -> Placement:
    """As many processes as `worker_placement` says; here they share all threads of the machine."""
    placement = worker_placement(devices, cluster=cluster)
    return placement if cluster else place_workers(str(placement.num_workers), num_gpus=0)


def place_few(
    module: str, run: Run, placement: Placement, work: OpenWork, *, alone: bool = False
) -> Sequence[WorkerSpec]:
    """The workers of a run over books, a process each; on this machine, of a few books, the first is this process.

    `alone`: then it is the only one.
    """
    workers = place_processes(module, run, placement)
    if placement.cluster is not None or run.manifest.planned_rows > BOOKS_OF_A_WORKER:
        return workers
    return [thread_worker(run, work), *(() if alone else workers[1:])]


def engine_place(devices: str, cluster: Cluster | None = None) -> EnginePlace:
    """Every GPU; without one as many processes as the other steps have, of one thread: more of them change no bit."""
    executor: Literal["local", "ray"] = "local" if cluster is None else "ray"
    if find_gpus(cluster):
        return EnginePlace(devices="auto", num_threads=None, executor=executor)
    if cluster is not None:
        return EnginePlace(devices=devices, num_threads=1, executor=executor)
    return EnginePlace(devices=str(worker_placement(devices).num_workers), num_threads=1, executor=executor)
