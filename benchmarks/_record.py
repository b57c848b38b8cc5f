"""What every benchmark begins and ends with: its flags, and one JSON line, printed, and kept under `--record`."""

import argparse
import json
import platform
import shlex
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from assay import machine

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "results.jsonl"


def parser(documentation: str | None, *, smoke: str | None = None) -> argparse.ArgumentParser:
    """The flag `--record`, and `--tiny` where `smoke` says what that is, below the words of the script."""
    made = argparse.ArgumentParser(
        description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--record", action="store_true", help="append the results to benchmarks/results.jsonl")
    if smoke is not None:
        made.add_argument("--tiny", action="store_true", help=f"{smoke}: a smoke test, never recorded")
    return made


def hardware() -> str:
    """The processor, the cores that this process may use, the memory and any GPU."""
    memory_gib = machine.memory().total_bytes / 2**30
    parts = [machine.processor_name(), f"{machine.usable_cores()} cores", f"{memory_gib:.0f} GiB"]
    torch = sys.modules.get("torch")  # a benchmark that used a GPU has torch imported
    if torch is not None and torch.cuda.is_available():
        parts.append(f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}")
    return ", ".join(parts)


def versions(*names: str) -> dict[str, str]:
    """Python's version and those of the named packages."""
    return {"python": platform.python_version(), **{name: _version(name) for name in names}}


def finish(
    claim: str,
    value: float,
    unit: str,
    baseline: str,
    *,
    ceiling: str | None = None,
    packages: tuple[str, ...] = (),
    details: Mapping[str, object] | None = None,
    record: bool,
    trial: bool = False,
) -> None:
    """Print the result as the last line, JSON, and append it to results.jsonl where `record` says so.

    `baseline` says what the value was compared with, and its figure; `ceiling` what the hardware
    allows; `details` are figures that explain the value. That of a `trial` says so in its name and is
    never kept.
    """
    result: dict[str, object] = {
        "claim": f"smoke.{claim}" if trial else claim,
        "value": float(f"{value:.4g}"),
        "unit": unit,
        "baseline": baseline,
    }
    if ceiling is not None:
        result["ceiling"] = ceiling
    if details:
        result["details"] = dict(details)
    result |= {
        "hardware": hardware(),
        "versions": versions(*packages),
        "date": datetime.now(tz=UTC).date().isoformat(),
        "command": _command(),
    }
    line = json.dumps(result, ensure_ascii=False)
    if record and not trial:
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    print(line)


def _version(name: str) -> str:
    """A package's version; its own word for it where it runs from a source tree."""
    try:
        return version(name)
    except PackageNotFoundError:
        return str(getattr(sys.modules.get(name), "__version__", "not installed"))


def _command() -> str:
    """The command line, the script as a reader at the root of the project would name it."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--record"]
    script = Path(sys.argv[0]).resolve().relative_to(FOLDER.parent).as_posix()
    return shlex.join(["python", script, *arguments])
