"""Labels as targets of a loss: names to indices, numbers checked. Pure: NumPy arrays out.

Axes: N rows, C labels.
"""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from assay.errors import InputError
from assay.tasks import Task

Targets = NDArray[np.int64] | NDArray[np.float32]
"""int64 [N] indices (single_label), float32 [N, C] of 0 and 1 (multi_label), float32 [N] (regression)."""
Label = str | float | tuple[str, ...]
"""What a row is labelled with: a name (single_label), a number (regression), or names (multi_label)."""
_GENERIC = re.compile(r"LABEL_\d+")
_SHOWN_CHARACTERS = 40
_ROUGHLY = 20
"""So many times more is read of a text than is shown, before white space is taken together."""


def label_names(labels: Sequence[Label], task: Task) -> tuple[str, ...]:
    """The names of the outputs: labels that occur, sorted, as numbers where all are whole; `score` for a number."""
    if task == Task.REGRESSION:
        return ("score",)
    names = sorted({name for label in labels for name in names_of(label)})
    try:
        return tuple(sorted(names, key=int))
    except ValueError:
        return tuple(names)


def names_of(label: Label) -> tuple[str, ...]:
    """The names of one row's label."""
    return label if isinstance(label, tuple) else (str(label),)


def brief(text: str, num_characters: int = _SHOWN_CHARACTERS) -> str:
    """A text on one line, its beginning where it is long; names too: a whole text may be taken for a label."""
    line = " ".join(text[: _ROUGHLY * num_characters].split())
    return line if len(line) <= num_characters else f"{line[: num_characters - 1]}…"


def generic_names(labels: Sequence[Label], names: Sequence[str]) -> Sequence[Label]:
    """Labels as they are; 0 as LABEL_0 where the model's labels (`names`) were never given names."""
    known = set(names)
    if not all(_GENERIC.fullmatch(name) for name in names):
        return labels

    def name_of(name: str) -> str:
        generic = f"LABEL_{name}"
        return generic if name not in known and generic in known else name

    return [
        tuple(name_of(name) for name in label) if isinstance(label, tuple) else name_of(str(label))
        for label in labels
    ]


def to_targets(labels: Sequence[Label], task: Task, names: Sequence[str]) -> Targets:
    """The targets of rows, in order; raises `InputError` for a name that is not among `names`."""
    if task == Task.REGRESSION:
        return np.array(labels, dtype=np.float32)
    index_of = {name: index for index, name in enumerate(names)}
    found = {name for label in labels for name in names_of(label)}
    unknown = sorted(found - set(names))
    if unknown:
        raise InputError(
            f"labels {[*map(brief, unknown[:5])]}; the model knows {[*map(brief, names[:10])]};"
            " check the label column"
        )
    if task == Task.SINGLE_LABEL:
        return np.array([index_of[str(label)] for label in labels], dtype=np.int64)
    targets_NC = np.zeros((len(labels), len(names)), dtype=np.float32)
    for row, label in enumerate(labels):
        for name in names_of(label):
            targets_NC[row, index_of[name]] = 1.0
    return targets_NC
