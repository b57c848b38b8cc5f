"""`assay train` on the devices that its settings ask for: of this machine, or of a cluster that is joined for it."""

import os

from assay.errors import UsageError
from assay.extras import need_packages
from assay.fleet.executors import cluster_of
from assay.train import plan as _planning
from assay.train import train as _training
from assay.train.history import OnMessage, OnPhase, OnProgress
from assay.train.plan import PlannedDevices, TrainPlan
from assay.train.settings import TrainSettings
from assay.train.train import TrainReport
from assay.train.world import find_place


def train(
    settings: TrainSettings,
    *,
    on_progress: OnProgress | None = None,
    on_message: OnMessage | None = None,
    on_phase: OnPhase | None = None,
) -> TrainReport:
    """Fine-tunes `settings.base` on the sources of `settings.data`, writes a bundle and says how it went.

    `on_message` hears of the split and of what is odd about the rows, `on_phase` of what begins. Raises
    `UsageError`, `InputError` or `BundleError` before the first step where something handed in cannot work,
    and `WorkError` where the work fails. Nothing is left at `settings.out` unless the training
    ends well; checkpoints of an interrupted one lie beside it.
    """
    _refuse_ranks(settings)
    if settings.executor == "ray":
        need_packages("ray", "pandas", used_by="assay train --executor ray", extra="ray-train")
    with cluster_of(settings) as cluster:
        ranks = None
        if cluster is not None:
            from assay.fleet.ray.training import RayRanks

            ranks = RayRanks(cluster, settings, on_message or (lambda _: None))
        return _training.train(
            settings, ranks=ranks, on_progress=on_progress, on_message=on_message, on_phase=on_phase
        )


def plan(settings: TrainSettings) -> TrainPlan:
    """What `train` would do with these settings; raises its errors for rows, base, places and devices."""
    _refuse_ranks(settings)
    with cluster_of(settings) as cluster:
        if cluster is None:
            return _planning.plan(settings)
        placement = cluster.place_at_once(
            settings.devices, num_threads=settings.num_threads, work="a training"
        )
        is_gpu = placement.kind == "cuda"
        auto = "bf16" if is_gpu and all(cluster.gpus()) else "fp32"
        devices = PlannedDevices(
            count=placement.num_workers,
            name=f"{'GPU' if is_gpu else 'CPU'} of {cluster.name}",
            precision=auto if settings.precision == "auto" else settings.precision,
        )
    return _planning.plan(settings, devices=devices)


def _refuse_ranks(settings: TrainSettings) -> None:
    """Raise UsageError where this process is one of several that would each start a training on the cluster."""
    place = find_place(os.environ)
    if settings.executor == "ray" and place is not None and place.world_size > 1:
        msg = f"executor ray starts the ranks itself, and {place.launcher} has; leave one of them out"
        raise UsageError(msg)
