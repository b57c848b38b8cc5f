"""The index of a folder of books, one record a line (JSON Lines): what each book is, and where its text lies.

Paths in a record are relative to the folder of its index, so that the folder can be moved. The text of a
record is clean already.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from assay.errors import SourceError

INDEX_VERSION = 1
INDEX_NAME = "index.jsonl"


class BookAuthor(BaseModel):
    """A person who wrote a book; years where a catalogue gave them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    birth_year: int | None = None
    death_year: int | None = None


class BookRecord(BaseModel):
    """A book of the index. An index without versions (each record then counts as version 1) can be read too."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = INDEX_VERSION
    source: str
    """How it came: `fetch`, `harvest`, `sync` or `archive`."""
    url: str | None = None
    """Where from."""
    gutenberg_id: int | None = None
    author: str | None = None
    """The authors in one string; None where the book names none."""
    authors: tuple[BookAuthor, ...] = ()
    title: str | None = None
    author_slug: str
    title_slug: str
    raw_path: str | None = None
    """File with the bytes as they came; None where they were not kept."""
    processed_path: str
    """File with the cleaned text, UTF-8."""
    languages: tuple[str, ...] = ()
    """ISO 639-1 codes where known."""
    size_bytes: int | None = None
    """Of the bytes as they came."""
    text_sha256: str | None = None
    """Of the cleaned text in UTF-8: the identity of the book."""


def read_index(path: str | Path) -> list[BookRecord]:
    """The records of an index in its order; raises SourceError for a bad line or an index of another version."""
    return list(each_record(path))


def each_record(path: str | Path) -> Iterator[BookRecord]:
    """What `read_index` gives, a record at a time."""
    place = Path(path)
    try:
        with place.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield read_record(line, f"{place}:{number}")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        msg = f"index {place} cannot be read ({reason}); give the {INDEX_NAME} that `assay gutenberg` wrote"
        raise SourceError(msg) from error


def read_record(line: str | bytes, place: str) -> BookRecord:
    """One record; `place` is for the message of the SourceError that a bad one raises."""
    try:
        raw = json.loads(line)
    except ValueError as error:
        msg = f"{place}: not JSON ({error}); an index holds one JSON object a line; make it again"
        raise SourceError(msg) from error
    version = raw.get("version", INDEX_VERSION) if isinstance(raw, dict) else None
    if version != INDEX_VERSION:
        said = "not a record" if version is None else f"a record of version {version!r}"
        msg = (
            f"{place}: {said}; this assay reads version {INDEX_VERSION}; "
            "use the assay that wrote it, or make the index again in an empty folder"
        )
        raise SourceError(msg)
    try:
        return BookRecord.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(each) for each in first["loc"])
        msg = f"{place}: {field}: {first['msg']}; make the index again in an empty folder"
        raise SourceError(msg) from error


def write_records(records: Iterable[BookRecord]) -> bytes:
    """Records as an index holds them: a JSON object a line, non-ASCII letters as they are."""
    return b"".join(
        json.dumps(record.model_dump(mode="json"), ensure_ascii=False).encode() + b"\n" for record in records
    )


def sorted_records(records: Iterable[BookRecord]) -> Sequence[BookRecord]:
    """Records in the order of an index, whatever order they came in: by number, then those without by path."""
    return sorted(
        records,
        key=lambda record: (record.gutenberg_id is None, record.gutenberg_id or 0, record.processed_path),
    )
