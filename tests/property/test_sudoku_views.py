"""Views of grids: exact inverses, a group, and a solution stays a solution."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from assay.sudoku.grids import check, checked, keeps_rules, num_givens, tokens_of
from assay.sudoku.views import (
    IDENTITY,
    TRANSPOSITION,
    View,
    cyclic,
    random_digits,
    random_view,
    shuffled,
)

SOLUTION = tokens_of(["534678912672195348198342567859761423426853791713924856961537284287419635345286179"])
orders = st.builds(
    lambda bands, lines: [
        band * 3 + line for band, of_band in zip(bands, lines, strict=True) for line in of_band
    ],
    st.permutations(range(3)),
    st.lists(st.permutations(range(3)), min_size=3, max_size=3),
)
relabelings = st.permutations(range(1, 10)).map(lambda digits: View(digits=tuple(digits)))
seeds = st.integers(0, 2**32 - 1)
views = st.one_of(
    st.just(TRANSPOSITION),
    st.integers(-20, 20).map(cyclic),
    relabelings,
    st.builds(lambda rows, columns: shuffled(rows=rows, columns=columns), orders, orders),
    seeds.map(lambda seed: random_view(np.random.default_rng(seed))),
    seeds.map(lambda seed: random_view(np.random.RandomState(seed))),
    seeds.map(lambda seed: random_digits(np.random.default_rng(seed))),
)
grids = st.builds(
    lambda seed, num, dtype: np.random.default_rng(seed).integers(0, 11, (num, 81)).astype(dtype),
    seeds,
    st.integers(0, 3),
    st.sampled_from(["uint8", "int32", "int64"]),
)


@given(views, grids)
def test_the_inverse_brings_every_grid_back(view, grids):
    """Full or not, padded or not, of any type, from both sides; the type stays."""
    shown = view.show(grids)
    assert shown.dtype == grids.dtype
    assert np.array_equal(view.inverse().show(shown), grids)
    assert np.array_equal(view.show(view.inverse().show(grids)), grids)
    assert view.then(view.inverse()) == view.inverse().then(view) == IDENTITY


@given(views, views, grids)
def test_views_are_a_group(first, second, grids):
    """One after the other is one view, whose inverse is the inverses in the other order."""
    both = first.then(second)
    assert np.array_equal(both.show(grids), second.show(first.show(grids)))
    assert both.inverse() == second.inverse().then(first.inverse())


@given(views, seeds)
def test_a_solution_stays_a_solution_and_a_puzzle_keeps_its_givens(view, seed):
    """The solution, shown, solves the puzzle, shown, which has as many givens; the other cells stay blank."""
    is_given = np.random.default_rng(seed).random(81) < 0.4
    puzzle = np.where(is_given, SOLUTION, 1).astype(np.uint8)
    shown = view.show(puzzle)
    assert checked(view.show(SOLUTION), shown).all()
    assert num_givens(shown) == num_givens(puzzle)
    assert ((shown == 1).sum(), (shown == 0).sum()) == ((puzzle == 1).sum(), 0)


@given(views, seeds)
def test_what_an_answer_breaks_is_seen_in_every_view(view, seed):
    """Fullness, givens and rules hold in a view exactly where they hold outside; rows may become columns."""
    rng = np.random.default_rng(seed)
    is_noise = rng.random((4, 81)) < [[0], [0.01], [0.02], [0.05]]
    answers = np.where(is_noise, rng.integers(0, 11, (4, 81)), SOLUTION)
    plain, shown = (
        check(answers, SOLUTION.repeat(4, 0)),
        check(view.show(answers), view.show(SOLUTION.repeat(4, 0))),
    )
    for kind in ("is_full", "keeps_givens", "keeps_boxes", "passed"):
        assert np.array_equal(getattr(plain, kind), getattr(shown, kind)), kind
    assert np.array_equal(keeps_rules(answers), keeps_rules(view.show(answers)))
