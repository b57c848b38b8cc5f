"""The parity gate's arithmetic."""

import numpy as np
import pytest

from assay.engine.fake import FakeEngine
from assay.engine.parity import TOLERANCES, Tolerance, judge, probabilities, reference_outputs
from assay.engine.sequences import Sequences
from assay.tasks import Task

TOLERANCE = TOLERANCES["fp32"]
LOGITS = np.array([[1.0, -1.0], [0.2, 0.1], [-3.0, 2.0]], dtype=np.float32)


@pytest.mark.parametrize("task", [Task.SINGLE_LABEL, Task.MULTI_LABEL, Task.REGRESSION])
def test_equal_logits_pass(task):
    """No difference passes every task, with full agreement."""
    logits = LOGITS[:, :1] if task == Task.REGRESSION else LOGITS
    report = judge(logits, logits, task=task, tolerance=TOLERANCE)
    assert report.passed
    assert report.num_documents == 3
    assert report.max_abs_difference == report.max_abs_probability_difference == 0.0
    assert report.label_agreement == 1.0
    assert report.rank_correlation == (pytest.approx(1.0) if task == Task.REGRESSION else None)


def test_a_difference_past_the_tolerance_fails():
    """The largest difference decides, and flipped labels show."""
    found = LOGITS.copy()
    found[1] = [0.1, 0.2]
    report = judge(found, LOGITS, task=Task.SINGLE_LABEL, tolerance=TOLERANCE)
    assert not report.passed
    assert report.max_abs_difference == pytest.approx(0.1)
    assert report.label_agreement == pytest.approx(2 / 3)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("side", ["found", "expected", "both"])
@pytest.mark.parametrize("task", [Task.SINGLE_LABEL, Task.MULTI_LABEL, Task.REGRESSION])
def test_what_is_not_finite_never_passes(poison, side, task):
    """NaN and infinity fail, even where both sides have them."""
    found, expected = LOGITS.copy(), LOGITS.copy()
    if side != "expected":
        found[0, 0] = poison
    if side != "found":
        expected[0, 0] = poison
    report = judge(found, expected, task=task, tolerance=Tolerance(probability=1e9, logit=1e9))
    assert not report.passed


def test_rank_correlation_of_a_reversed_order():
    """Spearman's correlation sees ranks alone; a constant has none."""
    up = np.array([[1.0], [2.0], [30.0], [30.0]], dtype=np.float32)
    assert judge(-up, up, task=Task.REGRESSION, tolerance=TOLERANCE).rank_correlation == pytest.approx(-1.0)
    flat = np.zeros_like(up)
    assert judge(flat, up, task=Task.REGRESSION, tolerance=TOLERANCE).rank_correlation is None


def test_no_documents_pass():
    """An empty sample proves nothing and stops nothing."""
    empty = np.zeros((0, 2), dtype=np.float32)
    assert judge(empty, empty, task=Task.SINGLE_LABEL, tolerance=TOLERANCE).passed


def test_probabilities_of_large_logits_do_not_overflow():
    """Softmax and sigmoid stay finite far from zero."""
    large = np.array([[1e4, -1e4]], dtype=np.float32)
    assert probabilities(large, Task.SINGLE_LABEL).tolist() == [[1.0, 0.0]]
    assert probabilities(large, Task.MULTI_LABEL).tolist() == [[1.0, 0.0]]


def test_the_reference_runs_a_document_at_a_time():
    """It sees batches of one sequence."""
    seen = []

    class Watching(FakeEngine):
        def forward(self, batch):
            seen.append(batch.num_sequences)
            return super().forward(batch)

    sequences = Sequences(flat_ids=np.arange(6, dtype=np.int32), offsets=np.array([0, 1, 3, 6]))
    assert reference_outputs(Watching(), sequences).shape[0] == 3
    assert seen == [1, 1, 1]
