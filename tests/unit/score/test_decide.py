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
