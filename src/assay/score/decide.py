"""Probabilities to decisions: the columns of a scored part, as plain arrays. Pure.

Axes: N documents, C outputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

Task = Literal["single_label", "multi_label", "regression"]
BINARY = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What a classifier says of N documents."""

    label_N: npt.NDArray[np.int64] | None
    """Index of the predicted label; single-label tasks only."""
    scores: Mapping[str, Floats]
    """The score columns by name, float32 [N] each."""


def score_columns(task: Task, labels: Sequence[str]) -> tuple[str, ...]:
    """Names of the float columns of a task, in the order of a part's schema."""
    if task == "regression":
        return ("prediction",) if len(labels) == 1 else tuple(f"prediction_{label}" for label in labels)
    per_label = tuple(f"prob_{label}" for label in labels)
    return ("probability", *per_label) if task == "single_label" else per_label


def decide(
    probabilities_NC: npt.NDArray[np.floating],
    task: Task,
    labels: Sequence[str],
    threshold: float | tuple[float, ...] | None,
) -> Decision:
    """The decision for calibrated probabilities (regression: for the outputs themselves).

    `threshold` applies to a single-label task of two labels: the second is predicted from this
    probability on. Elsewhere the arg max decides, ties going to the first label.
    """
    values_NC = probabilities_NC.astype(np.float32)
    names = score_columns(task, labels)
    if task != "single_label":
        return Decision(label_N=None, scores={name: values_NC[:, c] for c, name in enumerate(names)})
    if isinstance(threshold, float) and len(labels) == BINARY:
        label_N = (values_NC[:, 1] >= np.float32(threshold)).astype(np.int64)
        chosen_N = np.where(label_N == 1, values_NC[:, 1], values_NC[:, 0])
    else:
        label_N, chosen_N = _largest(values_NC)
    scores = {"probability": chosen_N}
    scores.update({name: values_NC[:, c] for c, name in enumerate(names[1:])})
    return Decision(label_N=label_N, scores=scores)


def _largest(values_NC: Floats) -> tuple[npt.NDArray[np.int64], Floats]:
    """Index and value of the largest output of each document, the first of equals.

    A class at a time: NumPy's own arg max over a short axis costs several times as much.
    """
    label_N = np.zeros(len(values_NC), dtype=np.int64)
    chosen_N = values_NC[:, 0].copy()
    for c in range(1, values_NC.shape[1]):
        is_larger_N = values_NC[:, c] > chosen_N
        label_N[is_larger_N] = c
        np.maximum(chosen_N, values_NC[:, c], out=chosen_N)
    return label_N, chosen_N
