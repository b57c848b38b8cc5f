"""What holds of every cascade: a higher recall sends no fewer pairs on, and what is decided stays decided."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.cascade.choose import AuthorResampling, find_choices
from assay.errors import InputError
from assay.score.cascade.decide import Thresholds, answer, combined, fit_combination

PROBABILITIES = st.lists(
    st.tuples(st.integers(0, 40).map(lambda n: n / 40), st.booleans()), min_size=4, max_size=120
).filter(lambda rows: len({holds for _, holds in rows}) == 2)


def choices_of(rows, *, two_sided, with_authors):
    """The first model's probabilities of (probability, holds) rows, and their thresholds."""
    first = np.array([probability for probability, _ in rows])
    holds = np.array([holds for _, holds in rows])
    authors = np.arange(2 * len(rows)).reshape(-1, 2) % 7
    resampling = AuthorResampling(authors_PA=authors, num_resamples=100, seed=0) if with_authors else None
    return first, find_choices(first, holds, confidence=0.9, two_sided=two_sided, resampling=resampling)


@settings(max_examples=60, deadline=None)
@given(
    PROBABILITIES,
    st.booleans(),
    st.booleans(),
    st.lists(st.floats(0.02, 0.98), min_size=2, max_size=6),
)
def test_a_higher_recall_never_sends_fewer_pairs_on(rows, two_sided, with_authors, recalls):
    """Its thresholds lie inside no wider a middle, one-sided and two-sided, authors drawn or not."""
    first, choices = choices_of(rows, two_sided=two_sided, with_authors=with_authors)
    shares = []
    for recall in sorted(recalls):
        try:
            chosen = choices.choose(recall)
        except InputError:
            shares.append(np.inf)
            continue
        assert chosen.recall_bound >= recall
        assert chosen.recall >= chosen.recall_bound or with_authors
        shares.append(chosen.thresholds.goes_on(first).mean())
    assert shares == sorted(shares)


@settings(max_examples=60, deadline=None)
@given(PROBABILITIES, st.booleans(), st.floats(0.05, 0.8))
def test_the_recall_of_the_choice_is_that_of_its_decisions(rows, two_sided, recall):
    """Counted again from the decisions themselves, of both kinds; no higher threshold that was tried keeps it."""
    first, choices = choices_of(rows, two_sided=two_sided, with_authors=False)
    holds = np.array([holds for _, holds in rows])
    try:
        chosen = choices.choose(recall)
    except InputError:
        return
    thresholds = chosen.thresholds
    kept = choices.with_label
    assert (kept.bound_K[kept.threshold_K > thresholds.low] < recall).all()
    assert np.isclose(1 - thresholds.decided_no(first)[holds].mean(), chosen.recall)
    assert not (thresholds.decided_no(first) & thresholds.decided_yes(first)).any()
    if two_sided:
        assert 1 - thresholds.decided_yes(first)[~holds].mean() >= recall


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0, 1) | st.just(np.nan), min_size=1, max_size=50),
    st.floats(0, 1),
    st.none() | st.floats(0, 1),
)
def test_the_second_model_is_asked_once_and_only_for_what_is_open(first, low, high):
    """Never for a pair below `low`, above `high` or without a probability; not at all where there is no other."""
    first = np.array(first)
    asked = []

    def ask_second(rows):
        asked.append(rows.tolist())
        return np.full(rows.size, 0.7)

    answers = answer(
        Thresholds(low=low, high=high), first, ask_second, lambda one, two, rows: np.full(rows.size, 0.6)
    )
    is_open = [
        row for row, p in enumerate(first) if np.isfinite(p) and p >= low and (high is None or p <= high)
    ]
    assert asked == ([is_open] if is_open else [])
    decided = np.setdiff1d(np.arange(first.size), is_open)
    np.testing.assert_array_equal(answers.final_M[decided], first[decided])
    assert np.isnan(answers.second_M[decided]).all()
    assert answers.holds_M[is_open].all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(-3, 3), st.floats(-3, 3))
def test_the_combination_falls_with_neither_model(seed, first_weight, second_weight):
    """Whatever the labels say of the two: a higher probability of either never lowers that of both."""
    rng = np.random.default_rng(seed)
    one, two = rng.uniform(size=(2, 60))
    chance = 1 / (1 + np.exp(-(first_weight * (one - 0.5) + second_weight * (two - 0.5)) * 4))
    holds = rng.uniform(size=60) < chance
    holds[:2] = [True, False]
    combination = fit_combination(one, two, holds)
    grid = np.linspace(0, 1, 21)
    for fixed in (0.1, 0.9):
        assert (np.diff(combined(combination, grid, np.full(21, fixed))) >= 0).all()
        assert (np.diff(combined(combination, np.full(21, fixed), grid)) >= 0).all()
