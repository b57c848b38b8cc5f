"""Metrics agree with scikit-learn and with values worked out by hand."""

from itertools import pairwise

import numpy as np
import pytest
import sklearn.metrics

from assay import metrics
from assay.errors import InputError

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
