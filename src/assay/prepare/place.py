"""Where the steps of `assay prepare books` run."""

from typing import TypedDict

from assay import machine
from assay.embed.place import find_gpus
from assay.runs.placement import Placement, place_workers
from assay.settings import count_of


class EnginePlace(TypedDict):
    """What a run with an engine is told."""

    devices: str
    num_threads: int | None


def worker_placement(devices: str) -> Placement:
    """One worker process a core, or as many as asked for; each with one thread."""
    return place_workers(str(count_of(devices) or machine.usable_cores()), num_gpus=0, num_threads=1)


def engine_place(devices: str) -> EnginePlace:
    """Every GPU; without one as many processes as the other steps have, of one thread: more of them change no bit."""
    if find_gpus():
        return EnginePlace(devices="auto", num_threads=None)
    return EnginePlace(devices=str(worker_placement(devices).num_workers), num_threads=1)
