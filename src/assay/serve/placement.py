"""Which engine processes there are, and where. Imports nothing heavy: they start before all else."""

import sys
from dataclasses import replace
from pathlib import Path

from assay import machine
from assay.bundle.folders import cascade_file
from assay.errors import UsageError
from assay.serve.engines import Child, EngineSpec, start_child
from assay.serve.settings import ServeSettings, is_fake
from assay.settings import count_of
from assay.telemetry import format_number_of

LEAST_CORES = 8
"""From which on `auto` takes several front processes."""
MOST_AUTO_FRONTS = 16
FRONTS_PER_CORE = 4
MOST_FRONT_THREADS = 4


def start_first(settings: ServeSettings) -> list[tuple[EngineSpec, Child]]:
    """Start the engines that can be started before anyone knows the GPUs: the first one, or those of CPUs."""
    return [(spec, start_child(spec)) for spec in first_specs(settings)]


def first_specs(settings: ServeSettings) -> list[EngineSpec]:
    """One engine on the first GPU; without a driver as many on the CPU as asked for; of a cascade for each model.

    Raises BundleError for a cascade whose models are not there.
    """
    count = count_of(settings.devices)
    has_driver = machine.has_gpu_driver() and not is_fake(settings.engine)
    folders = bundle_folders(settings.bundle)
    specs = [
        EngineSpec(
            bundle=str(folder),
            stage=stage,
            model_kind=settings.model_kind,
            pooling=settings.pooling,
            device="cuda:0" if has_driver else "cpu",
            engine=settings.engine,
            precision=settings.precision,
            deterministic=settings.deterministic,
            max_batch_tokens=settings.max_batch_tokens,
            num_threads=settings.num_threads,
            parity_share=settings.parity_share,
            on_long=settings.on_long,
        )
        for stage, folder in enumerate(folders)
    ]
    if has_driver:
        return specs
    return [each for spec in specs for each in _on_cpu(spec, count or 1, len(specs))]


def choose_num_fronts(settings: ServeSettings) -> int:
    """How many front processes there are; with one, it is the process that has the engines too.

    Raises UsageError for more than make sense here.
    """
    count, cores = count_of(settings.front_processes), machine.usable_cores()
    if count is None:
        is_large = machine.has_gpu_driver() and not is_fake(settings.engine) and cores >= LEAST_CORES
        return min(MOST_AUTO_FRONTS, cores // 2) if is_large and sys.platform == "linux" else 1
    if count > 1 and sys.platform != "linux":
        raise UsageError(f"front_processes {count}; several share a port on Linux alone; set 1")
    if count > FRONTS_PER_CORE * cores:
        most = FRONTS_PER_CORE * cores
        raise UsageError(
            f"front_processes {count}; this machine has {machine.describe_cores()}; set {most} or less"
        )
    return count


def choose_front_threads(num_fronts: int) -> int:
    """How many CPU threads each of so many front processes has."""
    return max(1, min(MOST_FRONT_THREADS, machine.usable_cores() // num_fronts))


def bundle_folders(bundle: str) -> list[Path]:
    """The folder of a model, or those of a cascade's two, links resolved: server and engines load the same."""
    if cascade_file(bundle) is None:
        return [Path(bundle).resolve()]
    from assay.score.cascade.files import stage_folders

    return stage_folders(bundle)


def further_specs(first: EngineSpec, settings: ServeSettings, num_gpus: int) -> list[EngineSpec]:
    """The other engines of a model, once its first one has counted the GPUs.

    Raises UsageError for more than there are.
    """
    count = count_of(settings.devices)
    if not num_gpus:
        num_models = 1 if cascade_file(settings.bundle) is None else 2
        return _on_cpu(replace(first, device="cpu"), count or 1, num_models)[1:]
    if count is not None and count > num_gpus:
        msg = f"devices {count}; this machine has {format_number_of(num_gpus, 'GPU')}; set --devices {num_gpus} or less"
        raise UsageError(msg)
    return [replace(first, device=f"cuda:{index}") for index in range(1, count or num_gpus)]


def _on_cpu(spec: EngineSpec, count: int, num_models: int) -> list[EngineSpec]:
    machine.check_num_processes(count * num_models)
    threads = machine.choose_threads(spec.num_threads, num_processes=count * num_models).count
    return [replace(spec, num_threads=threads) for _ in range(count)]
