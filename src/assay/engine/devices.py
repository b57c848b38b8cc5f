"""Which devices this process may use, and what suits them."""

import logging
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from assay import machine
from assay.engine.precision import Computed, Precision, Target, WhyNot, choose_auto, refuse_missing
from assay.errors import UsageError

_log = logging.getLogger(__name__)

DTYPES: dict[Computed, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp8": torch.bfloat16,
}
"""What each precision keeps; fp8 is that of products alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """A device that engines can run on."""

    name: str
    """What `load_engine` takes: "cpu" or "cuda:K"."""
    hardware: str
    """The maker's name of it."""
    memory_bytes: int | None
    """Memory of an accelerator; None for the CPU, which shares the machine's."""


def available_devices() -> list[Device]:
    """Return the accelerators of this process, or the CPU alone where there is none."""
    if not torch.cuda.is_available():
        return [Device(name="cpu", hardware=machine.processor_name(), memory_bytes=None)]
    found = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        found.append(
            Device(name=f"cuda:{index}", hardware=properties.name, memory_bytes=properties.total_memory)
        )
    return found


def parse_device(name: str) -> torch.device:
    """Return the torch device of "cpu", "cuda" or "cuda:K"; UsageError where this machine has none."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"device {name!r} is not known; use cpu, cuda or cuda:K") from None
    if device.type not in {"cpu", "cuda"}:
        raise UsageError(f"device {name!r} is not supported; use cpu, cuda or cuda:K")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"device {name!r} is not there: torch {torch.__version__} sees {torch.cuda.device_count()} "
            "CUDA devices; use cpu, or install the CUDA build of torch on a GPU machine"
        )
    return device


def current(device: torch.device) -> AbstractContextManager[Any]:
    """Within, `device` is the current one of this thread, where kernels run that name none."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def stay_near(name: str, num_threads: int | None) -> None:
    """Let this process run on the cores beside its device alone, where these are enough for it.

    For a worker process, which has one device: what it reads, tokenizes and copies then stays in the memory of the
    device's NUMA node. See `machine.cores_near` for where it stays free.
    """
    device = parse_device(name)
    if device.type != "cuda" or num_threads is None or not hasattr(os, "sched_setaffinity"):
        return
    devices: list[Any] = [torch.cuda.get_device_properties(each) for each in range(torch.cuda.device_count())]
    try:
        addresses = [
            f"{one.pci_domain_id:04x}:{one.pci_bus_id:02x}:{one.pci_device_id:02x}.0" for one in devices
        ]
    except AttributeError:  # a build of torch that does not say
        return
    cores = machine.cores_near(
        device.index or 0, addresses, allowed=os.sched_getaffinity(0), num_threads=num_threads
    )
    if cores is not None:
        machine.stay_on(cores)
        _log.info("%s: this worker stays on %d cores of its NUMA node", name, len(cores))


def target_of(device: torch.device) -> Target:
    """Return what decides the precision on a device of this machine."""
    if device.type == "cpu":
        return Target(kind="cpu")
    # torch's own is_bf16_supported asks the current device, not this one
    has_bf16 = torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
    return Target(kind="cuda", has_bf16=has_bf16)


def parse_precision(name: str, device: torch.device, why_not_fp16: WhyNot) -> Computed:
    """Return the precision of that name on a device, "auto" resolved for a model; UsageError for an unknown name."""
    asked = check_precision(name, device)
    if asked != "auto":
        return asked
    choice = choose_auto(target_of(device), why_not_fp16)
    if choice.note:
        _log.warning("%s", choice.note)
    return choice.precision


def check_precision(name: str, device: torch.device) -> Precision:
    """Return the name; UsageError for one that is not known, and for a precision that the device does not have."""
    if name == "auto":
        return "auto"
    for known in DTYPES:
        if name == known:
            refuse_missing(known, target_of(device))
            return known
    raise UsageError(f"precision {name!r} is not known; use auto, {', '.join(DTYPES)}")


def describe() -> str:
    """Return one line: the devices, the cores, and torch's build."""
    found = ", ".join(f"{device.name} ({device.hardware})" for device in available_devices())
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{found}; {machine.usable_cores()} CPU cores ({capability}); torch {torch.__version__}"
