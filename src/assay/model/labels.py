"""What the outputs of a checkpoint stand for, by its config.json: the task and the names of the labels."""

import json
from pathlib import Path

from assay.errors import BundleError
from assay.model.checkpoint import Checkpoint, brief, is_number
from assay.tasks import Task


def read_task(checkpoint: Checkpoint, labels: tuple[str, ...]) -> Task:
    """What the head predicts; `BundleError` where the config names something other than one of our tasks."""
    file = checkpoint.path / "config.json"
    stated = checkpoint.config.get("problem_type")
    if stated is None:
        return Task.REGRESSION if len(labels) == 1 else Task.SINGLE_LABEL
    task = next((task for task in Task if task.problem_type == stated), None)
    if task is None:
        names = ", ".join(task.problem_type for task in Task)
        msg = f"{file}: problem_type {stated!r}; it must be one of {names}; correct config.json"
        raise BundleError(msg)
    if not task.takes_outputs(len(labels)):
        number = "one output" if len(labels) == 1 else f"{len(labels)} outputs"
        way_out = (
            "one is supported; use a head with num_labels=1"
            if task is Task.REGRESSION
            else "it needs two or more; use regression or multi_label_classification"
        )
        msg = f"{file}: {stated} with {number}; {way_out}"
        raise BundleError(msg)
    return task


def read_labels(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Names of the outputs in the order of the logits, as transformers takes them from the config.

    A number or a truth value is a name too, spelled as in labelled rows. Raises `BundleError` where the config
    names no outputs that transformers can take, or contradicts itself.
    """
    file, config = checkpoint.path / "config.json", checkpoint.config
    num_labels = config.get("num_labels", 2)
    if not isinstance(num_labels, int) or isinstance(num_labels, bool) or num_labels < 1:
        msg = f"{file}: num_labels is {json.dumps(num_labels)}; it must be a whole number from 1; correct or remove it"
        raise BundleError(msg)
    id2label, label2id = config.get("id2label"), config.get("label2id")
    if id2label is None:
        # transformers leaves the default pair of labels out of the file
        names = tuple(_default_label(index) for index in range(num_labels))
    else:
        names = _label_names(file, id2label)
    if id2label is not None and "num_labels" in config and num_labels != len(names):
        msg = f"{file}: num_labels={num_labels} but id2label names {len(names)}; correct one of them"
        raise BundleError(msg)
    if not _agrees(label2id, names):
        said = f"does not match id2label {brief(id2label)}" if id2label else "stands without id2label"
        msg = f"{file}: label2id {brief(label2id)} {said}; correct one of them, or remove label2id"
        raise BundleError(msg)
    return names


def _default_label(index: int) -> str:
    """The name that transformers gives an output that has none."""
    return f"LABEL_{index}"


def _label_names(file: Path, id2label: object) -> tuple[str, ...]:
    if not isinstance(id2label, dict) or not id2label:
        msg = (
            f"{file}: id2label is {brief(id2label)}; it must be an object that maps 0, 1, ... to label names; "
            "write it into config.json"
        )
        raise BundleError(msg)
    by_index = {_whole(key): value for key, value in id2label.items()}
    if set(by_index) != set(range(len(id2label))):
        msg = (
            f"{file}: id2label has the keys {brief(sorted(id2label))}; "
            f"they must be 0..{len(id2label) - 1}; correct config.json"
        )
        raise BundleError(msg)
    values = [by_index[index] for index in range(len(by_index))]
    names = tuple(_label_name(value) for value in values)
    if not all(names) or len(set(names)) < len(names):
        msg = f"{file}: labels {brief(values)}; each needs a name of its own; correct id2label in config.json"
        raise BundleError(msg)
    return names


def _label_name(value: object) -> str:
    """A scalar as a name: 1 and 1.0 are "1", true is "true"; empty for what is not a name."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or is_number(value):
        return json.dumps(value)
    return value if isinstance(value, str) else ""


def _agrees(label2id: object, names: tuple[str, ...]) -> bool:
    """Whether a label2id says what the names do, or nothing: absent, empty, or left at the default names."""
    if label2id is None or label2id == {}:
        return True
    if not isinstance(label2id, dict):
        return False
    stated = {name: _whole(index) for name, index in label2id.items()}
    given = dict(zip(names, range(len(names)), strict=True))
    return stated in (given, {_default_label(index): index for index in range(len(stated))})


def _whole(value: object) -> int | None:
    """The whole number that a JSON value or a key is; `None` for anything else."""
    if isinstance(value, str):
        return int(value) if value.isascii() and value.removeprefix("-").isdecimal() else None
    return int(value) if is_number(value) and float(value).is_integer() else None
