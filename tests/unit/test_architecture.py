"""The import contracts hold, and would break where they should."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "assay"
HEAVY = ("pandas", "pyarrow", "sklearn", "torch", "transformers")


def lint_imports(project: Path) -> subprocess.CompletedProcess[str]:
    """Runs import-linter on `project`, whose own src/ comes first on the path."""
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command as c; c()",
        "--no-cache",
    ]
    environment = {**os.environ, "PYTHONPATH": str(project / "src"), "COLUMNS": "200"}
    return subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.fixture
def copied_project(tmp_path: Path) -> Path:
    """A copy of the package and its configuration that a test may spoil."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(PACKAGE, tmp_path / "src" / "assay", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_every_contract_holds() -> None:
    """Rooms import only leftwards, and the pure core touches no tensor, no file and no clock."""
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("module", "line", "reason"),
    [
        ("utils.py", "", "not listed as layers"),
        ("errors.py", "import assay.runs.plan", "assay.errors is not allowed to import assay.runs"),
        ("errors.py", "import torch", "assay.errors is not allowed to import torch"),
        ("runs/plan.py", "import time", "assay.runs.plan is not allowed to import time"),
        ("runs/plan.py", "import pyarrow", "assay.runs.plan is not allowed to import pyarrow"),
        ("data/ids.py", "import torch", "assay.data is not allowed to import torch"),
        ("model/packing.py", "import assay.data.ids", "assay.model is not allowed to import assay.data"),
        ("engine/batching.py", "import torch", "assay.engine.batching is not allowed to import torch"),
        ("train/settings.py", "import torch", "assay.train.settings is not allowed to import torch"),
    ],
)
def test_a_wrong_import_is_refused(copied_project: Path, module: str, line: str, reason: str) -> None:
    """A stray module, an import to the right, and a heavy import in the pure core each break a contract."""
    path = copied_project / "src" / "assay" / module
    path.write_text(
        (path.read_text(encoding="utf-8") if path.exists() else "") + f"\n{line}\n", encoding="utf-8"
    )
    result = lint_imports(copied_project)
    assert result.returncode == 1
    assert reason in " ".join(result.stdout.split())


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*/__init__.py")), ids=lambda path: path.parent.name)
def test_a_room_opens_with_its_docstring_alone(path: Path) -> None:
    """Importing a room runs nothing: its `__init__.py` says what the room is for and no more."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{path} has no docstring"
    assert len(tree.body) == 1, f"{path} holds more than a docstring"


@pytest.mark.parametrize(
    "path",
    sorted(PACKAGE.glob("*/**/__init__.py")),
    ids=lambda path: path.parent.relative_to(PACKAGE).as_posix(),
)
def test_a_room_that_lists_its_files_lists_them_all(path: Path) -> None:
    """The list in a room's docstring has every module and folder of code in it, and no module that is not there."""
    said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    listed = set(re.findall(r"(?<![\w.`])[a-z0-9_]+(?:\.py\b(?!\.)|/)", said))
    there = {file.name for file in path.parent.glob("*.py")} - {"__init__.py", "__main__.py"}
    there |= {f"{file.parent.name}/" for file in path.parent.glob("*/__init__.py")}
    if listed & there:
        assert there <= listed, f"{path} does not name {sorted(there - listed)}"
        gone = sorted(name for name in listed - there if name.endswith(".py"))
        assert not gone, f"{path} names {gone}, which are not there"


def test_readme_and_contributing_list_the_rooms_in_their_order() -> None:
    """README's tree and CONTRIBUTING's row of rooms have every room, in the order in which they may import."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    rooms = [layer.strip("()") for layer in reversed(contracts[0]["layers"])]
    tree = (ROOT / "README.md").read_text(encoding="utf-8").partition("\nsrc/assay/\n")[2].partition("```")[0]
    assert re.findall(r"^  (\w+)(?:/|\.py) ", tree, re.MULTILINE) == rooms
    row = (
        (ROOT / "CONTRIBUTING.md")
        .read_text(encoding="utf-8")
        .partition("to its left**:\n\n")[2]
        .partition("\n\n")[0]
    )
    assert re.findall(r"\w+", row) == [room for room in rooms if room != "__main__"]


def test_importing_assay_is_light() -> None:
    """`import assay` loads nothing heavy; what needs torch imports it when it is called."""
    script = f"import sys, assay; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip() == ""
