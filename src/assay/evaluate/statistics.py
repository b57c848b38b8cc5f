"""Every metric of many weighted copies of the same rows at once, for resampling. Pure.

The values on plain rows are those of `assay.metrics`; with how often each row was drawn as weights,
they are those of the drawn rows (a test holds both). What does not depend on the weights (orders,
bins, logarithms) is found once.

Axes: N rows, C classes or labels, B resamples, W weights, D decisions (row and label), K tied values.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from assay import metrics
from assay.evaluate.bootstrap import Statistics
from assay.metrics import NUM_BINS, BoolArray, FloatArray, IntArray

Ranked = Callable[[FloatArray], tuple[FloatArray, FloatArray]]
"""Weights to AUC and average precision."""


def single_label(
    probabilities_NC: FloatArray,
    labels_N: IntArray,
    predicted_N: IntArray,
    *,
    most_ranked: int,
    unanswered_within: float | None = None,
) -> Statistics:
    """The statistics of a single-label classifier; `predicted_N` is what it decided.

    `unanswered_within`, of two labels, adds PAN's metrics. Ranking metrics cost a pass a class: above
    `most_ranked` rows times classes they are left out.
    """
    num_rows, num_classes = probabilities_NC.shape
    means = {
        "accuracy": (labels_N == predicted_N).astype(np.float64),
        "nll": _row_nll(probabilities_NC, labels_N),
        "brier": _row_brier(probabilities_NC, labels_N),
    }
    confidence_N = probabilities_NC[np.arange(num_rows), probabilities_NC.argmax(axis=1)]
    correct_N = probabilities_NC.argmax(axis=1) == labels_N
    parts = [
        _means(means),
        _class_f1(labels_N, predicted_N),
        _equal_width(confidence_N[:, None], correct_N[:, None]),
        _equal_mass(confidence_N, correct_N),
    ]
    if num_classes == 2:
        parts.append(_binary(labels_N == 1, predicted_N == 1))
    if unanswered_within is not None:
        parts.append(_pan(labels_N == 1, probabilities_NC[:, 1], unanswered_within))
    if num_rows * (num_classes if num_classes > 2 else 1) > most_ranked:
        return _together(parts)
    if num_classes == 2:
        parts.append(_ranking([_ranked(labels_N == 1, probabilities_NC[:, 1])]))
    else:
        occurring = np.unique(labels_N)
        parts.append(_ranking([_ranked(labels_N == each, probabilities_NC[:, each]) for each in occurring]))
    return _together(parts)


def multi_label(
    probabilities_NC: FloatArray, targets_NC: BoolArray, predicted_NC: BoolArray, *, most_ranked: int
) -> Statistics:
    """The statistics of a multi-label classifier; `predicted_NC` is what it decided; see `single_label`."""
    said = np.where(targets_NC, probabilities_NC, 1.0 - probabilities_NC)
    means = {
        "subset_accuracy": (targets_NC == predicted_NC).all(axis=1).astype(np.float64),
        "nll": -np.log(np.maximum(said, metrics.SMALLEST_PROBABILITY)).mean(axis=1),
        "brier": np.square(probabilities_NC - targets_NC).mean(axis=1),
    }
    parts = [_means(means), _label_f1(targets_NC, predicted_NC), _equal_width(probabilities_NC, targets_NC)]
    if probabilities_NC.size <= most_ranked:
        row_D = np.repeat(np.arange(len(targets_NC)), targets_NC.shape[1])
        flat_targets, flat = targets_NC.ravel(), probabilities_NC.ravel()
        parts += [
            _equal_mass(flat, flat_targets, row_D),
            _ranking([_ranked(targets_NC[:, c], probabilities_NC[:, c]) for c in range(targets_NC.shape[1])]),
            _ranking([_ranked(flat_targets, flat, row_D)], prefix="micro_"),
        ]
    return _together(parts)


def regression(
    values_N: FloatArray,
    targets_N: FloatArray,
    int_score: tuple[int, int] | None,
    half_width: float | None = None,
) -> Statistics:
    """The statistics of a regression; `half_width` is that of its intervals, where it gives any."""
    errors_N = values_N - targets_N
    means = {"mae": np.abs(errors_N)}
    if half_width is not None:
        means["coverage"] = (np.abs(errors_N) <= half_width).astype(np.float64)
        means["mean_width"] = np.full(errors_N.size, 2 * half_width)
    squared = _means({"rmse": np.square(errors_N)})
    parts: list[Statistics] = [
        _means(means),
        lambda weights: {"rmse": np.sqrt(squared(weights)["rmse"])},
        _spearman(values_N, targets_N),
    ]
    if int_score is not None:
        counts = _class_f1(
            metrics.whole_scores(targets_N, *int_score), metrics.whole_scores(values_N, *int_score)
        )
        parts.append(lambda weights: {"int_macro_f1": counts(weights)["macro_f1"]})
    return _together(parts)


def _together(parts: Sequence[Statistics]) -> Statistics:
    def statistics(weights_BN: FloatArray) -> Mapping[str, FloatArray]:
        with np.errstate(divide="ignore", invalid="ignore"):  # undefined in a resample is NaN
            return {name: values for part in parts for name, values in part(weights_BN).items()}

    return statistics


def _means(values: Mapping[str, FloatArray]) -> Statistics:
    """Weighted means of values that each row has."""
    names = list(values)
    values_NM = np.stack([values[name] for name in names], axis=1)

    def statistics(weights_BN: FloatArray) -> Mapping[str, FloatArray]:
        means_BM = weights_BN @ values_NM / weights_BN.sum(axis=1, keepdims=True)
        return {name: means_BM[:, index] for index, name in enumerate(names)}

    return statistics


def _row_nll(probabilities_NC: FloatArray, labels_N: IntArray) -> FloatArray:
    true = probabilities_NC[np.arange(labels_N.size), labels_N]
    row_nll: FloatArray = -np.log(np.maximum(true, metrics.SMALLEST_PROBABILITY))
    return row_nll


def _row_brier(probabilities_NC: FloatArray, labels_N: IntArray) -> FloatArray:
    errors = probabilities_NC.copy()
    errors[np.arange(labels_N.size), labels_N] -= 1.0
    row_brier: FloatArray = np.square(errors).sum(axis=1)
    return row_brier


def _class_sums(class_N: IntArray, num_classes: int, rows: IntArray) -> Callable[[FloatArray], FloatArray]:
    """Weights to their sums [B, C] over the rows (those in `rows` alone) of each class."""
    rows = rows[np.argsort(class_N[rows], kind="stable")]
    occurring, starts = np.unique(class_N[rows], return_index=True)

    def sums(weights_BN: FloatArray) -> FloatArray:
        sums_BC = np.zeros((len(weights_BN), num_classes))
        if rows.size:
            sums_BC[:, occurring] = _runs(weights_BN.take(rows, axis=1), starts)
        return sums_BC

    return sums


def _class_f1(labels_N: IntArray, predicted_N: IntArray) -> Statistics:
    """Macro-F1, weighted F1 and balanced accuracy."""
    num_classes = int(max(labels_N.max(), predicted_N.max())) + 1
    all_rows = np.arange(labels_N.size)
    true = _class_sums(labels_N, num_classes, all_rows)
    predicted = _class_sums(predicted_N, num_classes, all_rows)
    hits = _class_sums(labels_N, num_classes, np.flatnonzero(labels_N == predicted_N))

    def statistics(weights_BN: FloatArray) -> Mapping[str, FloatArray]:
        true_BC, hits_BC = true(weights_BN), hits(weights_BN)
        total_BC = true_BC + predicted(weights_BN)
        f1_BC = 2 * hits_BC / np.where(total_BC > 0, total_BC, 1.0)
        recall_BC = hits_BC / np.where(true_BC > 0, true_BC, 1.0)
        return {
            "macro_f1": f1_BC.sum(axis=1) / (total_BC > 0).sum(axis=1),
            "weighted_f1": (f1_BC * true_BC).sum(axis=1) / true_BC.sum(axis=1),
            "balanced_accuracy": recall_BC.sum(axis=1) / (true_BC > 0).sum(axis=1),
        }

    return statistics


def _binary(positive_N: BoolArray, predicted_N: BoolArray) -> Statistics:
    """Precision, recall and F1 of the second of two labels."""
    columns_N3 = np.stack([positive_N & predicted_N, positive_N, predicted_N], axis=1).astype(np.float64)

    def statistics(weights_BN: FloatArray) -> Mapping[str, FloatArray]:
        hits, true, predicted = (weights_BN @ columns_N3).T
        return {"precision": hits / predicted, "recall": hits / true, "f1": 2 * hits / (true + predicted)}

    return statistics


def _pan(positive_N: BoolArray, probability_N: FloatArray, unanswered_within: float) -> Statistics:
    """c@1, F0.5u and the complement of the Brier score, of the second of two labels."""
    unanswered_N = metrics.is_unanswered(probability_N, unanswered_within)
    says_N = ~unanswered_N & (probability_N > 0.5)
    columns_N6 = np.stack(
        [
            ~unanswered_N & ((probability_N > 0.5) == positive_N),
            unanswered_N,
            says_N & positive_N,
            unanswered_N | (positive_N & ~says_N),
            says_N & ~positive_N,
            1.0 - np.square(probability_N - positive_N),
        ],
        axis=1,
    ).astype(np.float64)

    def statistics(weights_BN: FloatArray) -> Mapping[str, FloatArray]:
        right, unanswered, hits, missed, false_alarms, complement = (weights_BN @ columns_N6).T
        total_B = weights_BN.sum(axis=1)
        return {
            "c_at_1": right / total_B * (1 + unanswered / total_B),
            "f05_u": 1.25 * hits / (1.25 * hits + 0.25 * missed + false_alarms),
            "brier_complement": complement / total_B,
        }

    return statistics


def _label_f1(targets_NC: BoolArray, predicted_NC: BoolArray) -> Statistics:
    """Macro- and micro-F1 over labels."""
    hits_NC = (targets_NC & predicted_NC).astype(np.float64)
    total_NC = targets_NC.astype(np.float64) + predicted_NC

    def statistics(weights_BN: FloatArray) -> Mapping[str, FloatArray]:
        hits_BC, total_BC = weights_BN @ hits_NC, weights_BN @ total_NC
        f1_BC = 2 * hits_BC / np.where(total_BC > 0, total_BC, 1.0)
        return {
            "macro_f1": f1_BC.sum(axis=1) / (total_BC > 0).sum(axis=1),
            "micro_f1": 2 * hits_BC.sum(axis=1) / total_BC.sum(axis=1),
        }

    return statistics


def _equal_width(confidence_NC: FloatArray, correct_NC: BoolArray) -> Statistics:
    """ECE of bins that do not move: what each row adds to each bin's gap is known beforehand."""
    num_rows, num_columns = confidence_NC.shape
    bins_NC = np.clip(np.ceil(confidence_NC * NUM_BINS).astype(np.int64) - 1, 0, NUM_BINS - 1)
    cells = (np.arange(num_rows)[:, None] * NUM_BINS + bins_NC).ravel()
    gaps = (correct_NC - confidence_NC).ravel()
    gaps_NK = np.bincount(cells, weights=gaps, minlength=num_rows * NUM_BINS).reshape(num_rows, NUM_BINS)

    def statistics(weights_BN: FloatArray) -> Mapping[str, FloatArray]:
        total_B = weights_BN.sum(axis=1) * num_columns
        return {"ece": np.abs(weights_BN @ gaps_NK).sum(axis=1) / total_B}

    return statistics


def _equal_mass(confidence_D: FloatArray, correct_D: BoolArray, row_D: IntArray | None = None) -> Statistics:
    """ECE of bins of equal mass: a resample's own. `row_D`: the row of each decision, if not one a row."""
    order = np.argsort(confidence_D, kind="stable")
    rows = order if row_D is None else row_D[order]
    starts = _starts_of_equals(confidence_D[order])
    gaps = (correct_D.astype(np.float64) - confidence_D)[order]

    def statistics(weights_BN: FloatArray) -> Mapping[str, FloatArray]:
        weights_BD = weights_BN.take(rows, axis=1)
        tied_BK = _runs(weights_BD, starts)
        gaps_BK = _runs(weights_BD * gaps, starts)
        through_BK = np.cumsum(tied_BK, axis=1)
        total_B1 = through_BK[:, -1:]
        # Values that no row of the resample has may land a bin too far; they weigh nothing.
        bins_BK = ((through_BK - tied_BK) * NUM_BINS / total_B1).astype(np.int64).clip(0, NUM_BINS - 1)
        bins_BK += np.arange(len(weights_BN))[:, None] * NUM_BINS
        size = len(weights_BN) * NUM_BINS
        gap_of_bin = np.bincount(bins_BK.ravel(), weights=gaps_BK.ravel(), minlength=size)
        return {"ece_equal_mass": np.abs(gap_of_bin).reshape(-1, NUM_BINS).sum(axis=1) / total_B1[:, 0]}

    return statistics


def _ranked(positive_D: BoolArray, scores_D: FloatArray, row_D: IntArray | None = None) -> Ranked:
    """AUC and average precision, ties as in `assay.metrics`; only positives are looked at one by one."""
    order = np.argsort(-scores_D, kind="stable")
    starts = _starts_of_equals(scores_D[order])
    group_of_rank = np.zeros(order.size, dtype=np.int64)
    group_of_rank[starts[1:]] = 1
    group_of_rank = np.cumsum(group_of_rank)
    positive = positive_D[order]
    # Groups of equal scores that hold a positive: no other adds to either sum.
    groups, first_positive = np.unique(group_of_rank[positive], return_index=True)
    ends = np.append(starts[1:], order.size) - 1
    rows = order if row_D is None else row_D[order]
    positive_rows = rows[positive]

    def ranked(weights_BN: FloatArray) -> tuple[FloatArray, FloatArray]:
        if not groups.size:
            nothing = np.full(len(weights_BN), np.nan)
            return nothing, nothing
        through_BD = np.cumsum(weights_BN.take(rows, axis=1), axis=1)
        total_B1 = through_BD[:, -1:]
        hits_BK = _runs(weights_BN.take(positive_rows, axis=1), first_positive)
        all_hits_BK = np.cumsum(hits_BK, axis=1)
        positives_B1 = all_hits_BK[:, -1:]
        through_BK = through_BD.take(ends[groups], axis=1)
        before_BK = np.where(
            starts[groups] > 0, through_BD.take(np.maximum(starts[groups] - 1, 0), axis=1), 0.0
        )
        above_BK = before_BK - (all_hits_BK - hits_BK)
        tied_BK = through_BK - before_BK - hits_BK
        negatives_B1 = total_B1 - positives_B1
        below_BK = negatives_B1 - above_BK - tied_BK / 2
        areas_B = (hits_BK * below_BK).sum(axis=1) / (positives_B1 * negatives_B1)[:, 0]
        precision_BK = all_hits_BK / np.where(through_BK > 0, through_BK, 1.0)
        return areas_B, (hits_BK * precision_BK).sum(axis=1) / positives_B1[:, 0]

    return ranked


def _ranking(each: Sequence[Ranked], prefix: str = "") -> Statistics:
    """Means over classes of AUC and average precision; a class that a resample leaves undefined is left out."""

    def statistics(weights_BN: FloatArray) -> Mapping[str, FloatArray]:
        found_C2B = np.array([ranked(weights_BN) for ranked in each])
        found_C2B[~np.isfinite(found_C2B)] = np.nan
        # With a single class in the resample no class has rows of both kinds.
        found_C2B[:, 1][np.isnan(found_C2B[:, 0])] = np.nan
        defined_2B = np.isfinite(found_C2B).sum(axis=0)
        auc_B, precision_B = np.nansum(found_C2B, axis=0) / np.where(defined_2B > 0, defined_2B, np.nan)
        return {f"{prefix}auc": auc_B, f"{prefix}average_precision": precision_B}

    return statistics


def _spearman(first_N: FloatArray, second_N: FloatArray) -> Statistics:
    """Correlation of the ranks that the rows have within the resample."""
    ranks = [_mid_ranks(first_N), _mid_ranks(second_N)]

    def statistics(weights_BN: FloatArray) -> Mapping[str, FloatArray]:
        total_B1 = weights_BN.sum(axis=1, keepdims=True)
        centre_B1 = (total_B1 + 1) / 2
        left, right = (rank(weights_BN) - centre_B1 for rank in ranks)
        covariance = (weights_BN * left * right).sum(axis=1)
        spread = (weights_BN * left**2).sum(axis=1) * (weights_BN * right**2).sum(axis=1)
        return {"spearman": covariance / np.sqrt(np.where(spread > 0, spread, np.nan))}

    return statistics


def _mid_ranks(values_N: FloatArray) -> Callable[[FloatArray], FloatArray]:
    """Weights to the average rank [B, N] of each row among the drawn ones."""
    order = np.argsort(values_N, kind="stable")
    starts = _starts_of_equals(values_N[order])
    group_N = np.unique(values_N, return_inverse=True)[1]

    def ranks(weights_BN: FloatArray) -> FloatArray:
        tied_BK = _runs(weights_BN.take(order, axis=1), starts)
        middle_BK = np.cumsum(tied_BK, axis=1) - (tied_BK - 1) / 2
        return middle_BK.take(group_N, axis=1)

    return ranks


def _starts_of_equals(sorted_D: FloatArray) -> IntArray:
    """Where each run of equal values begins."""
    return np.append(0, np.flatnonzero(sorted_D[1:] != sorted_D[:-1]) + 1)


def _runs(values_BD: FloatArray, starts: IntArray) -> FloatArray:
    """Sums of the runs that begin at `starts`; as they are where each run is one value."""
    return values_BD if starts.size == values_BD.shape[1] else np.add.reduceat(values_BD, starts, axis=1)
