"""Windows of sentences, and the sample of a long book."""

import pytest

from assay.books.windows import sample_order, windows_of_sentences, windows_of_tokens


@pytest.mark.parametrize(
    ("num_sentences", "windows"),
    [(10, [[0, 4], [3, 7], [6, 10]]), (9, [[0, 4], [3, 7]]), (4, [[0, 4]]), (3, []), (0, [])],
)
def test_by_sentences(num_sentences, windows):
    """Whole windows only; neighbours share one sentence."""
    assert windows_of_sentences(num_sentences, size=4, overlap=1).tolist() == windows


@pytest.mark.parametrize(
    ("tokens", "overlap", "windows"),
    [
        ([4, 4, 4, 4, 4, 4], 0, [[0, 2], [2, 4], [4, 6]]),
        ([4, 4, 4, 4, 4], 1, [[0, 2], [1, 3], [2, 4], [3, 5]]),
        ([10, 10], 1, [[0, 1], [1, 2]]),
        ([4, 4, 11, 5, 5], 0, [[0, 2], [3, 5]]),
        ([4, 4, 4], 0, [[0, 2]]),
        ([4, 4, 5], 0, [[0, 2], [2, 3]]),
        ([11, 12], 0, []),
        ([4], 0, []),
        ([], 0, []),
    ],
)
def test_by_tokens(tokens, overlap, windows):
    """Ten tokens hold whole sentences; one over the budget is in none, a small rest is no window."""
    assert windows_of_tokens(tokens, budget=10, overlap=overlap).tolist() == windows


def test_a_sample_hangs_on_seed_and_book_alone():
    """The order is a permutation, the same anywhere: it is written down here."""
    assert sample_order(6, seed=0, book_id="Austen_Emma") == [2, 3, 0, 1, 4, 5]
    assert sorted(sample_order(100, seed=0, book_id="a")) == list(range(100))
    assert sample_order(100, seed=0, book_id="a") != sample_order(100, seed=1, book_id="a")
    assert sample_order(100, seed=0, book_id="a") != sample_order(100, seed=0, book_id="b")
