"""Notes that a packed engine passed its self test: on this checkpoint, this device, with these versions.

A note is a file in the user's cache (`$XDG_CACHE_HOME/assay/proofs`, else `~/.cache`), named by a hash of
all that the outcome depends on. It holds the model's configuration with all defaults filled in, as JSON: to
have them from config.json takes an import of transformers. Deleting it costs the next start some seconds.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import torch

from assay._version import __version__
from assay.model.checkpoint import Checkpoint

_PACKAGES = ("torch", "transformers", "tokenizers", "triton")


@dataclass(frozen=True, kw_only=True, slots=True)
class SelfTestNote:
    """One note, written or not."""

    file: Path

    @classmethod
    def of(cls, checkpoint: Checkpoint, device: torch.device, *settings: object) -> Self:
        """Return the note on an engine made of `checkpoint` on `device` with `settings`."""
        parts = [f"{name} {value}" for name, value in circumstances(device).items()]
        parts += [checkpoint.state, *map(str, settings)]
        name = hashlib.sha256("\n".join(parts).encode()).hexdigest()
        return cls(file=_folder() / name)

    def config(self) -> dict[str, Any] | None:
        """The configuration of an engine that has passed before; None where none has, or the note is damaged."""
        try:
            found = json.loads(self.file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def write(self, config: Mapping[str, Any]) -> None:
        """Note that it passed; where the cache cannot be written to, the next start tries again."""
        scratch = self.file.with_name(f"{self.file.name}.{uuid4().hex}")
        with contextlib.suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            try:
                scratch.write_text(json.dumps(config, default=str, skipkeys=True), encoding="utf-8")
                scratch.rename(self.file)
            finally:
                scratch.unlink(missing_ok=True)


def circumstances(device: torch.device) -> dict[str, str]:
    """The device's kind and the versions, by name: what was measured under them holds under no others."""
    kind = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{device.type} {torch.backends.cpu.get_cpu_capability()}"
    )
    return {"device": kind, "assay": __version__, **{name: _version(name) for name in _PACKAGES}}


def _folder() -> Path:
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "assay" / "proofs"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"
