"""The rules, by hand: which neighbours become negatives, and why the others do not."""

import numpy as np
import pytest

from assay.errors import UsageError
from assay.mine.miner import among, without
from assay.mine.select import (
    ABSENT,
    ABSOLUTE_MARGIN,
    KEPT,
    MAX_SCORE,
    MIN_SCORE,
    PERCENTILE,
    POSITIVE,
    RANGE,
    RELATIVE_MARGIN,
    TOO_FEW,
    SelectionRules,
    choose_range_max,
    judge,
    main_reason,
    order_of,
)

SCORES = np.array([[0.9, 0.8, 0.7, 0.6, 0.5, -np.inf]], dtype=np.float32)
ROWS = np.array([[4, 2, 9, 7, 1, -1]])
IS_POSITIVE = np.array([[False, True, False, False, False, False]])
LEAST = np.array([0.8], dtype=np.float32)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({}, [KEPT, POSITIVE, KEPT, KEPT, KEPT, ABSENT]),
        ({"range_max": 3}, [KEPT, POSITIVE, KEPT, KEPT, RANGE, ABSENT]),
        ({"range_min": 2}, [RANGE, POSITIVE, RANGE, KEPT, KEPT, ABSENT]),
        ({"max_score": 0.7}, [MAX_SCORE, POSITIVE, KEPT, KEPT, KEPT, ABSENT]),
        ({"min_score": 0.6}, [KEPT, POSITIVE, KEPT, KEPT, MIN_SCORE, ABSENT]),
        ({"absolute_margin": 0.0}, [ABSOLUTE_MARGIN, POSITIVE, KEPT, KEPT, KEPT, ABSENT]),
        ({"absolute_margin": 0.15}, [ABSOLUTE_MARGIN, POSITIVE, ABSOLUTE_MARGIN, KEPT, KEPT, ABSENT]),
        ({"relative_margin": 0.2}, [RELATIVE_MARGIN, POSITIVE, RELATIVE_MARGIN, KEPT, KEPT, ABSENT]),
        ({"percentile": 60}, [PERCENTILE, POSITIVE, PERCENTILE, KEPT, KEPT, ABSENT]),
        # What the score takes away does not count for the range.
        ({"max_score": 0.7, "range_min": 1}, [MAX_SCORE, POSITIVE, RANGE, KEPT, KEPT, ABSENT]),
    ],
)
def test_what_becomes_of_each_neighbour(rules, expected):
    """Positives go first, then margins and scores; the range counts what is left."""
    made = SelectionRules(**{"num_negatives": 3, "range_min": 0, "range_max": 10} | rules)
    assert judge(ROWS, SCORES, IS_POSITIVE, LEAST, made).tolist() == [expected]


def test_a_negative_as_similar_as_the_positive_stays_under_a_margin_of_zero():
    """The margin takes what is closer than the positive, not what is as close."""
    rules = SelectionRules(
        num_negatives=1, range_min=0, range_max=9, absolute_margin=0.0, relative_margin=0.0
    )
    codes = judge(np.array([[3]]), np.array([[0.8]], np.float32), np.array([[False]]), LEAST, rules)
    assert codes.tolist() == [[KEPT]]


def test_the_margin_of_a_positive_below_zero():
    """A share of the magnitude is taken off, so that a negative margin does not turn round."""
    rules = SelectionRules(num_negatives=1, range_min=0, range_max=9, relative_margin=0.5)
    scores = np.array([[-0.25, -0.5, -0.7]], dtype=np.float32)
    least = np.array([-0.4], dtype=np.float32)
    codes = judge(np.array([[0, 1, 2]]), scores, np.zeros((1, 3), bool), least, rules)
    assert codes.tolist() == [[RELATIVE_MARGIN, RELATIVE_MARGIN, KEPT]]


def test_the_reason_is_the_rule_that_dropped_most():
    """Positives and what is absent are no reason; without any other, the corpus was too small."""
    assert (
        main_reason(np.array([MAX_SCORE, RANGE, MAX_SCORE, POSITIVE, POSITIVE, POSITIVE], np.uint8))
        == "max_score"
    )
    assert main_reason(np.array([POSITIVE, ABSENT], np.uint8)) == TOO_FEW


def test_a_draw_depends_on_seed_and_anchor_alone():
    """The same for the same anchor, another for another; all candidates, none else."""
    codes = np.array([KEPT] * 20 + [MAX_SCORE], np.uint8)
    rules = SelectionRules(num_negatives=3, range_min=0, range_max=20, sampling_strategy="random", seed=5)
    first = order_of(codes, rules, 77).tolist()
    assert first == order_of(codes, rules, 77).tolist()
    assert first != order_of(codes, rules, 78).tolist()
    assert sorted(first) == list(range(20))


def test_the_range_that_is_chosen_and_one_that_is_too_small():
    """As sentence-transformers chooses it; a range that cannot hold the negatives is refused."""
    chosen = {"range_min": 2, "num_negatives": 3, "max_positives": 4}
    assert choose_range_max(None, **chosen, is_filtered=False) == 9
    assert choose_range_max(None, **chosen, is_filtered=True) == 36
    assert choose_range_max(5, **chosen, is_filtered=True) == 5
    with pytest.raises(UsageError, match="leaves 2 candidates, fewer than num_negatives 3"):
        choose_range_max(4, **chosen, is_filtered=True)


def test_an_anchor_is_not_its_own_neighbour():
    """It gives its place to the next one; where it is not there, the last one goes."""
    rows = np.array([[5, 3, 1], [2, 4, 6]])
    scores = np.array([[1.0, 0.5, 0.2], [0.9, 0.8, 0.7]], dtype=np.float32)
    found, kept = without(rows, scores, np.array([5, -1]), 2)
    assert found.tolist() == [[3, 1], [2, 4]]
    np.testing.assert_array_equal(kept, np.array([[0.5, 0.2], [0.9, 0.8]], dtype=np.float32))


def test_the_positives_of_one_anchor_are_not_those_of_another():
    """Row 2 is a positive of the second anchor alone."""
    rows = np.array([[2, 0, -1], [2, 0, 1]])
    marked = among(rows, np.array([0, 1]), np.array([0, 2]), 3)
    assert marked.tolist() == [[False, True, False], [True, False, False]]
