"""[pure] Where the sentences of a text begin and end.

`candidates.py` finds the places that could be boundaries: a terminator, quotes or brackets that close
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

from assay.books.candidates import OPENERS, find_candidates
from assay.books.languages.table import table_of
from assay.books.languages.words import Words

Spans = npt.NDArray[np.int64]

WIDE_TERMINATORS = "。！？｡"
"""As Chinese and Japanese write them; they need no white space behind them."""
WIDE_CLOSERS = "\"'”’」』）》"
_LETTERS = "".join(chr(code) for code in range(0x250) if chr(code).isalpha())
"""Of the words that the tables hold."""
_LONGEST_WORD = 10
"""Of the tables, and then some."""
MOST_VERDICTS = 50_000
"""That are kept; a language has fewer ends of words."""
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
    others = list(_blank_lines(text))
    if any(mark in text for mark in WIDE_TERMINATORS):
        others += [match.span(1) for match in _WIDE.finditer(text)]
    shown = np.fromiter(chain.from_iterable(others), np.int64, 2 * len(others)).reshape(-1, 2)
    stop_B, start_B = np.concatenate([_rule_of(table_of(language)).boundaries(text), shown]).T
    start_B, places = np.unique(start_B, return_index=True)
    is_inside = (start_B > first) & (start_B < last)
    start_N, stop_N = np.append(first, start_B[is_inside]), np.append(stop_B[places][is_inside], last)
    return np.stack([start_N, stop_N], axis=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rule:
    """What the full stops of a language may stand for besides."""

    words: Words
    abbreviations: frozenset[str]
    """All those of `words`."""
    verdicts: "_Verdicts"

    def boundaries(self, text: str) -> Spans:
        """Where sentences stop and the next ones start, as terminators show them: [B, 2]."""
        found = find_candidates(text, self.words.spaced_quotes)
        is_end = ~found.is_lone_stop
        stop_L, start_L = found.stop[found.is_lone_stop], found.start[found.is_lone_stop]
        places = zip(
            np.maximum(stop_L - 4, 0).tolist(),
            (stop_L - 1).tolist(),
            stop_L.tolist(),
            start_L.tolist(),
            strict=True,
        )
        verdicts = self.verdicts
        is_end[found.is_lone_stop] = [
            verdicts[text[begin:end]] or self._is_full_stop(text, stop, start)
            for begin, end, stop, start in places
        ]
        return np.stack([found.stop[is_end], found.start[is_end]], axis=1)

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
    """Of the three characters before a lone full stop, whether they alone show a boundary; each looked at once.

    Most do: they end in a word that is not an abbreviation and does not end like one of three letters or more.
    """

    def __init__(self, abbreviations: frozenset[str]) -> None:
        super().__init__()
        self._ends = frozenset(word[-3:] for word in abbreviations)

    def __missing__(self, tail: str) -> bool:
        word = tail[len(tail.rstrip(_LETTERS)) :]
        is_sure = len(tail) == 3 and len(word) > 1 and word not in self._ends
        if len(self) < MOST_VERDICTS:
            self[tail] = is_sure
        return is_sure


@cache
def _rule_of(words: Words) -> _Rule:
    abbreviations = words.never_last | words.rarely_last | words.before_numbers
    return _Rule(words=words, abbreviations=abbreviations, verdicts=_Verdicts(abbreviations))


def _blank_lines(text: str) -> Iterator[tuple[int, int]]:
    """Where sentences stop and the next ones start, as blank lines show them."""
    for match in _BLANK_LINE.finditer(text):
        stop, start = match.span()
        while stop and text[stop - 1].isspace():
            stop -= 1
        goes_on = text[start : start + 1].islower() and text[stop - 1 : stop].isalnum()
        if not goes_on:
            yield stop, start
