"""Similarities of words: cosines that rare and recurring words decide."""

import math
from collections import Counter

import numpy as np
import pytest

from assay.siamese import lexicon as under_test
from assay.siamese.lexicon import SIMILARITIES, Lexicon, similarities

TEXTS = [
    "The old sailor met Marlow by the river. Then Marlow spoke of the harbour.",
    "By the river stood Marlow, and the harbour was quiet. The old boat lay there.",
    "The queen met Alice in the garden. Then Alice spoke of the roses.",
    "In the garden stood Alice, and the roses were red. The old queen slept.",
]
BOOKS = ["sea", "sea", "garden", "garden"]


def pairs(*rows: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The two columns of pairs."""
    both = np.array(rows, dtype=np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


@pytest.mark.parametrize(
    ("count", "text", "expected"),
    [
        (under_test.words_of, "He saw a Cat, the CAT.", {"saw": 1, "cat": 2, "the": 1}),
        (under_test.names_of, 'Then Tom said: "Go, Huck." "No," said Tom. Jim ran.', {"tom": 2, "huck": 1}),
        (under_test.frequent_of, "Oh, oh!", {"oh": 2, ",": 1, "!": 1}),
        (under_test.names_of, "\u0130stanbul, to \u0141\u00f3d\u017a", {"\u0142\u00f3d\u017a": 1}),
        (under_test.words_of, "", {}),
    ],
)
def test_what_is_counted(count: object, text: str, expected: dict[str, int]) -> None:
    """Words whatever their case, names within sentences, words and marks."""
    assert callable(count)
    assert count(text) == Counter(expected)


def test_stems_count_inflected_forms_as_one() -> None:
    """The first four letters of each word."""
    assert under_test.stems_of(Counter({"konia": 1, "koniem": 2, "kot": 1})) == Counter({"koni": 3, "kot": 1})


def test_a_pair_with_shared_rare_words_and_names_is_nearer() -> None:
    """Within a book more than between two, whichever similarity of rare things is asked."""
    texts = Lexicon.fit(TEXTS, BOOKS).encode(TEXTS)
    within, between = similarities(texts, *pairs((0, 1), (0, 2)))
    for name in ("rare_words", "stems", "names"):
        column = SIMILARITIES.index(name)
        assert within[column] > between[column] >= 0, name


def test_the_cosine_of_rare_words_is_computed_by_hand() -> None:
    """(1 + ln count) x ln((books + 1) / (books that have it + 1/2)), cosine of the two."""
    fitted = Lexicon.fit(["ann bob bob", "bob cat"], ["x", "y"])
    texts = fitted.encode(["ann bob bob", "bob dog"])
    ann, bob, dog = math.log(3 / 1.5), math.log(3 / 2.5), math.log(3 / 0.5)
    first, second = np.array([ann, (1 + math.log(2)) * bob, 0]), np.array([0, bob, dog])
    expected = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    (found,) = similarities(texts, *pairs((0, 1)))
    assert found[SIMILARITIES.index("rare_words")] == pytest.approx(expected, rel=1e-5)


def test_a_text_is_like_itself_and_the_order_of_a_pair_does_not_matter() -> None:
    """Cosines of 1 and the same both ways."""
    texts = Lexicon.fit(TEXTS, BOOKS).encode(TEXTS)
    np.testing.assert_allclose(similarities(texts, *pairs((2, 2))), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(
        similarities(texts, *pairs((0, 3), (1, 2))), similarities(texts, *pairs((3, 0), (2, 1)))
    )


@pytest.mark.parametrize("text", ["", " \n", "...", "42", "\U0001f600", "\ud800 lone"])
def test_a_text_of_next_to_nothing_has_finite_similarities(text: str) -> None:
    """Nothing in common is 0, never NaN."""
    texts = Lexicon.fit(TEXTS, BOOKS).encode([text, TEXTS[0], text])
    found = similarities(texts, *pairs((0, 1), (0, 2), (1, 0)))
    assert np.isfinite(found).all()


def test_a_pair_has_the_same_similarities_whatever_stands_beside_it() -> None:
    """Bit for bit, so that scores do not depend on batches."""
    fitted = Lexicon.fit(TEXTS[:2], BOOKS[:2])
    alone = similarities(fitted.encode([TEXTS[0], TEXTS[3]]), *pairs((0, 1)))
    beside = similarities(fitted.encode([*TEXTS, "another one"]), *pairs((2, 1), (0, 3)))
    np.testing.assert_array_equal(alone[0], beside[1])


def test_no_texts_and_no_pairs_are_fine() -> None:
    """Empty in, empty out."""
    texts = Lexicon.fit([], []).encode([])
    assert similarities(texts, *pairs()).shape == (0, len(SIMILARITIES))
