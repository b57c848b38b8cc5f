"""The folder that books are gathered in: texts, raw files, and one index that survives a kill at any moment.

    texts/AUTHOR/TITLE.txt      cleaned; TITLE__pg12.txt where another book has that name
    raw/, quarantine/           bytes as they came: on request; of books that cleaning would have emptied
    index.jsonl, skipped.jsonl  the books, and what was passed over with the reason
    index_parts/                a file a book, until it is merged into these two
    incoming/                   bodies that have come and are not filed yet

A book is filed when its part is created, after its text lies there complete. No file is ever appended to. Any number
of commands may work on one folder; they merge one after the other, under a lock.

Names do not depend on the order in which bodies arrive: books are filed in the order of the request, and the first
one of a name keeps it.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from assay.books.index import (
    INDEX_NAME,
    INDEX_VERSION,
    BookRecord,
    read_index,
    read_record,
    sorted_records,
    write_records,
)
from assay.data.storage import LocalStore, writing
from assay.errors import SourceError
from assay.gutenberg.names import book_key, text_paths

SKIPPED_NAME = "skipped.jsonl"
PARTS = "index_parts"
INCOMING = "incoming"
Filed = Literal["new", "changed", "unchanged", "same_text"]


class Skip(BaseModel):
    """A book that was asked for and is not in the index, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = INDEX_VERSION
    key: str
    reason: str
    """`missing`, `language`, `quarantined`, `same_text`, `not_text` or `too_large`."""
    detail: str = ""
    url: str | None = None
    gutenberg_id: int | None = None
    languages: tuple[str, ...] = ()


class TextShelf:
    """One such folder, open for filing. One thread; other processes may have it open too."""

    def __init__(self, out: str | os.PathLike[str]) -> None:
        """Open a folder, or begin one; parts that an earlier command left behind are merged.

        Raises SourceError for an index of another version.
        """
        self.root = Path(out)
        self._store = LocalStore(self.root)
        self.records: dict[str, BookRecord] = {}
        self.skips: dict[str, Skip] = {}
        self._owners: dict[str, str] = {}
        self._keys_by_text: dict[str, str] = {}
        self._urls: set[str] = set()
        self._merge_and_load()

    def is_filed(self, key: str, url: str | None = None) -> bool:
        """Whether a book is in the index."""
        return key in self.records or (url is not None and url in self._urls)

    def is_settled(self, key: str, languages: tuple[str, ...]) -> bool:
        """Whether a book was passed over for a reason that still holds, with these languages wanted."""
        skip = self.skips.get(key)
        if skip is None:
            return False
        return skip.reason != "language" or not speaks(skip.languages, languages)

    def keep_incoming(self, key: str, url: str, body: bytes) -> None:
        """Keep a body until its book is filed, so that it is not asked for again after a kill."""
        self._store.replace(f"{INCOMING}/{key}", json.dumps(url).encode() + b"\n" + body)

    def incoming(self, key: str) -> tuple[str, bytes] | None:
        """The address and the body that a command before this one left."""
        if self._store.info(f"{INCOMING}/{key}") is None:
            return None
        url, _, body = self._store.read_bytes(f"{INCOMING}/{key}").partition(b"\n")
        return json.loads(url), body

    def drop_incoming(self, key: str) -> None:
        """Forget a body whose book is filed under another key: its address did not tell its number."""
        self._store.delete(f"{INCOMING}/{key}")

    def file(self, key: str, record: BookRecord, text: str, raw: bytes | None) -> Filed:
        """Put a text into its place and make it a book of the index; says what came of it.

        The `processed_path`, `raw_path` and `text_sha256` of the record are decided here; a record with a
        `raw_path` keeps it where no raw bytes are given.
        """
        content = text.encode("utf-8", "replace")
        digest = hashlib.sha256(content).hexdigest()
        held = self.records.get(key)
        twin = self._keys_by_text.get(digest)
        if held is None and twin is not None:
            detail = f"the text of {twin}"
            self.skip(
                Skip(
                    key=key,
                    reason="same_text",
                    detail=detail,
                    url=record.url,
                    gutenberg_id=record.gutenberg_id,
                )
            )
            return "same_text"
        raw_path = record.raw_path
        if raw is not None:
            raw_path = f"raw/{key}.txt"
            self._store.replace(raw_path, raw)
        path = held.processed_path if held is not None else self._place(key, record, content, digest)
        record = record.model_copy(
            update={"processed_path": path, "raw_path": raw_path, "text_sha256": digest}
        )
        if held is not None:
            return self._refile(key, held, record, content)
        self._publish(key, record)
        return "new"

    def _refile(self, key: str, held: BookRecord, record: BookRecord, content: bytes) -> Filed:
        # The record goes first: a kill between the two leaves a text that is not the record's, and that is
        # seen below the next time.
        record = record.model_copy(update={"author_slug": held.author_slug, "title_slug": held.title_slug})
        if record != held:
            self._publish(key, record)
        path = record.processed_path
        there = self._store.read_bytes(path) if self._store.info(path) is not None else None
        if there != content:
            self._store.replace(path, content)
        else:
            with writing(str(self.root / path)):
                os.utime(self.root / path)  # looked at now: `is_fresh` compares with this time
        return "unchanged" if record.text_sha256 == held.text_sha256 else "changed"

    def is_fresh(self, key: str, raw_path: str) -> bool:
        """Whether a book was filed from this raw file after that file last changed here."""
        held = self.records.get(key)
        if held is None or held.raw_path != raw_path:
            return False
        try:
            raw, text = (self.root / raw_path).stat(), (self.root / held.processed_path).stat()
        except OSError:
            return False
        return raw.st_size == held.size_bytes and raw.st_ctime_ns < text.st_mtime_ns

    def skip(self, skip: Skip, raw: bytes | None = None) -> None:
        """Remember that a book is passed over; raw bytes go to quarantine/."""
        if raw is not None:
            self._store.replace(f"quarantine/{skip.key}.txt", raw)
        self._store.replace(f"{PARTS}/{skip.key}.skip.json", _line(skip))
        self.skips[skip.key] = skip
        self._store.delete(f"{INCOMING}/{skip.key}")

    def merge(self) -> None:
        """Put all parts into the index; those of other commands too."""
        self._merge_and_load()

    def _place(self, key: str, record: BookRecord, content: bytes, digest: str) -> str:
        plain, own = text_paths(record.author_slug, record.title_slug, key)
        for path in (plain, own):
            if self._owners.get(path, key) != key:
                continue
            if self._store.create(path, content):
                return path
            # Nobody's in the index: left by a kill, or of a command at work beside this one.
            if hashlib.sha256(self._store.read_bytes(path)).hexdigest() == digest:
                return path
        self._store.replace(own, content)
        return own

    def _publish(self, key: str, record: BookRecord) -> None:
        self._store.replace(f"{PARTS}/{key}.json", write_records([record]))
        self._remember(key, record)
        self._store.delete(f"{INCOMING}/{key}")

    def _remember(self, key: str, record: BookRecord) -> None:
        self.records[key] = record
        self.skips.pop(key, None)
        self._owners[record.processed_path] = key
        if record.text_sha256 is not None:
            self._keys_by_text.setdefault(record.text_sha256, key)
        if record.url is not None:
            self._urls.add(record.url)

    def _merge_and_load(self) -> None:
        with self._lock():
            records, skips = self._read_merged()
            parts = sorted(info.path for info in self._store.list(f"{PARTS}/"))
            for part in parts:
                content = self._store.read_bytes(part)
                if part.endswith(".skip.json"):
                    skip = read_skip(content, part)
                    skips[skip.key] = skip
                else:
                    record = read_record(content, str(self.root / part))
                    records[key_of(record)] = record
            skips = {key: skip for key, skip in skips.items() if key not in records}
            if parts or not (self.root / INDEX_NAME).exists():
                self._store.replace(INDEX_NAME, write_records(sorted_records(records.values())))
                ordered = sorted(skips.values(), key=lambda skip: (skip.gutenberg_id or 0, skip.key))
                self._store.replace(SKIPPED_NAME, b"".join(_line(skip) for skip in ordered))
            for part in parts:
                self._store.delete(part)
        self.skips = dict(skips)
        for key, record in records.items():
            self._remember(key, record)

    def _read_merged(self) -> tuple[dict[str, BookRecord], dict[str, Skip]]:
        index, skipped = self.root / INDEX_NAME, self.root / SKIPPED_NAME
        records = {key_of(record): record for record in read_index(index)} if index.exists() else {}
        lines = skipped.read_bytes().split(b"\n") if skipped.exists() else []
        skips = [read_skip(line, str(skipped)) for line in lines if line.strip()]
        return records, {skip.key: skip for skip in skips}

    @contextmanager
    def _lock(self) -> Iterator[None]:
        path = self.root / "index.lock"
        with writing(str(path)):
            self.root.mkdir(parents=True, exist_ok=True)
            file = path.open("ab")
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                with suppress(OSError):
                    fcntl.flock(file, fcntl.LOCK_UN)


def key_of(record: BookRecord) -> str:
    """What the book of a record is known by."""
    return book_key(record.gutenberg_id, record.url or record.processed_path)


def speaks(found: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    """Whether a book in the languages `found` is wanted: every one of them is, or nothing is known or asked."""
    allowed = {each.lower() for each in wanted}
    return not found or not wanted or {each.lower() for each in found} <= allowed


def read_skip(line: bytes, place: str) -> Skip:
    """One line of skipped.jsonl; raises SourceError."""
    try:
        skip = Skip.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]["msg"]
        raise SourceError(f"{place}: not a record of a skipped book ({first}); remove the file") from error
    if skip.version != INDEX_VERSION:
        msg = f"{place}: version {skip.version}; this assay reads version {INDEX_VERSION}; use the one that wrote it"
        raise SourceError(msg)
    return skip


def _line(skip: Skip) -> bytes:
    return json.dumps(skip.model_dump(mode="json"), ensure_ascii=False).encode() + b"\n"
