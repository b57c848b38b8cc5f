"""Every metric of many weighted copies of the same rows at once, for resampling. Pure.

The values on plain rows are those of `assay.metrics`; with how often each row was drawn as weights,
they are those of the drawn rows (a test holds both). Each family says which sums of weights it needs,
and what follows from them.

The scores of many rows are ranked at some hundred levels (`all_ranks=False`), which are narrow where it
counts: at the ends of the ranking and where positives and negatives mix. What this does to a metric's value
is known exactly, so that only the spread of its resamples is that of levels; a test and a benchmark compare
it with that of all ranks.

Axes: N rows, M entries of a row, C classes or labels, B resamples, K levels or bins, P points.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from assay import metrics
from assay.evaluate.sums import Cells, Columns, Family, Sums, Values
from assay.metrics import NUM_BINS, BoolArray, FloatArray, IntArray

MASS_LEVELS = 384
"""Levels of about as many rows each, of which the bins of equal mass are made."""
SPEARMAN_LEVELS = 64
"""Levels of each side of a rank correlation, whose sums are over pairs of them."""
QUANTILES = 64
"""Quantiles of positives, of negatives and of changes between them at which levels of a ranking are cut."""
PER_OCTAVE = 8
"""Cuts for each doubling of the negatives and positives above, and of the positives below."""


def single_label(
    probabilities_NC: FloatArray,
    labels_N: IntArray,
    predicted_N: IntArray,
    *,
    most_rankings: int | None = None,
    all_ranks: bool = True,
    unanswered_within: float | None = None,
) -> tuple[Family, ...]:
    """The metrics of a single-label classifier; `predicted_N` is what it decided.

    `unanswered_within`, of two labels, adds PAN's metrics. AUC and average precision cost a ranking a
    class: above `most_rankings` of them they are left out. `all_ranks`: rather than levels.
    """
    num_rows, num_classes = probabilities_NC.shape
    said_N = probabilities_NC.argmax(axis=1)
    confidence_N, correct_N = probabilities_NC[np.arange(num_rows), said_N], said_N == labels_N
    families = [
        means_of(
            {
                "accuracy": labels_N == predicted_N,
                "nll": _row_nll(probabilities_NC, labels_N),
                "brier": _row_brier(probabilities_NC, labels_N),
            }
        ),
        _class_f1(labels_N, predicted_N),
        _equal_width(confidence_N[None], correct_N[None]),
        _equal_mass(confidence_N[None], correct_N[None], None if all_ranks else MASS_LEVELS),
    ]
    if num_classes == 2:
        families.append(_binary(labels_N == 1, predicted_N == 1))
    if unanswered_within is not None:
        families.append(_pan(labels_N == 1, probabilities_NC[:, 1], unanswered_within))
    ranked = [1] if num_classes == 2 else np.unique(labels_N).tolist()
    if most_rankings is None or len(ranked) <= most_rankings:
        each = [
            _ranked(labels_N[None] == c, probabilities_NC[None, :, c], all_ranks=all_ranks) for c in ranked
        ]
        families.append(_ranking(each))
    return tuple(families)


def multi_label(
    probabilities_NC: FloatArray,
    targets_NC: BoolArray,
    predicted_NC: BoolArray,
    *,
    most_rankings: int | None = None,
    all_ranks: bool = True,
) -> tuple[Family, ...]:
    """The metrics of a multi-label classifier; `predicted_NC` is what it decided; see `single_label`."""
    probabilities_CN, targets_CN = probabilities_NC.T, targets_NC.T
    said = np.where(targets_NC, probabilities_NC, 1.0 - probabilities_NC)
    families = [
        means_of(
            {
                "subset_accuracy": (targets_NC == predicted_NC).all(axis=1),
                "nll": -np.log(np.maximum(said, metrics.SMALLEST_PROBABILITY)).mean(axis=1),
                "brier": np.square(probabilities_NC - targets_NC).mean(axis=1),
            }
        ),
        _label_f1(targets_CN, predicted_NC.T),
        _equal_width(probabilities_CN, targets_CN),
        _equal_mass(probabilities_CN, targets_CN, None if all_ranks else MASS_LEVELS),
        _ranking([_ranked(targets_CN, probabilities_CN, all_ranks=all_ranks)], prefix="micro_"),
    ]
    if most_rankings is None or len(targets_CN) <= most_rankings:
        each = [
            _ranked(target_N[None], probability_N[None], all_ranks=all_ranks)
            for target_N, probability_N in zip(targets_CN, probabilities_CN, strict=True)
        ]
        families.append(_ranking(each))
    return tuple(families)


def regression(
    values_N: FloatArray,
    targets_N: FloatArray,
    int_score: tuple[int, int] | None,
    half_width: float | None = None,
    *,
    all_ranks: bool = True,
) -> tuple[Family, ...]:
    """The metrics of a regression; `half_width` is that of its intervals, where it gives any."""
    errors_N = np.abs(values_N - targets_N)
    means: dict[str, FloatArray | BoolArray] = {"mae": errors_N}
    if half_width is not None:
        means["coverage"] = errors_N <= half_width
        means["mean_width"] = np.full(errors_N.size, 2 * half_width)
    families = [
        means_of(means),
        _one(Columns([np.square(errors_N)]), lambda sums: {"rmse": np.sqrt(sums[:, 0] / sums[:, 1])}),
        _spearman(values_N, targets_N, None if all_ranks else SPEARMAN_LEVELS),
    ]
    if int_score is not None:
        true_N, said_N = (metrics.whole_scores(each, *int_score) for each in (targets_N, values_N))
        families.append(_class_f1(true_N, said_N, names={"macro_f1": "int_macro_f1"}))
    return tuple(families)


def means_of(values: Mapping[str, FloatArray | BoolArray]) -> Family:
    """Weighted means of values that each row has, [N] by name."""

    def means(sums_BK: FloatArray) -> Mapping[str, FloatArray]:
        return {name: sums_BK[:, index] / sums_BK[:, -1] for index, name in enumerate(values)}

    return _one(Columns(list(values.values())), means)


def _one(sums: Sums, values: Values) -> Family:
    return Family(parts=((sums, values),))


def _row_nll(probabilities_NC: FloatArray, labels_N: IntArray) -> FloatArray:
    true = probabilities_NC[np.arange(labels_N.size), labels_N]
    row_nll: FloatArray = -np.log(np.maximum(true, metrics.SMALLEST_PROBABILITY))
    return row_nll


def _row_brier(probabilities_NC: FloatArray, labels_N: IntArray) -> FloatArray:
    errors = probabilities_NC.copy()
    errors[np.arange(labels_N.size), labels_N] -= 1.0
    row_brier: FloatArray = np.square(errors).sum(axis=1)
    return row_brier


def _class_f1(labels_N: IntArray, predicted_N: IntArray, names: Mapping[str, str] | None = None) -> Family:
    """Macro-F1, weighted F1 and balanced accuracy; under other names, and these alone, where `names` is given."""
    classes = int(max(labels_N.max(), predicted_N.max())) + 1
    hit_N = np.where(labels_N == predicted_N, labels_N, classes)
    cells = Cells(np.stack([labels_N, classes + predicted_N, 2 * classes + hit_N]), 3 * classes + 1)

    def values(sums_BK: FloatArray) -> Mapping[str, FloatArray]:
        true_BC, predicted_BC, hits_BC = np.split(sums_BK[:, :-1], 3, axis=1)
        total_BC = true_BC + predicted_BC
        f1_BC = 2 * hits_BC / np.where(total_BC > 0, total_BC, 1.0)
        recall_BC = hits_BC / np.where(true_BC > 0, true_BC, 1.0)
        found = {
            "macro_f1": f1_BC.sum(axis=1) / (total_BC > 0).sum(axis=1),
            "weighted_f1": (f1_BC * true_BC).sum(axis=1) / true_BC.sum(axis=1),
            "balanced_accuracy": recall_BC.sum(axis=1) / (true_BC > 0).sum(axis=1),
        }
        return found if names is None else {new: found[old] for old, new in names.items()}

    return _one(cells, values)


def _binary(positive_N: BoolArray, predicted_N: BoolArray) -> Family:
    """Precision, recall and F1 of the second of two labels."""

    def values(sums_BK: FloatArray) -> Mapping[str, FloatArray]:
        hits, true, predicted, _ = sums_BK.T
        return {"precision": hits / predicted, "recall": hits / true, "f1": 2 * hits / (true + predicted)}

    return _one(Columns([positive_N & predicted_N, positive_N, predicted_N]), values)


def _pan(positive_N: BoolArray, probability_N: FloatArray, unanswered_within: float) -> Family:
    """c@1, F0.5u and the complement of the Brier score, of the second of two labels."""
    unanswered_N = metrics.is_unanswered(probability_N, unanswered_within)
    says_N = ~unanswered_N & (probability_N > 0.5)
    counts = Columns(
        [
            ~unanswered_N & ((probability_N > 0.5) == positive_N),
            unanswered_N,
            says_N & positive_N,
            unanswered_N | (positive_N & ~says_N),
            says_N & ~positive_N,
        ]
    )

    def values(sums_BK: FloatArray) -> Mapping[str, FloatArray]:
        right, unanswered, hits, missed, false_alarms, total = sums_BK.T
        return {
            "c_at_1": right / total * (1 + unanswered / total),
            "f05_u": 1.25 * hits / (1.25 * hits + 0.25 * missed + false_alarms),
        }

    complement = means_of({"brier_complement": 1.0 - np.square(probability_N - positive_N)})
    return Family(parts=((counts, values), *complement.parts), join=lambda found: {**found[0], **found[1]})


def _label_f1(targets_CN: BoolArray, predicted_CN: BoolArray) -> Family:
    """Macro- and micro-F1 over labels."""
    num_labels = len(targets_CN)
    cell_CN = 4 * np.arange(num_labels)[:, None] + 2 * targets_CN + predicted_CN

    def values(sums_BK: FloatArray) -> Mapping[str, FloatArray]:
        sums_BC4 = sums_BK.reshape(len(sums_BK), num_labels, 4)
        hits_BC = sums_BC4[:, :, 3]
        total_BC = sums_BC4[:, :, 1] + sums_BC4[:, :, 2] + 2 * hits_BC
        f1_BC = 2 * hits_BC / np.where(total_BC > 0, total_BC, 1.0)
        return {
            "macro_f1": f1_BC.sum(axis=1) / (total_BC > 0).sum(axis=1),
            "micro_f1": 2 * hits_BC.sum(axis=1) / total_BC.sum(axis=1),
        }

    return _one(Cells(cell_CN, 4 * num_labels), values)


def _equal_width(confidence_MN: FloatArray, correct_MN: BoolArray) -> Family:
    """ECE of bins that do not move: what each row adds to each bin's gap is known beforehand."""
    bins_MN = np.clip(np.ceil(confidence_MN * NUM_BINS).astype(np.int64) - 1, 0, NUM_BINS - 1)
    num_entries, num_rows = bins_MN.shape
    # One cell more holds the total weight.
    cell_MN = np.concatenate([bins_MN, np.full((1, num_rows), NUM_BINS)])
    value_MN = np.concatenate([correct_MN - confidence_MN, np.ones((1, num_rows))])

    def values(sums_BK: FloatArray) -> Mapping[str, FloatArray]:
        return {"ece": np.abs(sums_BK[:, :-1]).sum(axis=1) / (num_entries * sums_BK[:, -1])}

    return _one(Cells(cell_MN, NUM_BINS + 1, value_MN), values)


def _equal_mass(confidence_MN: FloatArray, correct_MN: BoolArray, most_levels: int | None) -> Family:
    """ECE of bins of equal mass: a resample's own."""
    level_MN, is_run_K = _levels_by_mass(confidence_MN, most_levels)
    num_levels = is_run_K.size
    cell_MN = np.concatenate([level_MN, num_levels + level_MN])
    value_MN = np.concatenate([np.ones(level_MN.shape), correct_MN - confidence_MN])

    def values(sums_BK: FloatArray) -> Mapping[str, FloatArray]:
        tied_BK, gaps_BK = sums_BK[:, :num_levels], sums_BK[:, num_levels:]
        through_BK = np.cumsum(tied_BK, axis=1)
        total_B1 = through_BK[:, -1:]
        # Where a level begins and stops, in bins. One that no row of the resample has may land a bin too
        # far; it weighs nothing.
        per_row_B1 = NUM_BINS / np.where(total_B1 > 0, total_B1, 1.0)
        starts_BK, stops_BK = (through_BK - tied_BK) * per_row_B1, through_BK * per_row_B1
        bins_BK = starts_BK.astype(np.int64).clip(0, NUM_BINS - 1)
        gap_BQ = _sums_by_bin(bins_BK, gaps_BK)
        if not is_run_K.all():
            # What lies beyond the end of the bin in a level that is not of one value is of the next bin.
            width_BK = np.where(tied_BK > 0, stops_BK - starts_BK, 1.0)
            beyond_BK = (
                np.where(is_run_K, 0.0, ((stops_BK - bins_BK - 1) / width_BK).clip(0.0, 1.0)) * gaps_BK
            )
            gap_BQ += _sums_by_bin((bins_BK + 1).clip(0, NUM_BINS - 1), beyond_BK)
            gap_BQ -= _sums_by_bin(bins_BK, beyond_BK)
        return {"ece_equal_mass": np.abs(gap_BQ).sum(axis=1) / total_B1[:, 0]}

    return _one(Cells(cell_MN, 2 * num_levels, value_MN), values)


def _sums_by_bin(bins_BK: IntArray, values_BK: FloatArray) -> FloatArray:
    """Sums of the values of each bin, [B, bins]."""
    cells_BK = bins_BK + np.arange(len(bins_BK))[:, None] * NUM_BINS
    size = len(bins_BK) * NUM_BINS
    sums = np.bincount(cells_BK.ravel(), weights=values_BK.ravel(), minlength=size)
    return sums.reshape(-1, NUM_BINS).astype(np.float64)


def _ranked(positive_MN: BoolArray, scores_MN: FloatArray, *, all_ranks: bool) -> tuple[Sums, Values]:
    """AUC and average precision, ties as in `assay.metrics`."""
    level_MN, is_run_K = _levels_of_ranking(-scores_MN, positive_MN, all_ranks=all_ranks)
    num_levels = is_run_K.size

    def values(sums_BK: FloatArray) -> Mapping[str, FloatArray]:
        negatives_BK, hits_BK = sums_BK[:, :num_levels], sums_BK[:, num_levels:]
        all_hits_BK = np.cumsum(hits_BK, axis=1)
        all_negatives_BK = np.cumsum(negatives_BK, axis=1)
        positives_B, negatives_B = all_hits_BK[:, -1], all_negatives_BK[:, -1]
        below_BK = negatives_B[:, None] - all_negatives_BK + negatives_BK / 2
        precision_BK = _precision(all_hits_BK, all_negatives_BK)
        if not is_run_K.all():
            inside = (all_hits_BK - hits_BK / 2, all_negatives_BK - negatives_BK / 2)
            before = (all_hits_BK - hits_BK, all_negatives_BK - negatives_BK)
            # Simpson's rule over the ranks of a level that are not tied.
            mean_BK = (precision_BK + 4 * _precision(*inside) + _precision(*before)) / 6
            precision_BK = np.where(is_run_K | (all_hits_BK == hits_BK), precision_BK, mean_BK)
        return {
            "auc": (hits_BK * below_BK).sum(axis=1) / (positives_B * negatives_B),
            "average_precision": (hits_BK * precision_BK).sum(axis=1) / positives_B,
        }

    return Cells(level_MN + num_levels * positive_MN, 2 * num_levels), values


def _precision(hits_BK: FloatArray, negatives_BK: FloatArray) -> FloatArray:
    """The share of hits; 0 of none."""
    total_BK = hits_BK + negatives_BK
    return hits_BK / np.where(total_BK > 0, total_BK, 1.0)


def _ranking(each: Sequence[tuple[Sums, Values]], prefix: str = "") -> Family:
    """Means over classes of AUC and average precision; a class that a resample leaves undefined is left out."""

    def join(found: Sequence[Mapping[str, FloatArray]]) -> Mapping[str, FloatArray]:
        auc_CB, precision_CB = (
            np.array([values[name] for values in found]) for name in ("auc", "average_precision")
        )
        # With a single class in the resample no class has rows of both kinds.
        is_defined_CB = np.isfinite(auc_CB)
        num_B = is_defined_CB.sum(axis=0)
        return {
            f"{prefix}{name}": np.where(is_defined_CB, values_CB, 0.0).sum(axis=0) / num_B
            for name, values_CB in (("auc", auc_CB), ("average_precision", precision_CB))
        }

    return Family(parts=tuple(each), join=join)


def _spearman(first_N: FloatArray, second_N: FloatArray, most_levels: int | None) -> Family:
    """Correlation of the ranks that the rows have within the resample."""
    first_level_N, second_level_N = (
        _levels_by_mass(each[None], most_levels)[0][0] for each in (first_N, second_N)
    )
    num_second = int(second_level_N.max()) + 1
    points, point_N = np.unique(first_level_N * num_second + second_level_N, return_inverse=True)
    sides = [_mid_ranks(points // num_second), _mid_ranks(points % num_second)]

    def values(sums_BP: FloatArray) -> Mapping[str, FloatArray]:
        centre_B1 = (sums_BP.sum(axis=1, keepdims=True) + 1) / 2
        left, right = (ranks(sums_BP) - centre_B1 for ranks in sides)
        covariance = (sums_BP * left * right).sum(axis=1)
        spread = (sums_BP * left**2).sum(axis=1) * (sums_BP * right**2).sum(axis=1)
        return {"spearman": covariance / np.sqrt(np.where(spread > 0, spread, np.nan))}

    return _one(Cells(point_N[None], points.size), values)


def _mid_ranks(level_P: IntArray) -> Callable[[FloatArray], FloatArray]:
    """Weights to the average rank [B, P] of each point among the drawn ones."""
    order = np.argsort(level_P, kind="stable")
    starts = _starts_of_equals(level_P[order])

    def ranks(weights_BP: FloatArray) -> FloatArray:
        tied_BK = np.add.reduceat(weights_BP.take(order, axis=1), starts, axis=1)
        middle_BK = np.cumsum(tied_BK, axis=1) - (tied_BK - 1) / 2
        return middle_BK.take(level_P, axis=1)

    return ranks


def _levels_by_mass(values_MN: FloatArray, most_levels: int | None) -> tuple[IntArray, BoolArray]:
    """Levels [M, N] by rising value, one a value or about as many entries in each; which, [K], are of one value."""
    order, sizes = _runs_of_equals(values_MN)
    level_of_run = np.arange(sizes.size)
    if most_levels is not None and sizes.size > most_levels:
        level_of_run = _merged([_quantiles(sizes, most_levels // 2)])
    is_run = np.bincount(level_of_run) == 1
    return _unsorted(level_of_run, order, sizes).reshape(values_MN.shape), is_run


def _levels_of_ranking(
    values_MN: FloatArray, positive_MN: BoolArray, *, all_ranks: bool
) -> tuple[IntArray, BoolArray]:
    """Levels [M, N] by rising value, and which of them, [K], are of one value.

    Runs of equal values become one level where nothing cuts between them: neither a quantile of the positives,
    of the negatives, or of the changes from one to the other (which lie close together where both overlap, be
    that a small share of all), nor a step of a part of an octave in how many are above (the top decides an
    average precision) or below (so that rows far from their like, which decide an AUC near 1, are placed well).
    """
    order, sizes = _runs_of_equals(values_MN)
    level_of_run = np.arange(sizes.size)
    if not all_ranks:
        starts = np.cumsum(sizes) - sizes
        positives = np.add.reduceat(positive_MN.ravel()[order], starts, dtype=np.int64)
        negatives = sizes - positives
        is_mixed = (positives > 0) & (negatives > 0)
        changes = is_mixed | (np.diff(positives > 0, prepend=positives[0] > 0) != 0)
        level_of_run = _merged(
            [
                *(_quantiles(each, QUANTILES) for each in (positives, negatives, changes.astype(np.int64))),
                _octaves(positives),
                _octaves(negatives),
                -_octaves(positives[::-1])[::-1],
            ]
        )
    is_run = np.bincount(level_of_run) == 1
    return _unsorted(level_of_run, order, sizes).reshape(values_MN.shape), is_run


def _runs_of_equals(values_MN: FloatArray) -> tuple[IntArray, IntArray]:
    """The order of rising values, and how many are equal, run by run."""
    order = np.argsort(values_MN, axis=None)
    starts = _starts_of_equals(values_MN.ravel()[order])
    return order, np.diff(starts, append=order.size)


def _quantiles(count_of_run: IntArray, num_quantiles: int) -> IntArray:
    """A number that rises at each quantile: before and behind the run that holds it, which is thus by itself."""
    through = np.cumsum(count_of_run)
    total = max(int(through[-1]), 1)
    rising: IntArray = through * num_quantiles // total + (through - count_of_run) * num_quantiles // total
    return rising


def _octaves(count_of_run: IntArray) -> IntArray:
    """A number that rises with the logarithm of how many there are through each run."""
    octaves: FloatArray = np.log2(1.0 + np.cumsum(count_of_run))
    return np.floor(PER_OCTAVE * octaves).astype(np.int64)


def _merged(rising: Sequence[IntArray]) -> IntArray:
    """The level of each run: a new one wherever one of the numbers rises."""
    cuts = sum(np.diff(each, prepend=each[0]) for each in rising)
    return np.cumsum(np.asarray(cuts) > 0)


def _unsorted(level_of_run: IntArray, order: IntArray, sizes: IntArray) -> IntArray:
    level_D = np.empty(order.size, dtype=np.int64)
    level_D[order] = np.repeat(level_of_run, sizes)
    return level_D


def _starts_of_equals(sorted_D: FloatArray | IntArray) -> IntArray:
    """Where each run of equal values begins."""
    return np.append(0, np.flatnonzero(sorted_D[1:] != sorted_D[:-1]) + 1)
