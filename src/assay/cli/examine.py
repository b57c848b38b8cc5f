"""What this machine has, what runs where, and what falls back to a slower path and why: for `assay doctor`."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from assay import machine
from assay._version import __version__
from assay.bundle.bundle import Bundle
from assay.engine.devices import available_devices, parse_device, target_of
from assay.engine.precision import auto_choices
from assay.proofs import notes_folder
from assay.telemetry import format_number_of

PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "pyarrow", "numpy", "obstore", "pydantic")
LOW_DISK_BYTES = 5 << 30
GIB = 1 << 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Examination:
    """What `examine` found."""

    lines: tuple[tuple[str, str], ...]
    """Topic and finding, in order."""
    problems: tuple[str, ...]
    """What would make a run fail."""

    def to_json(self) -> dict[str, Any]:
        """The findings as a JSON object."""
        return {"findings": dict(self.lines), "problems": list(self.problems)}

    def __str__(self) -> str:
        """A line a finding."""
        width = max(len(topic) for topic, _ in self.lines)
        shown = [f"{topic:{width}}  {text}" for topic, text in self.lines]
        return "\n".join(shown + [f"PROBLEM  {problem}" for problem in self.problems])


def examine(bundle: str | None = None) -> Examination:
    """Look at versions, devices, memory and disk; and, where a bundle is given, at what runs it.

    Raises BundleError for a bundle that cannot be loaded.
    """
    lines = [
        ("assay", f"{__version__} on Python {platform.python_version()} ({sys.executable})"),
        ("packages", ", ".join(f"{name} {_version(name)}" for name in PACKAGES)),
    ]
    problems = []
    for device in available_devices():
        first, *others = auto_choices(target_of(parse_device(device.name)))
        precision = f"{first} by default" + "".join(
            f", {each} for a model that is too large for it" for each in others
        )
        memory = f", {device.memory_bytes / GIB:.0f} GiB" if device.memory_bytes else ""
        lines.append((device.name, f"{device.hardware}{memory}, {precision}"))
    waiting = [f"{name}={os.environ[name]}" for name in machine.YIELDING if name in os.environ]
    lines += [
        ("cores", f"{machine.usable_cores()} usable ({machine.describe_cores()})"),
        (
            "threads",
            f"{machine.choose_threads()} by default; they wait by {', '.join(waiting) or 'the default'}",
        ),
    ]
    lines += [("slower path", _why_slow()), ("slower start", _why_slow_to_start())]
    lines.append(("memory", _memory()))
    disk = shutil.disk_usage(Path.cwd())
    lines.append(("disk", f"{disk.free / GIB:.1f} GiB free of {disk.total / GIB:.0f} in {Path.cwd()}"))
    if disk.free < LOW_DISK_BYTES:
        problems.append(
            f"only {disk.free / GIB:.1f} GiB of disk are free; parts may not fit; free some or use another --run"
        )
    if bundle is not None:
        found = _bundle_findings(bundle)
        lines += found.lines
        problems += found.problems
    return Examination(lines=tuple(lines), problems=tuple(problems))


def _bundle_findings(path: str) -> Examination:
    from assay.score.bundles import open_bundle
    from assay.score.cascade.bundle import Cascade

    bundle = open_bundle(path)
    if not isinstance(bundle, Cascade):
        return _single_findings(bundle)
    stages = {name: _single_findings(each) for name, each in (("1st", bundle.first), ("2nd", bundle.second))}
    lines = [(f"{name} {key}", value) for name, found in stages.items() for key, value in found.lines]
    return Examination(
        lines=(("cascade", f"fingerprint {bundle.fingerprint}, {bundle.thresholds}"), *lines),
        problems=tuple(problem for found in stages.values() for problem in found.problems),
    )


def _single_findings(bundle: Bundle) -> Examination:
    from assay.bundle.ensemble import Ensemble
    from assay.score.bundles import encoder_of, engine_of, why_not_fp16
    from assay.tokenize.compare import SAVE_TOKENIZER, compare_probes
    from assay.tokenize.settings import LongDocuments

    in_one_piece = replace(bundle, num_offsets=1) if isinstance(bundle, Ensemble) else bundle
    encoder = encoder_of(in_one_piece, LongDocuments())
    engine = engine_of(bundle, device=available_devices()[0].name)
    tokens = compare_probes(bundle.path, encoder)
    calibration = "none" if bundle.calibration is None else bundle.calibration.method
    outputs = format_number_of(len(bundle.labels), "output")
    length = bundle.default_max_length
    lines = [
        ("bundle", f"{bundle.task}, {outputs}, up to {length} tokens, calibration {calibration}"),
        ("fingerprint", f"bundle {bundle.fingerprint}, tokenizer {bundle.tokenizer_fingerprint}"),
        ("tokenizer", str(tokens)),
        ("engine", engine.description()),
        ("on a GPU", _gpu_precision(why_not_fp16(bundle))),
        *(("note", note) for note in bundle.notes),
    ]
    problems = [] if tokens.difference is None else [f"{bundle.path}: {tokens.difference}; {SAVE_TOKENIZER}"]
    return Examination(lines=tuple(lines), problems=tuple(problems))


def _gpu_precision(why_not: str | None) -> str:
    """What `auto` precision means for a bundle on a GPU."""
    return "fp16 by default" if why_not is None else f"bf16 by default, not fp16: {why_not}"


def _why_slow() -> str:
    if torch.cuda.is_available():
        if importlib.util.find_spec("triton") is None:
            return "Triton is missing: attention and norms run in plain torch; install triton"
        return "architectures without a packed path run padded, see --bundle"
    if torch.version.cuda is None:
        return f"no GPU: this torch ({torch.__version__}) is a CPU build; on a GPU machine install the CUDA build"
    return f"no GPU: torch {torch.__version__} finds no CUDA device; see whether nvidia-smi lists one"


def _why_slow_to_start() -> str:
    reasons = []
    without = [name for name in ("assay", "torch", "transformers") if not _has_bytecode(name)]
    if without:
        why = (
            "PYTHONDONTWRITEBYTECODE is set"
            if sys.dont_write_bytecode
            else "their folders cannot be written to"
        )
        folder = Path(sys.prefix)
        reasons.append(
            f"no bytecode of {', '.join(without)} is kept ({why}), so each start compiles them; when the image is"
            f" built, run python -m compileall -q {folder}"
        )
    folder = notes_folder()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(existing, os.W_OK):
        reasons.append(
            f"{existing} cannot be written to, so each start proves engines again; set XDG_CACHE_HOME to a folder"
            " that stays"
        )
    return "; ".join(reasons) or f"none: bytecode is kept, and what was proven in {folder}"


def _has_bytecode(package: str) -> bool:
    """Whether a package's bytecode lies where Python looks for it; True where it cannot be told."""
    spec = importlib.util.find_spec(package)
    return spec is None or spec.cached is None or Path(spec.cached).exists()


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _memory() -> str:
    found = machine.memory()
    return f"{found.available_bytes / GIB:.1f} GiB free of {found.total_bytes / GIB:.1f}"
