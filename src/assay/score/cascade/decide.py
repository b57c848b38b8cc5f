"""Two probabilities of a pair and thresholds in, one answer out. Pure.

    first probability -> below `low`: no | above `high`: yes | between: the second model, both combined

Axes: M pairs. "The label" is the second of the two that both models know (`1` of `0` and `1`, the same book).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from assay.metrics import BoolArray, FloatArray, sigmoid
from assay.outcome.decide import Decisions
from assay.siamese.evidence import Combination
from assay.tasks import PREDICTION, PROBABILITY, probability_column

_LEAST = 1e-6
STAGES = ("bi-only", "two-stage")
"""What `stage` says: the first model decided, or both did."""
_MOST_LOG_ODDS = 80.0
"""Of the logits that stand for a probability of 0 or 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Thresholds:
    """Which pairs the first model decides, by its calibrated probability of the label."""

    low: float
    """Below it a pair does not have the label."""
    high: float | None = None
    """Above it a pair has the label; None: the first model never says so alone."""

    def __str__(self) -> str:
        """Both, for people."""
        above = "" if self.high is None else f", above {self.high:.4f} accepted"
        return f"below {self.low:.4f} turned away{above}"

    def decided_no(self, first_M: FloatArray) -> BoolArray:
        """Which pairs the first model turns away."""
        return first_M < self.low

    def decided_yes(self, first_M: FloatArray) -> BoolArray:
        """Which pairs it accepts."""
        return np.zeros(first_M.shape, dtype=np.bool_) if self.high is None else first_M > self.high

    def goes_on(self, first_M: FloatArray) -> BoolArray:
        """Which pairs the second model is asked about; not those without a probability (NaN)."""
        return np.isfinite(first_M) & ~self.decided_no(first_M) & ~self.decided_yes(first_M)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """What a cascade says of pairs; a row each, NaN where there is no probability."""

    goes_on_M: BoolArray
    """Whether the second model was asked."""
    first_M: FloatArray
    """Calibrated probability of the label, of the first model."""
    second_M: FloatArray
    """The same of the second; NaN where it was not asked."""
    final_M: FloatArray
    """That of the cascade."""
    holds_M: BoolArray
    """Whether the pair has the label; False where there is no probability."""


def log_odds_of(probability_M: FloatArray) -> FloatArray:
    """The log-odds of probabilities, which count as at least 1e-6 and at most 1 - 1e-6."""
    kept_M = np.clip(probability_M, _LEAST, 1 - _LEAST)
    return np.log(kept_M) - np.log1p(-kept_M)


def fit_combination(first_M: FloatArray, second_M: FloatArray, holds_M: BoolArray) -> Combination:
    """How the probabilities of both models are put together: log-odds weighed and added, fitted on labelled pairs.

    A logistic regression on both log-odds, so what it gives is a calibrated probability of such pairs. It rises
    with either model's probability or does not look at it: no weight is below 0.
    """
    return Combination.fit(log_odds_of(first_M), log_odds_of(second_M), holds_M)


def combined(combination: Combination, first_M: FloatArray, second_M: FloatArray) -> FloatArray:
    """The probability of the label that both models give together."""
    return sigmoid(combination(log_odds_of(first_M), log_odds_of(second_M)))


def answer(
    thresholds: Thresholds,
    first_M: FloatArray,
    ask_second: Callable[[NDArray[np.int64]], FloatArray],
    combine: Callable[[FloatArray, FloatArray, NDArray[np.int64]], FloatArray],
) -> Answers:
    """The answers for pairs; `ask_second` is asked once, for the rows that the first model leaves open.

    The final probability of a pair that the first model decided is the first model's, of the others what
    `combine` makes of both (and of their rows). A pair has the label where the first model accepted it, or where
    it left it open and the final probability is 0.5 or more.
    """
    goes_on_M = thresholds.goes_on(first_M)
    rows = np.flatnonzero(goes_on_M)
    second_M = np.full(first_M.shape, np.nan)
    final_M = first_M.astype(np.float64)
    if rows.size:
        second_M[rows] = ask_second(rows)
        final_M[rows] = combine(first_M[rows], second_M[rows], rows)
    holds_M = thresholds.decided_yes(first_M) | (goes_on_M & (final_M >= 0.5))
    return Answers(goes_on_M=goes_on_M, first_M=first_M, second_M=second_M, final_M=final_M, holds_M=holds_M)


def logits_of(final_M: FloatArray) -> NDArray[np.float32]:
    """Logits [M, 2] whose softmax gives the probability of the label; NaN where there is none."""
    with np.errstate(divide="ignore"):
        log_odds_M = np.clip(np.log(final_M) - np.log1p(-final_M), -_MOST_LOG_ODDS, _MOST_LOG_ODDS)
    found_M2: NDArray[np.float32] = np.column_stack([-log_odds_M / 2, log_odds_M / 2]).astype(np.float32)
    return found_M2


def decisions_of(answers: Answers, labels: tuple[str, str] | tuple[str, ...]) -> Decisions:
    """What a classifier that says the same as the cascade says of the pairs; the label is the second of `labels`."""
    values_M2 = np.column_stack([1 - answers.final_M, answers.final_M]).astype(np.float32)
    label_M = answers.holds_M.astype(np.int64)
    return Decisions(
        values_NC=values_M2,
        is_finite_N=np.isfinite(answers.final_M),
        columns={
            PREDICTION: label_M,
            PROBABILITY: np.where(answers.holds_M, values_M2[:, 1], values_M2[:, 0]),
            **{probability_column(label): values_M2[:, c] for c, label in enumerate(labels)},
        },
        label_N=label_M,
    )
