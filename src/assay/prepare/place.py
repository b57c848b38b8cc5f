"""Where the steps of `assay prepare books` run."""

from typing import TypedDict

from assay import machine
from assay.embed.place import find_gpus
from assay.runs.placement import Placement, place_workers
from assay.settings import count_of

BOOKS_OF_A_WORKER = 200
"""Books whose pairs take as long to draw as a worker process to start."""


class EnginePlace(TypedDict):
    """What a run with an engine is told."""

    devices: str
    num_threads: int | None


def worker_placement(devices: str, *, most: int | None = None) -> Placement:
    """One worker process a core, `most` at most, or as many as asked for; each with one thread."""
    cores = machine.usable_cores()
    count = count_of(devices) or (cores if most is None else min(cores, most))
    return place_workers(str(count), num_gpus=0, num_threads=1)


def engine_place(devices: str) -> EnginePlace:
    """Every GPU; without one as many processes as the other steps have, of one thread: more of them change no bit."""
    if find_gpus():
        return EnginePlace(devices="auto", num_threads=None)
    return EnginePlace(devices=str(worker_placement(devices).num_workers), num_threads=1)
