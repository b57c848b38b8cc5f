"""Under which circumstances an engine was proven: the device's kind and the versions."""

import functools
import importlib.metadata

import torch

from assay import machine
from assay._version import __version__
from assay.model.checkpoint import Checkpoint
from assay.proofs import Note

_PACKAGES = ("torch", "transformers", "tokenizers", "triton")


def self_test_note(checkpoint: Checkpoint, device: torch.device, *settings: object) -> Note:
    """The note that a packed engine of `checkpoint` with `settings` passed its self test on `device`.

    It holds the model's configuration with all defaults filled in: to have them from config.json takes an import
    of transformers.
    """
    return Note.of("self test", *hardware_and_versions(device), checkpoint.state, *settings)


def hardware_and_versions(device: torch.device) -> tuple[str, ...]:
    """What a note on an engine depends on besides the model: `circumstances`, and the processor where it computes."""
    processor = [machine.processor_name()] if device.type == "cpu" else []
    return (*processor, *(f"{name} {value}" for name, value in circumstances(device).items()))


def circumstances(device: torch.device) -> dict[str, str]:
    """The device's kind and the versions, by name: what was measured under them holds under no others."""
    kind = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{device.type} {torch.backends.cpu.get_cpu_capability()}"
    )
    return {"device": kind, "assay": __version__, **{name: _version(name) for name in _PACKAGES}}


@functools.cache
def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"
