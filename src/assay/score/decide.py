"""Probabilities to decisions: the columns of a scored part, as plain arrays. Pure.

Axes: N documents, C outputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from assay.metrics import whole_scores

Floats = npt.NDArray[np.float32]

Task = Literal["single_label", "multi_label", "regression"]
BINARY = 2
INTERVAL = ("prediction_low", "prediction_high")
"""Columns of a regression's interval."""
INT_SCORE = "int_score"
"""Column of a regression's whole score."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What a classifier says of N documents."""

    label_N: npt.NDArray[np.int64] | None
    """Index of the predicted label; single-label tasks only."""
    scores: Mapping[str, Floats]
    """The score columns by name, float32 [N] each."""
    holds_NC: npt.NDArray[np.bool_] | None = None
    """Whether each label holds; multi-label tasks only. Not among the columns of a part."""
    int_score_N: npt.NDArray[np.int32] | None = None
    """Whole scores; regressions that have them only. The least one where the prediction is NaN."""


def score_columns(task: Task, labels: Sequence[str], *, has_interval: bool = False) -> tuple[str, ...]:
    """Names of the float columns of a task, in the order of a part's schema."""
    if task == "regression":
        names = ("prediction",) if len(labels) == 1 else tuple(f"prediction_{label}" for label in labels)
        return (*names, *INTERVAL) if has_interval else names
    per_label = tuple(f"prob_{label}" for label in labels)
    return ("probability", *per_label) if task == "single_label" else per_label


def decide(
    probabilities_NC: npt.NDArray[np.floating],
    task: Task,
    labels: Sequence[str],
    threshold: float | tuple[float, ...] | None,
    *,
    half_width: float | None = None,
    int_score: tuple[int, int] | None = None,
) -> Decision:
    """The decision for calibrated probabilities (regression: for the outputs themselves).

    `threshold` applies to a single-label task of two labels: the second is predicted from this
    probability on. With more labels the arg max decides, ties going to the first. In a multi-label task
    a label holds from its threshold on, or from 0.5. A regression has an interval of `half_width` to
    either side, and whole scores where `int_score` names the least and the greatest: the prediction
    rounded, halves to the even number, and clipped.
    """
    values_NC = probabilities_NC.astype(np.float32)
    if task == "regression":
        return _regression(values_NC, labels, half_width, int_score)
    names = score_columns(task, labels)
    if task == "multi_label":
        least = np.array(0.5 if threshold is None else threshold, dtype=np.float32)
        return Decision(
            label_N=None,
            scores={name: values_NC[:, c] for c, name in enumerate(names)},
            holds_NC=values_NC >= least,
        )
    if isinstance(threshold, float) and len(labels) == BINARY:
        label_N = (values_NC[:, 1] >= np.float32(threshold)).astype(np.int64)
        chosen_N = np.where(label_N == 1, values_NC[:, 1], values_NC[:, 0])
    else:
        label_N, chosen_N = _largest(values_NC)
    scores = {"probability": chosen_N}
    scores.update({name: values_NC[:, c] for c, name in enumerate(names[1:])})
    return Decision(label_N=label_N, scores=scores)


def _regression(
    values_NC: Floats, labels: Sequence[str], half_width: float | None, int_score: tuple[int, int] | None
) -> Decision:
    columns = list(values_NC.T)
    if half_width is not None:
        columns += [values_NC[:, 0] - np.float32(half_width), values_NC[:, 0] + np.float32(half_width)]
    int_score_N = None
    if int_score is not None:
        known_N = np.nan_to_num(values_NC[:, 0], nan=int_score[0], posinf=int_score[1], neginf=int_score[0])
        int_score_N = whole_scores(known_N, *int_score).astype(np.int32)
    names = score_columns("regression", labels, has_interval=half_width is not None)
    return Decision(label_N=None, scores=dict(zip(names, columns, strict=True)), int_score_N=int_score_N)


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
