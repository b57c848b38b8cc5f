"""Logits to what is said of documents."""

import numpy as np
import pytest

from assay.outcome.calibration import Calibration
from assay.outcome.decide import Decider
from assay.tasks import Task

PROBABILITIES = np.array([[0.7, 0.3], [0.5, 0.5], [0.1, 0.9]])
AB = ("a", "b")


def logits_of(probabilities_NC, task):
    """Logits whose softmax, or sigmoids, these are; the values themselves of a regression."""
    values = np.asarray(probabilities_NC, dtype=np.float64)
    if task is Task.SINGLE_LABEL:
        return np.log(values)
    return np.log(values / (1 - values)) if task is Task.MULTI_LABEL else values


def decide(probabilities_NC, task, labels=AB, *, threshold=None, half_width=None, int_score=None):
    """What a model says that gives these probabilities."""
    calibration = None
    if half_width is not None:
        calibration = Calibration(method="conformal", half_width=half_width, coverage=0.9)
    elif threshold is not None:
        calibration = Calibration(threshold=threshold)
    decider = Decider(task=task, labels=labels, calibration=calibration, int_score=int_score)
    return decider.decide(logits_of(probabilities_NC, task))


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize(
    ("calibration", "int_score"),
    [(None, None), (Calibration(method="conformal", half_width=0.5, coverage=0.9), (0, 5))],
)
def test_decisions_fill_the_columns_of_the_task(task, calibration, int_score):
    """Exactly the columns that the task has, in their order, numbers as float32."""
    is_number = task is Task.REGRESSION
    decider = Decider(
        task=task,
        labels=("score",) if is_number else AB,
        calibration=calibration if is_number else None,
        int_score=int_score if is_number else None,
    )
    decisions = decider.decide(np.zeros((3, 1 if is_number else 2)))
    assert list(decisions.columns) == list(decider.columns)
    for name, kind in decider.columns.items():
        values = decisions.columns[name]
        assert len(values) == 3
        assert kind not in {"float32", "int32"} or values.dtype == np.dtype(kind)


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
    decisions = decide(PROBABILITIES, Task.SINGLE_LABEL, threshold=threshold)
    assert decisions.label_N.tolist() == chosen
    own = [PROBABILITIES[row, label] for row, label in enumerate(chosen)]
    np.testing.assert_allclose(decisions.columns["probability"], own, rtol=1e-6)


def test_a_threshold_says_nothing_of_three_labels():
    """With three labels the likeliest holds, whatever the threshold."""
    decisions = decide([[0.2, 0.5, 0.3]], Task.SINGLE_LABEL, ("a", "b", "c"), threshold=0.9)
    assert decisions.label_N.tolist() == [1]


@pytest.mark.parametrize(
    ("threshold", "held"),
    [
        (None, [[True, False], [True, True], [False, True]]),
        (0.6, [[True, False], [False, False], [False, True]]),
        ((0.1, 0.95), [[True, False], [True, False], [True, False]]),
    ],
)
def test_labels_that_hold(threshold, held):
    """Each label of a multi-label task from its threshold on, from a common one, or from 0.5."""
    decisions = decide(PROBABILITIES, Task.MULTI_LABEL, threshold=threshold)
    assert decisions.holds_NC.tolist() == held
    assert decisions.columns["labels"].tolist() == held
    assert decisions.label_N is None
    assert decide(PROBABILITIES, Task.SINGLE_LABEL).holds_NC is None


@pytest.mark.parametrize(
    ("task", "labels", "threshold", "thresholds"),
    [
        (Task.SINGLE_LABEL, AB, None, {}),
        (Task.SINGLE_LABEL, AB, 0.3, {"b": 0.3}),
        (Task.SINGLE_LABEL, ("a", "b", "c"), 0.3, {}),
        (Task.MULTI_LABEL, AB, None, {"a": 0.5, "b": 0.5}),
        (Task.MULTI_LABEL, AB, 0.25, {"a": 0.25, "b": 0.25}),
        (Task.MULTI_LABEL, AB, (0.25, 0.75), {"a": 0.25, "b": 0.75}),
        (Task.REGRESSION, ("score",), None, {}),
    ],
)
def test_thresholds_have_the_names_of_their_labels(task, labels, threshold, thresholds):
    """Each label with the probability from which on it holds; none where the likeliest is predicted."""
    calibration = None if threshold is None else Calibration(threshold=threshold)
    assert Decider(task=task, labels=labels, calibration=calibration).thresholds == thresholds


def test_the_interval_of_a_regression():
    """The half width to either side, as float32 beside the prediction; NaN stays NaN and is not a score."""
    decisions = decide([[1.5], [np.nan]], Task.REGRESSION, ("score",), half_width=0.25)
    assert list(decisions.columns) == ["prediction", "prediction_low", "prediction_high"]
    assert [float(values[0]) for values in decisions.columns.values()] == [1.5, 1.25, 1.75]
    assert all(np.isnan(values[1]) and values.dtype == np.float32 for values in decisions.columns.values())
    assert decisions.is_finite_N.tolist() == [True, False]


def test_whole_scores_of_a_regression():
    """Rounded with halves to the even number, then clipped; what is not finite raises no warning."""
    values = [[-3.0], [1.49], [1.5], [2.5], [3.51], [9.0], [1e30], [np.nan], [np.inf], [-np.inf]]
    decisions = decide(values, Task.REGRESSION, ("score",), int_score=(1, 5))
    assert list(decisions.columns) == ["prediction", "int_score"]
    assert decisions.columns["int_score"].tolist() == [1, 1, 2, 2, 4, 5, 5, 1, 5, 1]


@pytest.mark.parametrize("task", [Task.SINGLE_LABEL, Task.MULTI_LABEL])
def test_what_is_written_is_what_was_decided_on(task):
    """The threshold meets the float32 that the column holds: a reader's own comparison agrees."""
    threshold = 0.1 + 0.2
    decisions = decide([[0.7, 0.3], [0.7, 0.30000001]], task, threshold=threshold)
    readers = decisions.columns["prob_b"] >= np.float32(threshold)
    decided = decisions.label_N == 1 if task is Task.SINGLE_LABEL else decisions.holds_NC[:, 1]
    assert decided.tolist() == readers.tolist()


@pytest.mark.parametrize("task", [Task.SINGLE_LABEL, Task.MULTI_LABEL])
def test_no_rows(task):
    """No documents, no decisions."""
    decisions = decide(np.empty((0, 2)), task)
    assert {name: len(values) for name, values in decisions.columns.items()} == dict.fromkeys(
        decisions.columns, 0
    )
    assert decisions.is_finite_N.shape == (0,)
