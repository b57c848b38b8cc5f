"""Numbers that say how good predictions are: plain functions of NumPy arrays.

Axes: N rows, C classes. Probabilities and logits are taken as they come and computed on in float64.
Labels are class indices (int, 0..C-1) unless a docstring says otherwise. A metric that its rows leave
undefined (AUC of one class, precision of no prediction) raises `InputError` that says why. Nothing
here reads a file, a clock or a model; nothing here chooses a threshold or a temperature (that is
`calibrate`), and `evaluate` says how certain a number is.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from assay.errors import InputError
from assay.tasks import Task

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
Binning = Literal["equal-width", "equal-mass"]

TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
    "weighted_f1": "weighted F1",
    "micro_f1": "micro-F1",
    "subset_accuracy": "subset accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "auc": "AUC",
    "average_precision": "average precision",
    "micro_auc": "micro AUC",
    "micro_average_precision": "micro average precision",
    "nll": "NLL",
    "brier": "Brier",
    "c_at_1": "c@1",
    "f05_u": "F0.5u",
    "brier_complement": "Brier complement",
    "ece": "ECE, equal width",
    "ece_equal_mass": "ECE, equal mass",
    "mae": "MAE",
    "rmse": "RMSE",
    "spearman": "Spearman",
    "int_macro_f1": "macro-F1 of whole scores",
    "coverage": "coverage",
    "mean_width": "mean interval width",
}
"""What people call each metric, by its name in files."""
_RANGES = {
    "nll": (0.0, math.inf),
    "brier": (0.0, 2.0),
    "mae": (0.0, math.inf),
    "rmse": (0.0, math.inf),
    "spearman": (-1.0, 1.0),
    "mean_width": (0.0, math.inf),
}


def range_of(name: str) -> tuple[float, float]:
    """The least and the greatest value that a metric can have; a share unless it is another quantity."""
    return _RANGES.get(name, (0.0, 1.0))


def format_value(value: float) -> str:
    """A metric for people: four digits after the point, or four in all where a number is large."""
    if math.isnan(value):
        return "undefined"
    return f"{value:.4f}" if abs(value) < 100 else f"{value:,.4g}"


NUM_BINS = 15
"""Bins of a calibration curve where the caller names none (Guo et al. 2017 use 15)."""

SMALLEST_PROBABILITY = 1e-300
"""Keeps log() finite where a probability underflowed to 0."""


def softmax(logits_NC: ArrayLike) -> FloatArray:
    """Probabilities [N, C] (any leading axes) of logits, in float64; no overflow for any finite logits."""
    # Classes first: NumPy reduces the first axis a whole row of documents at a time.
    logits_CN = np.array(np.asarray(logits_NC).swapaxes(-1, 0), dtype=np.float64, order="C")
    logits_CN -= logits_CN.max(axis=0)
    np.exp(logits_CN, out=logits_CN)
    logits_CN /= logits_CN.sum(axis=0)
    return logits_CN.swapaxes(0, -1)


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
    counts = count_classes(labels_N, predicted_N)
    return float((2 * counts.hits / (counts.true + counts.predicted)).mean())


def weighted_f1(labels_N: ArrayLike, predicted_N: ArrayLike) -> float:
    """Mean F1 over the classes, each weighing its share of the labels."""
    counts = count_classes(labels_N, predicted_N)
    f1_C = 2 * counts.hits / (counts.true + counts.predicted)
    return float((f1_C * counts.true).sum() / counts.true.sum())


def balanced_accuracy(labels_N: ArrayLike, predicted_N: ArrayLike) -> float:
    """Mean recall over the classes that occur among the labels (Brodersen et al. 2010)."""
    counts = count_classes(labels_N, predicted_N)
    occurs_C = counts.true > 0
    return float((counts.hits[occurs_C] / counts.true[occurs_C]).mean())


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassCounts:
    """How often each class occurs, is predicted, and both at once. [C] each, in the classes' order."""

    classes: NDArray[np.generic]
    """The classes that occur among labels or predictions, sorted."""
    true: IntArray
    """Rows of the class."""
    predicted: IntArray
    """Rows predicted as the class."""
    hits: IntArray
    """Rows of the class that are predicted as it."""


def count_classes(labels_N: ArrayLike, predicted_N: ArrayLike) -> ClassCounts:
    """The counts from which precision, recall and F1 of every class follow. Labels may be names."""
    labels, predicted = _same_length(labels_N, predicted_N)
    classes, index = np.unique(np.concatenate([labels, predicted]), return_inverse=True)
    true_index, predicted_index = index[: labels.size], index[labels.size :]
    size = classes.size
    return ClassCounts(
        classes=classes,
        true=np.bincount(true_index, minlength=size),
        predicted=np.bincount(predicted_index, minlength=size),
        hits=np.bincount(true_index[true_index == predicted_index], minlength=size),
    )


def confusion_matrix(labels_N: ArrayLike, predicted_N: ArrayLike, num_classes: int) -> IntArray:
    """Rows by true class (first axis) and predicted class (second), int64 [C, C], of class indices."""
    labels, predicted = _same_length(labels_N, predicted_N)
    for indices in (labels, predicted):
        if indices.dtype.kind not in "iu" or indices.min() < 0 or indices.max() >= num_classes:
            msg = f"labels {indices.dtype} up to {indices.max()}; they are class indices 0..{num_classes - 1}"
            raise InputError(msg)
    cells = labels.astype(np.int64) * num_classes + predicted.astype(np.int64)
    matrix: IntArray = np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)
    return matrix


def precision(labels_N: ArrayLike, predicted_N: ArrayLike) -> float:
    """Share of the rows predicted positive that are, of binary labels (0/1 or bool)."""
    hits, _, predicted = _positive_counts(labels_N, predicted_N)
    if predicted == 0:
        raise InputError("no row is predicted positive; precision is undefined; lower the threshold")
    return hits / predicted


def recall(labels_N: ArrayLike, predicted_N: ArrayLike) -> float:
    """Share of the positive rows that are predicted so, of binary labels (0/1 or bool)."""
    hits, true, _ = _positive_counts(labels_N, predicted_N)
    if true == 0:
        raise InputError("no row is positive; recall is undefined; add rows of the class")
    return hits / true


def f_beta(labels_N: ArrayLike, predicted_N: ArrayLike, beta: float = 1.0) -> float:
    """F-beta of binary labels (0/1 or bool): recall counts `beta` times as much as precision.

    (1 + b^2) TP / ((1 + b^2) TP + b^2 FN + FP), van Rijsbergen 1979. Raises `InputError` where no row
    is positive and none is predicted so.
    """
    hits, true, predicted = _positive_counts(labels_N, predicted_N)
    if true + predicted == 0:
        raise InputError("no row is positive or predicted so; F1 is undefined; add rows of the class")
    return (1 + beta**2) * hits / (beta**2 * true + predicted)


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


def average_precision(labels_N: ArrayLike, scores_N: ArrayLike) -> float:
    """Area under the precision-recall curve as a step function, of binary labels (0/1 or bool).

    The sum over thresholds of precision times the gain in recall, with no interpolation (which is too
    kind, Davis & Goadrich 2006); equal scores share a threshold. Raises `InputError` where no row is
    positive.
    """
    curve = precision_recall_curve(labels_N, scores_N)
    return float((curve.precision * np.diff(curve.recall, prepend=0.0)).sum())


@dataclass(frozen=True, kw_only=True, slots=True)
class PrecisionRecallCurve:
    """What each threshold gives, by falling threshold, so by rising recall. [T] each."""

    threshold: FloatArray
    """Rows of this score or more are predicted positive: each score that occurs."""
    precision: FloatArray
    """Share of these rows that are positive."""
    recall: FloatArray
    """Share of the positive rows that are among these."""


def precision_recall_curve(labels_N: ArrayLike, scores_N: ArrayLike) -> PrecisionRecallCurve:
    """Precision and recall at every threshold; raises `InputError` where no row is positive."""
    labels, scores = _same_length(labels_N, scores_N)
    positive = labels.astype(bool)
    if not positive.any():
        msg = f"none of {positive.size} labels is positive; recall is undefined; add rows of the class"
        raise InputError(msg)
    order = np.argsort(-scores.astype(np.float64))
    falling = scores[order]
    last_of_equals = np.append(np.flatnonzero(falling[1:] != falling[:-1]), falling.size - 1)
    hits = np.cumsum(positive[order])[last_of_equals]
    return PrecisionRecallCurve(
        threshold=falling[last_of_equals].astype(np.float64),
        precision=hits / (last_of_equals + 1.0),
        recall=hits / float(hits[-1]),
    )


def macro_auc(labels_N: ArrayLike, probabilities_NC: ArrayLike) -> float:
    """Mean over classes of the AUC of one class against the rest (Provost & Domingos 2000).

    Two classes: the AUC of the second. A class without rows has no AUC and is left out. Raises
    `InputError` where fewer than two classes have rows.
    """
    return _mean_over_classes(auc, labels_N, probabilities_NC)


def macro_average_precision(labels_N: ArrayLike, probabilities_NC: ArrayLike) -> float:
    """Mean over classes of the average precision of one class against the rest.

    Two classes: that of the second. A class without rows is left out. Raises `InputError` where fewer
    than two classes have rows.
    """
    return _mean_over_classes(average_precision, labels_N, probabilities_NC)


def _mean_over_classes(
    metric: Callable[[ArrayLike, ArrayLike], float], labels_N: ArrayLike, probabilities_NC: ArrayLike
) -> float:
    probabilities, labels = _probabilities_and_labels(probabilities_NC, labels_N)
    occurring = np.unique(labels)
    if occurring.size < 2:
        msg = f"all {labels.size} labels are {occurring[0]}; ranking needs two classes; add rows of another"
        raise InputError(msg)
    if probabilities.shape[1] == 2:
        return metric(labels, probabilities[:, 1])
    return float(np.mean([metric(labels == each, probabilities[:, each]) for each in occurring]))


def nll(probabilities_NC: ArrayLike, labels_N: ArrayLike) -> float:
    """Mean negative log-likelihood, in nats a row, of the true labels."""
    probabilities, labels = _probabilities_and_labels(probabilities_NC, labels_N)
    true_probability = probabilities[np.arange(labels.size), labels]
    return float(-np.log(np.maximum(true_probability, SMALLEST_PROBABILITY)).mean())


def brier(probabilities_NC: ArrayLike, labels_N: ArrayLike) -> float:
    """Mean over rows of the squared error summed over classes, 0 to 2 (Brier 1950, original form).

    For two classes this is twice scikit-learn's `brier_score_loss` of the positive class.
    """
    probabilities, labels = _probabilities_and_labels(probabilities_NC, labels_N)
    errors = probabilities.copy()
    errors[np.arange(labels.size), labels] -= 1.0
    return float(np.square(errors).sum(axis=1).mean())


def is_unanswered(probabilities_N: ArrayLike, within: float = 0.0) -> BoolArray:
    """Which probabilities of the positive class are non-answers, [N]: those at most `within` away from 0.5.

    PAN's rule is `within=0`, a probability of exactly 0.5 (Stamatatos et al. 2014).
    """
    distance_N = np.abs(np.asarray(probabilities_N, dtype=np.float64) - 0.5)
    unanswered_N: BoolArray = distance_N <= within
    return unanswered_N


def c_at_1(labels_N: ArrayLike, probabilities_N: ArrayLike, *, unanswered_within: float = 0.0) -> float:
    """c@1 of binary labels (0/1 or bool): (n_c + n_u n_c / n) / n, accuracy that credits non-answers.

    Of n rows n_c are answered rightly (positive above 0.5) and n_u not answered (`is_unanswered`), which
    count as right as often as all n rows are answered rightly (Peñas & Rodrigo 2011, "A Simple Measure
    to Assess Non-response"). It is the accuracy where every row is answered, 0 where none is.
    """
    positive, probabilities = _binary_probabilities(labels_N, probabilities_N)
    unanswered = is_unanswered(probabilities, unanswered_within)
    right = float((~unanswered & ((probabilities > 0.5) == positive)).mean())
    return right * (1 + float(unanswered.mean()))


def f05_u(labels_N: ArrayLike, probabilities_N: ArrayLike, *, unanswered_within: float = 0.0) -> float:
    """F0.5u of binary labels (0/1 or bool): 1.25 TP / (1.25 TP + 0.25 (FN + U) + FP).

    Bevendorff et al. 2019, "Generalizing Unmasking for Short Texts": F0.5, which favours precision, with
    all U non-answers (`is_unanswered`) counted as false negatives whatever their label; the others are
    predicted positive above 0.5. PAN's first evaluator rounds 0.5 up before it counts U, which is then 0;
    its later one counts as here. Raises `InputError` where TP, FN, U and FP are all 0.
    """
    positive, probabilities = _binary_probabilities(labels_N, probabilities_N)
    unanswered = is_unanswered(probabilities, unanswered_within)
    predicted = ~unanswered & (probabilities > 0.5)
    hits = int((positive & predicted).sum())
    missed = int((unanswered | (positive & ~predicted)).sum())
    false_alarms = int((predicted & ~positive).sum())
    if hits + missed + false_alarms == 0:
        raise InputError(
            "no row is positive, predicted so or unanswered; F0.5u is undefined; add rows of the class"
        )
    return 1.25 * hits / (1.25 * hits + 0.25 * missed + false_alarms)


def brier_complement(labels_N: ArrayLike, probabilities_N: ArrayLike) -> float:
    """1 less the mean squared error of the positive class's probability, as PAN gives it: 0 to 1, 1 is best.

    Binary labels (0/1 or bool). Among PAN's measures since 2021 (Kestemont et al. 2021); a non-answer counts
    like any other probability. It is 1 - `brier` / 2, since `brier` sums over both classes.
    """
    positive, probabilities = _binary_probabilities(labels_N, probabilities_N)
    return float(1.0 - np.square(probabilities - positive).mean())


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
    confidence = probabilities[np.arange(labels.size), predicted]
    return calibration_error(confidence, predicted == labels, num_bins=num_bins, binning=binning)


def calibration_error(
    confidence_N: ArrayLike,
    correct_N: ArrayLike,
    *,
    num_bins: int = NUM_BINS,
    binning: Binning = "equal-width",
) -> float:
    """Mean gap between confidence and share right over the bins of a reliability diagram, by their rows."""
    bins = reliability_bins(confidence_N, correct_N, num_bins=num_bins, binning=binning)
    num_rows = sum(each.num_rows for each in bins)
    return sum(each.num_rows / num_rows * abs(each.accuracy - each.confidence) for each in bins)


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


def reliability_diagram(
    probabilities_NC: ArrayLike, targets: ArrayLike, *, binning: Binning = "equal-width"
) -> tuple[ReliabilityBin, ...]:
    """The bins of a classifier: of the most probable label (targets [N]), or of all decisions (0/1 [N, C])."""
    probabilities, truth = np.asarray(probabilities_NC, dtype=np.float64), np.asarray(targets)
    if truth.ndim == 2:
        return reliability_bins(probabilities.ravel(), truth.ravel() > 0, binning=binning)
    correct_N = probabilities.argmax(axis=1) == truth
    return reliability_bins(probabilities.max(axis=1), correct_N, binning=binning)


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
    order = np.argsort(confidence)
    confidence, right = confidence[order], correct[order].astype(np.float64)
    is_width = binning == "equal-width"
    if is_width:
        # Bins are (low, high], as in Guo et al.: 0.2 with 5 bins belongs to the first.
        bin_of_row = np.clip(np.ceil(confidence * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    else:
        is_first = np.append(True, confidence[1:] != confidence[:-1])
        first_rank = np.maximum.accumulate(np.where(is_first, np.arange(confidence.size), 0))
        bin_of_row = first_rank * num_bins // confidence.size
    bins = []
    for index, start, stop in _runs(bin_of_row):
        inside = confidence[start:stop]
        bins.append(
            ReliabilityBin(
                low=float(index / num_bins if is_width else inside[0]),
                high=float((index + 1) / num_bins if is_width else inside[-1]),
                num_rows=stop - start,
                confidence=float(inside.mean()),
                accuracy=float(right[start:stop].mean()),
            )
        )
    return tuple(bins)


def _runs(rising_N: IntArray) -> list[tuple[int, int, int]]:
    """Each value of sorted ones with the places where it starts and stops."""
    starts = [0, *(np.flatnonzero(np.diff(rising_N)) + 1).tolist()]
    return [
        (int(rising_N[start]), start, stop)
        for start, stop in zip(starts, [*starts[1:], rising_N.size], strict=True)
    ]


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


def mae(targets_N: ArrayLike, values_N: ArrayLike) -> float:
    """Mean absolute error, in the targets' unit."""
    targets, values = _numbers(targets_N, values_N)
    return float(np.abs(values - targets).mean())


def rmse(targets_N: ArrayLike, values_N: ArrayLike) -> float:
    """Root of the mean squared error, in the targets' unit."""
    targets, values = _numbers(targets_N, values_N)
    return float(np.sqrt(np.square(values - targets).mean()))


def whole_scores(values_N: ArrayLike, low: int, high: int) -> IntArray:
    """Values rounded to whole scores and clipped to `low`..`high`; halves go to the even one.

    As Python's `round` does, so as in the FineWeb-Edu classifier (Penedo et al. 2024).
    """
    values = np.asarray(values_N, dtype=np.float64)
    return np.clip(np.rint(values), low, high).astype(np.int64)


def int_macro_f1(targets_N: ArrayLike, values_N: ArrayLike, low: int, high: int) -> float:
    """Macro-F1 of whole scores: targets and values rounded and clipped, see `whole_scores`."""
    targets, values = _numbers(targets_N, values_N)
    return macro_f1(whole_scores(targets, low, high), whole_scores(values, low, high))


def multilabel_f1(
    targets_NC: ArrayLike, predicted_NC: ArrayLike, average: Literal["macro", "micro"]
) -> float:
    """F1 of rows with any number of labels; both arrays are 0/1 or bool.

    macro: mean over the labels that occur or are predicted; micro: of all decisions together. Raises
    `InputError` where no label occurs and none is predicted.
    """
    targets, predicted = _label_sets(targets_NC, predicted_NC)
    hits_C = (targets & predicted).sum(axis=0)
    total_C = targets.sum(axis=0) + predicted.sum(axis=0)
    if not total_C.any():
        raise InputError("no label occurs or is predicted; F1 is undefined; add rows that have labels")
    if average == "micro":
        return float(2 * hits_C.sum() / total_C.sum())
    seen_C = total_C > 0
    return float((2 * hits_C[seen_C] / total_C[seen_C]).mean())


def subset_accuracy(targets_NC: ArrayLike, predicted_NC: ArrayLike) -> float:
    """Share of rows whose labels are all predicted and no other."""
    targets, predicted = _label_sets(targets_NC, predicted_NC)
    return float((targets == predicted).all(axis=1).mean())


def multilabel_nll(targets_NC: ArrayLike, probabilities_NC: ArrayLike) -> float:
    """Mean negative log-likelihood, in nats a decision (row and label), of whether the label holds."""
    targets, probabilities = _label_probabilities(targets_NC, probabilities_NC)
    said = np.where(targets, probabilities, 1.0 - probabilities)
    return float(-np.log(np.maximum(said, SMALLEST_PROBABILITY)).mean())


def multilabel_brier(targets_NC: ArrayLike, probabilities_NC: ArrayLike) -> float:
    """Mean squared error of a decision's probability, 0 to 1."""
    targets, probabilities = _label_probabilities(targets_NC, probabilities_NC)
    return float(np.square(probabilities - targets).mean())


def multilabel_ece(
    targets_NC: ArrayLike,
    probabilities_NC: ArrayLike,
    *,
    num_bins: int = NUM_BINS,
    binning: Binning = "equal-width",
) -> float:
    """Expected calibration error of all decisions together: how often a label holds against its probability."""
    targets, probabilities = _label_probabilities(targets_NC, probabilities_NC)
    return calibration_error(probabilities.ravel(), targets.ravel(), num_bins=num_bins, binning=binning)


def multilabel_macro(
    metric: Callable[[ArrayLike, ArrayLike], float], targets_NC: ArrayLike, probabilities_NC: ArrayLike
) -> float:
    """Mean over labels of `metric` (`auc` or `average_precision`); labels that leave it undefined are left out.

    Raises `InputError` where no label has both rows that carry it and rows that do not.
    """
    targets, probabilities = _label_probabilities(targets_NC, probabilities_NC)
    varies_C = targets.any(axis=0) & ~targets.all(axis=0)
    if not varies_C.any():
        raise InputError("every label holds for all rows or for none; ranking needs both; add other rows")
    each = [metric(targets[:, c], probabilities[:, c]) for c in np.flatnonzero(varies_C)]
    return float(np.mean(each))


def mcnemar(correct_first_N: ArrayLike, correct_second_N: ArrayLike) -> float:
    """Exact two-sided p value that two classifiers are right equally often on the same rows.

    The binomial test of the rows on which just one of the two is right (McNemar 1947; exact as in
    Dietterich 1998); 1 where there are none. It takes rows as independent of each other.
    """
    first, second = _same_length(correct_first_N, correct_second_N)
    only_first = int(np.count_nonzero(first.astype(bool) & ~second.astype(bool)))
    only_second = int(np.count_nonzero(~first.astype(bool) & second.astype(bool)))
    differing, fewer = only_first + only_second, min(only_first, only_second)
    if only_first == only_second:
        return 1.0
    log_half = differing * math.log(0.5)
    log_all = math.lgamma(differing + 1)
    tail = math.fsum(
        math.exp(log_all - math.lgamma(k + 1) - math.lgamma(differing - k + 1) + log_half)
        for k in range(fewer + 1)
    )
    return min(1.0, 2 * tail)


def validation_metrics(
    task: Task,
    outputs: ArrayLike,
    targets: ArrayLike,
    int_score: tuple[int, int] | None = None,
) -> dict[str, float]:
    """The metrics that a training watches and that may choose its checkpoint, by name.

    `outputs` are probabilities [N, C], or a regression's values [N] or [N, 1]; `targets` are class
    indices [N], 0/1 [N, C], or numbers [N]. A multi-label row is predicted to have the labels of
    probability 0.5 or more. `int_score`, the least and greatest whole score, adds `int_macro_f1`.
    NaN: undefined on these rows (AUC of one class, Spearman of constant values), so never the best.
    """
    if task is Task.REGRESSION:
        values = np.asarray(outputs, dtype=np.float64)
        values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
        found = {
            "spearman": _or_nan(lambda: spearman(targets, values)),
            "mae": mae(targets, values),
            "rmse": rmse(targets, values),
        }
        if int_score is not None:
            found["int_macro_f1"] = int_macro_f1(targets, values, *int_score)
        return found
    probabilities = np.asarray(outputs, dtype=np.float64)
    if task is Task.MULTI_LABEL:
        predicted = probabilities >= 0.5
        return {
            "macro_f1": _or_nan(lambda: multilabel_f1(targets, predicted, "macro")),
            "micro_f1": _or_nan(lambda: multilabel_f1(targets, predicted, "micro")),
            "subset_accuracy": subset_accuracy(targets, predicted),
            "nll": multilabel_nll(targets, probabilities),
            "auc": _or_nan(lambda: multilabel_macro(auc, targets, probabilities)),
        }
    return {
        **{
            name: metric(*_probabilities_and_labels(probabilities, targets))
            for name, metric in CLASS_METRICS.items()
        },
        "weighted_f1": weighted_f1(targets, probabilities.argmax(axis=1)),
        "auc": _or_nan(lambda: macro_auc(targets, probabilities)),
    }


def _or_nan(metric: Callable[[], float]) -> float:
    try:
        return metric()
    except InputError:
        return math.nan


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


def _positive_counts(labels_N: ArrayLike, predicted_N: ArrayLike) -> tuple[int, int, int]:
    """Rows that are positive and predicted so, positive, predicted positive."""
    labels, predicted = (each.astype(bool) for each in _same_length(labels_N, predicted_N))
    return int((labels & predicted).sum()), int(labels.sum()), int(predicted.sum())


def _binary_probabilities(labels: ArrayLike, probabilities: ArrayLike) -> tuple[BoolArray, FloatArray]:
    first, second = _same_length(labels, probabilities)
    return first.astype(bool), second.astype(np.float64)


def _numbers(targets: ArrayLike, values: ArrayLike) -> tuple[FloatArray, FloatArray]:
    first, second = _same_length(targets, values)
    return first.astype(np.float64), second.astype(np.float64)


def _label_sets(targets: ArrayLike, predicted: ArrayLike) -> tuple[BoolArray, BoolArray]:
    first, second = np.asarray(targets), np.asarray(predicted)
    if first.ndim != 2 or first.shape != second.shape or first.size == 0:
        msg = f"shapes {first.shape} and {second.shape}; a multi-label metric needs two arrays [N, C], N > 0"
        raise InputError(msg)
    return first.astype(bool), second.astype(bool)


def _label_probabilities(targets: ArrayLike, probabilities: ArrayLike) -> tuple[BoolArray, FloatArray]:
    values = np.asarray(probabilities, dtype=np.float64)
    return _label_sets(targets, values)[0], values


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
