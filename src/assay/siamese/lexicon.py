"""[pure] What two texts share in words: similarities of rare words, word stems, names, frequent words.

A network that was trained on the books of a few authors remembers those books; counts of words do not, and carry
over to authors that it never saw. Six similarities of two texts, each a cosine:

    words        words of three letters and more, weighed by how few texts have them (TF-IDF)
    rare_words   the same, weighed by how few books have them: what recurs in one book and in no other
    stems        the first four letters of those words, likewise: inflected forms count as one
    names        words with a capital within a sentence, likewise
    delta_400    shares of the 400 most frequent words and marks, standardised
    delta_100    of the 100 most frequent: Cosine Delta (Smith and Aldridge 2011)

How few is counted on the training texts alone; a word that none of them has is as rare as can be.

Axes: N texts, M pairs, V similarities, K frequent words.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from assay.engine.batching import token_indices

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

SIMILARITIES = ("words", "rare_words", "stems", "names", "delta_400", "delta_100")
"""Names of the similarities, in the order of the columns."""
_STEM_LETTERS = 4
_FREQUENT = 400
_MOST_FREQUENT = 100
_PAIRS_AT_ONCE = 4_096
_WORD = re.compile(r"[^\W\d_]+")
_LONG_WORD = re.compile(r"[^\W\d_]{3,}")
_WORD_OR_MARK = re.compile(r"[^\W\d_]+|[^\w\s]")
_ENDS_SENTENCE = frozenset(".!?:-\u2013\u2014\"'\u201c\u201d\u2018\u2019")
"""Behind one of these a capital says nothing."""
_LEAST_DEVIATION = 1e-9


def words_of(text: str) -> Counter[str]:
    """Words of three letters and more, in lower case, and how often each occurs."""
    return Counter(_LONG_WORD.findall(text.lower()))


def names_of(text: str) -> Counter[str]:
    """Words of two letters and more that have a capital though no sentence or speech begins with them."""
    names: Counter[str] = Counter()
    before = "."
    for token in _WORD_OR_MARK.findall(text):
        if len(token) > 1 and token[0].isupper() and before not in _ENDS_SENTENCE:
            names[token.lower()] += 1
        before = token
    return names


def stems_of(words: Mapping[str, int]) -> Counter[str]:
    """The first letters of words, and how often words begin so."""
    stems: Counter[str] = Counter()
    for word, count in words.items():
        stems[word[:_STEM_LETTERS]] += count
    return stems


def frequent_of(text: str) -> Counter[str]:
    """Words in lower case and marks."""
    return Counter(_WORD_OR_MARK.findall(text.lower()))


@dataclass(frozen=True, kw_only=True, slots=True)
class Rarity:
    """How many of the training texts, or of their books, have each token."""

    counts: Mapping[str, int]
    num_documents: int

    def weight(self, token: str) -> float:
        """ln((documents + 1) / (those that have it + 1/2)), above 0; one half keeps unseen tokens finite."""
        return math.log((self.num_documents + 1) / (self.counts.get(token, 0) + 0.5))


@dataclass(frozen=True, kw_only=True, slots=True)
class FrequentWords:
    """The most frequent words and marks of the training texts, and how their shares are spread."""

    tokens: tuple[str, ...]
    """K of them, the most frequent first."""
    means: tuple[float, ...]
    """Of each one's share of a text's words and marks."""
    deviations: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class LexicalTexts:
    """Texts as the similarities see them; a row each."""

    sparse: Mapping[str, "_SparseRows"]
    dense: Mapping[str, Floats]
    """Rows of length 1, or of zeros."""

    @property
    def num_texts(self) -> int:
        """N."""
        return len(self.dense["delta_100"])

    def take(self, rows: Ints) -> "LexicalTexts":
        """Some of the texts."""
        return LexicalTexts(
            sparse={name: each.take(rows) for name, each in self.sparse.items()},
            dense={name: each_NK[rows] for name, each_NK in self.dense.items()},
        )

    @classmethod
    def join(cls, several: "Sequence[LexicalTexts]") -> "LexicalTexts":
        """The texts of one or more, one after the other."""
        return cls(
            sparse={
                name: _SparseRows.join([each.sparse[name] for each in several]) for name in several[0].sparse
            },
            dense={name: np.concatenate([each.dense[name] for each in several]) for name in several[0].dense},
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Numbered:
    """The columns of rows, numbered from 0 so that (row, column) fits one sorted key."""

    numbers: Ints
    """The number of each entry's column."""
    num_columns: int
    keys: Ints
    """Row times columns, plus number, of each entry; in order."""


@dataclass(frozen=True, kw_only=True)
class _SparseRows:
    """Rows of length 1: the columns of a row are in order."""

    offsets: Ints
    """[N + 1]."""
    columns: Ints
    weights: Floats

    @cached_property
    def numbered(self) -> _Numbered:
        """Return the columns, numbered; a sort of all entries, so it is done once, for whatever pairs are asked."""
        distinct, numbers = np.unique(self.columns, return_inverse=True)
        row_of = np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))
        return _Numbered(numbers=numbers, num_columns=len(distinct), keys=row_of * len(distinct) + numbers)

    def take(self, rows: Ints) -> "_SparseRows":
        """Some of the rows."""
        starts, sizes = self.offsets[rows], np.diff(self.offsets)[rows]
        entries = token_indices(starts, sizes)
        return _SparseRows(
            offsets=np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes)]),
            columns=self.columns[entries],
            weights=self.weights[entries],
        )

    @classmethod
    def join(cls, several: "Sequence[_SparseRows]") -> "_SparseRows":
        """The rows of one or more, one after the other."""
        sizes = np.concatenate([np.diff(each.offsets) for each in several])
        return cls(
            offsets=np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes)]),
            columns=np.concatenate([each.columns for each in several]),
            weights=np.concatenate([each.weights for each in several]),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Lexicon:
    """What the similarities know of the training texts."""

    words_by_text: Rarity
    words_by_book: Rarity
    stems_by_book: Rarity
    names_by_book: Rarity
    frequent: FrequentWords

    @classmethod
    def fit(cls, texts: Sequence[str], books: Sequence[str] | None = None) -> "Lexicon":
        """That of the training texts, each given once; `books` names each one's book.

        Without `books` each text is a book of its own.
        """
        book_of = books if books is not None else [str(row) for row in range(len(texts))]
        words = [words_of(text) for text in texts]
        stems = [stems_of(each) for each in words]
        names = [names_of(text) for text in texts]
        num_books = len(set(book_of))
        return cls(
            words_by_text=_rarity(words, range(len(texts)), len(texts)),
            words_by_book=_rarity(words, book_of, num_books),
            stems_by_book=_rarity(stems, book_of, num_books),
            names_by_book=_rarity(names, book_of, num_books),
            frequent=_fit_frequent(texts),
        )

    def encode(self, texts: Iterable[str]) -> LexicalTexts:
        """Return the texts as the similarities see them; about 1 ms for a text of 300 words."""
        weighed: Mapping[str, Rarity] = {
            "words": self.words_by_text,
            "rare_words": self.words_by_book,
            "stems": self.stems_by_book,
            "names": self.names_by_book,
        }
        rows: dict[str, list[tuple[Ints, Floats]]] = {name: [] for name in weighed}
        shares = [np.zeros((0, len(self.frequent.tokens)), dtype=np.float64)]
        numbers = {token: number for number, token in enumerate(self.frequent.tokens)}
        for text in texts:
            words = words_of(text)
            counts = {"words": words, "rare_words": words, "stems": stems_of(words), "names": names_of(text)}
            for name, rarity in weighed.items():
                rows[name].append(_row(counts[name], rarity.weight))
            shares.append(_shares(frequent_of(text), numbers)[None])
        spread_K = np.maximum(np.array(self.frequent.deviations), _LEAST_DEVIATION)
        scaled_NK = (np.concatenate(shares) - np.array(self.frequent.means)) / spread_K
        return LexicalTexts(
            sparse={name: _stack(found) for name, found in rows.items()},
            dense={
                "delta_400": _of_length_1(scaled_NK),
                "delta_100": _of_length_1(scaled_NK[:, :_MOST_FREQUENT]),
            },
        )


def similarities(texts: LexicalTexts, first_M: Ints, second_M: Ints) -> Floats:
    """Return the similarities of pairs of rows, float32 [M, V] in the order of `SIMILARITIES`, from -1 to 1."""
    found_MV = np.zeros((len(first_M), len(SIMILARITIES)), dtype=np.float32)
    for start in range(0, len(first_M), _PAIRS_AT_ONCE):
        pick = slice(start, start + _PAIRS_AT_ONCE)
        for column, name in enumerate(SIMILARITIES):
            if name in texts.sparse:
                found_MV[pick, column] = _sparse_products(texts.sparse[name], first_M[pick], second_M[pick])
            else:
                rows_NK = texts.dense[name]
                found_MV[pick, column] = np.einsum(
                    "mk,mk->m", rows_NK[first_M[pick]], rows_NK[second_M[pick]], optimize=False
                )
    return found_MV


def _sparse_products(rows: _SparseRows, first_M: Ints, second_M: Ints) -> npt.NDArray[np.float64]:
    """The inner products of pairs of rows: the entries of the first are looked up in the second."""
    numbered = rows.numbered
    keys = numbered.keys
    starts_M, sizes_M = rows.offsets[first_M], np.diff(rows.offsets)[first_M]
    pair_E = np.repeat(np.arange(len(first_M)), sizes_M)
    entry_E = np.arange(len(pair_E)) - np.repeat(np.cumsum(sizes_M) - sizes_M - starts_M, sizes_M)
    if not len(pair_E) or not len(rows.columns):
        return np.zeros(len(first_M))
    wanted_E = second_M[pair_E] * numbered.num_columns + numbered.numbers[entry_E]
    place_E = np.minimum(np.searchsorted(keys, wanted_E), len(keys) - 1)
    product_E = np.where(
        keys[place_E] == wanted_E,
        rows.weights[entry_E].astype(np.float64) * rows.weights[place_E],
        0.0,
    )
    return np.bincount(pair_E, weights=product_E, minlength=len(first_M)).astype(np.float64)


def _rarity(counts: Sequence[Counter[str]], documents: Iterable[object], num_documents: int) -> Rarity:
    holders: dict[str, set[object]] = {}
    for found, document in zip(counts, documents, strict=True):
        for token in found:
            holders.setdefault(token, set()).add(document)
    return Rarity(
        counts={token: len(holders[token]) for token in sorted(holders)}, num_documents=num_documents
    )


def _fit_frequent(texts: Sequence[str]) -> FrequentWords:
    counts = [frequent_of(text) for text in texts]
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    tokens = sorted(total, key=lambda token: (-total[token], token))[:_FREQUENT]
    numbers = {token: number for number, token in enumerate(tokens)}
    shares_NK = np.array([_shares(each, numbers) for each in counts]).reshape(len(texts), len(tokens))
    return FrequentWords(
        tokens=tuple(tokens),
        means=tuple(shares_NK.mean(axis=0).tolist()) if len(texts) else (),
        deviations=tuple(shares_NK.std(axis=0).tolist()) if len(texts) else (),
    )


def _shares(counts: Mapping[str, int], numbers: Mapping[str, int]) -> npt.NDArray[np.float64]:
    """Each frequent word's share of those of a text that are frequent, [K]."""
    shares_K = np.zeros(len(numbers))
    for token, count in counts.items():
        if token in numbers:
            shares_K[numbers[token]] = count
    shares_K /= max(float(shares_K.sum()), 1.0)
    return shares_K


def _row(counts: Mapping[str, int], weight: Callable[[str], float]) -> tuple[Ints, Floats]:
    """Columns and weights of a text: (1 + ln count) x rarity, of length 1 together."""
    columns = np.fromiter((_column(token) for token in counts), np.int64, len(counts))
    weights = np.fromiter(
        ((1 + math.log(count)) * weight(token) for token, count in counts.items()), np.float64, len(counts)
    )
    order = np.argsort(columns)
    length = math.sqrt(float(np.square(weights[order]).sum()))
    return columns[order], (weights[order] / length if length else weights).astype(np.float32)


@lru_cache(maxsize=1 << 20)
def _column(token: str) -> int:
    """A column for any word, the same in every process; two words share one in 2^62 cases."""
    return int.from_bytes(blake2b(token.encode("utf-8", "surrogatepass"), digest_size=8).digest()) >> 2


def _stack(rows: Sequence[tuple[Ints, Floats]]) -> _SparseRows:
    sizes = np.array([len(columns) for columns, _ in rows], dtype=np.int64)
    return _SparseRows(
        offsets=np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes)]),
        columns=np.concatenate([np.zeros(0, dtype=np.int64), *(columns for columns, _ in rows)]),
        weights=np.concatenate([np.zeros(0, dtype=np.float32), *(weights for _, weights in rows)]),
    )


def _of_length_1(rows_NK: npt.NDArray[np.float64]) -> Floats:
    lengths_N = np.linalg.norm(rows_NK, axis=1, keepdims=True)
    return (rows_NK / np.where(lengths_N > 0, lengths_N, 1.0)).astype(np.float32)
