"""Choosing and measuring members: what holds whatever they say."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.ensemble.choose import choose_members, row_losses, selection_order
from assay.ensemble.measure import MOST_SUBSETS, measure, pooled_values, subsets
from assay.evaluate.measure import Resampling
from assay.metrics import brier, ece, nll, softmax
from assay.outcome.pooling import Pooling, equal_weights
from assay.tasks import Task

EXAMPLES = settings(max_examples=25, deadline=None)


@st.composite
def worlds(draw):
    """Logits of members that know the labels more or less, and these."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    num_members, num_rows, num_labels = draw(st.integers(2, 5)), draw(st.integers(20, 60)), 3
    labels = rng.integers(0, num_labels, num_rows)
    skill = rng.uniform(0, 2, num_members)[:, None, None]
    logits = rng.normal(size=(num_members, num_rows, num_labels)) + skill * np.eye(num_labels)[labels]
    return logits, labels


@EXAMPLES
@given(world=worlds(), max_loss=st.sampled_from([0.0, 0.01, 0.5, 9.0]))
def test_the_fewest_members_within_the_tolerance_are_kept(world, max_loss):
    """Their loss is near enough to the least of the path, and one fewer of the path is not."""
    logits, labels = world
    values = np.stack([softmax(each) for each in logits])
    kept, losses = choose_members(values, labels, "softmax", max_loss=max_loss, seed=0)
    order = selection_order(values, labels, "softmax", seed=0)
    assert sorted(order) == list(range(len(values)))
    assert kept == sorted(order[: len(kept)])
    assert losses[len(kept) - 1] <= min(losses) + max_loss
    assert all(loss > min(losses) + max_loss for loss in losses[: len(kept) - 1])
    assert losses[-1] == pytest.approx(nll(values.mean(axis=0), labels), abs=1e-9)


def test_a_member_that_harms_is_added_last_and_left_out():
    """Two that know the labels and one that is sure of wrong ones."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    good = np.eye(2)[labels] * 2 + rng.normal(size=(2, 300, 2))
    bad = np.eye(2)[1 - labels][None] * 5
    values = np.stack([softmax(each) for each in np.concatenate([bad, good])])
    assert selection_order(values, labels, "softmax", seed=0)[-1] == 0
    kept, _ = choose_members(values, labels, "softmax", max_loss=0.0, seed=0)
    assert kept == [1, 2]


@EXAMPLES
@given(world=worlds())
def test_figures_are_those_of_plain_metrics(world):
    """Alone, pooled and by number of members; differences are of the same rows."""
    logits, labels = world
    count = len(logits)
    pooling = Pooling(rule="mean", weights=equal_weights(count))
    names = [f"member {k}" for k in range(count)]
    found = measure(
        names,
        logits,
        labels,
        Task.SINGLE_LABEL,
        pooling,
        calibration=None,
        best=0,
        draws=Resampling(num_resamples=100, method="percentile", confidence=0.95, seed=0),
    )
    each = [softmax(one) for one in logits]
    together = np.mean(each, axis=0)
    for figures, probabilities in [*zip(found.members, each, strict=True), (found.pooled, together)]:
        assert figures.values["nll"] == pytest.approx(nll(probabilities, labels))
        assert figures.values["brier"] == pytest.approx(brier(probabilities, labels))
        assert figures.values["ece"] == pytest.approx(ece(probabilities, labels))
        assert figures.values["accuracy"] == pytest.approx(np.mean(probabilities.argmax(axis=1) == labels))
    of_two = [np.mean([each[one], each[other]], axis=0) for one, other in combinations(range(count), 2)]
    assert found.by_size[1].values["nll"] == pytest.approx(np.mean([nll(p, labels) for p in of_two]))
    best, mean = found.differences
    assert best.against.startswith("member 0")
    assert best.values["nll"] == pytest.approx(found.pooled.values["nll"] - found.members[0].values["nll"])
    expected = found.pooled.values["nll"] - np.mean([member.values["nll"] for member in found.members])
    assert mean.values["nll"] == pytest.approx(expected)
    pairs = [np.mean(one.argmax(1) != other.argmax(1)) for one, other in combinations(each, 2)]
    assert found.disagreement == pytest.approx(np.mean(pairs))


def test_subsets_of_many_members_are_drawn_once_each():
    """All where they are few, and so many distinct ones where they are not."""
    assert subsets(4, 2, 0) == list(combinations(range(4), 2))
    drawn = subsets(20, 10, 0)
    assert len(drawn) == len(set(drawn)) == MOST_SUBSETS
    assert all(len(set(each)) == 10 for each in drawn)


def test_losses_are_those_of_each_task():
    """The NLL of a label, of several labels a row, and the squared error of a number."""
    probabilities = np.array([[0.5, 0.5], [0.9, 0.1]])
    np.testing.assert_allclose(row_losses(probabilities, np.array([0, 1]), "softmax"), -np.log([0.5, 0.1]))
    several = row_losses(probabilities, np.array([[1, 0], [1, 1]]), "sigmoid")
    np.testing.assert_allclose(several, [-np.log(0.5), -(np.log(0.9) + np.log(0.1)) / 2])
    np.testing.assert_allclose(row_losses(np.array([[3.0]]), np.array([1.0]), "identity"), [4.0])


def test_values_of_a_regression_are_averaged():
    """Pooled as they are, by the weights."""
    logits = np.array([[[1.0], [2.0]], [[3.0], [6.0]]])
    found = pooled_values(logits, Pooling(rule="mean", weights=(0.75, 0.25)), Task.REGRESSION)
    np.testing.assert_allclose(found, [[1.5], [3.0]])
