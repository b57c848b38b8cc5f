"""Logits of windows to what is answered, batch by batch."""

import numpy as np
import pytest

from assay.outcome.decide import Decider
from assay.serve.scores import Scoring
from assay.tasks import Task
from assay.tokenize.views import WholeRows, Windows

DECIDER = Decider(task=Task.SINGLE_LABEL, labels=("ham", "spam"))
WINDOWS = Windows(prefix=(), suffix=(), max_length=8, stride=0, how="mean")


@pytest.mark.parametrize(
    ("num_windows", "logits"),
    [
        ([1, 1], [[0.0, 4.0], [2.0, 0.0]]),
        ([2, 1], [[1.0, 2.0], [0.0, 2.0]]),
        ([2, 0], [[1.0, 2.0], None]),
        ([0, 1, 2], [None, [0.0, 4.0], [1.0, 1.0]]),
    ],
)
def test_each_document_has_the_windows_that_are_its_own(num_windows, logits):
    """Their mean; as many windows as documents are not yet a window each."""
    scoring = Scoring(DECIDER, WINDOWS)
    given = np.array([[0.0, 4.0], [2.0, 0.0], [0.0, 2.0]], np.float32)
    found = scoring.answers(given[: sum(num_windows)], num_windows)
    assert [None if score is None else score.logits for score in found] == logits


def test_a_document_without_a_finite_score_is_none():
    """And takes none of its neighbours with it."""
    scoring = Scoring(DECIDER, WholeRows())
    given = np.array([[0.0, 1.0], [np.nan, 0.0], [np.inf, 0.0], [1.0, 0.0]], np.float32)
    found = scoring.answers(given, [1, 1, 1, 1])
    assert [score is None for score in found] == [False, True, True, False]
    assert [score.label for score in found if score] == [1, 0]
