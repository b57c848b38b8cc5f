"""[pure] Where a second book begins in a text that should hold one, as far as its pages show it.

Each sign stands alone: a line that ends a book (`THE END`, `KONIEC`), a title page (a line `by Some Author` below
a short one), or a first chapter far into the text. None counts where a later volume, part or book is named near it.
Not covered: two books with nothing of the kind between them, and pages in other languages than the words below.
"""

import re
from dataclasses import dataclass

LEAST_BOOK = 20_000
"""Characters before a sign, and behind it: less is a preface, or an advertisement."""
FAR = 100_000
"""Characters before a first chapter that is another book's: a long preface has fewer."""
_NEAR = 1_000
"""Characters on either side of a sign within which a later volume is named."""
_NUMBER = (
    r"(?:[ivxlc]{2,}|v|x|[2-9]|\d\d+|two|three|four|five|six|second|third|fourth|fifth|sixth|seventh|eighth|last"
    r"|drug\w*|trzeci\w*|czwart\w*|piąt\w*|ostatni\w*|zwei\w*|drei|dritt\w*|deux\w*|trois\w*)"
)
_PART = r"(?:volume|vol|book|part|epoch|tomu?|części?|część|księg[ai]|band|teil|tome|partie)"
_LATER_PART = re.compile(rf"\b{_PART}\b[.:]?\s+(?:the\s+)?{_NUMBER}\b|\b{_NUMBER}\s+{_PART}\b", re.IGNORECASE)
# A line end to begin with is found three times faster than the beginning of a line.
_SIGN = re.compile(
    r"\n[ \t]*(?:(?:THE[ ]END|FINIS|KONIEC|ENDE|FIN)\W{0,3}"
    r"|[^\W\d_a-z][^\n]{1,60}\n\s*(?:by|By|BY)[ \t\n]+(?:[^\W\d_a-z][\w.'\u2019-]*[ \t]*){2,5}"
    r"|(?P<chapter>(?i:(?:chapter|rozdział|kapitel|chapitre)[ \t]+(?:the[ \t]+)?"
    r"(?:i|1|first|one|pierwszy|eins|erstes|premier))\b(?:[.:\u2014\u2013-](?![ivxlcIVXLC\d])[^\n]{0,80})?))$",
    re.MULTILINE,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SecondBook:
    """Where a second book seems to begin."""

    start: int
    """First character of the sign."""
    share: float
    """Of the text that lies before it."""
    line: str
    """Its first line."""

    @property
    def described(self) -> str:
        """For people."""
        return f"{self.line!r}, {self.share:.0%} into the text"


def find_second_book(text: str) -> SecondBook | None:
    """The first place that shows a second book; None where the text looks like one."""
    for sign in _SIGN.finditer(text, LEAST_BOOK - 1, max(LEAST_BOOK, len(text) - LEAST_BOOK)):
        begin = sign.start() + 1
        if sign["chapter"] is not None and begin < FAR:
            continue
        if not _LATER_PART.search(text, begin - _NEAR, sign.end() + _NEAR):
            words = sign[0].lstrip()
            start = sign.end() - len(words)
            return SecondBook(start=start, share=start / len(text), line=words.partition("\n")[0].rstrip())
    return None
