"""Logits of labelled rows to what a bundle says of them: by the path of `assay score`, so with its numbers.

The calibrated outputs are the float32 values that a scored column holds, and a prediction is the one
in its `prediction` or `labels` column.

Axes: N rows, C outputs.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from assay.metrics import FloatArray, IntArray
from assay.outcome.decide import Decider, Decisions


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictedRows:
    """What a bundle says of rows."""

    outputs_NC: FloatArray
    """Calibrated probabilities, or a regression's values [N, 1]."""
    plain_NC: FloatArray
    """The same before calibration."""
    predicted: IntArray
    """Index of the predicted label [N]; multi-label 0/1 [N, C]; a regression's zeros [N]."""


def predict(decider: Decider, logits_NC: npt.NDArray[np.float32]) -> PredictedRows:
    """What a bundle says of rows, in their order, from their finite logits."""
    decisions = decider.decide(logits_NC)
    plain = replace(decider, calibration=None).decide(logits_NC)
    return PredictedRows(
        outputs_NC=decisions.values_NC.astype(np.float64),
        plain_NC=plain.values_NC.astype(np.float64),
        predicted=_predicted(decisions),
    )


def _predicted(decisions: Decisions) -> IntArray:
    if decisions.label_N is not None:
        return decisions.label_N
    if decisions.holds_NC is not None:
        return decisions.holds_NC.astype(np.int64)
    return np.zeros(len(decisions.values_NC), dtype=np.int64)
