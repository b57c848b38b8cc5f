"""What curves, intervals and thresholds promise, whatever the rows."""

import numpy as np
import pytest
import sklearn.isotonic  # noqa: F401  imported when first fitted, which would count as that example's time
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from assay.calibrate.affine import fit_logistic
from assay.calibrate.conformal import fit_half_width, needed_rows
from assay.calibrate.folds import fold_rows
from assay.calibrate.isotonic import fit_isotonic
from assay.calibrate.thresholds import Goal, choose_threshold, decision_metrics
from assay.errors import InputError
from assay.outcome.calibration import Calibration
from assay.outcome.maps import apply_calibration, map_scores
from assay.tasks import Task

SEEDS = st.integers(0, 2**32 - 1)
# Few values, so that ties are common; the ends included.
PROBABILITIES = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.floats(0, 1, width=32))


@st.composite
def rows(draw):
    """Probabilities and whether each came true, of both kinds."""
    size = draw(st.integers(2, 30))
    probability = np.array(draw(st.lists(PROBABILITIES, min_size=size, max_size=size)))
    holds = np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    assume(holds.any() and not holds.all())
    return probability, holds


@given(rows(), st.lists(st.floats(-1, 2), min_size=2, max_size=20))
def test_an_isotonic_curve_never_falls_and_never_leaves_its_bounds(given_rows, values):
    """A likelier document stays at least as likely, and nothing becomes certain."""
    probability, holds = given_rows
    curve = Calibration(method="isotonic", steps=(fit_isotonic(probability, holds),))
    found = map_scores(np.sort(values), curve)
    assert (np.diff(found) >= 0).all()
    assert ((found > 0) & (found < 1)).all()


@given(rows())
def test_an_isotonic_curve_keeps_the_share_of_its_rows(given_rows):
    """The mean of the calibrated probabilities is the share that came true, up to its bounds."""
    probability, holds = given_rows
    found = map_scores(probability, Calibration(method="isotonic", steps=(fit_isotonic(probability, holds),)))
    assert abs(found.mean() - holds.mean()) <= 1 / (len(holds) + 2) + 1e-9


@given(rows(), arrays.arrays(np.float64, 10, elements=st.floats(-50, 50)))
def test_a_logistic_map_keeps_the_order(given_rows, scores):
    """Where there is a map at all it rises."""
    try:
        scale, bias = fit_logistic(*given_rows)
    except InputError:
        assume(condition=False)
    found = map_scores(np.sort(scores), Calibration(method="logistic", scale=(scale,), bias=(bias,)))
    assert (np.diff(found) >= 0).all()


@given(
    arrays.arrays(
        np.float32, st.tuples(st.integers(1, 20), st.just(2)), elements=st.floats(-50, 50, width=32)
    ),
    st.floats(0.01, 20),
    st.floats(-20, 20),
)
def test_two_labels_sum_to_one(logits, scale, bias):
    """Whatever the map of the second label, the first has the rest."""
    calibration = Calibration(method="logistic", scale=(scale,), bias=(bias,))
    np.testing.assert_allclose(apply_calibration(logits, calibration, Task.SINGLE_LABEL).sum(axis=1), 1.0)


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.sampled_from([0.5, 0.8, 0.9, 0.95]), st.integers(0, 60))
def test_intervals_cover_what_they_promise(seed, coverage, more_rows):
    """On exchangeable rows a new target lies inside with at least the promised probability.

    Over 3,000 calibrations of a few rows each; the share may miss the promise by what chance allows
    (four standard errors), however the errors are spread.
    """
    rng = np.random.default_rng(seed)
    num_rows, trials = needed_rows(coverage) + more_rows, 3_000
    errors = np.abs(rng.standard_t(df=2, size=(trials, num_rows + 1)))
    inside = sum(errors[trial, -1] <= fit_half_width(errors[trial, :-1], coverage) for trial in range(trials))
    assert inside / trials >= coverage - 4 * np.sqrt(coverage * (1 - coverage) / trials)


GOALS = st.sampled_from(
    [
        Goal(by="accuracy"),
        Goal(by="f0.5"),
        Goal(by="f1"),
        Goal(by="f2"),
        Goal(by="cost", cost_false_positive=1, cost_false_negative=5),
        Goal(by="cost", cost_false_positive=3, cost_false_negative=1),
        Goal(by="precision_at_recall", min_recall=0.6),
        Goal(by="recall_at_precision", min_precision=0.7),
    ]
)


def worth(probability, holds, threshold, goal):
    """What the threshold is worth, None where it breaks the constraint: straight from the definitions."""
    decided = probability >= np.float32(threshold)
    found = decision_metrics(holds, decided)
    if goal.by == "cost":
        wrong, missed = (decided & ~holds).sum(), (holds & ~decided).sum()
        return -(goal.cost_false_positive * wrong + goal.cost_false_negative * missed)
    if goal.by == "precision_at_recall":
        return found["precision"] if found["recall"] >= goal.min_recall else None
    if goal.by == "recall_at_precision":
        return found["recall"] if found["precision"] >= goal.min_precision else None
    return found[goal.by]


@settings(deadline=None)
@given(rows(), GOALS)
def test_no_other_threshold_is_better(given_rows, goal):
    """Brute force over all float32 thresholds that differ: none is worth more; none keeps what was refused."""
    probability, holds = given_rows[0].astype(np.float32), given_rows[1]
    seen = np.unique(probability)
    tried = np.unique(np.clip([*seen, *np.nextafter(seen, np.float32(2)), 0.0, 1.0], 0, 1))
    values = [worth(probability, holds, threshold, goal) for threshold in tried]
    possible = [value for value in values if value is not None]
    try:
        threshold = choose_threshold(probability, holds, goal)
    except InputError:
        assert not possible
        return
    assert 0 <= threshold <= 1
    assert worth(probability, holds, threshold, goal) == pytest.approx(max(possible), abs=1e-9)


@given(st.lists(st.sampled_from("abcdefgh"), min_size=3, max_size=60), st.integers(2, 5), SEEDS)
def test_every_row_is_in_one_fold_and_every_group_too(groups, num_folds, seed):
    """Folds cover the rows, none is empty, and a group is never torn apart."""
    assume(len(set(groups)) >= num_folds)
    fold_N = fold_rows(len(groups), num_folds=num_folds, seed=seed, groups=tuple(groups))
    assert set(fold_N) == set(range(num_folds))
    assert len({(group, fold) for group, fold in zip(groups, fold_N, strict=True)}) == len(set(groups))
