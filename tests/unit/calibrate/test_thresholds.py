"""The threshold that serves a goal best."""

import numpy as np
import pytest

from assay.calibrate.thresholds import Goal, as_json, choose_threshold, decision_metrics
from assay.errors import InputError

# Falling: + + - + - -
PROBABILITY = np.array([0.9, 0.8, 0.7, 0.6, 0.3, 0.1])
HOLDS = np.array([1, 1, 0, 1, 0, 0], bool)


def at(threshold):
    """The metrics that the threshold has on these rows."""
    return decision_metrics(HOLDS, np.float32(PROBABILITY) >= np.float32(threshold))


@pytest.mark.parametrize(
    ("goal", "low", "high"),
    [
        (Goal(by="accuracy"), 0.3, 0.6),  # 5 of 6 right here and above 0.7; this is nearer to 0.5
        (Goal(by="f1"), 0.3, 0.6),
        (Goal(by="f0.5"), 0.7, 0.8),
        (Goal(by="f2"), 0.3, 0.6),
        (Goal(by="precision_at_recall", min_recall=0.6), 0.7, 0.8),
        (Goal(by="precision_at_recall", min_recall=0.9), 0.3, 0.6),
        (Goal(by="recall_at_precision", min_precision=0.75), 0.3, 0.6),
        (Goal(by="recall_at_precision", min_precision=1.0), 0.7, 0.8),
        (Goal(by="cost", cost_false_positive=10, cost_false_negative=1), 0.7, 0.8),
        (Goal(by="cost", cost_false_positive=1, cost_false_negative=10), 0.3, 0.6),
        (Goal(by="cost", cost_false_positive=1, cost_false_negative=0), 0.7, 1.0),
    ],
)
def test_the_threshold_of_a_goal(goal, low, high):
    """Worked out by hand for six rows; it lies half-way between two of them."""
    assert low < choose_threshold(PROBABILITY, HOLDS, goal) <= high


def test_equal_probabilities_stay_on_one_side():
    """A tie is one step: no threshold can part its rows, and the metric counts them all."""
    probability, holds = [0.9, 0.5, 0.5, 0.5, 0.1], [1, 1, 0, 0, 0]
    threshold = choose_threshold(probability, holds, Goal(by="recall_at_precision", min_precision=0.6))
    assert threshold > 0.5
    with pytest.raises(InputError, match=r"the best that a threshold reaches on these rows is 0\.2500"):
        choose_threshold([0.5] * 4, [1, 0, 0, 0], Goal(by="recall_at_precision", min_precision=0.6))


def test_an_unreachable_constraint_says_what_is_reachable():
    """Never dropped in silence: the value asked for, the best there is, and the flag to lower."""
    probability, holds = [0.9, 0.8, 0.2], [0, 1, 0]
    goal = Goal(by="recall_at_precision", min_precision=0.9)
    with pytest.raises(InputError, match=r"precision 0.9 is asked for.*is 0\.5000; lower --min-precision"):
        choose_threshold(probability, holds, goal)


def test_neighbours_in_float32_are_told_apart():
    """A part holds float32: of two neighbours the upper one is the threshold, and float64 dust is none."""
    upper = np.float32(0.5)
    lower = np.nextafter(upper, np.float32(0))
    assert choose_threshold([lower, upper], [0, 1], Goal(by="accuracy")) == upper
    with pytest.raises(InputError, match="best that a threshold reaches"):
        choose_threshold([0.5, 0.5 + 1e-12], [0, 1], Goal(by="recall_at_precision", min_precision=0.9))


def test_a_sure_and_wrong_model_cannot_be_kept_quiet():
    """Rows of probability 1 are positive at every threshold: the least cost is then the least of the rest."""
    threshold = choose_threshold([1.0, 0.6, 0.2], [0, 1, 0], Goal(by="accuracy"))
    assert 0.2 < threshold <= 0.6


@pytest.mark.parametrize(
    ("probability", "holds", "match"),
    [
        ([0.1, 0.2], [1, 1], "2 of 2 rows are positive"),
        ([0.1, 0.2], [0, 0], "0 of 2 rows are positive"),
        ([np.nan, 0.2], [0, 1], "finite probabilities"),
        ([0.1], [0, 1], "shapes"),
        ([], [], "0 of 0 rows"),
    ],
)
def test_rows_without_an_answer_are_refused(probability, holds, match):
    """One kind of rows, NaN, or nothing at all."""
    with pytest.raises(InputError, match=match):
        choose_threshold(probability, holds, Goal(by="f1"))


def test_decision_metrics_by_hand():
    """Four rows decided positive, three of them rightly, of three positive ones."""
    found = at(0.5)
    assert found == {
        "accuracy": pytest.approx(5 / 6),
        "balanced_accuracy": pytest.approx((1 + 2 / 3) / 2),
        "precision": 0.75,
        "recall": 1.0,
        "f1": pytest.approx(6 / 7),
        "f0.5": pytest.approx(1.25 * 3 / (0.25 * 3 + 4)),
        "f2": pytest.approx(5 * 3 / (4 * 3 + 4)),
    }
    nothing = at(1.0)
    assert (nothing["precision"], nothing["recall"], nothing["f1"]) == (0.0, 0.0, 0.0)


def test_the_file_keeps_what_belongs_to_the_goal():
    """The bound or the costs, and no others."""
    assert as_json(Goal(by="f1")) == {"by": "f1"}
    assert as_json(Goal(by="precision_at_recall", min_recall=0.9)) == {
        "by": "precision_at_recall",
        "min_recall": 0.9,
    }
