"""[pure] How a text is written, in numbers: lengths, punctuation, function words.

Each feature has a name, and a bundle keeps the names it was trained with, so that it gives the same numbers
under a later release whose list is longer. Names that begin with `mark:` are shares of all characters, those
that begin with `word:` shares of all words, as Cosine Delta takes them (Smith and Aldridge 2011).

Axes: N texts, F features.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from assay.books.languages.table import table_of
from assay.books.sentences import split_sentences
from assay.errors import InputError
from assay.siamese.settings import StyleSet

Features = npt.NDArray[np.float32]

MARKS = ".,;:!?\"'()[]-\u2013\u2014\u2026"
"""Characters that have a feature each; the last three are dashes of two lengths and an ellipsis."""
_PUNCTUATION = frozenset('.,;:!?"()-[]{}')
"""What `punctuation` counts."""
_WORD = re.compile(r"[^\W\d_]+")
_MARK, _FUNCTION_WORD = "mark:", "word:"
_MOST_DEVIATIONS = 5.0
"""Standardised features are cut there: a text of one odd line must not outweigh all else."""
_LEAST_DEVIATION = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class _Counted:
    """What features are made of."""

    num_characters: int
    characters: Counter[str]
    num_tokens: int
    """Runs of characters that are not white space."""
    num_distinct_tokens: int
    words: Counter[str]
    """In lower case."""
    num_words: int
    sentence_lengths: npt.NDArray[np.float64]
    """Tokens of each sentence."""


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


_MADE: Mapping[str, Callable[[_Counted], float]] = {
    "distinct_words": lambda text: _share(text.num_distinct_tokens, text.num_tokens),
    "punctuation": lambda text: _share(
        sum(text.characters[mark] for mark in _PUNCTUATION), text.num_characters
    ),
    "words_per_sentence": lambda text: _share(text.num_tokens, len(text.sentence_lengths)),
    "sentence_length_spread": lambda text: (
        float(text.sentence_lengths.std()) if len(text.sentence_lengths) else 0.0
    ),
    "longest_sentence": lambda text: float(text.sentence_lengths.max(initial=0.0)),
    "word_length": lambda text: _share(
        sum(len(word) * count for word, count in text.words.items()), text.num_words
    ),
    "capitals": lambda text: _share(
        sum(count for mark, count in text.characters.items() if mark.isupper()), text.num_characters
    ),
}
"""Features of one number each; the first three are the basic ones."""
_BASIC = ("distinct_words", "punctuation", "words_per_sentence")


def feature_names(chosen: StyleSet, language: str) -> tuple[str, ...]:
    """The names of the features of a set, in order; words are those of the language's table, if it has one."""
    if chosen == "none":
        return ()
    if chosen == "basic":
        return _BASIC
    marks = tuple(f"{_MARK}{mark}" for mark in MARKS)
    words = tuple(f"{_FUNCTION_WORD}{word}" for word in sorted(table_of(language).function_words))
    return (*_MADE, *marks, *words)


def style_features(texts: Sequence[str], names: Sequence[str], language: str) -> Features:
    """The features of texts, float32 [N, F], a column for each name; 0 for what an empty text has none of.

    `language` decides where sentences end. Raises InputError for a name that stands for no feature.
    """
    makers = [_maker(name) for name in names]
    found = np.zeros((len(texts), len(makers)), dtype=np.float32)
    if makers:
        for row, text in enumerate(texts):
            counted = _count(text, language)
            found[row] = [make(counted) for make in makers]
    return found


def _maker(name: str) -> Callable[[_Counted], float]:
    if name.startswith(_MARK) and len(name) == len(_MARK) + 1:
        mark = name[-1]
        return lambda text: _share(text.characters[mark], text.num_characters)
    if name.startswith(_FUNCTION_WORD) and len(name) > len(_FUNCTION_WORD):
        word = name.removeprefix(_FUNCTION_WORD)
        return lambda text: _share(text.words[word], text.num_words)
    if name in _MADE:
        return _MADE[name]
    raise InputError(
        f"style feature {name!r}; known are {', '.join(_MADE)}, {_MARK}CHARACTER and {_FUNCTION_WORD}WORD;"
        " use one of these, or install a newer assay"
    )


def _count(text: str, language: str) -> _Counted:
    tokens = text.split()
    words = Counter(_WORD.findall(text.lower()))
    lengths = [len(text[start:stop].split()) for start, stop in split_sentences(text, language).tolist()]
    return _Counted(
        num_characters=len(text),
        characters=Counter(text),
        num_tokens=len(tokens),
        num_distinct_tokens=len(set(tokens)),
        words=words,
        num_words=words.total(),
        sentence_lengths=np.array(lengths, dtype=np.float64),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class StyleScale:
    """The features that a model sees, and how they were spread over its training texts."""

    names: tuple[str, ...]
    """F features, in order."""
    language: str
    """ISO 639-1 code of the texts' language."""
    means: tuple[float, ...]
    """Of each feature over the training texts."""
    deviations: tuple[float, ...]
    """Standard deviations, likewise."""

    @classmethod
    def fit(cls, texts: Sequence[str], chosen: StyleSet, language: str) -> "StyleScale":
        """That of a set of features over texts, each counted once."""
        return cls.of_features(texts, feature_names(chosen, language), language)

    @classmethod
    def of_features(cls, texts: Sequence[str], names: Sequence[str], language: str) -> "StyleScale":
        """That of the features of these names over texts, each counted once."""
        found = style_features(texts, names, language).astype(np.float64)
        return cls(
            names=tuple(names),
            language=language,
            means=tuple(found.mean(axis=0).tolist()) if len(texts) else (0.0,) * len(names),
            deviations=tuple(found.std(axis=0).tolist()) if len(texts) else (0.0,) * len(names),
        )

    def __call__(self, texts: Sequence[str]) -> Features:
        """The texts' features in deviations from the mean, float32 [N, F], at most 5 either way.

        A feature that is the same in all training texts is 0: it tells nothing.
        """
        found = style_features(texts, self.names, self.language)
        spread = np.array(self.deviations)
        scaled = (found - np.array(self.means)) / np.where(spread < _LEAST_DEVIATION, np.inf, spread)
        clipped: Features = np.clip(scaled, -_MOST_DEVIATIONS, _MOST_DEVIATIONS).astype(np.float32)
        return clipped
