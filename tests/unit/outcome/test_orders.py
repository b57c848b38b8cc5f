"""Pairs in both orders: texts change places exactly, and the margin admits what it says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.outcome.orders import SecondOrder, fit_margin, gaps, labels_kept
from assay.outcome.pooling import Pooling
from assay.tasks import Task

WITH_TYPES = SecondOrder(margin=0.2, prefix=(1,), middle=(2,), suffix=(2,), num_middle_of_first=1)
WITHOUT = SecondOrder(margin=0.2, prefix=(1,), middle=(2, 2), suffix=(2,), num_middle_of_first=None)
TEXTS = st.lists(st.integers(3, 9), max_size=6)


@given(first=TEXTS, second=TEXTS)
def test_swapped_texts_are_the_pair_the_other_way_round(first, second):
    """With token types and without them; twice is the pair as it was."""
    ids = np.array([1, *first, 2, *second, 2])
    types = np.array([0] * (len(first) + 2) + [1] * (len(second) + 1))
    swapped, turned = WITH_TYPES.swap(ids, types)
    assert swapped.tolist() == [1, *second, 2, *first, 2]
    assert turned.tolist() == [0] * (len(second) + 2) + [1] * (len(first) + 1)
    back, types_back = WITH_TYPES.swap(swapped, turned)
    assert (back == ids).all()
    assert (types_back == types).all()
    untyped, none = WITHOUT.swap(np.array([1, *first, 2, 2, *second, 2]), None)
    assert untyped.tolist() == [1, *second, 2, 2, *first, 2]
    assert none is None


@pytest.mark.parametrize(
    "ids", [[1, 5, 2], [5, 6, 7, 8], [1], [1, 2], [5, 5, 2, 5, 2], [1, 5, 2, 5, 5]], ids=str
)
def test_what_is_no_pair_has_one_order(ids):
    """A single text, and ids that a machine is warmed up with."""
    assert WITH_TYPES.swap(np.array(ids), None) is None
    assert WITHOUT.swap(np.array(ids), None) is None


def test_a_text_that_holds_a_separator_is_cut_where_its_types_change():
    """Types say where the second text begins, whatever the first one holds."""
    swapped, _ = WITH_TYPES.swap(np.array([1, 5, 2, 6, 2, 7, 2]), np.array([0, 0, 0, 0, 0, 1, 1]))
    assert swapped.tolist() == [1, 7, 2, 5, 2, 6, 2]


@given(
    seed=st.integers(0, 1000),
    max_changed=st.sampled_from([0.0, 0.01, 0.05, 0.2, 1.0]),
    num_labels=st.integers(2, 4),
)
def test_the_margin_is_the_least_that_admits_no_more(seed, max_changed, num_labels):
    """On the rows it is fitted on, other labels are within the share asked for; with a smaller margin they are not."""
    rng = np.random.default_rng(seed)
    first, second = rng.dirichlet(np.ones(num_labels), size=(2, 60))
    both = (first + second) / 2
    margin = fit_margin(first, both, max_changed=max_changed)

    def changed(at):
        orders = SecondOrder(margin=at, prefix=(), middle=(2,), suffix=(), num_middle_of_first=None)
        return np.mean(labels_kept(first, both, orders.needed(first)) != both.argmax(axis=1))

    assert changed(margin) <= max_changed
    if margin > 0:
        assert changed(np.nextafter(margin, 0)) > max_changed


def test_a_row_without_numbers_needs_no_second_order():
    """NaN is no reason to read it again; a tie is."""
    values = np.array([[np.nan, np.nan], [0.5, 0.5], [0.9, 0.1]])
    assert gaps(values)[1:] == pytest.approx([0.0, 0.8])
    assert WITH_TYPES.needed(values).tolist() == [False, True, False]


@pytest.mark.parametrize("rule", ["mean", "logit-mean"])
def test_the_same_answer_twice_pools_to_itself(rule):
    """So a pair that is read once keeps its first order's probabilities."""
    logits = np.random.default_rng(0).normal(size=(5, 6))
    pooling = Pooling(rule=rule, weights=(0.5, 0.3, 0.2))
    twice = pooling.of_views(2).pool(np.concatenate([logits, logits], axis=1), Task.SINGLE_LABEL)
    np.testing.assert_allclose(twice, pooling.pool(logits, Task.SINGLE_LABEL), atol=1e-12)
