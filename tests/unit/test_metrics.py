"""Metrics agree with scikit-learn and with values worked out by hand."""

from itertools import pairwise

import numpy as np
import pytest
import sklearn.metrics

from assay import metrics
from assay.errors import InputError
from assay.tasks import Task

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 4, size=300)
LOGITS = RNG.normal(size=(300, 4)) * 3 + 2 * np.eye(4)[LABELS]
PROBABILITIES = metrics.softmax(LOGITS)
PREDICTED = PROBABILITIES.argmax(axis=1)


def test_accuracy_and_macro_f1_agree_with_scikit_learn():
    """The same numbers as scikit-learn, also where a class is never predicted."""
    assert metrics.accuracy(LABELS, PREDICTED) == pytest.approx(
        sklearn.metrics.accuracy_score(LABELS, PREDICTED)
    )
    never_three = np.where(PREDICTED == 3, 0, PREDICTED)
    expected = sklearn.metrics.f1_score(LABELS, never_three, average="macro")
    assert metrics.macro_f1(LABELS, never_three) == pytest.approx(expected)


def test_macro_f1_takes_strings_and_counts_a_class_seen_only_in_predictions():
    """Labels may be names; a class that only the classifier named counts with F1 0."""
    assert metrics.macro_f1(["a", "a", "b"], ["a", "c", "b"]) == pytest.approx((2 / 3 + 1 + 0) / 3)


@pytest.mark.parametrize("decimals", [0, 1, 9])
def test_auc_agrees_with_scikit_learn_under_ties(decimals):
    """Ties count half, however many there are."""
    scores = LOGITS[:, 0].round(decimals)
    expected = sklearn.metrics.roc_auc_score(LABELS == 0, scores)
    assert metrics.auc(LABELS == 0, scores) == pytest.approx(expected, abs=1e-12)


def test_auc_of_one_class_is_refused():
    """AUC of one class is undefined and says so."""
    with pytest.raises(InputError, match="all 3 labels are 1; AUC needs both classes"):
        metrics.auc([1, 1, 1], [0.1, 0.2, 0.3])


def test_nll_and_brier_agree_with_scikit_learn():
    """Log loss as scikit-learn's; Brier is the sum over classes, so twice the binary score."""
    assert metrics.nll(PROBABILITIES, LABELS) == pytest.approx(
        sklearn.metrics.log_loss(LABELS, PROBABILITIES)
    )
    two = metrics.softmax(LOGITS[:, :2])
    binary = (LABELS > 0).astype(int)
    expected = 2 * sklearn.metrics.brier_score_loss(binary, two[:, 1])
    assert metrics.brier(two, binary) == pytest.approx(expected)


# Answers: 0.9 and 0.7 right, 0.6 a false alarm, 0.2 right, 0.4 a miss; the two at 0.5 are unanswered.
PAIR_LABELS = [1, 1, 0, 0, 1, 1, 0]
PAIR_PROBABILITIES = [0.9, 0.7, 0.6, 0.2, 0.4, 0.5, 0.5]


def test_pan_metrics_are_those_worked_out_by_hand():
    """3 of 7 right and 2 unanswered; 2 hits, 1 miss, 1 false alarm and 2 unanswered; the squared errors."""
    assert metrics.c_at_1(PAIR_LABELS, PAIR_PROBABILITIES) == pytest.approx((3 + 2 * 3 / 7) / 7)
    expected = 1.25 * 2 / (1.25 * 2 + 0.25 * (1 + 2) + 1)
    assert metrics.f05_u(PAIR_LABELS, PAIR_PROBABILITIES) == pytest.approx(expected)
    squares = 0.01 + 0.09 + 0.36 + 0.04 + 0.36 + 0.25 + 0.25
    assert metrics.brier_complement(PAIR_LABELS, PAIR_PROBABILITIES) == pytest.approx(1 - squares / 7)


def test_a_band_makes_more_non_answers():
    """Within 0.15 of 0.5 only 0.9, 0.7 and 0.2 are answers, all of them right."""
    found = metrics.c_at_1(PAIR_LABELS, PAIR_PROBABILITIES, unanswered_within=0.15)
    assert found == pytest.approx((3 + 4 * 3 / 7) / 7)
    found = metrics.f05_u(PAIR_LABELS, PAIR_PROBABILITIES, unanswered_within=0.15)
    assert found == pytest.approx(1.25 * 2 / (1.25 * 2 + 0.25 * 4))


def test_with_every_row_answered_pan_metrics_are_known_ones():
    """c@1 is accuracy, F0.5u is F0.5, and the complement is 1 less scikit-learn's Brier score."""
    labels, probabilities = RNG.integers(0, 2, 200), RNG.random(200)
    predicted = probabilities > 0.5
    assert metrics.c_at_1(labels, probabilities) == pytest.approx(metrics.accuracy(labels, predicted))
    expected = sklearn.metrics.fbeta_score(labels, predicted, beta=0.5)
    assert metrics.f05_u(labels, probabilities) == pytest.approx(expected)
    expected = 1 - sklearn.metrics.brier_score_loss(labels, probabilities)
    assert metrics.brier_complement(labels, probabilities) == pytest.approx(expected)


def test_a_wrong_answer_less_is_worth_more_than_it():
    """Leaving a wrong answer out raises c@1 and, of a false alarm, F0.5u; leaving a right one out lowers both."""
    for measure in (metrics.c_at_1, metrics.f05_u):
        all_answered = measure([1, 1, 0, 0], [0.9, 0.8, 0.7, 0.1])
        assert measure([1, 1, 0, 0], [0.9, 0.8, 0.5, 0.1]) > all_answered
        assert measure([1, 1, 0, 0], [0.9, 0.5, 0.7, 0.1]) < all_answered
    assert metrics.c_at_1([1, 0], [0.5, 0.5]) == metrics.f05_u([1, 0], [0.5, 0.5]) == 0


def test_f05_u_of_nothing_to_find_is_refused():
    """Only true negatives leave 0 / 0, and the message says so."""
    with pytest.raises(InputError, match="no row is positive, predicted so or unanswered"):
        metrics.f05_u([0, 0], [0.1, 0.2])


def test_nll_of_an_impossible_label_is_large_and_finite():
    """A probability of 0 for the true label costs much, never infinity."""
    assert 600 < metrics.nll([[1.0, 0.0]], [1]) < 800


def test_softmax_and_sigmoid_survive_large_logits():
    """No overflow, no NaN; rows sum to 1; the two-class softmax is the sigmoid of the difference."""
    probabilities = metrics.softmax(np.array([[1e4, 0.0], [-1e4, 1e4]], dtype=np.float32))
    assert probabilities.dtype == np.float64
    np.testing.assert_array_equal(probabilities, [[1.0, 0.0], [0.0, 1.0]])
    np.testing.assert_array_equal(metrics.sigmoid([-1e4, 0.0, 1e4]), [0.0, 0.5, 1.0])
    np.testing.assert_allclose(
        metrics.softmax(LOGITS[:, :2])[:, 1], metrics.sigmoid(LOGITS[:, 1] - LOGITS[:, 0])
    )


def test_ece_by_hand():
    """Two bins of two rows: |0.5 - 0.95| / 2 + |1 - 0.65| / 2 = 0.4."""
    probabilities = [[0.95, 0.05], [0.95, 0.05], [0.65, 0.35], [0.65, 0.35]]
    labels = [0, 1, 0, 0]
    assert metrics.ece(probabilities, labels, num_bins=10) == pytest.approx(0.4)
    assert metrics.ece(probabilities, labels, num_bins=2, binning="equal-mass") == pytest.approx(0.4)


def test_ece_of_one_bin_is_the_gap_between_mean_confidence_and_accuracy():
    """With one bin nothing can hide or cancel: the plain gap."""
    gap = abs(PROBABILITIES.max(axis=1).mean() - (PREDICTED == LABELS).mean())
    assert metrics.ece(PROBABILITIES, LABELS, num_bins=1) == pytest.approx(gap)


@pytest.mark.parametrize("binning", ["equal-width", "equal-mass"])
def test_reliability_bins_hold_every_row_once(binning):
    """Bins count each row once and lie in order; ties share a bin."""
    confidence = PROBABILITIES.max(axis=1).round(1)
    bins = metrics.reliability_bins(confidence, PREDICTED == LABELS, num_bins=7, binning=binning)
    assert sum(each.num_rows for each in bins) == 300
    assert [each.confidence for each in bins] == sorted(each.confidence for each in bins)
    assert all(each.low - 1e-12 <= each.confidence <= each.high + 1e-12 for each in bins)
    if binning == "equal-mass":
        assert all(first.high < second.low for first, second in pairwise(bins))


def test_reliability_bin_edges_belong_to_the_bin_below():
    """(low, high] as in Guo et al.; 0 belongs to the first bin and 1 to the last."""
    bins = metrics.reliability_bins([0.0, 0.5, 0.51, 1.0], [0, 1, 1, 1], num_bins=2)
    assert [(each.low, each.high, each.num_rows) for each in bins] == [(0.0, 0.5, 2), (0.5, 1.0, 2)]


def test_equal_mass_bins_have_equal_mass_without_ties():
    """300 different confidences in 10 bins: 30 each."""
    bins = metrics.reliability_bins(
        PROBABILITIES.max(axis=1), PREDICTED == LABELS, num_bins=10, binning="equal-mass"
    )
    assert [each.num_rows for each in bins] == [30] * 10


@pytest.mark.parametrize("binning", ["equal-width", "equal-mass"])
def test_a_reliability_diagram_is_of_the_most_probable_label_or_of_all_decisions(binning):
    """By the shape of the targets: one class a row, or 0/1 for each label."""
    found = metrics.reliability_diagram(PROBABILITIES, LABELS, binning=binning)
    confidence = PROBABILITIES.max(axis=1)
    assert found == metrics.reliability_bins(confidence, PREDICTED == LABELS, binning=binning)
    holds_NC = np.eye(PROBABILITIES.shape[1])[LABELS]
    every = metrics.reliability_diagram(PROBABILITIES, holds_NC, binning=binning)
    assert sum(each.num_rows for each in every) == PROBABILITIES.size
    right = sum(each.num_rows * each.accuracy for each in every)
    assert right == pytest.approx(len(LABELS))


def test_spearman_by_hand_and_under_ties():
    """1 for any rising map, -1 for a falling one, average ranks for ties."""
    values = RNG.normal(size=50)
    assert metrics.spearman(values, np.exp(values)) == pytest.approx(1.0)
    assert metrics.spearman(values, -(values**3)) == pytest.approx(-1.0)
    np.testing.assert_array_equal(metrics.average_ranks([3, 1, 3]), [2.5, 1.0, 2.5])
    ranks = [metrics.average_ranks(LABELS), metrics.average_ranks(PREDICTED)]
    assert metrics.spearman(LABELS, PREDICTED) == pytest.approx(np.corrcoef(ranks)[0, 1])


def test_spearman_of_a_constant_is_refused():
    """A constant has no ranks."""
    with pytest.raises(InputError, match="all 3 values of one side are equal"):
        metrics.spearman([1, 1, 1], [1, 2, 3])


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: metrics.accuracy([], []), "length above 0"),
        (lambda: metrics.accuracy([1, 2], [1]), r"shapes \(2,\) and \(1,\)"),
        (lambda: metrics.nll([[0.5, 0.5]], [2]), r"class indices 0\.\.1"),
        (lambda: metrics.nll([[0.5, 0.5]], [0.0]), "labels of type float64"),
        (lambda: metrics.brier([0.5], [0]), r"probabilities \[N, C\]"),
        (lambda: metrics.ece(PROBABILITIES, LABELS, num_bins=0), "num_bins=0"),
    ],
)
def test_bad_arrays_are_refused(call, match):
    """Empty, unequal or out-of-range input is an error, not NaN."""
    with pytest.raises(InputError, match=match):
        call()


def test_class_report_names_every_metric():
    """One value a name, as the functions give them."""
    report = metrics.class_report(PROBABILITIES, LABELS)
    assert set(report) == {"num_rows", *metrics.CLASS_METRICS}
    assert report["num_rows"] == 300
    assert report["accuracy"] == metrics.accuracy(LABELS, PREDICTED)
    assert report["ece"] == metrics.ece(PROBABILITIES, LABELS)


# ---------------------------------------------------------------- classes


def test_weighted_f1_and_balanced_accuracy_agree_with_scikit_learn():
    """The same numbers as scikit-learn, also where a class is never predicted."""
    never_three = np.where(PREDICTED == 3, 0, PREDICTED)
    for predicted in (PREDICTED, never_three):
        assert metrics.weighted_f1(LABELS, predicted) == pytest.approx(
            sklearn.metrics.f1_score(LABELS, predicted, average="weighted")
        )
        assert metrics.balanced_accuracy(LABELS, predicted) == pytest.approx(
            sklearn.metrics.balanced_accuracy_score(LABELS, predicted)
        )


def test_confusion_matrix_agrees_with_scikit_learn_and_keeps_classes_without_rows():
    """True labels down, predicted ones across; a class that never occurs is a row of zeros."""
    expected = sklearn.metrics.confusion_matrix(LABELS, PREDICTED, labels=range(5))
    np.testing.assert_array_equal(metrics.confusion_matrix(LABELS, PREDICTED, 5), expected)


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_precision_recall_and_f_beta_agree_with_scikit_learn(beta):
    """Of binary labels, for any beta."""
    labels, predicted = LABELS == 1, PREDICTED == 1
    assert metrics.precision(labels, predicted) == pytest.approx(
        sklearn.metrics.precision_score(labels, predicted)
    )
    assert metrics.recall(labels, predicted) == pytest.approx(sklearn.metrics.recall_score(labels, predicted))
    assert metrics.f_beta(labels, predicted, beta) == pytest.approx(
        sklearn.metrics.fbeta_score(labels, predicted, beta=beta)
    )


@pytest.mark.parametrize("decimals", [0, 1, 9])
def test_average_precision_and_its_curve_agree_with_scikit_learn_under_ties(decimals):
    """Steps, not trapezes; equal scores share a threshold."""
    labels, scores = LABELS == 0, LOGITS[:, 0].round(decimals)
    assert metrics.average_precision(labels, scores) == pytest.approx(
        sklearn.metrics.average_precision_score(labels, scores)
    )
    precision, recall, thresholds = sklearn.metrics.precision_recall_curve(labels, scores)
    curve = metrics.precision_recall_curve(labels, scores)
    np.testing.assert_allclose(curve.precision, precision[:-1][::-1])
    np.testing.assert_allclose(curve.recall, recall[:-1][::-1])
    np.testing.assert_allclose(curve.threshold, thresholds[::-1])


def test_auc_and_average_precision_of_many_classes_agree_with_scikit_learn():
    """One against the rest, each class counting the same; of two classes the second."""
    assert metrics.macro_auc(LABELS, PROBABILITIES) == pytest.approx(
        sklearn.metrics.roc_auc_score(LABELS, PROBABILITIES, multi_class="ovr")
    )
    assert metrics.macro_average_precision(LABELS, PROBABILITIES) == pytest.approx(
        sklearn.metrics.average_precision_score(np.eye(4)[LABELS], PROBABILITIES, average="macro")
    )
    two = metrics.softmax(LOGITS[:, :2])
    binary = (LABELS == 1).astype(int)
    assert metrics.macro_auc(binary, two) == pytest.approx(sklearn.metrics.roc_auc_score(binary, two[:, 1]))


def test_a_class_without_rows_is_left_out_of_the_mean_over_classes():
    """It has no AUC; the others have."""
    rows = LABELS != 3
    each = [sklearn.metrics.roc_auc_score(LABELS[rows] == c, PROBABILITIES[rows, c]) for c in range(3)]
    assert metrics.macro_auc(LABELS[rows], PROBABILITIES[rows]) == pytest.approx(np.mean(each))


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: metrics.precision([1, 0], [0, 0]), "no row is predicted positive"),
        (lambda: metrics.recall([0, 0], [1, 0]), "no row is positive"),
        (lambda: metrics.f_beta([0, 0], [0, 0]), "F1 is undefined"),
        (lambda: metrics.average_precision([0, 0], [0.1, 0.2]), "none of 2 labels is positive"),
        (lambda: metrics.macro_auc([1, 1], [[0.5, 0.5], [0.4, 0.6]]), "all 2 labels are 1"),
        (lambda: metrics.multilabel_f1([[0, 0]], [[0, 0]], "micro"), "no label occurs"),
        (lambda: metrics.multilabel_macro(metrics.auc, [[1, 0]], [[0.5, 0.5]]), "for all rows or for none"),
        (lambda: metrics.confusion_matrix([0, 3], [0, 0], 3), r"class indices 0\.\.2"),
        (lambda: metrics.multilabel_nll([1, 0], [0.5, 0.5]), r"two arrays \[N, C\]"),
    ],
)
def test_what_rows_leave_undefined_is_an_error_that_says_why(call, match):
    """Neither 0 nor NaN."""
    with pytest.raises(InputError, match=match):
        call()


# ---------------------------------------------------------------- many labels, numbers, pairs


SETS = RNG.random(size=(200, 5)) < [0.5, 0.3, 0.1, 0.05, 0.4]
SAID = metrics.sigmoid(RNG.normal(size=(200, 5)) + 2 * SETS - 1)


@pytest.mark.parametrize("average", ["macro", "micro"])
def test_multilabel_f1_agrees_with_scikit_learn(average):
    """Over labels, or over all decisions together."""
    expected = sklearn.metrics.f1_score(SETS, SAID >= 0.5, average=average)
    assert metrics.multilabel_f1(SETS, SAID >= 0.5, average) == pytest.approx(expected)


def test_multilabel_probabilities_agree_with_scikit_learn():
    """Means over labels of AUC and average precision; NLL and Brier a decision; labels alike row by row."""
    assert metrics.multilabel_macro(metrics.auc, SETS, SAID) == pytest.approx(
        sklearn.metrics.roc_auc_score(SETS, SAID)
    )
    assert metrics.multilabel_macro(metrics.average_precision, SETS, SAID) == pytest.approx(
        sklearn.metrics.average_precision_score(SETS, SAID)
    )
    assert metrics.multilabel_nll(SETS, SAID) == pytest.approx(
        sklearn.metrics.log_loss(SETS.ravel(), SAID.ravel())
    )
    assert metrics.multilabel_brier(SETS, SAID) == pytest.approx(
        sklearn.metrics.brier_score_loss(SETS.ravel(), SAID.ravel())
    )
    assert metrics.subset_accuracy(SETS, SAID >= 0.5) == pytest.approx(
        sklearn.metrics.accuracy_score(SETS, SAID >= 0.5)
    )


def test_multilabel_ece_is_that_of_all_decisions():
    """Decisions are rows of one reliability diagram."""
    assert metrics.multilabel_ece(SETS, SAID) == metrics.calibration_error(SAID.ravel(), SETS.ravel())


def test_errors_of_numbers_agree_with_scikit_learn():
    """MAE and RMSE, in the unit of the targets."""
    values = LOGITS[:, 0]
    assert metrics.mae(LABELS, values) == pytest.approx(sklearn.metrics.mean_absolute_error(LABELS, values))
    assert metrics.rmse(LABELS, values) == pytest.approx(
        sklearn.metrics.root_mean_squared_error(LABELS, values)
    )


def test_whole_scores_round_halves_to_even_and_stay_in_range():
    """As Python's round; what lies outside is clipped."""
    values = [-3.0, 0.5, 1.5, 2.5, 3.49, 9.0]
    assert metrics.whole_scores(values, 0, 5).tolist() == [max(0, min(5, round(value))) for value in values]
    assert metrics.int_macro_f1([1.0, 2.0], [1.2, 2.4], 1, 5) == 1.0


@pytest.mark.parametrize(
    ("only_first", "only_second"), [(0, 0), (5, 5), (1, 9), (12, 3), (0, 40), (400, 480)]
)
def test_mcnemar_is_the_exact_binomial_test(only_first, only_second):
    """As SciPy's two-sided binomial test of the rows on which one alone is right."""
    from scipy.stats import binomtest

    first = [1] * 50 + [1] * only_first + [0] * only_second
    second = [1] * 50 + [0] * only_first + [1] * only_second
    differing = only_first + only_second
    expected = binomtest(only_first, differing).pvalue if differing else 1.0
    assert metrics.mcnemar(first, second) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("task", "outputs", "targets", "names"),
    [
        (Task.SINGLE_LABEL, PROBABILITIES, LABELS, {"accuracy", "macro_f1", "nll", "auc"}),
        (Task.MULTI_LABEL, SAID, SETS, {"macro_f1", "nll", "auc"}),
        (Task.REGRESSION, LOGITS[:, :1], LABELS.astype(float), {"mae", "spearman", "int_macro_f1"}),
    ],
)
def test_validation_metrics_have_what_can_choose_a_checkpoint(task, outputs, targets, names):
    """The names of each task, all finite."""
    found = metrics.validation_metrics(task, outputs, targets, int_score=(0, 3))
    assert names <= set(found)
    assert all(np.isfinite(value) for value in found.values())


def test_validation_metrics_are_nan_where_undefined():
    """A model that says the same of every row has no rank correlation; NaN is never the best."""
    found = metrics.validation_metrics(Task.REGRESSION, np.ones(3), [1.0, 2.0, 3.0])
    assert np.isnan(found["spearman"])
    assert found["mae"] == 1.0


@pytest.mark.parametrize("name", metrics.TITLES)
def test_every_metric_has_the_range_of_its_values(name):
    """Shares lie between 0 and 1, errors have no upper end, a correlation may be negative."""
    low, high = metrics.range_of(name)
    assert low < high
    assert low == (-1 if name == "spearman" else 0)
    is_unbounded = name in {"nll", "mae", "rmse", "mean_width"}
    assert high == (np.inf if is_unbounded else 2 if name == "brier" else 1)
