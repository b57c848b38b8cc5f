"""The rules of ensembles: what holds for any members, whatever they answer."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.ensemble.grids import (
    NONE,
    any_correct,
    checked,
    halted_majority,
    halted_majority_any,
    is_right,
    q_selected,
    vote,
)
from assay.ensemble.pass_at_k import curve, in_order, pass_at_k
from assay.metrics import sigmoid, softmax
from assay.outcome.pooling import (
    NO_LABEL,
    Pooling,
    equal_weights,
    majority,
    plurality,
    rank_mean,
)
from assay.tasks import Task

EXAMPLES = settings(max_examples=40, deadline=None)


@st.composite
def answers(draw):
    """Grids of two cells and three digits, so that many are equal; what members say of them; whose they are."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    num_puzzles, num_members = draw(st.integers(1, 6)), draw(st.integers(1, 8))
    grids = rng.integers(1, 4, (num_puzzles, num_members, 2)).astype(np.uint8)
    q_halt = rng.choice([-1.0, 0.0, 2.5], (num_puzzles, num_members)) + rng.integers(0, 2) * 0.25
    ran = rng.random((num_puzzles, num_members)) < draw(st.sampled_from([0.5, 1.0]))
    checkpoints = rng.integers(0, 3, num_members)
    return grids, q_halt, ran, checkpoints, rng


def taken(grids, chosen):
    """The grids that a rule took; zeros where it took none."""
    found = grids[np.arange(len(chosen)), chosen].copy()
    found[chosen == NONE] = 0
    return found


@EXAMPLES
@given(world=answers())
def test_the_members_may_stand_in_any_order(world):
    """No label-free rule prefers a member for its place, except between those that are level in all else."""
    grids, _, ran, checkpoints, rng = world
    q_halt = rng.permutation(grids.shape[0] * grids.shape[1]).reshape(ran.shape) / 7.0
    order = rng.permutation(grids.shape[1])
    moved = grids[:, order], q_halt[:, order], ran[:, order]
    for before, after in (
        (q_selected(q_halt, ran), q_selected(moved[1], moved[2])),
        (vote(grids, q_halt, ran)[:, 0], vote(*moved)[:, 0]),
        (
            halted_majority(grids, q_halt, ran, checkpoints),
            halted_majority(*moved, checkpoints[order]),
        ),
    ):
        np.testing.assert_array_equal(taken(grids, before), taken(moved[0], after))


@EXAMPLES
@given(world=answers())
def test_a_vote_takes_the_grid_of_most_members_then_the_surest(world):
    """By hand: count equal grids of those that ran, then compare mean sigmoids of q_halt; top 2 differ."""
    grids, q_halt, ran, _, _ = world
    chosen = vote(grids, q_halt, ran, top=2)
    for n in range(len(grids)):
        held: dict[bytes, list[float]] = {}
        for m in np.flatnonzero(ran[n]):
            held.setdefault(grids[n, m].tobytes(), []).append(float(sigmoid(q_halt[n, m])))
        ranked = sorted(((len(q), round(sum(q) / len(q), 9)) for q in held.values()), reverse=True)
        for place in range(2):
            if place >= len(ranked):
                assert chosen[n, place] == NONE
                continue
            q = held[grids[n, chosen[n, place]].tobytes()]
            assert ran[n, chosen[n, place]]
            assert (len(q), round(sum(q) / len(q), 9)) == ranked[place]
        if len(ranked) > 1:
            assert grids[n, chosen[n, 0]].tobytes() != grids[n, chosen[n, 1]].tobytes()


@EXAMPLES
@given(world=answers())
def test_checked_is_right_exactly_where_any_member_is(world):
    """Where a puzzle has one solution, a valid grid is the right one: checking equals the oracle."""
    grids, _, ran, _, _ = world
    solution = np.array([2, 1], dtype=np.uint8)  # the one grid that keeps the rules
    is_valid = (grids == solution).all(axis=2) & ran
    is_correct = is_valid.copy()
    np.testing.assert_array_equal(is_right(checked(is_valid), is_correct), any_correct(is_correct))


@EXAMPLES
@given(world=answers())
def test_a_member_that_did_not_run_changes_nothing(world):
    """What stands in the place of a member that failed is never counted, voted for or taken."""
    grids, q_halt, ran, checkpoints, rng = world
    other = grids.copy()
    other[~ran] = rng.integers(0, 9, other[~ran].shape)
    loud = np.where(ran, q_halt, 99.0)
    for before, after in (
        (q_selected(q_halt, ran), q_selected(loud, ran)),
        (vote(grids, q_halt, ran)[:, 0], vote(other, loud, ran)[:, 0]),
        (halted_majority(grids, q_halt, ran, checkpoints), halted_majority(other, loud, ran, checkpoints)),
    ):
        np.testing.assert_array_equal(before, after)
        assert ran[np.arange(len(ran)), before][before != NONE].all()


@EXAMPLES
@given(world=answers())
def test_where_one_majority_is_right_the_oracle_over_checkpoints_says_so(world):
    """The label-free rule takes some checkpoint's majority; it is right only where the rule with labels holds."""
    grids, q_halt, ran, checkpoints, _ = world
    solution = np.array([2, 1], dtype=np.uint8)
    is_correct = (grids == solution).all(axis=2) & ran
    found = is_right(halted_majority(grids, q_halt, ran, checkpoints), is_correct)
    oracle = halted_majority_any(is_correct, ran, checkpoints)
    assert not (found & ~oracle).any()
    if len(set(checkpoints.tolist())) == 1:
        np.testing.assert_array_equal(found, oracle)


@EXAMPLES
@given(correct=st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=5))
def test_pass_at_k_is_the_mean_over_all_choices_of_members(correct):
    """1 - C(n - c, k) / C(n, k) is what drawing every k of the members gives; at k = n it is any-correct."""
    found = curve(correct)
    for k, chances in enumerate(found, start=1):
        drawn = [[any(row[m] for m in members) for members in combinations(range(4), k)] for row in correct]
        np.testing.assert_allclose(chances, np.mean(drawn, axis=1), atol=1e-12)
    np.testing.assert_array_equal(found[-1], any_correct(np.array(correct)))
    assert (np.diff(in_order(correct)) >= 0).all()


def test_pass_at_k_of_more_members_than_there_are_is_refused():
    """A k above n has no meaning; the message gives both."""
    with pytest.raises(ValueError, match="k is 4; it must be from 1 to the 3 members"):
        pass_at_k(3, [1], 4)


@st.composite
def logits(draw):
    """Logits of members side by side, as an engine of several gives them, and how many members there are."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    num_members, num_labels = draw(st.integers(1, 4)), draw(st.integers(2, 4))
    scale = draw(st.sampled_from([0.1, 3.0, 300.0]))
    return rng.normal(scale=scale, size=(draw(st.integers(1, 5)), num_members, num_labels)), rng


@EXAMPLES
@given(world=logits())
def test_pooled_logits_have_the_pooled_probabilities(world):
    """What `pool` gives has, under softmax and sigmoid, the weighted means of probabilities, or of their logarithms."""
    given_NMC, rng = world
    num_members = given_NMC.shape[1]
    weights = rng.dirichlet(np.ones(num_members))
    flat = given_NMC.reshape(len(given_NMC), -1)
    pooling = Pooling(rule="mean", weights=tuple(weights))
    mean = (softmax(given_NMC) * weights[:, None]).sum(axis=1)
    np.testing.assert_allclose(softmax(pooling.pool(flat, Task.SINGLE_LABEL)), mean, atol=1e-9)
    each = (sigmoid(given_NMC) * weights[:, None]).sum(axis=1)
    np.testing.assert_allclose(sigmoid(pooling.pool(flat, Task.MULTI_LABEL)), each, atol=1e-9)
    values = (given_NMC[:, :, :1] * weights[:, None]).sum(axis=1)
    one = given_NMC[:, :, 0]
    np.testing.assert_allclose(pooling.pool(one, Task.REGRESSION), values, atol=1e-9)
    sharper = Pooling(rule="logit-mean", weights=tuple(weights)).pool(flat, Task.SINGLE_LABEL)
    expected = softmax((given_NMC * weights[:, None]).sum(axis=1))
    np.testing.assert_allclose(softmax(sharper), expected, atol=1e-9)


@EXAMPLES
@given(world=logits())
def test_members_that_agree_are_themselves(world):
    """A member many times over is pooled to its own probabilities, and votes for its own label."""
    given_NMC, _ = world
    one = given_NMC[:, :1]
    thrice = np.repeat(one, 3, axis=1)
    for rule in ("mean", "logit-mean"):
        pooled = Pooling(rule=rule, weights=equal_weights(3)).pool(
            thrice.reshape(len(one), -1), Task.SINGLE_LABEL
        )
        np.testing.assert_allclose(softmax(pooled), softmax(one[:, 0]), atol=1e-9)
    probabilities = np.stack([softmax(one[:, 0])] * 3)
    np.testing.assert_array_equal(majority(probabilities), probabilities[0].argmax(axis=1))
    np.testing.assert_array_equal(plurality(probabilities), probabilities[0].argmax(axis=1))


def test_a_majority_is_more_than_half_and_a_plurality_needs_none():
    """Votes 2:1:1 have a plurality and no majority; votes 1:1:0 go to the higher mean probability."""
    two_one_one = np.array([[[0.8, 0.1, 0.1]], [[0.5, 0.3, 0.2]], [[0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]]])
    assert majority(two_one_one).tolist() == [NO_LABEL]
    assert plurality(two_one_one).tolist() == [0]
    level = np.array([[[0.6, 0.4, 0.0]], [[0.1, 0.9, 0.0]]])
    assert plurality(level).tolist() == [1]
    assert majority(level).tolist() == [NO_LABEL]


def test_ranks_are_averaged_whatever_the_members_scales():
    """A member whose scores are a thousand times larger counts as much as another; equals share a rank."""
    found = rank_mean([[1.0, 2.0, 3.0], [1000.0, 3000.0, 2000.0]])
    np.testing.assert_allclose(found, [0.0, 0.75, 0.75])
    np.testing.assert_allclose(rank_mean([[5.0, 5.0]]), [0.5, 0.5])
    np.testing.assert_allclose(rank_mean([[7.0]]), [0.0])


def test_a_member_without_a_finite_logit_leaves_no_score():
    """One member's NaN is not averaged away: the row has no score, as with one model."""
    pooling = Pooling(rule="mean", weights=equal_weights(2))
    found = pooling.pool([[0.0, 1.0, np.nan, 1.0], [0.0, 1.0, 0.0, 1.0]], Task.SINGLE_LABEL)
    assert np.isnan(found[0]).any()
    assert np.isfinite(found[1]).all()
