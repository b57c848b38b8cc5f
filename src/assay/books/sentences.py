"""[pure] Where the sentences of a text begin and end.

A regular expression finds the places that could be boundaries: a terminator, quotes or brackets that close
behind it, white space, and then no lower-case letter. So `"Who?" said he.` is one sentence, and
`"Who?" "I."` is two. What a full stop may stand for besides (`Mr.`, an initial, `No. 5`) is looked up in
the tables of `languages/`. A blank line is a boundary, save where a sentence goes on behind it.

Not covered: sentences that begin with a lower-case letter, and boundaries without white space (`said.--He`).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain

import numpy as np
import numpy.typing as npt

from assay.books.languages.table import table_of
from assay.books.languages.words import Words

Spans = npt.NDArray[np.int64]

CLOSERS = "\"'”’“‘»«›‹)]}*_"
"""What may stand between a terminator and the white space behind its sentence."""
OPENERS = "\"'“‘„‚«»‹›”’([{*_—–-"
"""What may stand before the first letter of a sentence; dashes, with which dialogue begins, among them."""
TERMINATORS = ".!?…"
WIDE_TERMINATORS = "。！？｡"
"""As Chinese and Japanese write them; they need no white space behind them."""
WIDE_CLOSERS = "\"'”’」』）》"
_LETTERS = "".join(chr(code) for code in range(0x250) if chr(code).isalpha())
"""Of the words that the tables hold."""
_LOWER = "".join(chr(code) for code in range(0x2000) if chr(code).islower())
_LONGEST_WORD = 10
"""Of the tables, and then some."""
_OPENING_WORD = re.compile(rf"[{re.escape(OPENERS)}\s]*([^\W\d_]+)(\.?)")
_NUMBER = re.compile(r"\d|(?!I\b)[IVXLC]+\b")
_BLANK_LINE = re.compile(r"\n[^\S\n]*\n\s*")
_WIDE = re.compile(rf"[{WIDE_TERMINATORS}]+[{WIDE_CLOSERS}]*(\s*)(?=[^\s{WIDE_TERMINATORS}{WIDE_CLOSERS}])")


def split_sentences(text: str, language: str = "en") -> Spans:
    """Start and stop of each sentence, in characters: [N, 2], in order, without the white space between them.

    Every character that is not white space is in exactly one sentence. `language` is an ISO 639-1 code; one
    without a table is split by punctuation and capitals alone. One core does tens of MB a second.
    """
    first, last = len(text) - len(text.lstrip()), len(text.rstrip())
    if first >= last:
        return np.zeros((0, 2), dtype=np.int64)
    found = _rule_of(table_of(language)).boundaries(text)
    if _BLANK_LINE.search(text):
        found += _blank_lines(text)
    if any(mark in text for mark in WIDE_TERMINATORS):
        found += [match.span(1) for match in _WIDE.finditer(text)]
    stop_B, start_B = np.fromiter(chain.from_iterable(found), np.int64, 2 * len(found)).reshape(-1, 2).T
    start_B, places = np.unique(start_B, return_index=True)
    is_inside = (start_B > first) & (start_B < last)
    start_N, stop_N = np.append(first, start_B[is_inside]), np.append(stop_B[places][is_inside], last)
    return np.stack([start_N, stop_N], axis=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rule:
    """A language's candidates, and what its full stops may stand for besides."""

    candidate: re.Pattern[str]
    """A terminator and what follows; group 1 is the white space before the next sentence."""
    words: Words
    abbreviations: frozenset[str]
    """All those of `words`."""

    def boundaries(self, text: str) -> list[tuple[int, int]]:
        """Where sentences stop and the next ones start, as terminators show them."""
        found = []
        verdicts = _Verdicts(self.abbreviations)
        for match in self.candidate.finditer(text):
            stop, start = place = match.span(1)
            if (
                verdicts[text[stop - 3 : stop]]
                or text[stop - 1] != "."
                or stop - match.start() > 1
                or self._is_full_stop(text, stop, start)
            ):
                found.append(place)
        return found

    def _is_full_stop(self, text: str, stop: int, start: int) -> bool:
        """Whether the full stop before `stop` ends a sentence, where the next would begin at `start`."""
        head = text[max(0, stop - 1 - _LONGEST_WORD) : stop - 1]
        before = head.rstrip(_LETTERS)
        word = head[len(before) :]
        if word in self.abbreviations or len(word) == 1:
            if before[-1:] in "'’" and before[-2:-1].isalpha():
                return True  # "didn't." has no abbreviation at its end
            return self._ends_behind(word, before, text, start)
        if not word and self.words.has_ordinals and before[-1:].isdigit():
            return before[-3:].isdigit() or self._is_opener(text, start)
        return True

    def _ends_behind(self, word: str, before: str, text: str, start: int) -> bool:
        """Whether a sentence may end behind an abbreviation or a single letter."""
        words = self.words
        if word in words.never_last:
            return False
        if word in words.before_numbers and _NUMBER.match(text, start):
            return False
        if word in words.before_numbers and word not in words.rarely_last and len(word) > 1:
            return True
        if word in words.whole_letters and before[-1:] != ".":
            # "said I." ends a sentence; "I. J. Smith" has none that ends within.
            following = _OPENING_WORD.match(text, start)
            return following is None or len(following[1]) > 1 or not following[2]
        return self._is_opener(text, start)

    def _is_opener(self, text: str, start: int) -> bool:
        following = _OPENING_WORD.match(text, start)
        return following is not None and following[1] in self.words.openers and not following[2]


class _Verdicts(dict[str, bool]):
    """Of the three characters up to a boundary, whether they alone show that it is one; each looked at once.

    Most do: the last is not a full stop, or two letters stand before it with which no abbreviation ends.
    """

    def __init__(self, abbreviations: frozenset[str]) -> None:
        super().__init__()
        self._ends = frozenset(word[-2:] for word in abbreviations)

    def __missing__(self, tail: str) -> bool:
        letters = tail[:-1]
        is_sure = len(letters) == 2 and (
            tail[2] != "." or (letters not in self._ends and all(letter in _LETTERS for letter in letters))
        )
        self[tail] = is_sure
        return is_sure


@cache
def _rule_of(words: Words) -> _Rule:
    closers = f"[{re.escape(CLOSERS)}]*"
    if words.spaced_quotes:
        closers += rf"(?:\s?[{re.escape(words.spaced_quotes)}])*"
    openers = re.escape(OPENERS)
    candidate = re.compile(
        rf"[{TERMINATORS}]+{closers}(\s+)(?=[{openers}\s]*[^{openers}{_LOWER}\s,;:.!?…)\]}}])"
    )
    abbreviations = words.never_last | words.rarely_last | words.before_numbers
    return _Rule(candidate=candidate, words=words, abbreviations=abbreviations)


def _blank_lines(text: str) -> Iterator[tuple[int, int]]:
    """Where sentences stop and the next ones start, as blank lines show them."""
    for match in _BLANK_LINE.finditer(text):
        stop, start = match.span()
        while stop and text[stop - 1].isspace():
            stop -= 1
        goes_on = text[start : start + 1].islower() and text[stop - 1 : stop].isalnum()
        if not goes_on:
            yield stop, start
