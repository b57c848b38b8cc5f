"""Probabilities to decisions."""

import numpy as np
import pytest

from assay.score.decide import decide, score_columns

PROBABILITIES = np.array([[0.7, 0.3], [0.5, 0.5], [0.1, 0.9]])


@pytest.mark.parametrize(
    ("task", "labels", "names"),
    [
        ("single_label", ("a", "b"), ("probability", "prob_a", "prob_b")),
        ("multi_label", ("a", "b"), ("prob_a", "prob_b")),
        ("regression", ("LABEL_0",), ("prediction",)),
        ("regression", ("x", "y"), ("prediction_x", "prediction_y")),
    ],
)
def test_columns_of_a_task(task, labels, names):
    """Each task has its columns, and `decide` fills exactly these, in this order, as float32."""
    assert score_columns(task, labels) == names
    decision = decide(np.full((3, len(labels)), 0.5), task, labels, None)
    assert tuple(decision.scores) == names
    assert all(values.dtype == np.float32 and values.shape == (3,) for values in decision.scores.values())
    assert (decision.label_N is not None) == (task == "single_label")


@pytest.mark.parametrize(
    ("threshold", "chosen"),
    [
        (None, [0, 0, 1]),
        (0.5, [0, 1, 1]),
        (0.3, [1, 1, 1]),
        (0.95, [0, 0, 0]),
        (0.0, [1, 1, 1]),
        (1.0, [0, 0, 0]),
        ((0.3, 0.3), [0, 0, 1]),
    ],
)
def test_the_threshold_of_two_labels(threshold, chosen):
    """The second label holds from the threshold on; without one the likelier holds, ties going to the first."""
    decision = decide(PROBABILITIES, "single_label", ("a", "b"), threshold)
    assert decision.label_N.tolist() == chosen
    own = [PROBABILITIES[row, label] for row, label in enumerate(chosen)]
    np.testing.assert_allclose(decision.scores["probability"], own, rtol=1e-6)


def test_a_threshold_says_nothing_of_three_labels():
    """With three labels the likeliest holds, whatever the threshold."""
    decision = decide(np.array([[0.2, 0.5, 0.3]]), "single_label", ("a", "b", "c"), 0.9)
    assert decision.label_N.tolist() == [1]


@pytest.mark.parametrize(
    ("threshold", "held"),
    [
        (None, [[True, False], [True, True], [False, True]]),
        (0.6, [[True, False], [False, False], [False, True]]),
        ((0.1, 0.95), [[True, False], [True, False], [True, False]]),
    ],
)
def test_labels_that_hold(threshold, held):
    """Each label of a multi-label task from its threshold on, from a common one, or from 0.5; no other column."""
    decision = decide(PROBABILITIES, "multi_label", ("a", "b"), threshold)
    assert decision.holds_NC.tolist() == held
    assert decision.label_N is None
    assert tuple(decision.scores) == ("prob_a", "prob_b")
    assert decide(PROBABILITIES, "single_label", ("a", "b"), None).holds_NC is None


def test_the_interval_of_a_regression():
    """The half width to either side, as float32 beside the prediction; NaN stays NaN."""
    decision = decide(np.array([[1.5], [np.nan]]), "regression", ("score",), None, half_width=0.25)
    assert tuple(decision.scores) == ("prediction", "prediction_low", "prediction_high")
    assert tuple(decision.scores) == score_columns("regression", ("score",), has_interval=True)
    assert [float(values[0]) for values in decision.scores.values()] == [1.5, 1.25, 1.75]
    assert all(np.isnan(values[1]) and values.dtype == np.float32 for values in decision.scores.values())
    assert decision.int_score_N is None


def test_whole_scores_of_a_regression():
    """Rounded with halves to the even number, then clipped; what is not finite raises no warning."""
    values = np.array([[-3.0], [1.49], [1.5], [2.5], [3.51], [9.0], [1e30], [np.nan], [np.inf], [-np.inf]])
    decision = decide(values, "regression", ("score",), None, int_score=(1, 5))
    assert decision.int_score_N.dtype == np.int32
    assert decision.int_score_N.tolist() == [1, 1, 2, 2, 4, 5, 5, 1, 5, 1]
    assert tuple(decision.scores) == ("prediction",)


def test_what_is_written_is_what_was_decided_on():
    """The threshold meets the float32 that the column holds: a reader's own comparison agrees."""
    threshold = 0.1 + 0.2
    decision = decide(np.array([[0.7, 0.3], [0.7, 0.30000001]]), "single_label", ("a", "b"), threshold)
    readers = (decision.scores["prob_b"] >= np.float32(threshold)).astype(int)
    assert decision.label_N.tolist() == readers.tolist()


def test_no_rows():
    """No documents, no decisions."""
    decision = decide(np.empty((0, 2)), "single_label", ("a", "b"), None)
    assert decision.label_N.shape == (0,)
    assert decision.scores["prob_a"].shape == (0,)
