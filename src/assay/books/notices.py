r"""[pure] Paragraphs at both ends of a book that are not the book's: credits, transcriber's notes.

A credit says who made the file (`Produced by Daniel Lazarus and Jonesey`). Books have such sentences too, so
a paragraph counts as a credit only where it begins with the words of one, is short, and either names what no
old book names (an e-text, Project Gutenberg, the Distributed Proofreaders) or stands right beside a marker.
"""

import re
from collections.abc import Iterator

from assay.books.markers import places

REACH = 10_000
"""How many characters from either end are looked at."""
_LONGEST_CREDIT = 1_500
_LONGEST_NOTE = 4_000
_LONGEST_LAST_NOTE = 8_000

_WORK = (
    r"(?:[Pp]roduced|[Pp]repared|[Tt]ranscribed|[Ss]canned|[Pp]roof-?read|[Pp]roofed|[Tt]yped|[Kk]eyed(?: in)?"
    r"|[Dd]igiti[sz]ed|[Ff]ormatted)"
)
_FILE = r"(?:[Ee]-?[Tt]ext|[Ee]-?[Bb]ook|EBOOK|[Ff]ile|[Ee]lectronic (?:text|edition|version))"
_DONE = (
    r"(?:[Pp]repared|[Pp]roduced|[Cc]reated|[Tt]ranscribed|[Ss]canned|[Tt]yped|[Cc]onverted|[Mm]ade|[Uu]pdated"
    r"|[Kk]eyed|[Ee]ntered|[Pp]rovided|posted)"
)
# No word in capitals throughout: a playbill's `PRODUCED BY CHARLES FROHMAN` is the book's.
_PLAIN = (
    rf"{_WORK}(?:,? (?:and|&) {_WORK})* (?:by|from)\b",
    r"HTML version by\b",
    r"(?:Text|Image|Page) (?:prepared|scans?)\b",
)
"""How a credit beside a marker begins."""
_TELLING = (
    *_PLAIN,
    rf"{_WORK} for\b",
    rf"(?:This |The )?(?:Project Gutenberg(?:'s)? )?{_FILE}(?: was| is|:)? ?(?:\w+ )?{_DONE}\b",
    r"Credit for e-?text\b",
    r"(?:An? )?HTML (?:version|file)(?: \w+)? by\b",
    r"Source scans?\b",
    r"(?:\w+ ){0,2}(?:thanks|Thanks) to\b",
    r"(?:Created|Updated|Corrected|Revised|Compiled|Converted) by\b",
    r"Note: (?:Project Gutenberg|Images of the original|There is an? |The original )",
    r"Project Gutenberg (?:also )?(?:has|volunteers)\b",
    r"This (?:e-?text|e-?book|eBook|Etext) is for the use of anyone\b",
)
"""How one begins that must also name what no old book names."""
_PLAIN_OPENERS = re.compile(rf"[\s\[(_*]*(?:{'|'.join(_PLAIN)})")
_OPENERS = re.compile(rf"[\s\[(_*]*(?:{'|'.join(_TELLING)})")
_EVIDENCE = re.compile(
    r"\b[Ee]-?[Tt]exts?\b|\b[Ee]-?[Bb]ooks?\b|EBook|Distributed\s+Proofread|pgdp\.|Project\s+Gutenberg|gutenberg\.(?:org|net)"
    r"|Internet\s+Archive|archive\.org|\bHTML\b|@\w+\.\w+|images\s+(?:generously|of\s+public\s+domain)"
)

_NOTE = (
    r"(?:(?:Original|Additional|Further) )?(?:Transcriber\S{0,10}|Transcription) (?:End|Foot)?[Nn]otes?\b"
    r"|TRANSCRIBER\S{0,10} (?:END|FOOT)?NOTES?\b|Notes? (?:from|by) the [Tt]ranscriber"
    r"|(?:Anmerkung(?:en)?|Hinweise?) (?:zur Transkription|des Transkribenten)|Notes? (?:du|de) [Tt]ranscript\w+"
    r"|Notes? sur la transcription|Od transkryptora|Uwagi transkryptora"
)
_NOTE_OPENER = re.compile(rf"[\s_=*|~:#-]*(?:{_NOTE})")
_BOXED = re.compile(r"[ \t]*[+|/][-=_*|+]{3}")
_BRACKETED = re.compile(rf"\[[_\s]?(?:{_NOTE})(?:[^\[\]]|\[[^\[\]]{{0,200}}\]){{0,3000}}\]")
_SEPARATOR = re.compile(r"(?:[ \t]*[*=_~-][ \t*=_~-]*\n\s*)+\Z")
_BETWEEN = re.compile(r"\n[ \t]*\n\s*")
_WIDE_GAP = re.compile(r"\n[ \t]*\n[ \t]*\n")
_WIDER_GAP = re.compile(r"\n[ \t]*\n[ \t]*\n[ \t]*\n")

Span = tuple[int, int]


def leading_credits(text: str, place: int) -> list[Span]:
    """The credits that stand right behind a marker, one after the other, beginning at `place`."""
    spans = []
    for start, stop in _paragraphs(text, place, min(len(text), place + REACH)):
        if not is_credit(text[start:stop], beside_marker=True):
            break
        spans.append((start, stop))
    return spans


def trailing_credits(text: str, place: int) -> list[Span]:
    """The credits that stand right before a marker at `place`."""
    spans = []
    for start, stop in reversed(list(_paragraphs(text, max(0, place - REACH), place))):
        if not is_credit(text[start:stop], beside_marker=True):
            break
        spans.append((start, stop))
    return spans


def is_credit(paragraph: str, *, beside_marker: bool) -> bool:
    """Whether a paragraph says who made the file."""
    if len(paragraph) > _LONGEST_CREDIT:
        return False
    if beside_marker and _PLAIN_OPENERS.match(paragraph):
        return True
    return _OPENERS.match(paragraph) is not None and _EVIDENCE.search(paragraph) is not None


def credits_at_ends(text: str) -> list[Span]:
    """The credits near either end that show by their words that they are not the book's."""
    return [
        (start, stop)
        for start, stop in _end_paragraphs(text)
        if is_credit(text[start:stop], beside_marker=False)
    ]


def notes_at_ends(text: str) -> list[Span]:
    """The transcriber's notes near either end: boxes, brackets, and sections under a heading."""
    spans = []
    middle = len(text) // 2
    for start, stop in _end_paragraphs(text):
        paragraph = text[start:stop]
        if _BOXED.match(paragraph):
            if re.search(_NOTE, paragraph[:400]) and len(paragraph) <= _LONGEST_NOTE:
                spans.append((start, stop))
        elif _NOTE_OPENER.match(paragraph):
            spans.append(_first_note(text, start, stop) if start < middle else _last_note(text, start, stop))
    return spans


def notes_in_brackets(text: str) -> list[Span]:
    """The transcriber's notes in square brackets, anywhere."""
    spans = []
    for word in ("ranscri", "TRANSCRIBER") if "[" in text else ():
        for place in places(text, word):
            opening = text.rfind("[", max(0, place - 24), place)
            match = None if opening < 0 else _BRACKETED.match(text, opening)
            if match is not None:
                spans.append(match.span())
    return spans


def _first_note(text: str, start: int, stop: int) -> Span:
    """A note at the beginning: its paragraph; of a bare heading, all up to the next two blank lines."""
    if _has_text(text[start:stop]):
        return start, (stop if stop - start <= _LONGEST_NOTE else start)
    limit = start + _LONGEST_NOTE
    gap = _WIDE_GAP.search(text, stop, limit)
    if gap is not None and gap.start() == stop:  # the heading stands by itself
        following = _BETWEEN.match(text, stop)
        assert following is not None
        gap = _WIDE_GAP.search(text, following.end(), limit)
    return start, (stop if gap is None else gap.start())


def _last_note(text: str, start: int, stop: int) -> Span:
    """A note at the end: all up to the next three blank lines, with the line of stars before it."""
    limit = start + _LONGEST_LAST_NOTE
    following = _BETWEEN.match(text, stop)
    gap = _WIDER_GAP.search(text, stop if following is None else following.end(), limit)
    if gap is None and len(text) > limit:
        return start, stop
    separator = _SEPARATOR.search(text, max(0, start - 200), start)
    return (start if separator is None else separator.start()), (len(text) if gap is None else gap.start())


def _has_text(paragraph: str) -> bool:
    """Whether something follows a note's heading in its paragraph."""
    match = _NOTE_OPENER.match(paragraph)
    assert match is not None
    return re.search(r"\w", paragraph[match.end() :]) is not None


def _end_paragraphs(text: str) -> Iterator[Span]:
    if len(text) <= 2 * REACH:
        yield from _paragraphs(text, 0, len(text))
        return
    yield from _paragraphs(text, 0, REACH)
    # The first piece of what follows may be the rest of a paragraph.
    first = _BETWEEN.search(text, len(text) - REACH)
    if first is not None:
        yield from _paragraphs(text, first.end(), len(text))


def _paragraphs(text: str, start: int, stop: int) -> Iterator[Span]:
    """The paragraphs from `start` on that begin before `stop`, without the blank lines around them."""
    while start < stop and text[start].isspace():
        start += 1
    while start < stop:
        between = _BETWEEN.search(text, start)
        if between is None:
            yield start, len(text.rstrip()) if len(text) > start else start
            return
        yield start, between.start()
        start = between.end()
