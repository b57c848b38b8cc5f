"""Numbers that say how good predictions are: plain functions of NumPy arrays.

Axes: N rows, C classes. Probabilities and logits are taken as they come and computed on in float64.
Labels are class indices (int, 0..C-1) unless a docstring says otherwise. Nothing here reads a file,
a clock or a model; nothing here chooses a threshold or a temperature (that is `calibrate`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from assay.errors import InputError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Binning = Literal["equal-width", "equal-mass"]

NUM_BINS = 15
"""Bins of a calibration curve where the caller names none (Guo et al. 2017 use 15)."""

_SMALLEST_PROBABILITY = 1e-300
"""Keeps log() finite where a probability underflowed to 0."""


def softmax(logits_NC: ArrayLike) -> FloatArray:
    """Probabilities [N, C] (any leading axes) of logits, in float64; no overflow for any finite logits."""
    # Classes first: NumPy reduces the first axis a whole row of documents at a time.
    logits_CN = np.array(np.moveaxis(np.asarray(logits_NC), -1, 0), dtype=np.float64, order="C")
    logits_CN -= logits_CN.max(axis=0)
    np.exp(logits_CN, out=logits_CN)
    logits_CN /= logits_CN.sum(axis=0)
    return np.moveaxis(logits_CN, 0, -1)


def log_softmax(logits_NC: ArrayLike) -> FloatArray:
    """Logarithms of the softmax over the last axis, in float64; no overflow for any finite logits."""
    logits = np.asarray(logits_NC, dtype=np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_probabilities: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return log_probabilities


def sigmoid(logits: ArrayLike) -> FloatArray:
    """Element-wise 1 / (1 + exp(-x)) in float64; exact at both tails."""
    values = np.asarray(logits, dtype=np.float64)
    decayed = np.exp(-np.abs(values))
    result: FloatArray = np.where(values >= 0, 1.0, decayed) / (1.0 + decayed)
    return result


def accuracy(labels_N: ArrayLike, predicted_N: ArrayLike) -> float:
    """Share of rows whose predicted label is the true one."""
    labels, predicted = _same_length(labels_N, predicted_N)
    return float((labels == predicted).mean())


def macro_f1(labels_N: ArrayLike, predicted_N: ArrayLike) -> float:
    """Mean F1 over the classes that occur among labels or predictions; a class never hit counts 0."""
    labels, predicted = _same_length(labels_N, predicted_N)
    classes = np.union1d(labels, predicted)
    scores = []
    for each in classes:
        hits = np.count_nonzero((labels == each) & (predicted == each))
        total = np.count_nonzero(labels == each) + np.count_nonzero(predicted == each)
        scores.append(2 * hits / total)
    return float(np.mean(scores))


def auc(labels_N: ArrayLike, scores_N: ArrayLike) -> float:
    """Area under the ROC curve of binary labels (0/1 or bool); ties count half.

    Computed as the Mann-Whitney U statistic on average ranks (Hanley & McNeil 1982).
    Raises `InputError` where only one class is present.
    """
    labels, scores = _same_length(labels_N, scores_N)
    positive = labels.astype(bool)
    num_positive = int(positive.sum())
    num_negative = positive.size - num_positive
    if num_positive == 0 or num_negative == 0:
        msg = (
            f"all {positive.size} labels are {int(num_positive > 0)}; AUC needs both classes; "
            "add rows of the other"
        )
        raise InputError(msg)
    rank_sum = float(average_ranks(scores)[positive].sum())
    return (rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative)


def nll(probabilities_NC: ArrayLike, labels_N: ArrayLike) -> float:
    """Mean negative log-likelihood, in nats a row, of the true labels."""
    probabilities, labels = _probabilities_and_labels(probabilities_NC, labels_N)
    true_probability = probabilities[np.arange(labels.size), labels]
    return float(-np.log(np.maximum(true_probability, _SMALLEST_PROBABILITY)).mean())


def brier(probabilities_NC: ArrayLike, labels_N: ArrayLike) -> float:
    """Mean over rows of the squared error summed over classes, 0 to 2 (Brier 1950, original form).

    For two classes this is twice scikit-learn's `brier_score_loss` of the positive class.
    """
    probabilities, labels = _probabilities_and_labels(probabilities_NC, labels_N)
    errors = probabilities.copy()
    errors[np.arange(labels.size), labels] -= 1.0
    return float(np.square(errors).sum(axis=1).mean())


def ece(
    probabilities_NC: ArrayLike,
    labels_N: ArrayLike,
    *,
    num_bins: int = NUM_BINS,
    binning: Binning = "equal-width",
) -> float:
    """Expected calibration error of the predicted (most probable) label, 0 to 1.

    Equal-width bins: Guo et al. 2017, "On Calibration of Modern Neural Networks", eq. 3, after
    Naeini et al. 2015; equal-mass bins hold about the same number of rows each.
    """
    probabilities, labels = _probabilities_and_labels(probabilities_NC, labels_N)
    predicted = probabilities.argmax(axis=1)
    bins = reliability_bins(
        probabilities[np.arange(labels.size), predicted],
        predicted == labels,
        num_bins=num_bins,
        binning=binning,
    )
    return sum(each.num_rows / labels.size * abs(each.accuracy - each.confidence) for each in bins)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReliabilityBin:
    """One bar of a reliability diagram: rows of similar confidence."""

    low: float
    """Smallest confidence that the bin may hold (equal-width) or holds (equal-mass)."""
    high: float
    """Largest confidence that the bin may hold (equal-width) or holds (equal-mass)."""
    num_rows: int
    """Rows in the bin, at least 1."""
    confidence: float
    """Mean confidence of the rows."""
    accuracy: float
    """Share of the rows that were right."""


def reliability_bins(
    confidence_N: ArrayLike,
    correct_N: ArrayLike,
    *,
    num_bins: int = NUM_BINS,
    binning: Binning = "equal-width",
) -> tuple[ReliabilityBin, ...]:
    """The non-empty bins of a reliability diagram, by rising confidence.

    `confidence_N` lies in 0..1; `correct_N` is 0/1: whether the prediction was right, or, for one
    label of a multi-label classifier, whether the label holds. Equal confidences share a bin.
    """
    if num_bins < 1:
        msg = f"num_bins={num_bins}; a calibration curve needs at least 1 bin; pass for example {NUM_BINS}"
        raise InputError(msg)
    confidence, correct = _same_length(confidence_N, correct_N)
    confidence = confidence.astype(np.float64)
    if binning == "equal-width":
        # Bins are (low, high], as in Guo et al.: 0.2 with 5 bins belongs to the first.
        bin_of_row = np.clip(np.ceil(confidence * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    else:
        first_rank = np.searchsorted(np.sort(confidence), confidence, side="left")
        bin_of_row = first_rank * num_bins // confidence.size
    bins = []
    for index in np.unique(bin_of_row):
        inside = confidence[bin_of_row == index]
        is_width = binning == "equal-width"
        bins.append(
            ReliabilityBin(
                low=float(index / num_bins if is_width else inside.min()),
                high=float((index + 1) / num_bins if is_width else inside.max()),
                num_rows=int(inside.size),
                confidence=float(inside.mean()),
                accuracy=float(correct[bin_of_row == index].astype(np.float64).mean()),
            )
        )
    return tuple(bins)


def spearman(first_N: ArrayLike, second_N: ArrayLike) -> float:
    """Spearman's rank correlation, -1 to 1, ties at their average rank.

    Raises `InputError` where one of the two is constant: the correlation is undefined.
    """
    first, second = _same_length(first_N, second_N)
    ranks = [average_ranks(first), average_ranks(second)]
    centred = [each - each.mean() for each in ranks]
    norms = [float(np.sqrt(np.square(each).sum())) for each in centred]
    if 0.0 in norms:
        msg = f"all {first.size} values of one side are equal; a rank correlation needs values that vary"
        raise InputError(msg)
    return float((centred[0] * centred[1]).sum() / (norms[0] * norms[1]))


def average_ranks(values_N: ArrayLike) -> FloatArray:
    """Ranks 1..N as floats; equal values share the mean of their ranks. [3, 1, 3] -> [2.5, 1, 2.5]."""
    values = np.asarray(values_N)
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last_rank = np.cumsum(counts)
    ranks: FloatArray = (last_rank - (counts - 1) / 2)[inverse]
    return ranks


CLASS_METRICS: dict[str, Callable[[FloatArray, IntArray], float]] = {
    "accuracy": lambda probabilities, labels: accuracy(labels, probabilities.argmax(axis=1)),
    "macro_f1": lambda probabilities, labels: macro_f1(labels, probabilities.argmax(axis=1)),
    "nll": nll,
    "brier": brier,
    "ece": ece,
    "ece_equal_mass": lambda probabilities, labels: ece(probabilities, labels, binning="equal-mass"),
}
"""Single-label metrics by name: functions of (probabilities [N, C], labels [N])."""


def class_report(probabilities_NC: ArrayLike, labels_N: ArrayLike) -> dict[str, float]:
    """All single-label metrics by name, plus `num_rows`."""
    probabilities, labels = _probabilities_and_labels(probabilities_NC, labels_N)
    values = {name: metric(probabilities, labels) for name, metric in CLASS_METRICS.items()}
    return {"num_rows": float(labels.size), **values}


def _same_length(first: ArrayLike, second: ArrayLike) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    left, right = np.asarray(first), np.asarray(second)
    if left.ndim != 1 or left.shape != right.shape or left.size == 0:
        msg = f"shapes {left.shape} and {right.shape}; a metric needs two flat arrays of one length above 0"
        raise InputError(msg)
    return left, right


def _probabilities_and_labels(probabilities: ArrayLike, labels: ArrayLike) -> tuple[FloatArray, IntArray]:
    values = np.asarray(probabilities, dtype=np.float64)
    indices = np.asarray(labels)
    if values.ndim != 2 or indices.shape != values.shape[:1] or indices.size == 0:  # [N, C]
        msg = (
            f"shapes {values.shape} and {indices.shape}; "
            "a metric needs probabilities [N, C] and labels [N], N > 0"
        )
        raise InputError(msg)
    if indices.dtype.kind not in "iu" or indices.min() < 0 or indices.max() >= values.shape[1]:
        msg = (
            f"labels of type {indices.dtype} up to {indices.max()}; "
            f"labels are class indices 0..{values.shape[1] - 1}"
        )
        raise InputError(msg)
    return values, indices.astype(np.int64)
