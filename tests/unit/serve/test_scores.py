"""Logits of windows to what is answered, batch by batch."""

import numpy as np
import pytest
from support.bundles import write_bundle

from assay.bundle.load import load_bundle
from assay.serve.scores import Scoring


@pytest.mark.parametrize(
    ("num_windows", "logits"),
    [
        ([1, 1], [[0.0, 4.0], [2.0, 0.0]]),
        ([2, 1], [[1.0, 2.0], [0.0, 2.0]]),
        ([2, 0], [[1.0, 2.0], None]),
        ([0, 1, 2], [None, [0.0, 4.0], [1.0, 1.0]]),
    ],
)
def test_each_document_has_the_windows_that_are_its_own(num_windows, logits, tmp_path):
    """Their mean; as many windows as documents are not yet a window each."""
    scoring = Scoring(load_bundle(write_bundle(tmp_path / "bundle")), "window-mean")
    given = np.array([[0.0, 4.0], [2.0, 0.0], [0.0, 2.0]], np.float32)
    found = scoring.score(given[: sum(num_windows)], num_windows)
    assert [None if score is None else score.logits for score in found] == logits


def test_a_document_without_a_finite_score_is_none(tmp_path):
    """And takes none of its neighbours with it."""
    scoring = Scoring(load_bundle(write_bundle(tmp_path / "bundle")), "truncate")
    given = np.array([[0.0, 1.0], [np.nan, 0.0], [np.inf, 0.0], [1.0, 0.0]], np.float32)
    found = scoring.score(given, [1, 1, 1, 1])
    assert [score is None for score in found] == [False, True, True, False]
    assert [score.label for score in found if score] == [1, 0]
