"""Batching and deduplication by example, and what they refuse."""

import numpy as np
import pytest

from assay.engine import batching
from assay.engine.batching import cut, find_duplicates, plan_batches


def test_longest_first_under_the_budget():
    """Batches hold the longest sequences first; one longer than the budget runs alone."""
    batches = plan_batches(np.array([3, 50, 2, 3]), max_batch_tokens=6)
    assert [batch.tolist() for batch in batches] == [[1], [0, 3], [2]]


def test_lengths_beyond_16_bits_are_sorted_too():
    """Long sequences take the wide sort and stay in order."""
    batches = plan_batches(np.array([1, 70_000, 2]), max_batch_tokens=10)
    assert [batch.tolist() for batch in batches] == [[1], [2, 0]]


@pytest.mark.parametrize(
    "settings", [{"max_batch_tokens": 0}, {"max_batch_tokens": 1, "max_batch_sequences": 0}]
)
def test_a_budget_of_nothing_is_refused(settings):
    """A batch must hold something."""
    with pytest.raises(ValueError, match="holds nothing"):
        cut(np.array([1]), **settings)


def test_equal_samples_do_not_make_equal_sequences():
    """Sequences alike in every sampled position and length, yet different, both run."""
    first = np.arange(40)
    second = first.copy()
    second[7] = 99
    flat = np.concatenate([first, second, first]).astype(np.uint16)
    unique, inverse = find_duplicates(flat, np.array([0, 40, 80, 120]))
    assert unique.tolist() == [0, 1]
    assert inverse.tolist() == [0, 1, 0]


def test_permuted_tokens_are_no_duplicates():
    """The order of tokens counts in the full hash."""
    flat = np.array([5, 1, 2, 3, 4, 9, 5, 2, 1, 3, 4, 9], dtype=np.int32)
    unique, _ = find_duplicates(flat, np.array([0, 6, 12]))
    assert unique.tolist() == [0, 1]


def test_full_comparison_works_in_blocks(monkeypatch):
    """More candidates than one block of tokens holds give the same answer."""
    monkeypatch.setattr(batching, "_BLOCK_TOKENS", 7)
    monkeypatch.setattr(batching, "_BLOCK_SEQUENCES", 3)
    generator = np.random.default_rng(0)
    documents = [generator.integers(0, 2, 4).tolist() for _ in range(60)]
    flat = np.array(documents, dtype=np.uint16).ravel()
    unique, inverse = find_duplicates(flat, np.arange(0, 244, 4))
    assert len(unique) == len({tuple(document) for document in documents})
    assert all(documents[unique[inverse[k]]] == documents[k] for k in range(60))


def test_empty_sequences_equal_each_other_alone():
    """Sequences without tokens are duplicates of one another, in any place."""
    unique, inverse = find_duplicates(np.array([4, 4], dtype=np.uint16), np.array([0, 0, 1, 1, 2]))
    assert unique.tolist() == [0, 1]
    assert inverse.tolist() == [0, 1, 0, 1]
    unique, _ = find_duplicates(np.zeros(0, dtype=np.uint16), np.zeros(3, dtype=np.int64))
    assert unique.tolist() == [0]
