"""Which devices this process may use, and what suits them."""

from dataclasses import dataclass

import torch

from assay import machine
from assay.errors import UsageError

PRECISIONS = {
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
    """Return the torch device of "cpu", "cuda" or "cuda:K"; UsageError where there is none such."""
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


def parse_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype of "auto", "fp32", "bf16" or "fp16" on a device.

    "auto" is fp32 on the CPU (exact, and as fast as any there), bf16 on a GPU that has it, else
    fp16. UsageError for other names.
    """
    if name == "auto":
        return default_precision(device)
    if name not in PRECISIONS:
        raise UsageError(f"precision {name!r} is not known; use auto, {', '.join(PRECISIONS)}")
    return PRECISIONS[name]


def default_precision(device: torch.device) -> torch.dtype:
    """Return the dtype that "auto" means on a device."""
    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def describe() -> str:
    """Return one line: the devices, the cores, and torch's build."""
    found = ", ".join(f"{device.name} ({device.hardware})" for device in available_devices())
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{found}; {machine.usable_cores()} CPU cores ({capability}); torch {torch.__version__}"
