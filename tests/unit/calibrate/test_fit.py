"""Choosing a map and saying how good it is, from logits and targets alone."""

import numpy as np
import pytest

from assay.calibrate.fit import (
    Examples,
    choose_method,
    choose_thresholds,
    cross_validate,
    decide_rows,
    decision_report,
    fit_map,
    quality,
    refuse_other_method,
)
from assay.calibrate.folds import fold_rows
from assay.calibrate.thresholds import Goal
from assay.errors import InputError, UsageError
from assay.metrics import sigmoid, softmax
from assay.outcome.calibration import Calibration
from assay.outcome.decide import Decider
from assay.outcome.maps import apply_calibration
from assay.tasks import Task

TWO, THREE = ("no", "yes"), ("a", "b", "c")


def single(num_rows, *, labels=TWO, temperature=1.0, seed=0):
    """Rows whose logits are too large by `temperature`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(num_rows, len(labels))) * 1.5
    targets = np.array([rng.choice(len(labels), p=row) for row in softmax(logits)])
    return Examples(logits_NC=logits * temperature, targets=targets, task=Task.SINGLE_LABEL, labels=labels)


def multi(num_rows, *, shift=(0.0, 0.0, 0.0), seed=0):
    """Rows of three labels, each shifted by its own constant."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(num_rows, 3)) * 2
    targets = (rng.random(logits.shape) < sigmoid(logits)).astype(np.float64)
    return Examples(logits_NC=logits + shift, targets=targets, task=Task.MULTI_LABEL, labels=THREE)


def halves(examples):
    """The first and the second half of the rows."""
    first = np.arange(len(examples.targets)) < len(examples.targets) // 2
    return examples.take(first), examples.take(~first)


@pytest.mark.parametrize("method", ["temperature", "vector", "logistic", "isotonic"])
def test_each_method_mends_too_sure_logits_of_two_labels(method):
    """Measured on rows that the fit has not seen."""
    fit_on, fresh = halves(single(4_000, temperature=3.0))
    before = quality(apply_calibration(fresh.logits_NC, None, Task.SINGLE_LABEL), fresh)
    after = quality(apply_calibration(fresh.logits_NC, fit_map(method, fit_on), Task.SINGLE_LABEL), fresh)
    assert after["ece"] < before["ece"] / 2
    assert after["nll"] < before["nll"]


@pytest.mark.parametrize("method", ["temperature", "vector", "isotonic"])
def test_each_method_mends_three_labels(method):
    """The same with more labels than two."""
    fit_on, fresh = halves(single(4_000, labels=THREE, temperature=3.0))
    before = quality(apply_calibration(fresh.logits_NC, None, Task.SINGLE_LABEL), fresh)
    after = quality(apply_calibration(fresh.logits_NC, fit_map(method, fit_on), Task.SINGLE_LABEL), fresh)
    assert after["ece"] < before["ece"] / 2


@pytest.mark.parametrize("method", ["logistic", "isotonic"])
def test_labels_that_are_off_each_in_its_own_way_need_maps_of_their_own(method):
    """Shifts of +2, -2 and 0: one temperature cannot fix them, a map a label can."""
    fit_on, fresh = halves(multi(4_000, shift=(2.0, -2.0, 0.0)))
    one = quality(apply_calibration(fresh.logits_NC, fit_map("temperature", fit_on), Task.MULTI_LABEL), fresh)
    each = quality(apply_calibration(fresh.logits_NC, fit_map(method, fit_on), Task.MULTI_LABEL), fresh)
    assert each["brier"] < one["brier"] - 0.02
    assert each["nll"] < one["nll"] - 0.05


@pytest.mark.parametrize(
    ("examples", "methods", "expected"),
    [
        (
            multi(2_000, shift=(2.0, -2.0, 1.0)),
            Task.MULTI_LABEL.calibration_methods(3),
            {"logistic", "isotonic"},
        ),
        (single(150, labels=THREE, temperature=2.5), ("temperature", "isotonic"), {"temperature"}),
    ],
)
def test_auto_takes_what_the_rows_ask_for(examples, methods, expected):
    """A shifted multi-label head wants a map a label; 150 rows of stretched logits are too few for curves."""
    fold_N = fold_rows(len(examples.targets), num_folds=5, seed=0, strata=examples.strata)
    best, scores, failed = choose_method(methods, examples, fold_N, "brier")
    assert best in expected
    assert scores[best] == min(scores.values())
    assert set(scores) == set(methods)
    assert not failed


def test_auto_is_not_fooled_by_a_group():
    """Rows of one author are alike: dealt out singly, isotonic memorises them; by group it is found out."""
    rng = np.random.default_rng(0)
    author_N = np.repeat(np.arange(25), 40)
    score_A, luck_A = rng.normal(size=25) * 1.5, rng.random(25)
    truth_A = luck_A < sigmoid(score_A)
    logits = np.stack([np.zeros(1_000), score_A[author_N] + rng.normal(size=1_000) * 1e-4], axis=1)
    examples = Examples(
        logits_NC=logits, targets=truth_A[author_N].astype(np.int64), task=Task.SINGLE_LABEL, labels=TWO
    )
    names = tuple(map(str, author_N))
    singly = fold_rows(1_000, num_folds=5, seed=0, strata=examples.strata)
    by_group = fold_rows(1_000, num_folds=5, seed=0, groups=names)
    _, flattering, _ = choose_method(("temperature", "isotonic"), examples, singly, "brier")
    _, honest, _ = choose_method(("temperature", "isotonic"), examples, by_group, "brier")
    assert flattering["isotonic"] < flattering["temperature"]
    assert honest["isotonic"] > flattering["isotonic"] + 0.05


def test_what_is_measured_on_the_rows_of_the_fit_is_too_kind_and_cross_validation_is_not():
    """In-sample, isotonic looks perfect on 60 rows; cross-validated it says what fresh rows will show."""
    examples = single(60, temperature=4.0)
    fitted = fit_map("isotonic", examples)
    inside = quality(apply_calibration(examples.logits_NC, fitted, Task.SINGLE_LABEL), examples)
    fold_N = fold_rows(60, num_folds=5, seed=0, strata=examples.strata)
    crossed = quality(cross_validate("isotonic", examples, fold_N).probabilities_NC, examples)
    fresh = single(4_000, temperature=4.0, seed=1)
    truth = quality(apply_calibration(fresh.logits_NC, fitted, Task.SINGLE_LABEL), fresh)
    assert inside["nll"] < truth["nll"] - 0.05
    assert abs(crossed["nll"] - truth["nll"]) < abs(inside["nll"] - truth["nll"])


def test_the_threshold_of_a_fold_comes_from_the_others():
    """Cross-validated decisions of noise are as good as noise, though the best threshold in-sample is not."""
    rng = np.random.default_rng(0)
    logits = np.stack([np.zeros(400), rng.normal(size=400)], axis=1)
    targets = rng.integers(0, 2, 400)
    # A little signal, so that there is a map at all.
    logits[:, 1] += 0.4 * targets
    examples = Examples(logits_NC=logits, targets=targets, task=Task.SINGLE_LABEL, labels=TWO)
    goal = Goal(by="accuracy")
    fitted = fit_map("logistic", examples)
    probabilities = apply_calibration(logits, fitted, Task.SINGLE_LABEL)
    decided = decide_rows(probabilities, Task.SINGLE_LABEL, choose_thresholds(probabilities, examples, goal))
    fold_N = fold_rows(400, num_folds=5, seed=0, strata=examples.strata)
    crossed = cross_validate("logistic", examples, fold_N, goal)
    inside, _ = decision_report(decided, examples)
    honest, _ = decision_report(crossed.decided, examples)
    assert honest["accuracy"] < inside["accuracy"]


@pytest.mark.parametrize("threshold", [None, 0.3, (0.2, 0.9, 0.5)])
@pytest.mark.parametrize("task", [Task.SINGLE_LABEL, Task.MULTI_LABEL])
def test_decisions_are_those_of_scoring(task, threshold):
    """Thresholds are judged by the very decisions that a scored part will hold."""
    logits_NC = np.random.default_rng(0).normal(size=(200, 3 if isinstance(threshold, tuple) else 2))
    calibration = Calibration(temperature=1.7, threshold=threshold)
    decider = Decider(task=task, labels=THREE[: logits_NC.shape[1]], calibration=calibration)
    scored = decider.decide(logits_NC)
    expected = scored.holds_NC if task is Task.MULTI_LABEL else scored.label_N
    found = decide_rows(apply_calibration(logits_NC, calibration, task), task, threshold)
    np.testing.assert_array_equal(found, expected)


def test_decisions_of_three_labels():
    """Means over the labels of precision, recall and F; balanced accuracy is the mean recall."""
    examples = Examples(
        logits_NC=np.zeros((4, 3)), targets=np.array([0, 0, 1, 2]), task=Task.SINGLE_LABEL, labels=THREE
    )
    found, by_label = decision_report(np.array([0, 1, 1, 2]), examples)
    assert found["accuracy"] == 0.75
    assert found["balanced_accuracy"] == found["recall"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert found["precision"] == pytest.approx((1 + 0.5 + 1) / 3)
    assert by_label["b"]["precision"] == 0.5


@pytest.mark.parametrize("method", ["temperature", "vector", "logistic", "isotonic"])
def test_rows_that_teach_nothing_are_refused_by_every_method(method):
    """One label alone; every row right: each is named, none gives a map that is sure of everything."""
    logits = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]])
    examples = Examples(logits_NC=logits, targets=np.array([0, 0, 0]), task=Task.SINGLE_LABEL, labels=TWO)
    with pytest.raises(InputError, match="all 3 rows are labelled 'no'"):
        fit_map(method, examples)
    right = Examples(logits_NC=logits, targets=np.array([0, 1, 0]), task=Task.SINGLE_LABEL, labels=TWO)
    with pytest.raises(InputError, match="all 3 calibration rows are predicted right"):
        fit_map(method, right)


@pytest.mark.parametrize("method", ["vector", "isotonic"])
def test_a_label_without_rows_has_no_map_of_its_own(method):
    """The label is named, and the way out: temperature, which needs none, takes these rows."""
    rows = single(50, labels=THREE)
    examples = Examples(
        logits_NC=rows.logits_NC, targets=rows.targets % 2, task=Task.SINGLE_LABEL, labels=THREE
    )
    with pytest.raises(InputError, match=r"label 'c' holds in 0 of 50 rows.*--method temperature"):
        fit_map(method, examples)
    assert fit_map("temperature", examples).temperature > 0


def test_a_multi_label_head_needs_rows_with_and_without_each_label():
    """A label that always holds, and all of them at once."""
    rows = multi(50)
    targets = rows.targets.copy()
    targets[:, 1] = 1
    examples = Examples(logits_NC=rows.logits_NC, targets=targets, task=Task.MULTI_LABEL, labels=THREE)
    with pytest.raises(InputError, match="label 'b' holds in 50 of 50 rows"):
        fit_map("logistic", examples)
    nothing = Examples(
        logits_NC=rows.logits_NC, targets=np.zeros_like(targets), task=Task.MULTI_LABEL, labels=THREE
    )
    with pytest.raises(InputError, match="each label holds in all 50 rows or in none"):
        fit_map("temperature", nothing)


def test_auto_says_which_method_it_left_out():
    """A label of three rows is missing from some folds: vector and isotonic have no figure, and say why."""
    rows = single(60, labels=THREE, temperature=2.0)
    targets = rows.targets % 2
    targets[0] = 2
    examples = Examples(logits_NC=rows.logits_NC, targets=targets, task=Task.SINGLE_LABEL, labels=THREE)
    fold_N = fold_rows(60, num_folds=5, seed=0, strata=examples.strata)
    best, scores, failed = choose_method(Task.SINGLE_LABEL.calibration_methods(3), examples, fold_N, "ece")
    assert best == "temperature"
    assert set(scores) == {"temperature"}
    assert "label 'c'" in failed["vector"]
    with pytest.raises(InputError, match="no method can be cross-validated; label 'c'"):
        choose_method(("vector",), examples, fold_N, "ece")


def test_a_label_whose_constraint_cannot_be_kept_is_named():
    """One label of a multi-label head is enough to refuse."""
    examples = multi(200)
    with pytest.raises(InputError, match=r"label 'a': precision 1 is asked for; the best"):
        choose_thresholds(
            np.tile(np.linspace(0, 1, 200)[:, None], 3),
            Examples(
                logits_NC=examples.logits_NC,
                targets=np.tile((np.arange(200) % 2 == 0)[:, None], 3).astype(float),
                task=Task.MULTI_LABEL,
                labels=THREE,
            ),
            Goal(by="recall_at_precision", min_precision=1.0),
        )


@pytest.mark.parametrize(
    ("method", "task", "num_labels"),
    [
        ("conformal", Task.SINGLE_LABEL, 2),
        ("logistic", Task.SINGLE_LABEL, 3),
        ("vector", Task.MULTI_LABEL, 3),
        ("temperature", Task.REGRESSION, 1),
        ("auto", Task.REGRESSION, 1),
    ],
)
def test_a_method_that_the_head_cannot_have_is_refused(method, task, num_labels):
    """The message lists those that it can."""
    with pytest.raises(UsageError, match=f"method={method}; a {task} bundle of {num_labels} outputs takes "):
        refuse_other_method(method, task, num_labels)
