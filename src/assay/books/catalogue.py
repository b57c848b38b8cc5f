"""Project Gutenberg's catalogue, `pg_catalog.csv`: titles, languages, and the years in which authors lived.

The catalogue has no dates of publication; the authors' years are what tells a period.
"""

import csv
import gzip
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from assay.errors import SourceError

_COLUMNS = ("Text#", "Title", "Language", "Authors")
_ROLE = re.compile(r"\s*\[([^\[\]]+)\]\s*$")
_YEAR = r"\d{1,4}\??(?: ?BCE)?\??"
_YEARS = re.compile(
    rf",\s*(?:(?P<kind>active|approximately|ca\.|fl\.|born|b\.|died|d\.)\s*)?(?P<birth>{_YEAR})?\s*(?P<dash>[-\u2013])?\s*(?P<death>{_YEAR})?\s*$"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Person:
    """Somebody who had a part in a book."""

    name: str
    """As the catalogue writes it, the family name first: `Carroll, Lewis`."""
    birth_year: int | None = None
    """Negative before our era; None where unknown."""
    death_year: int | None = None
    """The same."""
    role: str | None = None
    """`Editor`, `Translator` and so on; None for an author."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogueEntry:
    """What the catalogue says of one book."""

    title: str
    """In one line."""
    authors: tuple[Person, ...]
    """Those without another role."""
    contributors: tuple[Person, ...]
    """Editors, translators, illustrators and the like."""
    languages: tuple[str, ...]
    """Codes, as the catalogue has them: ISO 639-1 mostly."""


def read_catalogue(source: str | Path | TextIO) -> dict[int, CatalogueEntry]:
    """The texts of a catalogue by their number; sounds, pictures and the like are left out.

    `source` is a path, gzipped where it ends in `.gz`, or an open text stream.
    """
    if not isinstance(source, str | Path):
        return _read(source, "the catalogue")
    path = Path(source)
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rt", encoding="utf-8-sig", newline="") as stream:
                return _read(stream, str(path))
        with path.open(encoding="utf-8-sig", newline="") as stream:
            return _read(stream, str(path))
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceError(
            f"{path} cannot be read ({reason}); give a pg_catalog.csv or pg_catalog.csv.gz"
        ) from error
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{path} is not UTF-8 ({error}): give the publisher's pg_catalog.csv as it is"
        ) from error


def read_person(words: str) -> Person:
    """A person from `Homer, 751? BCE-651? BCE [Author]` and the like."""
    role_match = _ROLE.search(words)
    role = None if role_match is None else role_match.group(1)
    name = " ".join((words if role_match is None else words[: role_match.start()]).split())
    years = _YEARS.search(name)
    if years is None or (years["birth"] is None and years["death"] is None):
        return Person(name=name.strip(" ,"), role=_without_author(role))
    birth, death = _years(years)
    return Person(
        name=name[: years.start()].strip(" ,"), birth_year=birth, death_year=death, role=_without_author(role)
    )


def _read(stream: TextIO, name: str) -> dict[int, CatalogueEntry]:
    reader = csv.DictReader(stream)
    try:
        missing = [column for column in _COLUMNS if column not in (reader.fieldnames or ())]
        if missing:
            raise SourceError(
                f"{name} has no column {missing[0]!r}, so it is not Project Gutenberg's catalogue: "
                f"give its pg_catalog.csv, whose columns include {', '.join(_COLUMNS)}"
            )
        return dict(entry for row in reader if (entry := _entry(row, name, reader.line_num)) is not None)
    except csv.Error as error:
        raise SourceError(
            f"line {reader.line_num} of {name} is not CSV ({error}): fetch the catalogue again"
        ) from error


def _entry(row: dict[str, str | None], name: str, line: int) -> tuple[int, CatalogueEntry] | None:
    if (row.get("Type") or "Text") != "Text":
        return None
    number = (row["Text#"] or "").strip()
    if not number.isascii() or not number.isdigit():
        raise SourceError(f"line {line} of {name} has the number {number!r}: a book's number has digits only")
    people = [read_person(words) for words in (row["Authors"] or "").split(";") if words.strip()]
    return int(number), CatalogueEntry(
        title=" ".join((row["Title"] or "").split()),
        authors=tuple(person for person in people if person.role is None),
        contributors=tuple(person for person in people if person.role is not None),
        languages=tuple(code.strip() for code in (row["Language"] or "").split(";") if code.strip()),
    )


def _years(match: re.Match[str]) -> tuple[int | None, int | None]:
    birth, death = match["birth"], match["death"]
    if match["kind"] in {"died", "d."} or (match["dash"] is not None and birth is None):
        return None, _year(birth or death, None)
    if match["dash"] is None and match["kind"] not in {"born", "b."}:
        return None, None  # one year alone may be when somebody was known to write
    return _year(birth, death), _year(death, None)


def _year(value: str | None, closing: str | None) -> int | None:
    """A year; `751?-651? BCE` names the era once, at the end."""
    if value is None:
        return None
    number = int(re.sub(r"\D", "", value))
    is_before = "BCE" in value or (
        closing is not None and "BCE" in closing and number > int(re.sub(r"\D", "", closing))
    )
    return -number if is_before else number


def _without_author(role: str | None) -> str | None:
    return None if role is not None and role.lower() == "author" else role
