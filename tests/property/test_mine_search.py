"""The search is exact whatever the blocks, and a run gives the same rows whatever the units."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.mine.search import ExactLook, ResidentCorpus, Searcher, StreamedCorpus
from assay.mine.store import VectorFile

CPU = torch.device("cpu")
EXAMPLES = 40


def unit(vectors):
    """Of length one."""
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@st.composite
def worlds(draw):
    """Vectors on a coarse grid, so that many scores are equal or nearly so, with groups; and anchors."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    num_rows, num_anchors = draw(st.integers(1, 120)), draw(st.integers(1, 9))
    dimension, levels = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    grid = random.integers(-levels, levels + 1, (num_rows + num_anchors, dimension)).astype(np.float32)
    grid[~grid.any(axis=1), 0] = 1
    groups = random.integers(0, draw(st.integers(1, 5)), num_rows + num_anchors)
    vectors = unit(grid)
    return vectors[:num_rows], vectors[num_rows:], groups[:num_rows], groups[num_rows:]


def by_hand(corpus, anchors, groups, of_anchors, k):
    """Every pair, sorted by score and then by row."""
    scores = (anchors[:, None, :].astype(np.float64) * corpus).sum(axis=2).astype(np.float32)
    scores[(groups[None, :] == of_anchors[:, None]) & (of_anchors != 0)[:, None]] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    found = np.take_along_axis(scores, order, axis=1)
    return np.where(np.isfinite(found), order, -1), found


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    world=worlds(),
    k=st.integers(1, 30),
    block=st.integers(1, 50),
    at_once=st.integers(1, 5),
    data=st.booleans(),
)
def test_the_nearest_are_those_of_all_pairs(world, k, block, at_once, data):
    """Neither the blocks of the corpus nor those of the anchors nor where it lies changes a row or a bit."""
    corpus, anchors, groups, of_anchors = world
    file = VectorFile(corpus.shape[1], None)
    file.append(corpus)
    placed = (ResidentCorpus if data else StreamedCorpus)(file, CPU)
    look = ExactLook(placed, torch.from_numpy(groups), block_rows=block, dimension=corpus.shape[1])
    found = Searcher(placed, look, CPU, anchors_at_once=at_once).nearest(anchors, of_anchors, k)
    rows, scores = by_hand(corpus, anchors, groups, of_anchors, k)
    np.testing.assert_array_equal(found.rows_BK, rows)
    np.testing.assert_array_equal(found.scores_BK, scores)


def test_many_equal_vectors_keep_the_order_of_the_corpus():
    """Two hundred equal vectors are more than the first look keeps: the first ones win, block by block or at once."""
    random = np.random.default_rng(1)
    corpus = unit(np.repeat(random.standard_normal((1, 24)), 200, axis=0))
    file = VectorFile(24, None)
    file.append(corpus)
    placed = StreamedCorpus(file, CPU)
    for block in (7, 1_000):
        look = ExactLook(placed, None, block_rows=block, dimension=24)
        found = Searcher(placed, look, CPU, anchors_at_once=3).nearest(
            unit(random.standard_normal((4, 24))), None, 5
        )
        assert found.rows_BK.tolist() == [[0, 1, 2, 3, 4]] * 4


@pytest.mark.parametrize("sampling", ["top", "random"])
def test_units_and_blocks_do_not_change_a_row(sampling, tmp_path):
    """One unit or many, blocks of three or of thousands: the same rows, draws included."""
    from support.embedded import write_embed_run, write_pairs
    from support.mining import mine_here

    random = np.random.default_rng(8)
    texts = [f"text {number % 70}" for number in range(90)]
    corpus = write_embed_run(tmp_path / "corpus", texts, random.standard_normal((90, 5)).astype(np.float32))
    pairs = [(f"text {random.integers(0, 70)}", f"text {random.integers(0, 70)}") for _ in range(40)]
    sources = write_pairs(tmp_path / "pairs.parquet", pairs)
    rules = {"num_negatives": 4, "relative_margin": 0.1, "range_min": 1, "sampling_strategy": sampling}
    first = mine_here(tmp_path, sources, (corpus.url,), name="one", unit_rows=100, **rules)
    assert first.column("negative").null_count < first.num_rows
    for name, unit_rows, block_rows in (("many", 3, 3), ("some", 17, 64)):
        other = mine_here(
            tmp_path, sources, (corpus.url,), name=name, unit_rows=unit_rows, block_rows=block_rows, **rules
        )
        assert other.equals(first)
