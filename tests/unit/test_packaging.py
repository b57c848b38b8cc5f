"""What `make` installs fits what the metadata promises."""

import re
import stat
import tomllib
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINS = [
    Requirement(line)
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]


def pinned_version(name: str, python: str) -> str | None:
    """The version that constraints.txt gives to a package on one Python, None where it gives none."""
    environment = {**default_environment(), "python_version": python, "python_full_version": f"{python}.9"}
    for pin in PINS:
        if canonicalize_name(pin.name) == name and (pin.marker is None or pin.marker.evaluate(environment)):
            return str(pin.specifier).removeprefix("==")
    return None


def test_every_direct_dependency_is_pinned_within_its_range() -> None:
    """On each Python that the metadata allows, the tested version of each dependency fits the metadata."""
    lines = PROJECT["dependencies"] + [
        line for extra in PROJECT["optional-dependencies"].values() for line in extra
    ]
    for python in ("3.11", "3.12", "3.13"):
        for requirement in map(Requirement, lines):
            version = pinned_version(canonicalize_name(requirement.name), python)
            assert version is not None, f"{requirement.name} has no pin for Python {python}"
            assert requirement.specifier.contains(version), f"{requirement} refuses its pin {version}"


def test_pins_leave_the_torch_build_to_the_index() -> None:
    """One pin serves CPU and CUDA: no build suffix on torch, and no pin on a CUDA library.

    Triton, whose kernels the tests interpret, is pinned where it installs: at the version that this
    torch asks for in its CUDA build, so that both can be had together.
    """
    assert pinned_version("torch", "3.11") == "2.13.0"
    names = {canonicalize_name(pin.name) for pin in PINS}
    assert not [name for name in names if name.startswith(("nvidia", "cuda"))]
    assert pinned_version("triton", "3.11") == "3.7.1"


def test_continuous_integration_runs_make_test() -> None:
    """`.ci/run` is executable and calls `make test`, which every contributor can run too."""
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & stat.S_IXUSR
    commands = [line for line in script.read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    assert commands == ["set -euo pipefail", 'cd "$(dirname "$0")/.."', "make test"]


def test_every_make_target_says_what_it_is_for() -> None:
    """Each phony target has its one comment, so `make help` lists it."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = set(re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)[1].split())
    described = set(re.findall(r"^([a-z-]+):.*## \S", text, re.MULTILINE))
    assert phony == described
