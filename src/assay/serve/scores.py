"""Logits to what is answered: the same steps as a scored row, on whole batches.

windows -> documents -> calibrated probabilities -> decision. Axes: S sequences (windows of documents),
N documents, C outputs.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from assay.bundle.bundle import Bundle
from assay.calibrate.maps import apply_calibration
from assay.outcome.calibration import Calibration
from assay.score.decide import INTERVAL, Decision, decide
from assay.tokenize.settings import WINDOWS, OnLong
from assay.tokenize.windows import document_logits


@dataclass(frozen=True, slots=True)
class Score:
    """What the model says of one document; what the task has not is None."""

    logits: list[float]
    """As the model gave them, windows reduced; [C]."""
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


class Scoring:
    """Scores batches of one bundle."""

    def __init__(self, bundle: Bundle, on_long: OnLong) -> None:
        """Score as `assay score` does with this bundle and this policy for long documents."""
        self._bundle = bundle
        self._calibration = bundle.calibration or Calibration()
        self._windows = WINDOWS.get(on_long, "mean")

    def score(self, logits_SC: npt.NDArray[np.float32], num_windows_N: list[int]) -> list[Score | None]:
        """A score a document; None where it has no window, or the model gave no finite one."""
        bundle = self._bundle
        num_documents = len(num_windows_N)
        document_S = np.repeat(np.arange(num_documents), num_windows_N)
        how = None if all(num_windows == 1 for num_windows in num_windows_N) else self._windows
        logits_NC = document_logits(logits_SC, document_S, num_documents, how=how)
        probabilities_NC = apply_calibration(logits_NC, bundle.calibration, bundle.task)
        decision = decide(
            probabilities_NC,
            bundle.task,
            bundle.labels,
            self._calibration.threshold,
            half_width=self._calibration.half_width,
            int_score=bundle.int_score,
        )
        values_NC: npt.NDArray[np.float32] = probabilities_NC.astype(np.float32)
        found = _scores(logits_NC.tolist(), values_NC.tolist(), decision)
        is_good_N: list[bool] = np.logical_and.reduce(np.isfinite(values_NC), axis=1).tolist()
        return [score if is_good else None for score, is_good in zip(found, is_good_N, strict=True)]


def _scores(logits: list[list[float]], values: list[list[float]], decision: Decision) -> list[Score]:
    rows = range(len(values))
    if decision.label_N is not None:
        label = decision.label_N.tolist()
        probability = decision.scores["probability"].tolist()
        return [Score(logits[n], values[n], label[n], probability[n]) for n in rows]
    if decision.holds_NC is not None:
        holds = decision.holds_NC.tolist()
        return [Score(logits[n], values[n], holds=holds[n]) for n in rows]
    whole = None if decision.int_score_N is None else decision.int_score_N.tolist()
    ends = [decision.scores[name].tolist() for name in INTERVAL if name in decision.scores]
    return [
        Score(
            logits[n],
            values[n],
            int_score=None if whole is None else whole[n],
            interval=(ends[0][n], ends[1][n]) if ends else None,
        )
        for n in rows
    ]
