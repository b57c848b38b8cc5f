"""The books of a folder or an index, sorted, with what is known of their authors and titles."""

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from assay.books.catalogue import CatalogueEntry, read_catalogue
from assay.books.cleaning import decode_book
from assay.books.headers import read_header
from assay.books.index import INDEX_NAME, BookRecord, each_record
from assay.data.storage import writing
from assay.errors import SourceError
from assay.prepare.splits import KEY_SEPARATOR
from assay.prepare.tables import BATCH_BOOKS, in_batches, map_table, take_rows, write_table

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


class Books(Sequence[Book]):
    """The rows of a table as books, each made as it is asked for."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @overload
    def __getitem__(self, row: int) -> Book: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[Book]: ...
    def __getitem__(self, row: int | slice) -> Book | Sequence[Book]:
        """The book of a row."""
        if isinstance(row, slice):
            return [self[each] for each in range(*row.indices(len(self)))]
        return next(_books_of(self._table.slice(range(len(self))[row], 1)))

    def __iter__(self) -> Iterator[Book]:
        for begin in range(0, len(self), BATCH_BOOKS):
            yield from _books_of(self._table.slice(begin, BATCH_BOOKS))


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """The books of a source, by `book_id`."""

    path: Path
    """File of the table."""
    table: pa.Table
    """A row a book, as SCHEMA; mapped."""
    notes: tuple[str, ...]
    """For people: where authors and titles come from, a line each."""
    is_cleaned: bool = False
    """Whether the texts are clean already."""

    @property
    def books(self) -> Books:
        """The rows as books."""
        return Books(self.table)


def list_books(source: str, catalogue: str | None, out: Path) -> Listing:
    """The books of a folder of texts, or of an index of cleaned ones, as a table in the file `out`.

    `catalogue` gives years of their authors, and authors and titles that nothing else tells. Of a folder, these
    are read off headers and names: `Austen_Emma.txt` and `Austen/Emma.txt` are Emma by Austen; `pg158.txt` is
    number 158 of Project Gutenberg. Raises SourceError for what is neither, where there is no text, where a text
    of the index is gone or what is named `.txt` is HTML, and as `each_record` does.
    """
    path = Path(source)
    index = path / INDEX_NAME if path.is_dir() else path
    entries = None if catalogue is None else read_catalogue(catalogue)
    counts = _ListingCounts(index=index if index.is_file() else None)
    found = list_index(index) if index.is_file() else list_folder(path)
    unsorted = out.with_name(f".{out.name}.unsorted")
    try:
        with (
            writing(str(out)),
            pa.OSFile(str(unsorted), "wb") as sink,
            pa.ipc.new_file(sink, SCHEMA) as writer,
        ):
            for batch in in_batches(map(_row, _known(found, entries, counts)), SCHEMA):
                writer.write_batch(batch)
        table = write_table(out, SCHEMA, lambda: _sorted(unsorted, index))
    finally:
        unsorted.unlink(missing_ok=True)
    return Listing(
        path=out, table=table, notes=tuple(counts.notes(entries)), is_cleaned=counts.index is not None
    )


def list_index(index: Path) -> Iterator[Book]:
    """The books of an index, in its order."""
    record = None
    for record in each_record(index):
        yield _indexed(index.parent, record)
    if record is None:
        raise SourceError(f"{index} lists no books; fetch some, or give a folder of {ENDING} files")


def list_folder(folder: Path) -> Iterator[Book]:
    """The `.txt` files below a folder as books, a folder at a time."""
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder; give a folder of {ENDING} files, a book each")
    path = None
    for path in _text_files(folder):
        yield _book(folder, path)
    if path is None:
        raise SourceError(_no_books(folder))


def author_key(author: str | None) -> str | None:
    """What an author is told apart by; None for nobody in particular, such as "Anonymous"."""
    words = _words(author or "")
    return None if " ".join(words) in _NOBODY else " ".join(sorted(words)) or None


def key_of_all(authors: Sequence[str]) -> str | None:
    """The keys of all authors of a book."""
    keys = sorted({key for author in authors if (key := author_key(author)) is not None})
    return KEY_SEPARATOR.join(keys) or None


def name_parts(relative: str) -> tuple[str | None, str, int | None]:
    """Author, title and Gutenberg number that a path below the folder tells, without its ending.

    `Austen_Emma` and `Austen/Emma` give ("Austen", "Emma", None); `1342` gives (None, "1342", 1342). Folders
    without a letter in their names tell nothing: `158/Austen_Emma` is as `Austen_Emma`.
    """
    *folders, stem = relative.split("/")
    folders = [name for name in folders if _words(name)]
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
        None if author is None else _plain(author),
        _plain(title),
        None if tail is None else int(tail[1]),
    )


def _words(name: str) -> list[str]:
    """The words of a name in one form: case, and letters with their marks in one character or in two, are alike."""
    letters = unicodedata.normalize("NFKC", name.casefold())
    return "".join(
        each if each.isalpha() or unicodedata.combining(each) or unicodedata.category(each) == "Mc" else " "
        for each in letters
    ).split()


def _plain(name: str) -> str:
    """A name as it is shown: one form of its characters, on one line."""
    return " ".join(unicodedata.normalize("NFC", name.replace("_", " ")).split())


def _text_files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "_")))
        for name in sorted(names):
            path = Path(place, name)
            if path.suffix.lower() == ENDING and not name.startswith((".", "_")) and path.is_file():
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
    book_id = path.relative_to(folder).as_posix()[: -len(ENDING)]
    try:
        book_id.encode()
    except UnicodeEncodeError as error:
        raise SourceError(f"the file name {str(path)!r} is not UTF-8; rename the file") from error
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


def _known(
    found: Iterable[Book], entries: Mapping[int, CatalogueEntry] | None, counts: "_ListingCounts"
) -> Iterator[Book]:
    """The books with what a catalogue knows of them; all are counted."""
    for each in found:
        book = each if entries is None else _catalogued(each, entries)
        counts.add(each, book)
        yield book


@dataclass(kw_only=True, slots=True)
class _ListingCounts:
    """What is said of the books of a source."""

    index: Path | None
    books: int = 0
    with_header: int = 0
    named: int = 0
    """Whose author is read off the name."""
    first_named: Book | None = None
    """Of these, the first by id."""
    without_author: int = 0
    first_without: str | None = None
    with_year: int = 0

    def add(self, book: Book, known: Book) -> None:
        """Count a book; `known` is what it is with the catalogue."""
        self.books += 1
        self.with_header += book.has_header
        self.with_year += known.birth_year is not None or known.death_year is not None
        if book.author is not None and not book.has_header:
            self.named += 1
            if self.first_named is None or book.book_id < self.first_named.book_id:
                self.first_named = book
        if book.author_key is None:
            self.without_author += 1
            if self.first_without is None or book.book_id < self.first_without:
                self.first_without = book.book_id

    def notes(self, entries: Mapping[int, CatalogueEntry] | None) -> Iterator[str]:
        """For people, a line each."""
        if self.index is not None:
            name = self.index.name
            yield f"authors and titles of {self.books:,} books come from {name}; the texts are clean already"
        else:
            yield from self._of_folder()
        if self.first_without is not None:
            yield f"{self.without_author:,} of {self.books:,} books have no author, the first is {self.first_without}"
        if entries is not None:
            yield f"the catalogue gives the author's years for {self.with_year:,} of {self.books:,} books"

    def _of_folder(self) -> Iterator[str]:
        if self.with_header:
            yield f"authors and titles of {self.with_header:,} of {self.books:,} books come from their headers"
        if self.first_named is not None:
            first = self.first_named
            yield (
                f"authors and titles of {self.named:,} of {self.books:,} books come from their file names, "
                f"for example {first.book_id}: {first.title!r} by {first.author!r}"
            )


def _row(book: Book) -> dict[str, Any]:
    return {field.name: getattr(book, field.name) for field in SCHEMA}


def _books_of(table: pa.Table) -> Iterator[Book]:
    for row in table.to_pylist():
        yield Book(**{**row, "languages": tuple(row["languages"])})


def _sorted(path: Path, index: Path) -> Iterator[pa.RecordBatch]:
    """The rows of a file by `book_id`; raises SourceError where two have the same."""
    table = map_table(path, SCHEMA)
    batches = table.to_batches()
    order = pc.sort_indices(table.column("book_id")).to_numpy().astype(np.int64)
    before = None
    for begin in range(0, len(order), BATCH_BOOKS):
        rows = take_rows(batches, order[begin : begin + BATCH_BOOKS])
        for book_id in rows.column("book_id").to_pylist():
            if book_id == before:
                raise SourceError(
                    f"{index} has {book_id} twice; make the index again in an empty folder"
                    if index.is_file()
                    else f"two files of {index.parent} are named {book_id} but for case in their endings; rename one"
                )
            before = book_id
        yield rows
