"""Style features: named numbers of a text, standardised by training texts."""

import numpy as np
import pytest

from assay.errors import InputError
from assay.siamese.style import StyleScale, feature_names, style_features

TEXT = 'The cat sat, and the dog ran. "No!" said he; the hill was red.'
"""14 words, of which 13 differ as written, in two sentences."""


def test_the_basic_features_are_counted_by_hand():
    """Distinct over all words, marks over all characters, words over sentences."""
    names = feature_names("basic", "en")
    assert names == ("distinct_words", "punctuation", "words_per_sentence")
    marks = sum(TEXT.count(mark) for mark in '.,;:!?"()-[]{}')
    (found,) = style_features([TEXT], names, "en")
    np.testing.assert_allclose(found, [13 / 14, marks / len(TEXT), 14 / 2], rtol=1e-6)


def test_profiles_are_shares_of_words_and_characters():
    """`word:` counts words whatever their case, `mark:` a character."""
    (found,) = style_features([TEXT], ("word:the", "word:cat", "mark:,", "mark:?"), "en")
    np.testing.assert_allclose(found, [3 / 14, 1 / 14, 1 / len(TEXT), 0], rtol=1e-6)


def test_sentence_lengths_have_a_spread():
    """Mean, standard deviation and longest, in words."""
    names = ("words_per_sentence", "sentence_length_spread", "longest_sentence")
    (found,) = style_features(["One two. One two three four. A b c."], names, "en")
    np.testing.assert_allclose(found, [3, np.std([2, 4, 3]), 4], rtol=1e-6)


@pytest.mark.parametrize("language", ["en", "pl", "de", "fr"])
def test_languages_with_a_table_have_function_words(language):
    """The full set has them; a language without a table has the rest."""
    names = feature_names("full", language)
    assert sum(name.startswith("word:") for name in names) > 50
    assert len(set(names)) == len(names)
    others = [name for name in names if not name.startswith("word:")]
    assert feature_names("full", "xx") == tuple(others)


@pytest.mark.parametrize("text", ["", " \n", "...", "42"])
def test_a_text_of_next_to_nothing_has_finite_features(text):
    """What it has none of is 0."""
    assert np.isfinite(style_features([text], feature_names("full", "en"), "en")).all()


def test_an_unknown_name_is_refused():
    """A bundle of a later release says so in one line."""
    with pytest.raises(InputError, match=r"style feature 'rhymes'; known are distinct_words.*newer assay"):
        style_features(["a"], ("rhymes",), "en")


def test_features_are_standardised_by_the_training_texts():
    """Mean 0 and deviation 1 on those, the same shift on others; constant ones are 0 and far ones cut."""
    texts = ["One two three.", "One two. Three four five six.", "One, two, three, four!"]
    scale = StyleScale.fit(texts, "full", "en")
    found = scale(texts)
    spread = found.std(axis=0)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-5)
    assert set(np.round(spread, 4)) == {0.0, 1.0}
    commas = scale.names.index("mark:,")
    assert scale(["," * 50])[0, commas] == 5.0
    constant = scale.names.index("word:the")
    assert scale(["the the the"])[0, constant] == 0.0
    (alone,) = scale(["One two three."])
    np.testing.assert_allclose(alone, found[0])
