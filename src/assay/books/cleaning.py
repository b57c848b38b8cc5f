"""[pure] A book's text without what its publisher put around it: header, licence, credits, notes.

The order is that of the page: find the markers, take what lies between them, drop the licence inside of it,
then credits and transcriber's notes at both ends, then marks such as `[Illustration]`; and once more, until
nothing changes, so that cleaning a cleaned text changes nothing. Only the two ends are read line by line.

When in doubt a text is kept as it is and named (`Cleaned.quarantined`), never emptied.
"""

import re
from dataclasses import dataclass
from itertools import pairwise

from assay.books.decoding import Decoded, decode_book
from assay.books.headers import Header, read_header
from assay.books.markers import LICENCE_SIGNS, Marker, find_markers, find_mentions, markers_among, places
from assay.books.notices import (
    Span,
    credits_at_ends,
    leading_credits,
    notes_at_ends,
    notes_in_brackets,
    trailing_credits,
)

__all__ = ["CleanOptions", "Cleaned", "Decoded", "clean_book", "decode_book"]

_LICENCE_CHARACTERS = 25_000
"""The licence has 19,000 characters; so had the small print with its notices."""
_HEADER_CHARACTERS = 6_000
_UNSIGNED_CHARACTERS = 200
_AFTER_END = 1_000
"""How far behind an end marker the licence begins at the latest."""
_BETWEEN_STARTS = 300
_SECOND_BOOK = 2_000
"""Least characters behind small print that make another book."""
_SECOND_MARKED_BOOK = 200
_MOST_ROUNDS = 50

_LICENCE_STARTS = ("START: FULL LICEN", "Updated editions will replace the previous one")
_LICENCE_END = re.compile(
    r"\**[ \t]*END: FULL LICEN[SC]E[^\n]*|subscribe\s+to\s+our\s+email\s+newsletter[^\n]*(?:\n[ \t]*\S[^\n]*)*"
)
_SMALL_PRINT_START = re.compile(r"^[ \t]*\*{2,} ?START ?\*{2} ?THE SMALL PRINT", re.MULTILINE)
_ELECTRONIC_VERSION = re.compile(r"<<\s*THIS ELECTRONIC VERSION[^>]{0,2000}>>")
_LONGEST_BLOCK = 30_000

_HTML = re.compile(
    r"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.{0,2000}?-->\s*)?<(?:!doctype\s+html|html|head|body)\b",
    re.IGNORECASE | re.DOTALL,
)
_TAG = re.compile(r"</(?:p|div|span|a|i|h[1-6]|td|li)>", re.IGNORECASE)
_TAGS_OF_HTML = 20

_ILLUSTRATION = re.compile(
    r"\[_?(?:Illustrations?|Ilustracj[ae]|Abbildung|Ilustraci[o\u00f3]n)_?[ \t]*(?:\d{1,4}[ \t]*)?"
    r"(?:[:.,;\u2014-](?:[^\[\]]|\[[^\[\]]{0,200}\]){0,1500})?\]"
)
_FOOTNOTE_MARK = re.compile(r"\[(?:\d{1,4}|[A-Za-z]|[*\u2020\u2021]{1,4})\]")
_BLANKS = (" ", "\t")
_LETTER = re.compile(r"\w")
_BLANK_LINES = re.compile(r"(?:[ \t]*\n)+")
_HEADER_SIGNS = re.compile(r"for the use of anyone anywhere|^Title:", re.MULTILINE)
_STARTS = frozenset({"start", "small_print"})
_ENDS = frozenset({"end", "weak_end"})


@dataclass(frozen=True, kw_only=True, slots=True)
class CleanOptions:
    """What else is removed, and when a text is too much changed to be used."""

    credits: bool = True
    """Remove who made the file, at both ends."""
    transcriber_notes: bool = True
    """Remove transcriber's notes at both ends, and those in square brackets anywhere."""
    illustrations: bool = True
    """Remove `[Illustration]` and `[Illustration: caption]`."""
    footnote_marks: bool = False
    """Remove `[12]`, `[A]` and `[*]`; the notes themselves stay."""
    max_dropped_share: float = 0.1
    """Most of a text that may be dropped beside header, licence and the like; above it is quarantined."""
    min_characters: int = 200
    """Fewest characters that must be left."""


DEFAULT_OPTIONS = CleanOptions()


@dataclass(frozen=True, kw_only=True, slots=True)
class Cleaned:
    """A book after cleaning."""

    text: str
    """The work; the unchanged input where nothing was found, or where it is quarantined."""
    header: Header
    """What the text said of itself before it was cleaned."""
    dropped_share: float
    """Characters removed, of all; 0 where it is quarantined."""
    quarantined: str | None
    """Why the text could not be cleaned, in one line with the way out; None where it could."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Round:
    text: str
    unexplained: int = 0
    """Characters dropped that nothing shows to be the publisher's."""
    problem: str | None = None


def clean_book(text: str, options: CleanOptions = DEFAULT_OPTIONS) -> Cleaned:
    """The work within a published text. A text without any of the publisher's signs comes back unchanged.

    Cleaning a cleaned text changes nothing. What would lose more than the options allow comes back unchanged,
    with the reason in `quarantined`.
    """
    header = read_header(text)
    given = _with_plain_line_ends(text)
    current, unexplained = given, 0
    for _ in range(_MOST_ROUNDS):
        cleaned = _clean_once(current, options)
        unexplained += cleaned.unexplained
        if cleaned.problem is not None:
            return _quarantined(text, header, cleaned.problem)
        if cleaned.text == current:
            break
        current = cleaned.text
    else:
        return _quarantined(text, header, "its marks are nested too deeply: remove them by hand")
    if current is given:
        return Cleaned(text=text, header=header, dropped_share=0.0, quarantined=None)
    problem = _too_much(given, current, unexplained, options)
    if problem is not None:
        return _quarantined(text, header, problem)
    return Cleaned(text=current, header=header, dropped_share=1 - len(current) / len(given), quarantined=None)


def _clean_once(text: str, options: CleanOptions) -> _Round:
    problem = _unreadable(text)
    if problem is not None:
        return _Round(text=text, problem=problem)
    mentions = find_mentions(text)
    markers = markers_among(text, mentions)
    problem = _second_book(text, markers)
    if problem is not None:
        return _Round(text=text, problem=problem)
    start, before = _find_start(text, markers)
    stop, behind = _find_stop(text, markers, start)
    spans = [(0, start), (stop, len(text))]
    spans += [(marker.start, marker.stop) for marker in markers if start <= marker.start < stop]
    if any(start <= mention < stop for mention in mentions):
        spans += _licences_inside(text, start, stop)
    if options.credits and start > 0:
        spans += leading_credits(text, start)
    if options.credits and stop < len(text):
        spans += trailing_credits(text, stop)
    text = _without(text, spans)
    if options.credits:
        text = _without(text, credits_at_ends(text))
    if options.transcriber_notes:
        text = _without(text, notes_in_brackets(text))
        text = _without(text, notes_at_ends(text))
    if options.illustrations:
        text = _without(text, _brackets(_ILLUSTRATION, text))
    if options.footnote_marks:
        marks = [
            (start - (text[start - 1 : start] in _BLANKS), stop)
            for start, stop in _brackets(_FOOTNOTE_MARK, text)
        ]
        text = _without(text, marks, whole_lines=False)
    return _Round(text=text, unexplained=before + behind)


def _find_start(text: str, markers: list[Marker]) -> tuple[int, int]:
    """Where the work begins, and how many characters before it nothing explains."""
    first_end = next((marker.start for marker in markers if marker.kind in _ENDS), len(text))
    starts = [marker for marker in markers if marker.kind in _STARTS and marker.start < first_end]
    if not starts:
        return 0, 0
    chosen = starts[0]
    for earlier, later in pairwise(starts):
        # Another marker further down counts only where the publisher goes on talking in between.
        between = text[earlier.stop : min(later.start, earlier.stop + _AFTER_END)]
        is_near = later.start - earlier.stop <= _BETWEEN_STARTS
        if not (is_near or LICENCE_SIGNS.search(between)) or later.start > _LICENCE_CHARACTERS:
            break
        chosen = later
    begin = chosen.stop
    while begin < len(text) and text[begin] in " \t":
        begin += 1
    return begin, max(0, chosen.start - _header_allowance(text[: chosen.start]))


def _header_allowance(head: str) -> int:
    beginning = head[:_HEADER_CHARACTERS]
    if "SMALL PRINT" in head[:_LICENCE_CHARACTERS]:
        return _LICENCE_CHARACTERS
    return (
        _HEADER_CHARACTERS
        if "gutenberg" in beginning.lower() or "Title:" in beginning
        else _UNSIGNED_CHARACTERS
    )


def _find_stop(text: str, markers: list[Marker], start: int) -> tuple[int, int]:
    """Where the work ends, and how many characters behind it nothing explains.

    The first end marker behind which there is no more than a licence; the last where there is none such.
    """
    best: tuple[int, int] | None = None
    for marker in markers:
        if marker.kind not in _ENDS or marker.start < start:
            continue
        unexplained = _unexplained_behind(text, marker)
        if best is None or unexplained < best[1]:
            best = marker.start, unexplained
        if not unexplained:
            break
    return (len(text), 0) if best is None else best


def _unexplained_behind(text: str, marker: Marker) -> int:
    signs = LICENCE_SIGNS.search(text, marker.stop, min(len(text), marker.stop + _AFTER_END))
    if signs is None:
        return max(0, len(text) - marker.stop - _UNSIGNED_CHARACTERS)
    return max(0, len(text) - signs.start() - _LICENCE_CHARACTERS)


def _second_book(text: str, markers: list[Marker]) -> str | None:
    """Why the text is two books, where it is: a start behind an end, with a text behind it."""
    seen_end = False
    for number, marker in enumerate(markers):
        seen_end = seen_end or marker.kind in _ENDS
        if marker.kind not in _STARTS or number == 0:
            continue
        least = _SECOND_BOOK if marker.kind == "small_print" else _SECOND_MARKED_BOOK
        stop = markers[number + 1].start if number + 1 < len(markers) else len(text)
        if len(text[marker.stop : stop].strip()) >= least and (seen_end or _has_header(text, marker)):
            line = text.count("\n", 0, marker.start) + 1
            return f"it holds two books, and the second begins at line {line}: split the file there"
    return None


def _has_header(text: str, marker: Marker) -> bool:
    """Whether a header of its own stands before a marker that is far from the beginning of the file."""
    if marker.start < _LICENCE_CHARACTERS:
        return False
    return _HEADER_SIGNS.search(text, marker.start - _HEADER_CHARACTERS, marker.start) is not None


def _licences_inside(text: str, start: int, stop: int) -> list[Span]:
    """Licences between the ends of the work, where it is plain how far they go."""
    spans = [match.span() for match in _find_all(_ELECTRONIC_VERSION, "<<", text, start, stop)]
    for match in _find_all(_SMALL_PRINT_START, "SMALL PRINT", text, start, stop):
        end = next(
            (marker for marker in find_markers(text[match.end() : match.end() + _LONGEST_BLOCK])), None
        )
        if end is not None and end.kind == "small_print":
            spans.append((match.start(), match.end() + end.stop))
    for words in _LICENCE_STARTS:
        for place in places(text, words, start, stop):
            line = text.rfind("\n", 0, place) + 1
            closing = None
            for match in _LICENCE_END.finditer(text, place, min(stop, place + _LONGEST_BLOCK)):
                closing = match
                if match.group().lstrip("* \t").startswith("END"):
                    break
            if closing is not None:
                spans.append((line, closing.end()))
    return spans


def _brackets(pattern: re.Pattern[str], text: str) -> list[Span]:
    """Every match of a pattern that begins with an opening bracket."""
    matches = (pattern.match(text, place) for place in places(text, "["))
    return [match.span() for match in matches if match is not None]


def _find_all(pattern: re.Pattern[str], words: str, text: str, start: int, stop: int) -> list[re.Match[str]]:
    """Every match, for which the text is read only where it has the words."""
    return list(pattern.finditer(text, start, stop)) if text.find(words, start, stop) >= 0 else []


def _unreadable(text: str) -> str | None:
    if "\x00" in text:
        return "it holds NUL characters, so it is not text: check what was fetched"
    if _HTML.match(text) or (
        text[:2_000].count("<") > 2 and len(_TAG.findall(text[:20_000])) >= _TAGS_OF_HTML
    ):
        return "it is HTML, not plain text: fetch the book's .txt file"
    return None


def _too_much(given: str, left: str, unexplained: int, options: CleanOptions) -> str | None:
    num_left = len(left.strip()) if _LETTER.search(left) else 0
    if num_left < options.min_characters:
        return (
            f"only {num_left} characters would be left, fewer than min_characters ({options.min_characters}): "
            "check its start and end markers"
        )
    if unexplained > options.max_dropped_share * len(given):
        return (
            f"{unexplained / len(given):.0%} of it is outside its markers and is not a licence, more than "
            f"max_dropped_share ({options.max_dropped_share:.0%}): check its start and end markers"
        )
    return None


def _quarantined(text: str, header: Header, reason: str) -> Cleaned:
    return Cleaned(text=text, header=header, dropped_share=0.0, quarantined=reason)


def _without(text: str, spans: list[Span], *, whole_lines: bool = True) -> str:
    """The text less the spans; of whole lines also the blank lines behind them, and those at both ends."""
    pieces = []
    place = 0
    for start, stop in sorted(spans):
        if stop <= start or stop <= place:
            continue
        pieces.append(text[place : max(place, start)])
        place = stop
        if whole_lines and (start == 0 or text[start - 1] == "\n"):
            gap = _BLANK_LINES.match(text, stop)
            place = stop if gap is None else gap.end()
    if place == 0 and not pieces:
        return text
    joined = "".join([*pieces, text[place:]])
    if not whole_lines:
        return joined
    leading = _BLANK_LINES.match(joined)
    return joined[0 if leading is None else leading.end() :].rstrip()


def _with_plain_line_ends(text: str) -> str:
    if "\r" not in text:
        return text
    return text.replace("\r\n", "\n").replace("\r", "\n")
