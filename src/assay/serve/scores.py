"""Logits of a batch to what is answered, by the decider of scored rows.

Axes: S sequences (views of documents), N documents, C outputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from assay.outcome.decide import Decider, Decisions
from assay.tasks import INT_SCORE, INTERVAL, PROBABILITY
from assay.tokenize.views import Views, number_views


@dataclass(frozen=True, slots=True)
class Score:
    """What the model says of one document; what the task has not is None."""

    logits: list[float]
    """As the model gave them, views reduced; [C]."""
    values: list[float]
    """Calibrated probabilities, for a regression the value itself; [C]."""
    label: int | None = None
    """Index of the predicted label."""
    probability: float | None = None
    """Probability of the predicted label."""
    holds: list[bool] | None = None
    """Whether each label holds, in a multi-label task; [C]."""
    int_score: int | None = None
    """The value of a regression, rounded and clipped."""
    interval: tuple[float, float] | None = None
    """Where the value of a regression lies."""
    stages: Mapping[str, object] | None = None
    """What the models of a cascade said, and the cascade, by the names of its columns."""


class Scoring:
    """Scores batches of one bundle."""

    def __init__(self, decider: Decider, views: Views) -> None:
        """Score as `assay score` does with this decider and these views of documents."""
        self._decider = decider
        self._views = views

    def answers(self, outputs_SC: npt.NDArray[np.float32], num_views_N: list[int]) -> list[Score | None]:
        """A score a document; None where it has no view, or the model gave no finite one."""
        outputs_NC = reduce_views(self._views, outputs_SC, num_views_N)
        return scores_of(self._decider, self._decider.logits(outputs_NC))


def scores_of(decider: Decider, logits_NC: npt.NDArray[np.float32]) -> list[Score | None]:
    """A score for each document's logits; None where they are not finite."""
    decisions = decider.decide(logits_NC)
    found = _scores(logits_NC.tolist(), decisions)
    return [
        score if is_finite else None
        for score, is_finite in zip(found, decisions.is_finite_N.tolist(), strict=True)
    ]


def reduce_views(
    views: Views, outputs_SC: npt.NDArray[np.float32], num_views_N: list[int]
) -> npt.NDArray[np.float32]:
    """The outputs [N, C] of documents that have so many views each; NaN for one without."""
    num_documents = len(num_views_N)
    row_S = np.repeat(np.arange(num_documents), num_views_N)
    return views.reduce(outputs_SC, row_S, number_views(np.array(num_views_N)), num_documents)


def _scores(logits: list[list[float]], decisions: Decisions) -> list[Score]:
    values, columns = decisions.values_NC.tolist(), decisions.columns
    rows = range(len(values))
    if decisions.label_N is not None:
        label, probability = decisions.label_N.tolist(), columns[PROBABILITY].tolist()
        return [Score(logits[n], values[n], label[n], probability[n]) for n in rows]
    if decisions.holds_NC is not None:
        holds = decisions.holds_NC.tolist()
        return [Score(logits[n], values[n], holds=holds[n]) for n in rows]
    whole = columns[INT_SCORE].tolist() if INT_SCORE in columns else None
    ends = [columns[name].tolist() for name in INTERVAL if name in columns]
    return [
        Score(
            logits[n],
            values[n],
            int_score=None if whole is None else whole[n],
            interval=(ends[0][n], ends[1][n]) if ends else None,
        )
        for n in rows
    ]
