"""The books of a folder or an index, sorted, with what is known of their authors and titles."""

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from assay.books.catalogue import CatalogueEntry, read_catalogue
from assay.books.cleaning import decode_book
from assay.books.headers import read_header
from assay.books.index import INDEX_NAME, BookRecord, read_index
from assay.errors import SourceError
from assay.prepare.splits import KEY_SEPARATOR

ENDING = ".txt"
HTML_ENDINGS = frozenset({".html", ".htm", ".xhtml"})
HEAD_BYTES = 16_384
"""What is read of a file to know it again, at each end."""
SCHEMA = pa.schema(
    [
        pa.field("book_id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("title", pa.string()),
        pa.field("author", pa.string()),
        pa.field("author_key", pa.string()),
        pa.field("gutenberg_id", pa.int64()),
        pa.field("languages", pa.list_(pa.string())),
        pa.field("birth_year", pa.int32()),
        pa.field("death_year", pa.int32()),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("fingerprint", pa.string(), nullable=False),
    ]
)
_NOBODY = frozenset({"anonymous", "anon", "unknown", "various", "author unknown", "unknown author"})
_WORD = re.compile(r"[^\W\d_]+")
_HTML = re.compile(rb"\s*<(!doctype|html|head|body|\?xml)", re.IGNORECASE)
_NUMBERED = re.compile(r"(?:pg)?(\d+)(?:-\d)?", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Book:
    """One text and what is known of it; None where nothing is."""

    book_id: str
    """Path below the folder without its ending."""
    path: str
    """Absolute."""
    size_bytes: int
    fingerprint: str
    """Of its size, its time and both its ends."""
    title: str | None = None
    author: str | None = None
    author_key: str | None = None
    """The author's words in lower case and sorted, so that "Austen, Jane" is "Jane Austen"."""
    gutenberg_id: int | None = None
    languages: tuple[str, ...] = ()
    birth_year: int | None = None
    """Of the first author."""
    death_year: int | None = None
    has_header: bool = False
    """Whether author or title come from the text itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """The books of a source, by `book_id`."""

    books: tuple[Book, ...]
    notes: tuple[str, ...]
    """For people: where authors and titles come from, a line each."""
    is_cleaned: bool = False
    """Whether the texts are clean already."""

    def table(self) -> pa.Table:
        """A row a book, as `books.parquet` has it."""
        columns = [
            pa.array([getattr(book, field.name) for book in self.books], field.type) for field in SCHEMA
        ]
        return pa.Table.from_arrays(columns, schema=SCHEMA)


def list_books(source: str, catalogue: str | None = None) -> Listing:
    """The books of a folder of texts, or of an index of cleaned ones; `catalogue` gives years of their authors.

    Raises SourceError for what is neither, and as `list_folder` and `read_index` do.
    """
    path = Path(source)
    index = path / INDEX_NAME if path.is_dir() else path
    listing = list_index(index) if index.is_file() else list_folder(path)
    return listing if catalogue is None else with_years(listing, read_catalogue(catalogue))


def list_index(index: Path) -> Listing:
    """The books of an index; raises SourceError where a text of it is gone, and as `read_index` does."""
    records = read_index(index)
    if not records:
        raise SourceError(f"{index} lists no books; fetch some, or give a folder of {ENDING} files")
    books = sorted((_indexed(index.parent, record) for record in records), key=lambda book: book.book_id)
    for one, other in itertools.pairwise(books):
        if one.book_id == other.book_id:
            raise SourceError(f"{index} has {one.book_id} twice; make the index again in an empty folder")
    notes = [
        f"authors and titles of {len(books):,} books come from {index.name}; the texts are clean already"
    ]
    return Listing(books=tuple(books), notes=(*notes, *_without_author(books)), is_cleaned=True)


def with_years(listing: Listing, entries: Mapping[int, CatalogueEntry]) -> Listing:
    """The books with the years of their authors, by number; and authors and titles that nothing else tells."""
    books = tuple(_catalogued(book, entries) for book in listing.books)
    with_year = sum(book.birth_year is not None or book.death_year is not None for book in books)
    note = f"the catalogue gives the author's years for {with_year:,} of {len(books):,} books"
    return replace(listing, books=books, notes=(*listing.notes, note))


def list_folder(folder: Path) -> Listing:
    """The `.txt` files below a folder as books; authors and titles are read off their names.

    `Austen_Emma.txt` and `Austen/Emma.txt` are Emma by Austen; `pg158.txt` is number 158 of Project
    Gutenberg. Raises SourceError where there is no text, or what is named `.txt` is HTML.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder; give a folder of {ENDING} files, a book each")
    paths = sorted(_text_files(folder))
    if not paths:
        raise SourceError(_no_books(folder))
    books = sorted((_book(folder, path) for path in paths), key=lambda book: book.book_id)
    return Listing(books=tuple(books), notes=tuple(_notes(books)))


def author_key(author: str | None) -> str | None:
    """What an author is told apart by; None for nobody in particular, such as "Anonymous"."""
    words = sorted(_WORD.findall((author or "").casefold()))
    if not words or " ".join(_WORD.findall((author or "").casefold())) in _NOBODY:
        return None
    return " ".join(words)


def key_of_all(authors: Sequence[str]) -> str | None:
    """The keys of all authors of a book."""
    keys = sorted({key for author in authors if (key := author_key(author)) is not None})
    return KEY_SEPARATOR.join(keys) or None


def name_parts(relative: str) -> tuple[str | None, str, int | None]:
    """Author, title and Gutenberg number that a path below the folder tells, without its ending.

    `Austen_Emma` and `Austen/Emma` give ("Austen", "Emma", None); `1342` gives (None, "1342", 1342).
    """
    *folders, stem = relative.split("/")
    number = _NUMBERED.fullmatch(stem)
    if folders:
        author: str | None = folders[-1]
        title = stem
    else:
        first, separator, rest = stem.partition("_")
        author, title = (first, rest) if separator and first and rest else (None, stem)
    if number is not None and not folders:
        return None, stem, int(number[1])
    tail = re.search(r"__pg(\d+)$", title)
    if tail is not None:
        title = title[: tail.start()]
    return (
        None if author is None else author.replace("_", " ").strip(),
        title.replace("_", " ").strip(),
        None if tail is None else int(tail[1]),
    )


def _text_files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob(f"*{ENDING}"):
        is_hidden = any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
        if path.is_file() and not is_hidden:
            yield path


def _no_books(folder: Path) -> str:
    num_html = sum(path.suffix.lower() in HTML_ENDINGS for path in folder.rglob("*"))
    if num_html:
        return (
            f"{folder} has {num_html:,} HTML files and no {ENDING} file; books are plain text: "
            "convert them, or fetch the text versions"
        )
    return f"{folder} has no {ENDING} file; give a folder of plain texts, a book each"


def _book(folder: Path, path: Path) -> Book:
    status = path.stat()
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        file.seek(max(0, status.st_size - HEAD_BYTES))
        tail = file.read(HEAD_BYTES)
    if _HTML.match(head.removeprefix(b"\xef\xbb\xbf")):
        raise SourceError(
            f"{path} is HTML; books are plain text: convert it, or fetch the text version, and take it out of {folder}"
        )
    book_id = path.relative_to(folder).as_posix().removesuffix(ENDING)
    author, title, number = name_parts(book_id)
    seen = hashlib.blake2b(digest_size=16)
    seen.update(f"{status.st_size} {status.st_mtime_ns}".encode())
    seen.update(head)
    seen.update(tail)
    header = read_header(decode_book(head).text)
    authors = header.authors or (() if author is None else (author,))
    return Book(
        book_id=book_id,
        path=str(path.resolve()),
        size_bytes=status.st_size,
        fingerprint=seen.hexdigest(),
        title=header.title or title,
        author="; ".join(authors) or None,
        author_key=key_of_all(authors),
        gutenberg_id=header.gutenberg_id or number,
        languages=header.languages,
        has_header=bool(header.authors or header.title),
    )


def _indexed(folder: Path, record: BookRecord) -> Book:
    path = folder / record.processed_path
    try:
        size = path.stat().st_size
    except OSError as error:
        raise SourceError(
            f"{path} of the index cannot be read ({error.strerror}); fetch it again, or take it out of the index"
        ) from error
    authors = tuple(person.name for person in record.authors) or ((record.author,) if record.author else ())
    first = record.authors[0] if record.authors else None
    return Book(
        book_id=record.processed_path.removesuffix(ENDING),
        path=str(path.resolve()),
        size_bytes=size,
        fingerprint=record.text_sha256 or f"{size} {path.stat().st_mtime_ns}",
        title=record.title,
        author="; ".join(authors) or None,
        author_key=key_of_all(authors),
        gutenberg_id=record.gutenberg_id,
        languages=record.languages,
        birth_year=None if first is None else first.birth_year,
        death_year=None if first is None else first.death_year,
    )


def _catalogued(book: Book, entries: Mapping[int, CatalogueEntry]) -> Book:
    entry = None if book.gutenberg_id is None else entries.get(book.gutenberg_id)
    if entry is None or not entry.authors:
        return book
    first = entry.authors[0]
    authors = tuple(person.name for person in entry.authors)
    known = book.author_key is not None
    return replace(
        book,
        title=book.title or entry.title,
        author=book.author if known else "; ".join(authors),
        author_key=book.author_key if known else key_of_all(authors),
        languages=book.languages or entry.languages,
        birth_year=first.birth_year if book.birth_year is None else book.birth_year,
        death_year=first.death_year if book.death_year is None else book.death_year,
    )


def _notes(books: Sequence[Book]) -> Iterator[str]:
    with_header = sum(book.has_header for book in books)
    if with_header:
        yield f"authors and titles of {with_header:,} of {len(books):,} books come from their headers"
    named = [book for book in books if book.author is not None and not book.has_header]
    if named:
        first = named[0]
        yield (
            f"authors and titles of {len(named):,} of {len(books):,} books come from their file names, "
            f"for example {first.book_id}: {first.title!r} by {first.author!r}"
        )
    yield from _without_author(books)


def _without_author(books: Sequence[Book]) -> Iterator[str]:
    without = [book.book_id for book in books if book.author_key is None]
    if without:
        yield f"{len(without):,} of {len(books):,} books have no author, the first is {without[0]}"
