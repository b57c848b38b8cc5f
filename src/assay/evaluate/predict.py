"""Labelled rows to what a bundle says of them: by the path of `assay score`, so with its numbers.

The calibrated outputs are the float32 values that a scored column holds, and a prediction is the one
in its `prediction` or `labels` column.

Axes: N rows, C outputs.
"""

from dataclasses import dataclass, replace

import numpy as np

from assay.labelled.rows import LabelledRows
from assay.metrics import FloatArray, IntArray
from assay.outcome.decide import Decisions
from assay.score.labelled import labelled_logits
from assay.score.scorer import Scorer


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictedRows:
    """What a bundle says of rows."""

    outputs_NC: FloatArray
    """Calibrated probabilities, or a regression's values [N, 1]."""
    plain_NC: FloatArray
    """The same before calibration."""
    predicted: IntArray
    """Index of the predicted label [N]; multi-label 0/1 [N, C]; a regression's zeros [N]."""
    num_tokens: int
    """Tokens of all rows."""
    num_truncated: int
    """Rows whose text was cut."""


def predict(scorer: Scorer, rows: LabelledRows) -> PredictedRows:
    """What a scorer's bundle says of the rows, in their order.

    Raises `InputError` where a row cannot be scored: a metric of the others would be of another test.
    """
    found = labelled_logits(scorer, rows)
    decisions = scorer.decider.decide(found.logits_NC)
    plain = replace(scorer.decider, calibration=None).decide(found.logits_NC)
    return PredictedRows(
        outputs_NC=decisions.values_NC.astype(np.float64),
        plain_NC=plain.values_NC.astype(np.float64),
        predicted=_predicted(decisions),
        num_tokens=found.num_tokens,
        num_truncated=found.num_truncated,
    )


def _predicted(decisions: Decisions) -> IntArray:
    if decisions.label_N is not None:
        return decisions.label_N
    if decisions.holds_NC is not None:
        return decisions.holds_NC.astype(np.int64)
    return np.zeros(len(decisions.values_NC), dtype=np.int64)
