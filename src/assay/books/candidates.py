"""[pure] Places of a text where a sentence could end, by its marks alone: arrays of characters, no loop over them.

A candidate is a row of terminators, what closes behind it, white space, and then, behind what opens, neither a
lower-case letter nor a mark.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

CLOSERS = "\"'”’“‘»«›‹)]}*_"
"""What may stand between a terminator and the white space behind its sentence."""
OPENERS = "\"'“‘„‚«»‹›”’([{*_—–-"
"""What may stand before the first letter of a sentence; dashes, with which dialogue begins, among them."""
TERMINATORS = ".!?…"
_REFUSED = ",;:.!?…)]}"
"""What no sentence begins with."""
_MOST_CODE = 0x3001
"""Every character that has a kind is below it."""
_LOWER = "".join(chr(code) for code in range(0x2000) if chr(code).islower())
_SPACE = "".join(chr(code) for code in range(_MOST_CODE) if chr(code).isspace())
_CLOSES, _OPENS, _REFUSES, _IS_SPACE, _CLOSES_SPACED = (1 << bit for bit in range(5))

Places = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidates:
    """Of each, in the order of the text."""

    stop: Places
    """One past the last character of the sentence that could end here."""
    start: Places
    """First character of the next one."""
    is_lone_stop: Mask
    """A full stop and nothing else stands there, which may be that of an abbreviation."""


def find_candidates(text: str, spaced_quotes: str) -> Candidates:
    """The candidates of a text; `spaced_quotes` close behind a space too."""
    codes = _codes_of(text)
    kinds = _kinds_of(spaced_quotes)
    is_terminator = codes == ord(TERMINATORS[0])
    for mark in TERMINATORS[1:]:
        is_terminator |= codes == ord(mark)
    terminators = np.flatnonzero(is_terminator)
    is_next = np.diff(terminators, append=-1) == 1
    lasts = terminators[~is_next]
    is_lone = ~np.append(False, is_next[:-1])[~is_next] & (codes[lasts] == ord("."))

    stop = _past(codes, lasts + 1, kinds, _CLOSES)
    start, is_found = _starts(codes, stop, kinds, len(text))
    found = np.where(is_found, stop, -1)
    while spaced_quotes:
        quote = stop + _is(codes, stop, kinds, _IS_SPACE)
        behind = np.where(_is(codes, quote, kinds, _CLOSES_SPACED), quote + 1, stop)
        if np.array_equal(behind, stop):
            break
        stop = behind
        later, is_found = _starts(codes, stop, kinds, len(text))
        start, found = np.where(is_found, later, start), np.where(is_found, stop, found)
    chosen = found >= 0
    return Candidates(
        stop=found[chosen],
        start=start[chosen],
        is_lone_stop=(is_lone & (found == lasts + 1))[chosen],
    )


def _starts(
    codes: npt.NDArray[np.unsignedinteger], stop: Places, kinds: npt.NDArray[np.uint8], length: int
) -> tuple[Places, Mask]:
    """Where the next sentence would start, and whether one may."""
    is_found = _is(codes, stop, kinds, _IS_SPACE)
    start = stop.copy()
    start[is_found] = _past(codes, stop[is_found], kinds, _IS_SPACE)
    first = _past(codes, start[is_found], kinds, _IS_SPACE | _OPENS)
    is_found[is_found] = (first < length) & ~_is(codes, first, kinds, _REFUSES)
    return start, is_found


def _past(
    codes: npt.NDArray[np.unsignedinteger], places: Places, kinds: npt.NDArray[np.uint8], kind: int
) -> Places:
    """For each place the first one from there on that is of none of these kinds."""
    places = places.copy()
    going = np.arange(len(places))
    while len(going):
        going = going[_is(codes, places[going], kinds, kind)]
        places[going] += 1
    return places


def _is(
    codes: npt.NDArray[np.unsignedinteger], places: Places, kinds: npt.NDArray[np.uint8], kind: int
) -> Mask:
    found: Mask = kinds[np.minimum(codes[places], _MOST_CODE)] & kind != 0
    return found


def _codes_of(text: str) -> npt.NDArray[np.unsignedinteger]:
    """A number a character, and behind the last a 0."""
    text += "\0"
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), np.uint8).astype(np.uint16)
    content = text.encode("utf-16-le", "surrogatepass")
    if len(content) == 2 * len(text):
        return np.frombuffer(content, np.uint16)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


@cache
def _kinds_of(spaced_quotes: str) -> npt.NDArray[np.uint8]:
    """The kinds of each character up to the last that has one."""
    kinds = np.zeros(_MOST_CODE + 1, np.uint8)
    for marks, kind in (
        (CLOSERS, _CLOSES),
        (OPENERS, _OPENS),
        (_REFUSED + _LOWER, _REFUSES),
        (_SPACE, _IS_SPACE),
        (spaced_quotes, _CLOSES_SPACED),
    ):
        kinds[[ord(mark) for mark in marks]] |= kind
    return kinds
