"""What a training runs on: how many processes, their threads, and what their products are computed in."""

import os

import torch

from assay import machine
from assay.engine import devices
from assay.engine.precision import Computed, choose_auto_for_training, refuse_missing
from assay.errors import UsageError
from assay.settings import count_of
from assay.telemetry import format_number_of
from assay.train.settings import TrainSettings
from assay.train.world import find_place


def num_ranks() -> int:
    """Processes that train together, this one included, where none is started from here."""
    place = find_place(os.environ)
    return 1 if place is None else place.world_size


def num_processes(settings: TrainSettings) -> int:
    """Processes to start here: 1 where a launcher has started this one; raises `UsageError` for too many."""
    if find_place(os.environ) is not None:
        return 1
    num_gpus = torch.cuda.device_count()
    wanted = count_of(settings.devices)
    if wanted is None:
        return max(1, num_gpus)
    if num_gpus and wanted > num_gpus:
        raise UsageError(
            f"devices={wanted}; this machine has {num_gpus} GPUs; lower it, or start ranks with torchrun"
        )
    if not num_gpus and wanted > machine.usable_cores():
        raise UsageError(
            f"devices={wanted}; without a GPU each is a process, and this machine has"
            f" {machine.usable_cores()} cores; lower it"
        )
    return wanted


def choose_precision(settings: TrainSettings, device: torch.device) -> Computed:
    """What products run in."""
    target = devices.target_of(device)
    if settings.precision == "auto":
        return choose_auto_for_training(target).precision
    refuse_missing(settings.precision, target)
    return settings.precision


def choose_threads(settings: TrainSettings) -> machine.Threads:
    """CPU threads of this process, which shares the machine with the other ranks on it."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("WORLD_SIZE", "1")))
    return machine.choose_threads(settings.num_threads, num_processes=max(1, here))


def describe_threads(settings: TrainSettings, wanted: int) -> str | None:
    """The processes to start and their threads, for people; None on GPUs and where a launcher has started this."""
    if torch.cuda.device_count() or find_place(os.environ) is not None:
        return None
    threads = machine.choose_threads(settings.num_threads, num_processes=wanted)
    return f"{format_number_of(wanted, 'process', 'processes')} on cpu, each with {threads}"


def describe_device(device: torch.device) -> str:
    """The device by its name, for people."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
