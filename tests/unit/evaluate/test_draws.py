"""Many rows: blocks in place of rows give the widths of the plain bootstrap, whatever is drawn."""

import subprocess
import sys

import numpy as np
import pytest

from assay import metrics
from assay.evaluate import statistics
from assay.evaluate.bootstrap import PLAIN_ROWS, blocks_drawn, interval, resample
from assay.evaluate.draws import BLOCKS, ROUNDS, deals, num_blocks
from assay.evaluate.measure import EvaluatedRows, Resampling, families_of, measure, point_values
from assay.evaluate.sums import metrics_at
from assay.tasks import Task

SHARES = [0.6, 0.3, 0.09, 0.01]


def outcome_of(kind, num_rows=6_000, seed=0):
    """Rows of a task; some scores are tied, one label is rare."""
    rng = np.random.default_rng(seed)
    predicted = np.zeros(num_rows, dtype=np.int64)
    if kind == "numbers":
        targets = rng.normal(3, 1, num_rows).round(2)
        outputs = (targets + rng.normal(size=num_rows)).round(2)[:, None]
        extra = {"int_score": (0, 5), "half_width": 1.0}
    elif kind == "many labels":
        targets = (rng.random((num_rows, 4)) < SHARES).astype(np.int64)
        outputs = metrics.sigmoid(1.5 * rng.normal(size=targets.shape) + 3 * targets - 2).round(4)
        predicted, extra = (outputs > 0.5).astype(np.int64), {}
    else:
        shares = SHARES if kind == "four labels" else [0.7, 0.3]
        targets = rng.choice(len(shares), num_rows, p=shares)
        logits = 1.5 * rng.normal(size=(num_rows, len(shares))) + 3 * np.eye(len(shares))[targets]
        outputs = metrics.softmax(logits.round(2))
        predicted, extra = outputs.argmax(axis=1), {"unanswered_within": 0.1} if kind == "pairs" else {}
    return EvaluatedRows(
        task={"numbers": Task.REGRESSION, "many labels": Task.MULTI_LABEL}.get(kind, Task.SINGLE_LABEL),
        outputs_NC=outputs,
        plain_NC=outputs,
        predicted=predicted,
        targets=targets,
        **extra,
    )


def spread(resamples):
    """Standard deviation of each metric over the resamples: a fifth as noisy as the ends of an interval."""
    return {name: np.nanstd(values) for name, values in resamples.drawn.items()}


@pytest.mark.parametrize("kind", ["four labels", "pairs", "many labels", "numbers"])
def test_blocks_and_levels_give_every_metric_the_spread_of_the_plain_bootstrap(kind):
    """Within the noise of 1,000 resamples and 10 deals; and levels change no value by more than its noise."""
    outcome = outcome_of(kind)
    plain = resample(
        families_of(outcome), outcome.num_rows, num_resamples=1_000, seed=1, plain_rows=outcome.num_rows
    )
    ours = resample(families_of(outcome, all_ranks=False), outcome.num_rows, num_resamples=1_000, seed=2)
    expected, values = spread(plain), point_values(outcome)
    assert set(ours.drawn) == set(values)
    for name, found in spread(ours).items():
        assert found == pytest.approx(expected[name], rel=0.1, abs=1e-12), name
        assert ours.whole[name] == pytest.approx(values[name], abs=0.6 * expected[name] + 1e-12), name


@pytest.mark.parametrize("kind", ["four labels", "pairs", "many labels", "numbers"])
def test_levels_follow_all_ranks_in_each_resample(kind):
    """The same weights: but for a constant the metrics of levels are those of all ranks."""
    outcome = outcome_of(kind, num_rows=20_000)
    weights = np.random.default_rng(3).poisson(1.0, size=(40, outcome.num_rows)).astype(float)
    exact = metrics_at(families_of(outcome), weights)
    levels = metrics_at(families_of(outcome, all_ranks=False), weights)
    for name, values in exact.items():
        # Bins of equal mass put a tie into one bin, with all ranks; levels may share it between two.
        most = 0.2 if name == "ece_equal_mass" else 0.06
        assert np.std(levels[name] - values) <= most * np.std(values) + 1e-12, name


def test_levels_hold_where_almost_all_ranks_are_right():
    """AUC of 0.9999: what is left of it hangs on few rows, far from their like."""
    rng = np.random.default_rng(4)
    positive = rng.random(20_000) < 0.5
    scores = rng.normal(size=positive.size) + 5.2 * positive
    each = [
        statistics._ranked(positive[None], scores[None], all_ranks=all_ranks) for all_ranks in (True, False)
    ]
    weights = rng.poisson(1.0, size=(40, positive.size)).astype(float)
    exact, levels = (values(sums.of_rows(weights)) for sums, values in each)
    for name in ("auc", "average_precision"):
        assert np.std(levels[name] - exact[name]) < 0.05 * np.std(exact[name]), name


@pytest.mark.slow
def test_intervals_of_many_rows_hold_the_truth_as_often_as_they_promise():
    """Of 200 samples of 5,000 rows about 95% have the true AUC and the true accuracy inside."""
    rng = np.random.default_rng(5)
    auc, accuracy = 0.8413, 0.7602  # of N(0, 1) against N(sqrt 2, 1); of the cut in their middle
    held = {"auc": 0, "accuracy": 0}
    for seed in range(200):
        positive = rng.random(5_000) < 0.5
        scores = rng.normal(size=positive.size) + np.sqrt(2) * positive
        ranked = statistics._ranked(positive[None], scores[None], all_ranks=False)
        families = [
            statistics._ranking([ranked]),
            statistics.means_of({"accuracy": (scores > np.sqrt(0.5)) == positive}),
        ]
        found = resample(families, positive.size, num_resamples=200, seed=seed)
        for name, truth in (("auc", auc), ("accuracy", accuracy)):
            got = interval(found.whole[name], name, found, confidence=0.95, method="percentile")
            held[name] += got.low <= truth <= got.high
    assert 0.91 <= held["auc"] / 200 <= 0.985
    assert 0.91 <= held["accuracy"] / 200 <= 0.985


@pytest.mark.parametrize("num_groups", [300, 3_000])
def test_groups_are_drawn_whole_or_in_blocks_of_groups(num_groups):
    """An author's rows say the same: the interval is that of so many authors, few or more than blocks."""
    rng = np.random.default_rng(6)
    of_group = rng.normal(size=num_groups)
    group = np.repeat(np.arange(num_groups), 20)
    found = resample(
        [statistics.means_of({"mean": of_group[group]})],
        group.size,
        num_resamples=2_000,
        seed=0,
        group_N=group,
    )
    assert np.std(found.drawn["mean"]) == pytest.approx(of_group.std() / np.sqrt(num_groups), rel=0.1)


@pytest.mark.parametrize("num_authors", [60, 2_000])
def test_authors_of_both_sides_are_drawn_as_the_plain_bootstrap_draws_them(num_authors):
    """Pairs lean as their authors do; with few authors and with more than blocks of them."""
    rng = np.random.default_rng(7)
    sides = rng.integers(0, num_authors, size=(6_000, 2))
    values = rng.normal(size=num_authors)[sides].sum(axis=1) + rng.normal(size=len(sides))
    families = [statistics.means_of({"mean": values})]
    plain, ours = (
        resample(families, 6_000, num_resamples=1_000, seed=0, group_N=sides, plain_rows=most)
        for most in (6_000, PLAIN_ROWS)
    )
    assert np.nanstd(ours.drawn["mean"]) == pytest.approx(np.nanstd(plain.drawn["mean"]), rel=0.12)


def test_every_row_is_in_one_block_of_about_the_same_size_another_in_each_round():
    """And all resamples asked for are there, each with as many blocks drawn as there are."""
    found = list(deals(10_000, None, num_resamples=2_000, seed=0))
    assert len(found) == ROUNDS
    assert sum(len(deal.weights_BU) for deal in found) == 2_000 + 1 + 200
    for deal in found:
        sizes = np.bincount(deal.unit_N)
        assert sizes.size == deal.num_units == num_blocks(10_000, None) <= BLOCKS
        assert sizes.max() - sizes.min() <= 1
        assert (deal.weights_BU[201 if deal is found[0] else 0 :].sum(axis=1) == sizes.size).all()
    assert not np.array_equal(found[0].unit_N, found[1].unit_N)


def test_the_report_says_where_blocks_begin():
    """Each row by itself up to 4,096; each group by itself where there are no more than blocks."""
    assert blocks_drawn(PLAIN_ROWS, None) is None
    assert blocks_drawn(1_000_000, None) == 512
    assert blocks_drawn(1_000_000, np.arange(1_000_000) % 400) is None
    assert blocks_drawn(1_000_000, np.arange(1_000_000) % 5_000) == 500


def test_a_model_against_itself_is_exactly_zero_in_blocks_too():
    """The differences of two bundles are of the same blocks."""
    outcome = outcome_of("four labels")
    part = measure(
        "all", outcome, [outcome], Resampling(num_resamples=100, method="bca", confidence=0.9, seed=0)
    )
    for name, difference in part.others[0].differences.items():
        assert (difference.value, difference.p_value) == (0.0, 1.0), name
        metric = part.metrics[name]
        assert metric.interval.low <= metric.value <= metric.interval.high, name


@pytest.mark.parametrize("num_rows", [2, PLAIN_ROWS + 1])
def test_rows_of_one_label_give_no_ranking_and_no_error(num_rows):
    """Two rows, or many: what is undefined says so, what is not has a value."""
    outputs = np.full((num_rows, 2), 0.5)
    outcome = EvaluatedRows(
        task=Task.SINGLE_LABEL,
        outputs_NC=outputs,
        plain_NC=outputs,
        predicted=np.zeros(num_rows, dtype=np.int64),
        targets=np.zeros(num_rows, dtype=np.int64),
    )
    part = measure("all", outcome, [], Resampling(num_resamples=100, method="bca", confidence=0.95, seed=0))
    assert part.metrics["auc"].value is None
    assert part.metrics["accuracy"].value == 1.0
    assert part.metrics["accuracy"].interval.undefined == "all resamples give the same value"


def test_weights_of_zero_leave_metrics_undefined_without_a_warning():
    """A resample of pairs may have none of them."""
    for kind in ("four labels", "pairs", "many labels", "numbers"):
        outcome = outcome_of(kind, num_rows=50)
        for name, values in metrics_at(families_of(outcome), np.zeros((2, 50))).items():
            assert np.isnan(values).all(), name


THREADS = """
import sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from test_draws import outcome_of
from assay.evaluate.bootstrap import resample
from assay.evaluate.measure import families_of
import hashlib
digest = hashlib.sha256()
for kind in ("four labels", "pairs", "many labels", "numbers"):
    found = resample(families_of(outcome_of(kind), all_ranks=False), 6_000, num_resamples=100, seed=0)
    for name in sorted(found.drawn):
        digest.update(found.drawn[name].tobytes() + found.left_out[name].tobytes())
print(digest.hexdigest())
"""


def test_the_numbers_do_not_depend_on_threads(monkeypatch):
    """Not a bit, with one or several threads of the products of matrices."""
    digests = set()
    for threads in ("1", "3"):
        for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            monkeypatch.setenv(name, threads)
        arguments = [sys.executable, "-c", THREADS, str(__file__).rpartition("/")[0]]
        digests.add(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout)
    assert len(digests) == 1
