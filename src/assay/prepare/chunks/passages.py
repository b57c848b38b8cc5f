"""Passages of a text, from one sentence to another: their text, their letters, their hash.

What neighbours share is made once: pieces in normal form, and the letters of these.
"""

from collections.abc import Iterable
from functools import cached_property
from itertools import accumulate, pairwise

from assay.books.normal_forms import (
    ANY_TYPOGRAPHY,
    adhering_pieces,
    find_names,
    mask_names,
    typography_of,
)
from assay.books.sentences import Spans
from assay.prepare.chunks.quality import hash_of, hash_of_letters, letters_and_digits, num_ascii_letters
from assay.prepare.chunks.settings import ChunkRules


class Passages:
    """Those of a text without NUL, in the normal forms that its rules ask for; each is sentences `first:stop`."""

    def __init__(
        self, text: str, spans: Spans, language: str, rules: ChunkRules, *, cuts: Iterable[int]
    ) -> None:
        """`spans` are the sentences of `text`; passages begin and end at `cuts`, which ascend."""
        self._text = text
        self._language = language
        self._is_normal = rules.typography == "normal"
        self._names = find_names(text, language) if rules.mask_names else None
        # What stands for a name may join with a mark behind it, so that the text tells less of its pieces.
        self._typography = ANY_TYPOGRAPHY if rules.mask_names else typography_of(text)
        self._places = {cut: place for place, cut in enumerate(cuts)}
        begins, ends = spans[:, 0].tolist(), spans[:, 1].tolist()
        self._spans = [(begins[first], ends[stop - 1]) for first, stop in pairwise(self._places)]
        pieces = [self._masked(text[begin:end]) for begin, end in self._spans]
        adheres = [False] * len(pieces)
        if self._is_normal:
            touching = (
                place
                for place, (one, other) in enumerate(pairwise(self._spans), start=1)
                if one[1] == other[0]
            )
            for place in (*adhering_pieces(pieces), *touching):
                adheres[place] = True
            pieces = list(map(self._typography.normalise, pieces))
        self.pieces = pieces
        """From one cut to the next, in their normal forms."""
        self._sums_of_adhering = list(accumulate(adheres, initial=0))
        self._has_empty = not all(pieces)

    def text(self, first: int, stop: int) -> str:
        """A passage in its normal forms."""
        begin, end = self._places[first], self._places[stop]
        if self._is_normal and self._is_joined(begin, end):
            pieces = self.pieces[begin:end]
            return " ".join(filter(None, pieces) if self._has_empty else pieces)
        text = self._masked(self._text[self._spans[begin][0] : self._spans[end - 1][1]])
        return self._typography.normalise(text) if self._is_normal else text

    def num_ascii(self, first: int, stop: int) -> int:
        """Its letters of ASCII once it is in lower case."""
        return self._sums_of_ascii[self._places[stop]] - self._sums_of_ascii[self._places[first]]

    def hash(self, first: int, stop: int) -> int:
        """`hash_of` its text."""
        begin, end = self._places[first], self._places[stop]
        if self._is_joined(begin, end):
            return hash_of_letters(b"".join(self._letters[begin:end]))
        return hash_of(self.text(first, stop))

    def _is_joined(self, begin: int, end: int) -> bool:
        """Whether these pieces are theirs with white space between."""
        return self._sums_of_adhering[begin + 1] == self._sums_of_adhering[end]

    @cached_property
    def _sums_of_ascii(self) -> list[int]:
        return list(accumulate(map(num_ascii_letters, self._letters), initial=0))

    @cached_property
    def _letters(self) -> list[bytes]:
        has_marks = not (self._is_normal and self._typography.leaves_letters)
        return [letters_and_digits(piece, has_marks=has_marks) for piece in self.pieces]

    def _masked(self, text: str) -> str:
        return text if self._names is None else mask_names(text, self._language, self._names)
