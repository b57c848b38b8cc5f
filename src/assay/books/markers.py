r"""[pure] Where the publisher's words end and a book begins, and where they go on after it.

Project Gutenberg has marked its texts in several ways since the 1990s:

- to about 2003: a header, then `*END*THE SMALL PRINT! ... *END*`, the book, `End of the Project Gutenberg Etext`;
- since then: a header, `*** START OF THIS PROJECT GUTENBERG EBOOK <title> ***`, the book, `End of Project
  Gutenberg's <title>` (dropped later), `*** END OF THIS PROJECT GUTENBERG EBOOK <title> ***`, the licence.

The forms follow what the publisher's own converter looks for (ebookmaker, `parsers/boilerplate.py`). A marker
stands at the beginning of a line; in a text that was collapsed to one line it may stand anywhere.

Large texts are searched for plain words first and by regular expressions only around what was found.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

MarkerKind = Literal["start", "small_print", "end", "weak_end"]

_NAMES = ("UTENBERG", "utenberg")
_SMALL_PRINT_WORDS = "SMALL PRINT"
_REACH = 160
"""Most characters of a marker before the publisher's name."""
_BEGINNING = 60_000
_TITLE_REACH = 500
"""Most characters of a title between a marker's first words and its closing stars."""

_OF_PROJECT = r"OF (?:THE |THIS |THESE )?(?:PROJECT|PROJEKT) GUTENBERG"
_START = re.compile(rf"\*{{2,}} ?START {_OF_PROJECT}", re.IGNORECASE)
_END = re.compile(rf"\*{{2,}} ?END {_OF_PROJECT}", re.IGNORECASE)
_WEAK_END = re.compile(
    r"(?:\*{1,3} ?)?(?:This is the )?(?:The )?End of (?:the |this |The |This )?(?:Etext of (?:the )?)?"
    r"Project Gutenberg|(?:\*{1,3} ?)?Ende (?:dieses|des|von) (?:Projekte?s?|Project) Gutenberg"
    r"|Fin (?:de|du) (?:ce |l'|la )?.{0,40}Project Gutenberg|END OF (?:THE |THIS )?PROJECT GUTENBERG"
)
_SMALL_PRINT = re.compile(r"\*+ ?END ?\*{0,2} ?(?:OF )?(?:THE )?SMALL PRINT")
_SMALL_PRINT_CLOSE = re.compile(r"[^\n]{0,160}?\*END\*+[ \t]*")
_CLOSING_STARS = re.compile(r"\*{3,}")
_BLANK_LINE = re.compile(r"\n[ \t]*(?=\n)")

LICENCE_SIGNS = re.compile(
    r"This file should be named|Updated editions will replace|FULL PROJECT GUTENBERG|START: FULL LICEN[SC]E"
    r"|SMALL PRINT|This and all associated files|Creating the works from|Literary\s+Archive\s+Foundation"
    r"|trying to release all our|www\.gutenberg\.|Gutenberg(?:-tm|\u2122)|printed? editions|[Pp]rinted editions"
    r"|promo\.net|Information about Project Gutenberg"
)
"""Words of the licence and of the notices around it, any generation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Marker:
    """A line, or paragraph, by which the publisher separates its words from the book's."""

    kind: MarkerKind
    start: int
    """First character."""
    stop: int
    """Behind its last character."""


def is_collapsed(text: str) -> bool:
    """Whether the text's lines were joined, so that nothing can be told from where a line begins."""
    beginning = min(len(text), _BEGINNING)
    return beginning > 3_000 and text.count("\n", 0, beginning) * 2_000 < beginning


def find_markers(text: str) -> list[Marker]:
    """The markers, in order, of a text whose lines end in a line feed."""
    return markers_among(text, find_mentions(text))


def find_mentions(text: str) -> list[int]:
    """Where the publisher is named."""
    return [place for name in _NAMES for place in places(text, name)]


def markers_among(text: str, mentions: list[int]) -> list[Marker]:
    """The markers, where the mentions of the publisher are known."""
    anywhere = is_collapsed(text)
    found: dict[int, Marker] = {}
    for place in mentions:
        _add(found, _marker_at(text, place, anywhere=anywhere))
    for place in places(text, _SMALL_PRINT_WORDS):
        _add(found, _small_print_at(text, place, anywhere=anywhere))
    return [found[start] for start in sorted(found)]


def places(text: str, words: str, start: int = 0, stop: int | None = None) -> Iterator[int]:
    """Where the words stand between two places of the text, in order."""
    place = text.find(words, start, stop)
    while place >= 0:
        yield place
        place = text.find(words, place + len(words), stop)


def _add(found: dict[int, Marker], marker: Marker | None) -> None:
    if marker is not None:
        found.setdefault(marker.start, marker)


def _marker_at(text: str, place: int, *, anywhere: bool) -> Marker | None:
    first = _line_start(text, place)
    kinds: tuple[tuple[MarkerKind, re.Pattern[str]], ...] = (
        ("start", _START),
        ("end", _END),
        ("weak_end", _WEAK_END),
    )
    for kind, pattern in kinds:
        match = _match(pattern, text, first, place, anywhere=anywhere)
        if match is not None:
            stop = _stop_of(text, match, kind, anywhere=anywhere)
            # In a text of one line only stars, or what stands right before them, can be told from prose.
            if stop is not None:
                return Marker(kind=kind, start=match.start(), stop=stop)
    return None


def _match(
    pattern: re.Pattern[str], text: str, first: int, place: int, *, anywhere: bool
) -> re.Match[str] | None:
    """The pattern at the beginning of the line; in a collapsed text, the last before the place."""
    limit = min(len(text), place + 12)
    if not anywhere:
        return pattern.match(text, first, limit)
    last = None
    for match in pattern.finditer(text, max(0, place - _REACH), limit):
        last = match
    return last


def _stop_of(text: str, match: re.Match[str], kind: MarkerKind, *, anywhere: bool) -> int | None:
    blank = None if anywhere else _BLANK_LINE.search(text, match.end())
    limit = min(len(text) if blank is None else blank.start(), match.end() + _TITLE_REACH)
    if kind == "weak_end":
        return limit if not anywhere else match.end()
    closing = _CLOSING_STARS.search(text, match.end(), limit)
    if closing is not None:
        return closing.end()
    if anywhere:
        return None
    line_end = text.find("\n", match.end())
    return len(text) if line_end < 0 else line_end


def _small_print_at(text: str, place: int, *, anywhere: bool) -> Marker | None:
    first = max(0, place - 24) if anywhere else _line_start(text, place)
    limit = min(len(text), place + 240)
    match = (_SMALL_PRINT.search if anywhere else _SMALL_PRINT.match)(text, first, limit)
    if match is None:
        return None
    closing = _SMALL_PRINT_CLOSE.match(text, match.end())
    line_end = text.find("\n", match.end())
    if closing is not None:
        stop = closing.end()
    elif anywhere:
        stop = match.end()
    else:
        stop = len(text) if line_end < 0 else line_end
    return Marker(kind="small_print", start=match.start(), stop=stop)


def _line_start(text: str, place: int) -> int:
    """The first character of the line that is not a space."""
    start = max(text.rfind("\n", max(0, place - _REACH), place) + 1, place - _REACH, 0)
    while start < place and text[start] in " \t":
        start += 1
    return start
