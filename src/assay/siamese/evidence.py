"""What words and style alone say of a pair: a few similarities and differences, weighed by a logistic regression.

    two texts -> similarities of words | differences of style | lengths -> standardised -> log-odds

It has some 35 weights, so that it learns from few books and holds on authors that it never saw. A network's
logit stands beside it, and `Combination` says how much each counts: fitted on validation rows, on which the
network was not trained.

Axes: N texts, M pairs, E pieces of evidence.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from assay.siamese.lexicon import SIMILARITIES, Ints, LexicalTexts, Lexicon, similarities
from assay.siamese.style import Features, StyleScale, feature_names

Numbers = npt.NDArray[np.float64]
_INVERSE_PENALTY = 0.01
"""scikit-learn's C: strong, for the pieces of evidence say much the same."""
_LEAST_DEVIATION = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class EvidenceTexts:
    """Texts as the evidence is drawn from them; a row each."""

    lexical: LexicalTexts
    style_NF: Features
    """Standardised."""
    num_words_N: Numbers
    """Logarithm of the number of words, of 1 at least."""

    def take(self, rows: Ints) -> "EvidenceTexts":
        """Some of the texts."""
        return EvidenceTexts(
            lexical=self.lexical.take(rows),
            style_NF=self.style_NF[rows],
            num_words_N=self.num_words_N[rows],
        )

    @classmethod
    def join(cls, several: "Sequence[EvidenceTexts]") -> "EvidenceTexts":
        """The texts of one or more, one after the other."""
        return cls(
            lexical=LexicalTexts.join([each.lexical for each in several]),
            style_NF=np.concatenate([each.style_NF for each in several]),
            num_words_N=np.concatenate([each.num_words_N for each in several]),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Regression:
    """A logistic regression on standardised numbers."""

    means: tuple[float, ...]
    deviations: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float

    @classmethod
    def fit(cls, seen_ME: Numbers, is_positive_M: npt.NDArray[np.bool_], *, penalty: float) -> "Regression":
        """That of rows of both kinds; `penalty` is scikit-learn's C, the smaller the flatter."""
        from sklearn.linear_model import LogisticRegression

        means, deviations = seen_ME.mean(axis=0), np.maximum(seen_ME.std(axis=0), _LEAST_DEVIATION)
        found: Any = LogisticRegression(C=penalty, max_iter=1_000, tol=1e-8)
        found.fit((seen_ME - means) / deviations, is_positive_M)
        return cls(
            means=tuple(means.tolist()),
            deviations=tuple(deviations.tolist()),
            weights=tuple(found.coef_[0].tolist()),
            bias=float(found.intercept_[0]),
        )

    def __call__(self, seen_ME: Numbers) -> Numbers:
        """The log-odds of the positive label, [M]."""
        scaled = (seen_ME - np.array(self.means)) / np.array(self.deviations)
        found: Numbers = np.einsum("me,e->m", scaled, np.array(self.weights), optimize=False) + self.bias
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class PairEvidence:
    """What words and style of two texts say of them, as learned from training pairs."""

    lexicon: Lexicon
    style: StyleScale
    """Of the features that have no word of their own: function words are in the lexicon's similarities."""
    regression: Regression

    @classmethod
    def fit(
        cls,
        texts: Sequence[str],
        first_M: Ints,
        second_M: Ints,
        is_positive_M: npt.NDArray[np.bool_],
        *,
        books: Sequence[str] | None,
        language: str,
    ) -> "PairEvidence":
        """That of training pairs, rows of distinct `texts`; `books` names the book of each text, if known."""
        lexicon = Lexicon.fit(texts, books)
        names = tuple(name for name in feature_names("full", language) if not name.startswith("word:"))
        style = StyleScale.of_features(texts, names, language)
        seen = _seen(_encode(lexicon, style, texts), first_M, second_M)
        return cls(
            lexicon=lexicon,
            style=style,
            regression=Regression.fit(seen, is_positive_M, penalty=_INVERSE_PENALTY),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the E pieces of evidence, in the order of the weights."""
        return evidence_names(self.style)

    def encode(self, texts: Sequence[str]) -> EvidenceTexts:
        """Return the texts as the evidence is drawn from them: once each, whatever the number of their pairs."""
        return _encode(self.lexicon, self.style, texts)

    def log_odds(self, texts: EvidenceTexts, first_M: Ints, second_M: Ints) -> Numbers:
        """Return the log-odds that pairs of rows of `texts` belong together, [M]; the same in either order."""
        return self.regression(_seen(texts, first_M, second_M))

    def shares(self, texts: EvidenceTexts, first_M: Ints, second_M: Ints) -> Mapping[str, Numbers]:
        """Return what each piece adds to the log-odds of pairs, by name, [M]; with the bias they sum to them."""
        seen, regression = _seen(texts, first_M, second_M), self.regression
        added = (seen - np.array(regression.means)) / np.array(regression.deviations) * regression.weights
        return {name: added[:, column] for column, name in enumerate(self.names)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Combination:
    """How much a network's logit and the evidence of words count: two weights and a bias."""

    network: float
    evidence: float
    bias: float

    @classmethod
    def fit(
        cls, network_M: Numbers, evidence_M: Numbers, is_positive_M: npt.NDArray[np.bool_]
    ) -> "Combination":
        """That of rows on which neither was trained; all on the evidence where the network says the opposite.

        A negative weight would turn what the network learned on its head, which is chance on few rows.
        """
        both = np.column_stack([network_M, evidence_M])
        found = Regression.fit(both, is_positive_M, penalty=1.0)
        if min(found.weights) < 0:
            keep = int(np.argmax(found.weights))
            alone = Regression.fit(both[:, [keep]], is_positive_M, penalty=1.0)
            weights = [0.0, 0.0]
            weights[keep] = max(alone.weights[0], 0.0) / alone.deviations[0]
            return cls(
                network=weights[0],
                evidence=weights[1],
                bias=alone.bias - weights[keep] * alone.means[0],
            )
        scaled = np.array(found.weights) / np.array(found.deviations)
        return cls(
            network=float(scaled[0]),
            evidence=float(scaled[1]),
            bias=found.bias - float(scaled @ np.array(found.means)),
        )

    def __call__(self, network_M: Numbers, evidence_M: Numbers) -> Numbers:
        """The log-odds of the positive label, [M]."""
        return self.network * network_M + self.evidence * evidence_M + self.bias


def evidence_names(style: StyleScale) -> tuple[str, ...]:
    """Names of the pieces of evidence: similarities, differences of style, lengths."""
    return (*SIMILARITIES, *(f"difference:{name}" for name in style.names), "difference:words", "sum:words")


def _encode(lexicon: Lexicon, style: StyleScale, texts: Sequence[str]) -> EvidenceTexts:
    return EvidenceTexts(
        lexical=lexicon.encode(texts),
        style_NF=style(texts),
        num_words_N=np.log(np.maximum([len(text.split()) for text in texts], 1)).astype(np.float64),
    )


def _seen(texts: EvidenceTexts, first_M: Ints, second_M: Ints) -> Numbers:
    """The pieces of evidence of pairs, [M, E] in the order of `evidence_names`."""
    words = texts.num_words_N
    return np.column_stack(
        [
            similarities(texts.lexical, first_M, second_M),
            np.abs(texts.style_NF[first_M] - texts.style_NF[second_M]),
            np.abs(words[first_M] - words[second_M]),
            words[first_M] + words[second_M],
        ]
    ).astype(np.float64)
