"""[pure] Texts in a normal form, so that a model learns neither a publisher's typography nor a book's names.

Typography alone tells books apart: one edition has curly quotes and spaced dashes, another straight ones. So
do names: two pieces in which the same person appears are of the same book. Both are forms of a text, not
corrections of it; whoever uses one should record it.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import pairwise

from assay.books.languages.table import table_of

MASK = "Xx"
"""What stands for a name; a capital and a small letter, as in most names."""
SHARE_IN_LOWER_CASE = 0.25
"""A word seen more often than this without its capital is not a name."""
SHARE_BEHIND_DETERMINER = 0.1
"""Where all nouns have capitals, a word seen more often than this behind one is a noun."""

_DROPPED = "\ufeff\u00ad\u200b\u2060_"
"""Marks without a width, soft hyphens, and the underscores that stand for italics."""
_SPACE = "".join(chr(code) for code in range(0x3001) if chr(code).isspace())
_SINGLE_QUOTES = "‘’‚‛‹›´`′"
_DOUBLE_QUOTES = "“”„‟«»″"
_DASHES = "‒–—―"
_GUILLEMETS = "«»‹›"
_OPENING_GUILLEMET = re.compile(r"(?<!\S)([«‹])\s+")
_CLOSING_GUILLEMET = re.compile(r"\s+([»›])(?![^\s.,;:!?)\]…])")
_ORDINARY = bytes({*range(0x20, 0x7F), ord("\n")} - set(_DROPPED.encode()) - set(b"`"))
"""ASCII that needs no mark to be looked for."""
_OPENING = "«‹"
_ADHERING = frozenset((*".…!?;:\u037e»›",))
"""What some rule moves or joins to what stands before the white space in front of it."""
_DOTS = re.compile(r"\.(?: ?\.){2,}")
_STARS = re.compile(r"\*(?: ?\*)+")
_WORD = re.compile(r"[^\W\d_]+")
_INNER_WORD = re.compile(r"(?<=[^\W\d_] |[,;] )[^\W\d_]+")
_TWO_WORDS = re.compile(r"([^\W\d_]+) (?=([^\W\d_]+))")


@dataclass(frozen=True, kw_only=True, slots=True)
class Typography:
    """What there is to normalise in the pieces of a text: looking for no more than that takes half the time."""

    dropped: str
    replaced: tuple[tuple[str, str], ...]
    """Marks beyond ASCII, and what stands for them; in order."""
    has_guillemets: bool
    is_composed: bool
    """Every piece is in normal form C once what is dropped is gone."""
    is_plain: bool
    """Of white space the pieces hold spaces and line feeds alone."""
    leaves_letters: bool
    """Beyond ASCII, letters and digits are all that is left, in lower case too."""

    def normalise(self, text: str) -> str:
        """A piece with plain quotes, dashes and dots, on one line; see `normalise_typography`."""
        for mark in self.dropped:
            text = text.replace(mark, "")
        if not text.isascii():
            if not self.is_composed:
                text = unicodedata.normalize("NFC", text)
            if self.has_guillemets and any(mark in text for mark in _GUILLEMETS):
                text = _CLOSING_GUILLEMET.sub(r"\1", _OPENING_GUILLEMET.sub(r"\1", text))
            for mark, plain in self.replaced:
                text = text.replace(mark, plain)
        text = _with_plain_dashes(text.replace("`", "'").replace("''", '"'))
        text = _on_one_line(text, is_plain=self.is_plain)
        if "*" in text:
            text = _on_one_line(_STARS.sub(" ", text), is_plain=self.is_plain)
        if ".." in text or ". ." in text:
            text = _DOTS.sub("...", text).replace(" ...", "...")
        for mark in "!?;:":
            if mark in text:
                text = text.replace(f" {mark}", mark)
        return text


ANY_TYPOGRAPHY = Typography(
    dropped=_DROPPED,
    replaced=(
        *((mark, "'") for mark in _SINGLE_QUOTES),
        *((mark, '"') for mark in _DOUBLE_QUOTES),
        *((mark, " - ") for mark in _DASHES),
        ("…", "..."),
        ("‐", "-"),
        ("‑", "-"),
    ),
    has_guillemets=True,
    is_composed=False,
    is_plain=False,
    leaves_letters=False,
)
"""That of a piece of which nothing is known."""


def typography_of(text: str) -> Typography:
    """That of a text, for its pieces."""
    rest = text.encode("utf-8", "surrogatepass").translate(None, _ORDINARY)
    characters = "".join(set(rest.decode("utf-8", "surrogatepass")))
    dropped = "".join(mark for mark in _DROPPED if mark in characters)
    for mark in dropped:
        text, characters = text.replace(mark, ""), characters.replace(mark, "")
    # What is below the combining marks, or a quote or dash, is in normal form C whatever stands beside it.
    is_simple = all(mark < "\u0300" or "\u2010" <= mark <= "\u203a" for mark in characters)
    if not is_simple and not unicodedata.is_normalized("NFC", text):
        return ANY_TYPOGRAPHY  # another form may hold other marks
    replaced = tuple((mark, plain) for mark, plain in ANY_TYPOGRAPHY.replaced if mark in characters)
    left = [mark for mark in characters if not mark.isascii() and not mark.isspace()]
    return Typography(
        dropped=dropped,
        replaced=replaced,
        has_guillemets=any(mark in characters for mark in _GUILLEMETS),
        is_composed=True,
        is_plain=characters.isprintable(),  # of all white space a space alone is printable
        leaves_letters=all(mark.lower().isalnum() for mark in {*left} - {mark for mark, _ in replaced}),
    )


def normalise_typography(text: str) -> str:
    """The text with plain quotes, dashes and dots, on one line; doing it twice is doing it once.

    Quotes of any shape become `"` and `'`, dashes ` - `, an ellipsis `...`; rows of stars, italics
    marks and spaces before `!?;:` go; white space becomes one space. For many pieces of one text, `typography_of`.
    """
    return ANY_TYPOGRAPHY.normalise(text)


def adhering_pieces(pieces: Sequence[str]) -> list[int]:
    """The numbers of those pieces of a text whose typography depends on the piece before, by a rule for what is near.

    The pieces have no outer white space, and in the text white space parts them. Joined by a space, the normal
    forms of pieces that follow each other are the normal form of the text from the first to the last, unless one
    behind the first adheres; an empty one needs no space.
    """
    begins, ends = _ADHERING | {"*"} | set(_DROPPED), set(_OPENING + _DROPPED)
    return [
        number
        for number, (before, piece) in enumerate(pairwise(pieces), start=1)
        if (piece[0] in begins or before[-1] in ends) and _adheres(before, piece)
    ]


def _adheres(before: str, piece: str) -> bool:
    """Whether a rule may reach over the white space between two pieces; what is dropped is not there for it."""
    before, piece = before.rstrip(_DROPPED + _SPACE), piece.lstrip(_DROPPED + _SPACE)
    if not before or not piece or before[-1] in _OPENING or before[-1] == piece[0] == "*":
        return True
    return piece.lstrip("*" + _DROPPED + _SPACE)[:1] in _ADHERING


def _with_plain_dashes(text: str) -> str:
    if "--" in text:
        while "---" in text:
            text = text.replace("---", "--")
        text = text.replace("--", " - ")
    return text


def _on_one_line(text: str, *, is_plain: bool) -> str:
    """The same as `" ".join(text.split())`, three times faster where a text has no odd white space."""
    plain = text.replace("\n", " ")
    if not is_plain and not plain.isprintable():
        return " ".join(text.split())
    while "  " in plain:
        plain = plain.replace("  ", " ")
    return plain.strip(" ")


def find_names(text: str, language: str = "en") -> frozenset[str]:
    """Words of a whole book that are names, in lower case, by how they are written in it.

    A name has a capital within sentences, and hardly ever none. In German, where every noun has one, it is
    moreover hardly ever seen behind an article or its like; many a noun passes all the same.
    """
    table = table_of(language)
    capital, small = Counter[str](), Counter[str]()
    for word, count in Counter(_WORD.findall(text)).items():
        (capital if word[0].isupper() else small)[word.lower()] += count
    titles = re.compile(rf"\b(?:{'|'.join(sorted(table.never_last)) or '(?!)'})\. ([^\W\d_]+)")
    inner = {word.lower() for word in _INNER_WORD.findall(text) + titles.findall(text) if word[0].isupper()}
    spared = {word.lower() for word in table.never_last | table.openers | table.whole_letters}
    if table.determiners:
        behind = Counter(
            second.lower() for first, second in _TWO_WORDS.findall(text) if first.lower() in table.determiners
        )
        spared |= {word for word in inner if behind[word] > SHARE_BEHIND_DETERMINER * capital[word]}
    return frozenset(
        word
        for word in inner - spared
        if len(word) > 1 and small[word] < SHARE_IN_LOWER_CASE * (small[word] + capital[word])
    )


def mask_names(text: str, language: str = "en", names: AbstractSet[str] | None = None) -> str:
    """The text with `Xx` for each name: those of `names` in lower case, else those that it shows itself.

    A piece of a book shows few of its names: find them in the whole.
    """
    found = find_names(text, language) if names is None else names

    def masked(match: re.Match[str]) -> str:
        word = match[0]
        return MASK if word[0].isupper() and word.lower() in found else word

    return _WORD.sub(masked, text)
