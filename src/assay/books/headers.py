"""[pure] What the header of a book says of it: title, authors, languages, number, dates, credits.

Old and new generations: `Title:` fields with values over several lines; `[EBook #1013]`, `[eBook #60600]` and
`[Etext #2701]`; before there were fields, the first line (`The Project Gutenberg Etext of <title>, by <author>`).
"""

import re
from dataclasses import dataclass, field

from assay.books.markers import find_markers, is_collapsed
from assay.books.notices import leading_credits

_LONGEST_HEADER = 30_000
_WITHOUT_MARKER = 4_000
"""How far fields are looked for where no marker ends the header."""

_LABELS = {
    "title": "title",
    "alternate title": "other",
    "author": "author",
    "authors": "author",
    "editor": "editor",
    "translator": "translator",
    "illustrator": "illustrator",
    "commentator": "other",
    "contributor": "other",
    "compiler": "other",
    "annotator": "other",
    "subtitle": "other",
    "release date": "release_date",
    "posting date": "posting_date",
    "last updated": "updated",
    "most recently updated": "updated",
    "language": "language",
    "languages": "language",
    "character set encoding": "encoding",
    "chatacter set encoding": "encoding",
    "original publication": "original_publication",
    "other information and formats": "other",
    "note": "other",
    "credits": "credits",
    "produced by": "credits",
    "edition": "other",
}
_LABEL = "|".join(sorted(map(re.escape, _LABELS), key=len, reverse=True))
_FIELD = re.compile(rf"^[ \t]*({_LABEL}):[ \t]*(.*)$", re.IGNORECASE)
_FIELD_ANYWHERE = re.compile(rf"(?:^|(?<=\s))({_LABEL}):[ \t]*", re.IGNORECASE)
_OTHER_FIELD = re.compile(r"^[A-Z][A-Za-z ]{2,30}:(?:\s|$)")
_NUMBER = re.compile(r"\[ ?(?:e-?book|e-?text)s? ?(?:#|No\.? ?)? ?(\d{1,7}) ?\]", re.IGNORECASE)
_FIRST_LINE = re.compile(
    r"(?:\*{2,}|\b)(?:The )?Project Gutenberg(?:'s|\u2019s)?(?: (?:e-?text|e-?book))?(?: of |, | )(.{3,300}?)"
    r"(?:,?\s+by ([^\n*]{2,100}?))?[ \t]*(?:\*+|\n[ \t]*\n|\Z)",
    re.IGNORECASE | re.DOTALL,
)
_AND = re.compile(r",? and |\s&\s")
_NOT_A_PERSON = re.compile(r"\b(?:of|the|for|in|on|de la)\b", re.IGNORECASE)

_LANGUAGES = {
    "afrikaans": "af", "arabic": "ar", "breton": "br", "bulgarian": "bg", "catalan": "ca", "chinese": "zh",
    "czech": "cs", "danish": "da", "dutch": "nl", "english": "en", "esperanto": "eo", "estonian": "et",
    "farsi": "fa", "finnish": "fi", "flemish": "nl", "french": "fr", "frisian": "fy", "galician": "gl",
    "gaelic": "gd", "german": "de", "greek": "el", "hebrew": "he", "hungarian": "hu", "icelandic": "is",
    "interlingua": "ia", "irish": "ga", "italian": "it", "japanese": "ja", "korean": "ko", "latin": "la",
    "lithuanian": "lt", "malagasy": "mg", "maori": "mi", "norwegian": "no", "occitan": "oc", "persian": "fa",
    "polish": "pl", "portuguese": "pt", "romanian": "ro", "russian": "ru", "sanskrit": "sa", "serbian": "sr",
    "slovak": "sk", "slovenian": "sl", "spanish": "es", "swedish": "sv", "tagalog": "tl", "tibetan": "bo",
    "turkish": "tr", "ukrainian": "uk", "vietnamese": "vi", "walloon": "wa", "welsh": "cy", "yiddish": "yi",
}  # fmt: skip
_CODES = frozenset(_LANGUAGES.values())
_LANGUAGE_LIST = re.compile(r"\s*(?:[,;/&+\n]|\band\b|\bwith\b)\s*", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """What a book's header says. A field that the header does not have is None, or empty."""

    title: str | None = None
    """In one line, its lines joined by spaces."""
    authors: tuple[str, ...] = ()
    """As the header writes them; `Anonymous` and `Various` included."""
    editors: tuple[str, ...] = ()
    """The same, of those who edited."""
    translators: tuple[str, ...] = ()
    """The same, of those who translated."""
    illustrators: tuple[str, ...] = ()
    """The same, of those who illustrated."""
    languages: tuple[str, ...] = ()
    """ISO 639-1 codes where the language is known here, else the header's word in small letters."""
    gutenberg_id: int | None = None
    """The publisher's number of the book."""
    release_date: str | None = None
    """As written, without the number."""
    updated: str | None = None
    """As written."""
    original_publication: str | None = None
    """As written."""
    declared_encoding: str | None = None
    """As written; see `decode_book` for what such words are worth."""
    credits: str | None = None
    """Who made the file, in one line."""


NO_HEADER = Header()


@dataclass(slots=True)
class _Fields:
    values: dict[str, list[str]] = field(default_factory=dict)

    def first(self, *names: str) -> str | None:
        """The first of the fields that has a value, in one line."""
        for name in names:
            value = " ".join(" ".join(self.values.get(name, [])).split()).strip(" *")
            if value:
                return value
        return None

    def people(self, name: str) -> tuple[str, ...]:
        """The people of a field, a line each or listed in one."""
        people = [person for line in self.values.get(name, []) for person in _people(line)]
        return tuple(dict.fromkeys(people))


def read_header(text: str) -> Header:
    """The header of a book, read from the text as published; `NO_HEADER` where it has none."""
    head = text[:_LONGEST_HEADER]
    if "\r" in head:
        head = head.replace("\r\n", "\n").replace("\r", "\n")
    region, behind = _header_region(head)
    if not region:
        return NO_HEADER
    if is_collapsed(head):
        fields = _read_collapsed(region)
    else:
        fields = _read_lines(region)
        beside = [head[start:stop] for start, stop in leading_credits(head, behind)] if behind else []
        fields.values.setdefault("credits", beside)
    title, authors = fields.first("title"), fields.people("author")
    if title is None:
        title, first_author = _read_first_line(region)
        authors = authors or (() if first_author is None else _people(first_author))
    number = _NUMBER.search(region)
    return Header(
        title=title,
        authors=authors,
        editors=fields.people("editor"),
        translators=fields.people("translator"),
        illustrators=fields.people("illustrator"),
        languages=read_languages(", ".join(fields.values.get("language", []))),
        gutenberg_id=None if number is None else int(number.group(1)),
        release_date=_without_number(fields.first("release_date", "posting_date")),
        updated=_without_number(fields.first("updated")),
        original_publication=fields.first("original_publication"),
        declared_encoding=fields.first("encoding"),
        credits=fields.first("credits"),
    )


def _header_region(head: str) -> tuple[str, int]:
    """The lines in which a header stands, and where the text behind its marker begins; empty and 0: no header."""
    markers = find_markers(head)
    first_end = next((marker.start for marker in markers if marker.kind in {"end", "weak_end"}), len(head))
    starts = [
        marker for marker in markers if marker.kind in {"start", "small_print"} and marker.start < first_end
    ]
    if starts:
        # Old texts have the small print between the header and the marker: the header is before both.
        return head[: starts[-1].start], starts[-1].stop
    beginning = head[: min(_WITHOUT_MARKER, first_end)]
    if re.search(r"Project\s+Gutenberg", beginning[:2_000], re.IGNORECASE):
        return beginning, 0
    return "", 0


def read_languages(value: str) -> tuple[str, ...]:
    """The languages of a list such as `English, French and Old Polish`: codes, or the words where unknown."""
    words = [word.strip(" .()[]").lower() for word in _LANGUAGE_LIST.split(value)]
    return tuple(dict.fromkeys(_LANGUAGES.get(word, word) for word in words if word))


def _read_lines(region: str) -> _Fields:
    fields = _Fields()
    current: list[str] | None = None
    for line in region.split("\n"):
        match = _FIELD.match(line)
        if match is not None:
            name = _LABELS[match.group(1).lower()]
            # The first title is the book's; what follows `Author:` lines may be more authors.
            current = (
                fields.values.setdefault(name, []) if name in _LISTS or name not in fields.values else []
            )
            current.append(match.group(2).strip())
        elif not line.strip() or _OTHER_FIELD.match(line):
            current = None
        elif current is not None:
            current.append(line.strip())
    return fields


_LISTS = frozenset({"author", "editor", "translator", "illustrator", "language"})


def _read_collapsed(region: str) -> _Fields:
    fields = _Fields()
    pieces = _FIELD_ANYWHERE.split(region)
    for label, value in zip(pieces[1::2], pieces[2::2], strict=True):
        name = _LABELS[label.lower()]
        if name in _LISTS or name not in fields.values:
            fields.values.setdefault(name, []).append(value.strip())
    return fields


def _read_first_line(region: str) -> tuple[str | None, str | None]:
    match = _FIRST_LINE.search(region[:2_000])
    if match is None:
        return None, None
    title = " ".join(match.group(1).split()).strip(" *")
    author = None if match.group(2) is None else " ".join(match.group(2).split())
    return title or None, author


def _people(line: str) -> tuple[str, ...]:
    names = [name for part in line.split(";") for name in _split_pair(part)]
    return tuple(name for name in (" ".join(name.split()).strip(" ,") for name in names) if name)


def _split_pair(names: str) -> list[str]:
    """`Marx and Engels` is two people; `Society for Work and Play` is one author."""
    pieces = _AND.split(names)
    if (
        len(pieces) > 1
        and not _NOT_A_PERSON.search(names)
        and all(len(piece.split()) <= 4 for piece in pieces)
    ):
        return [part for piece in pieces for part in piece.split(", ")]
    return [names]


def _without_number(value: str | None) -> str | None:
    if value is None:
        return None
    return " ".join(_NUMBER.sub("", value).split()) or None
