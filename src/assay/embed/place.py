"""Where the workers of a run with an engine go, and the precision of its numbers: scoring and embedding alike."""

import importlib.metadata
from dataclasses import dataclass, replace
from typing import Any

from assay import machine
from assay.embed.settings import EngineRunSettings
from assay.engine.nvidia import describe_gpus
from assay.engine.precision import (
    Computed,
    Target,
    WhyNot,
    auto_choices,
    choose_auto,
    common_target,
    refuse_missing,
)
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
    target: Target
    """The device that the run is planned for: what all of its devices have."""
    precision: Computed
    why: str | None
    """What `auto` chose for the run and why, in a clause, for its record; None where the precision was asked for."""
    note: str | None
    """A sentence where the run's precision is one that a user might not expect here."""


def place(
    settings: EngineRunSettings,
    kind: RunKind[Any, Any],
    why_not_fp16: WhyNot,
    cluster: Cluster | None = None,
) -> Place:
    """The workers of this machine or a cluster, and the precision of the run: as asked, as planned, or what suits.

    The identity of a run of this kind has a `precision`, its record says `why`. `why_not_fp16` is asked of the model
    where the run is new and would run in fp16 on its devices.
    """
    targets = [] if settings.engine == "fake" else find_gpus(cluster)
    placement = planned = place_workers(
        settings.devices, num_gpus=len(targets), num_threads=settings.num_threads, cluster=cluster
    )
    target = common_target(targets[: placement.num_workers] or [Target(kind="cpu")])
    if settings.plan_for not in {None, placement.kind}:
        planned = replace(placement, kind=settings.plan_for, num_workers=1)
        target = Target(kind=settings.plan_for)
    precision, why, note = choose_precision(settings, kind, target, why_not_fp16)
    return Place(placement=placement, planned=planned, target=target, precision=precision, why=why, note=note)


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
    settings: EngineRunSettings, kind: RunKind[Any, Any], target: Target, why_not_fp16: WhyNot
) -> tuple[Computed, str | None, str | None]:
    """The precision of the run, what its record says of the choice, and a sentence that a user should hear."""
    if settings.precision != "auto":
        refuse_missing(settings.precision, target)
    run = find_run(settings.run)
    if run is not None and run.manifest.kind == kind.name:
        identity, record = run.manifest.read(kind)
        planned: Computed = identity.precision
        if settings.precision != "auto":
            return settings.precision, record.precision_why, None
        choices = auto_choices(target)
        if planned in choices:
            return planned, record.precision_why, None
        note = f"the run is in {planned}, as it was planned; auto would be {' or '.join(choices)} here"
        return planned, record.precision_why, note
    if settings.precision != "auto":
        return settings.precision, None, None
    # of the fake engine no model is loaded
    choice = choose_auto(target, why_not_fp16 if settings.engine != "fake" else lambda: None)
    return choice.precision, choice.why, choice.note
