"""`assay.json`: what a bundle is and where it came from, read and written."""

import json
from dataclasses import dataclass
from pathlib import Path

from assay.errors import BundleError
from assay.model.checkpoint import JsonObject, brief, read_json
from assay.tasks import Task, TaskName

ASSAY_FILE = "assay.json"
FORMAT_VERSION = 1
"""Version of Assay's own files in a bundle; a larger one is refused."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """What `assay.json` says about a bundle, beyond what `config.json` can."""

    assay_version: str
    """Version of Assay that wrote it."""
    created: str
    """When, ISO 8601 with time zone."""
    task: TaskName
    """What the head predicts."""
    labels: tuple[str, ...]
    """Names of the outputs, in the order of the logits."""
    max_length: int
    """Tokens that it was trained for."""
    is_pair: bool
    """Whether it takes two texts."""
    provenance: JsonObject
    """Base, settings, counts and hashes of the training rows; plain JSON values."""
    int_score: tuple[int, int] | None = None
    """Regression: least and greatest whole score, where scores are also given rounded and clipped."""


def write_description(folder: Path, description: Description) -> None:
    """Writes `assay.json` into a bundle folder that is still being made."""
    content: dict[str, object] = {
        "format_version": FORMAT_VERSION,
        "assay_version": description.assay_version,
        "created": description.created,
        "task": description.task,
        "labels": list(description.labels),
        "max_length": description.max_length,
        "is_pair": description.is_pair,
        "provenance": dict(description.provenance),
    }
    if description.int_score is not None:
        content["int_score"] = list(description.int_score)
    (folder / ASSAY_FILE).write_bytes(pretty(content))


def read_description(folder: Path) -> JsonObject:
    """The content of `assay.json`, empty where there is none; `BundleError` for one that this release cannot read."""
    file = folder / ASSAY_FILE
    if not file.exists():
        return {}
    content = read_json(file, missing="save the bundle again")
    check_version(file, content)
    return content


def check_description(folder: Path, description: JsonObject, task: Task, labels: tuple[str, ...]) -> None:
    """Raise `BundleError` where `assay.json` disagrees with `config.json`."""
    seen = description.get("labels", list(labels))
    if seen != list(labels):
        msg = (
            f"{folder / ASSAY_FILE}: labels {brief(seen)} but config.json says {brief(labels)}; "
            "correct one of them"
        )
        raise BundleError(msg)
    if description.get("task", task) != task:
        msg = (
            f"{folder / ASSAY_FILE}: task {description['task']!r} but config.json says {str(task)!r}; "
            "correct one of them"
        )
        raise BundleError(msg)


def read_int_score(folder: Path, description: JsonObject, task: Task) -> tuple[int, int] | None:
    """The least and the greatest whole score of a regression; `None` where it is not rounded."""
    value = description.get("int_score")
    if value is None:
        return None
    bounds = value if isinstance(value, list) and len(value) == 2 else []
    if (
        not bounds
        or not all(type(each) is int for each in bounds)
        or not -(2**31) <= bounds[0] < bounds[1] < 2**31
    ):
        msg = (
            f"{folder / ASSAY_FILE}: int_score {brief(value)}; it is the least and the greatest whole score;"
            " write for example [1, 5]"
        )
        raise BundleError(msg)
    if task is not Task.REGRESSION:
        msg = f"{folder / ASSAY_FILE}: int_score {bounds} of a {task} bundle; only a regression has one; remove it"
        raise BundleError(msg)
    return bounds[0], bounds[1]


def check_version(file: Path, content: JsonObject) -> None:
    """Raise `BundleError` for a file of a later format."""
    version = content.get("format_version", FORMAT_VERSION)
    if not isinstance(version, int) or version > FORMAT_VERSION:
        msg = (
            f"{file}: format_version {version!r}; this release reads up to {FORMAT_VERSION}; "
            "install a newer assay"
        )
        raise BundleError(msg)


def pretty(value: object) -> bytes:
    """A JSON value as Assay writes it into a bundle."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
