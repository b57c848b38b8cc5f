"""The bytes of one book to its text and its record: decoded, cleaned, filtered by language, filed."""

import io
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from assay.books.catalogue import CatalogueEntry, read_catalogue
from assay.books.cleaning import clean_book, decode_book
from assay.books.index import INDEX_NAME, BookAuthor, BookRecord
from assay.gutenberg.names import author_slug, book_key, title_slug
from assay.gutenberg.shelf import Skip, TextShelf, speaks

if TYPE_CHECKING:
    from assay.books.headers import Header

_HTML_STARTS = (b"<!doctype html", b"<html", b"<?xml")
NOT_FILED = "still to do"


@dataclass(kw_only=True, slots=True)
class Gathered:
    """What a command did to its folder."""

    out: str
    counts: Counter[str] = field(default_factory=Counter)
    """Books by what came of them: `new`, `changed`, `unchanged`, `already`, or a reason of `Skip`."""
    failed: list[tuple[str, str]] = field(default_factory=list)
    """Books that are still to do, and what went wrong; the same command tries them again."""
    notes: list[str] = field(default_factory=list)
    """What else the user should hear."""

    def __str__(self) -> str:
        """One line a finding."""
        order = ("new", "changed", "unchanged", "already")
        named = {
            "already": "there already",
            "same_text": "the text of another book",
            "language": "other languages",
        }
        shown = [name for name in order if self.counts[name]]
        shown += sorted(name for name in self.counts if name not in order and self.counts[name])
        said = ", ".join(f"{self.counts[name]:,} {named.get(name, name.replace('_', ' '))}" for name in shown)
        lines = [f"books: {said or 'none'}; index {Path(self.out) / INDEX_NAME}", *self.notes]
        if self.failed:
            key, why = self.failed[0]
            count = len(self.failed)
            lines.append(f"{NOT_FILED}: {count:,}, {key} first ({why}); run the same command again")
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrival:
    """The bytes of one book, and how they came."""

    source: str
    url: str
    gutenberg_id: int | None
    content: bytes
    raw_path: str | None = None
    """Where the bytes lie in the folder already."""


class Ingest:
    """Files arrivals on a shelf, by one set of wishes."""

    def __init__(
        self,
        shelf: TextShelf,
        *,
        languages: tuple[str, ...],
        catalogue: str | None,
        keep_raw: bool,
        again: bool,
    ) -> None:
        self.shelf = shelf
        self._languages = languages
        self._catalogue: Mapping[int, CatalogueEntry] = read_catalogue(catalogue) if catalogue else {}
        self._keep_raw = keep_raw
        self._again = again

    def is_done(self, key: str, url: str | None = None) -> bool:
        """Whether a book need not be asked for: it is in the index, or was passed over."""
        if self.shelf.is_filed(key, url):
            return True
        return not self._again and self.shelf.is_settled(key, self._languages)

    def is_unwanted(self, gutenberg_id: int) -> bool:
        """Whether the catalogue says that a book is in another language, so that nobody need be asked for it."""
        entry = self._catalogue.get(gutenberg_id)
        return entry is not None and not speaks(tuple(entry.languages), self._languages)

    def take(self, arrival: Arrival) -> str:
        """File one book; returns what came of it, as `Gathered.counts` counts it."""
        asked = book_key(arrival.gutenberg_id, arrival.url)
        if is_html(arrival.content):
            return self.pass_over(asked, "not_text", "a page of HTML", arrival)
        decoded = decode_book(arrival.content)
        cleaned = clean_book(decoded.text)
        number = arrival.gutenberg_id if arrival.gutenberg_id is not None else cleaned.header.gutenberg_id
        key = book_key(number, arrival.url)
        if key != asked and self.shelf.is_filed(key):
            self.shelf.drop_incoming(asked)
            return "already"
        entry = self._catalogue.get(number) if number is not None else None
        languages = cleaned.header.languages or (tuple(entry.languages) if entry else ())
        if not speaks(languages, self._languages):
            return self.pass_over(key, "language", ", ".join(languages), arrival, languages=languages)
        if cleaned.quarantined is not None or not cleaned.text.strip():
            detail = cleaned.quarantined or "nothing is left after cleaning"
            return self.pass_over(key, "quarantined", detail, arrival, raw=arrival.content)
        record = _record(arrival, number, cleaned.header, entry, languages)
        raw = arrival.content if self._keep_raw and arrival.raw_path is None else None
        filed = self.shelf.file(key, record, cleaned.text, raw)
        if key != asked:
            self.shelf.drop_incoming(asked)
        return filed

    def pass_over(
        self,
        key: str,
        reason: str,
        detail: str,
        arrival: Arrival,
        *,
        languages: tuple[str, ...] = (),
        raw: bytes | None = None,
    ) -> str:
        """Remember that a book is not taken, and why; returns the reason."""
        self.shelf.skip(
            Skip(
                key=key,
                reason=reason,
                detail=detail,
                url=arrival.url,
                gutenberg_id=arrival.gutenberg_id,
                languages=languages,
            ),
            raw,
        )
        self.shelf.drop_incoming(book_key(arrival.gutenberg_id, arrival.url))
        return reason


def _record(
    arrival: Arrival,
    number: int | None,
    header: "Header",
    entry: CatalogueEntry | None,
    languages: tuple[str, ...],
) -> BookRecord:
    title = header.title or (entry.title if entry else None)
    people = () if entry is None else entry.authors
    authors = tuple(
        BookAuthor(name=each.name, birth_year=each.birth_year, death_year=each.death_year) for each in people
    ) or tuple(BookAuthor(name=name) for name in header.authors)
    author = " and ".join(header.authors or [each.name for each in people]) or None
    return BookRecord(
        source=arrival.source,
        url=arrival.url,
        gutenberg_id=number,
        author=author,
        authors=authors,
        title=title,
        author_slug=author_slug(author),
        title_slug=title_slug(title),
        raw_path=arrival.raw_path,
        processed_path="",
        languages=languages,
        size_bytes=len(arrival.content),
    )


def is_html(content: bytes) -> bool:
    """Whether bytes begin like a page of HTML, whatever their name and type say."""
    return content[:200].lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_HTML_STARTS)


def unzip_text(content: bytes, most_bytes: int) -> bytes | str:
    """The one text in a small ZIP file, no longer than `most_bytes`; else a line that says why there is none."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            texts = [info for info in archive.infolist() if info.filename.lower().endswith(".txt")]
            if len(texts) != 1:
                return f"{len(texts)} texts in the ZIP file, not one"
            with archive.open(texts[0]) as member:
                text = member.read(most_bytes + 1)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError, ValueError) as error:
        return f"a ZIP file that cannot be read ({error})"
    return text if len(text) <= most_bytes else f"a text of more than {most_bytes:,} bytes in the ZIP file"
