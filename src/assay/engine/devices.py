"""Which devices this process may use, and what suits them."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

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
        return [Device(name="cpu", hardware=_cpu_name(), memory_bytes=None)]
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


def default_num_threads() -> int:
    """Return the CPU cores that this process may use: affinity and container quota, at least 1."""
    affinity = getattr(os, "sched_getaffinity", None)
    num_cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = cgroup_cores()
    return max(1, min(num_cores, int(quota + 0.5))) if quota else num_cores


def cgroup_cores(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Return the cores that the container's CPU quota allows (cgroup v2, then v1); None without one."""
    try:
        quota, period = (root / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        try:
            quota = (root / "cpu" / "cpu.cfs_quota_us").read_text(encoding="ascii").strip()
            period = (root / "cpu" / "cpu.cfs_period_us").read_text(encoding="ascii").strip()
        except OSError:
            return None
    if quota in {"max", "-1"}:
        return None
    return int(quota) / int(period)


def describe() -> str:
    """Return one line: the devices, the cores, and torch's build."""
    found = ", ".join(f"{device.name} ({device.hardware})" for device in available_devices())
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{found}; {default_num_threads()} CPU cores ({capability}); torch {torch.__version__}"


def _cpu_name() -> str:
    """Processor name from the kernel's list, or "CPU"."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return "CPU"
