"""The books of a folder, sorted, with what their names say of authors and titles."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from assay.errors import SourceError

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
KEY_SEPARATOR = "|"
"""Between the keys of several authors of one book."""
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
    death_year: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """The books of a source, by `book_id`."""

    books: tuple[Book, ...]
    notes: tuple[str, ...]
    """For people: where authors and titles come from, a line each."""

    def table(self) -> pa.Table:
        """A row a book, as `books.parquet` has it."""
        columns = [
            pa.array([getattr(book, field.name) for book in self.books], field.type) for field in SCHEMA
        ]
        return pa.Table.from_arrays(columns, schema=SCHEMA)


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
    return Book(
        book_id=book_id,
        path=str(path.resolve()),
        size_bytes=status.st_size,
        fingerprint=seen.hexdigest(),
        title=title,
        author=author,
        author_key=author_key(author),
        gutenberg_id=number,
    )


def _notes(books: Sequence[Book]) -> Iterator[str]:
    named = [book for book in books if book.author is not None]
    if named:
        first = named[0]
        yield (
            f"authors and titles of {len(named):,} of {len(books):,} books are read off their file names, "
            f"as {first.book_id}: {first.title!r} by {first.author!r}"
        )
    if len(named) < len(books):
        nameless = next(book for book in books if book.author is None)
        yield f"{len(books) - len(named):,} of {len(books):,} books have no author, the first is {nameless.book_id}"
