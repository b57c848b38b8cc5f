"""Where the workers of a run with an engine go, and the precision of its numbers: scoring and embedding alike."""

import importlib.metadata
from dataclasses import dataclass, replace
from typing import Any

from assay import machine
from assay.embed.settings import EngineRunSettings
from assay.engine.nvidia import describe_gpus
from assay.engine.precision import Computed, Target, auto_precision, common_target, refuse_missing
from assay.proofs import Note
from assay.runs.kinds import RunKind
from assay.runs.placement import Cluster, Placement, place_workers
from assay.runs.run import find_run


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where the workers of this machine go, and what the run is planned for."""

    placement: Placement
    planned: Placement
    """The same, or what `plan_for` asks for: units are sized for it."""
    precision: Computed
    note: str | None
    """A sentence where the run's precision is one that this machine would not choose."""


def place(settings: EngineRunSettings, kind: RunKind[Any, Any], cluster: Cluster | None = None) -> Place:
    """The workers of this machine or a cluster, and the precision of the run: as asked, as planned, or what suits.

    The identity of a run of this kind has a `precision`.
    """
    targets = [] if settings.engine == "fake" else find_gpus(cluster)
    placement = planned = place_workers(
        settings.devices, num_gpus=len(targets), num_threads=settings.num_threads, cluster=cluster
    )
    target = common_target(targets[: placement.num_workers] or [Target(kind="cpu")])
    if settings.plan_for not in {None, placement.kind}:
        planned = replace(placement, kind=settings.plan_for, num_workers=1)
        target = Target(kind=settings.plan_for)
    precision, note = choose_precision(settings, kind, target)
    return Place(placement=placement, planned=planned, precision=precision, note=note)


def find_gpus(cluster: Cluster | None = None) -> list[Target]:
    """The GPUs that torch can use, here or on a cluster.

    torch is imported only where a driver is there, and where it has not said before what it can use of these very
    GPUs.
    """
    if cluster is not None:
        return [Target(kind="cuda", has_bf16=has_bf16) for has_bf16 in cluster.gpus()]
    if not machine.has_gpu_driver():
        return []
    described = describe_gpus()
    note = None if described is None else Note.of("gpus", importlib.metadata.version("torch"), *described)
    if note is not None and (known := note.read()) is not None:
        return [Target(kind="cuda", has_bf16=has_bf16) for has_bf16 in known["has_bf16"]]
    from assay.engine import devices

    devices_here = (devices.parse_device(device.name) for device in devices.available_devices())
    found = [devices.target_of(device) for device in devices_here if device.type == "cuda"]
    if note is not None and found:
        note.write({"has_bf16": [target.has_bf16 for target in found]})
    return found


def choose_precision(
    settings: EngineRunSettings, kind: RunKind[Any, Any], target: Target
) -> tuple[Computed, str | None]:
    """The precision of the run, and a sentence where `auto` takes over one that this machine would not choose."""
    if settings.precision != "auto":
        refuse_missing(settings.precision, target)
        return settings.precision, None
    run = find_run(settings.run)
    if run is None or run.manifest.kind != kind.name:
        return auto_precision(target), None
    planned: Computed = run.manifest.read(kind)[0].precision
    if planned == auto_precision(target):
        return planned, None
    return planned, f"the run is in {planned}, as it was planned; auto would be {auto_precision(target)} here"
