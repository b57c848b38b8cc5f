"""API keys: named, several, from a file or the environment, and how much each may send.

    ASSAY_API_KEYS="ci:s3cret,web:sha256:9f86d0..."      the environment; a key without a name is `default`
    ci:s3cret                                            a line of a keys file; # begins a comment
    ci = "sha256:9f86d0..."                              the same in a file that ends in .toml

Only SHA-256 hashes are kept. A presented key is compared with every one of them in constant time, so
that the time taken tells neither how far it was right nor which keys there are.
"""

import contextlib
import hashlib
import hmac
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from assay.errors import UsageError

ENVIRONMENT = "ASSAY_API_KEYS"
ANONYMOUS = "anonymous"
"""Whose requests are counted together where there are no keys."""
_HASHED = "sha256:"
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys that are known now."""

    digests: tuple[tuple[str, bytes], ...] = ()
    """Name and SHA-256 of each."""

    def name_of(self, presented: str) -> str | None:
        """The name of a key, None for one that is not known; takes as long either way."""
        digest = hashlib.sha256(presented.encode("utf-8", "surrogatepass")).digest()
        found = None
        for name, known in self.digests:
            if hmac.compare_digest(digest, known):
                found = name
        return found


def read_keys(keys_file: str | None, environment: Mapping[str, str]) -> Keys:
    """The keys of the file and of the environment; raises UsageError for what cannot be used."""
    pairs: list[tuple[str, str]] = []
    if keys_file is not None:
        pairs += _from_file(Path(keys_file))
        if not pairs:
            msg = (
                f"keys file {keys_file} holds no key; an empty one would let everyone in; add name:key lines"
            )
            raise UsageError(msg)
    entries = [part.strip() for part in environment.get(ENVIRONMENT, "").split(",") if part.strip()]
    if ENVIRONMENT in environment and not entries:
        msg = f"{ENVIRONMENT} is set and holds no key; that would let everyone in; unset it, or set name:key"
        raise UsageError(msg)
    for entry in entries:
        name, _, key = entry.partition(":")
        pairs.append((name, key) if key and name != _HASHED[:-1] else ("default", entry))
    digests: list[tuple[str, bytes]] = []
    for name, key in pairs:
        if not _NAME.fullmatch(name) or any(name == other for other, _ in digests):
            msg = f"API key name {name!r}; names are unique and of A-Z a-z 0-9 _ . -; rename it"
            raise UsageError(msg)
        digests.append((name, _digest(name, key)))
    return Keys(tuple(digests))


def hashed_entries(keys: Keys) -> str:
    """The keys as the environment may hold them, hashed; "" for none."""
    return ",".join(f"{name}:{_HASHED}{digest.hex()}" for name, digest in keys.digests)


def _from_file(path: Path) -> list[tuple[str, str]]:
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        msg = f"keys file {path} cannot be read ({reason}); give a file of name:key lines"
        raise UsageError(msg) from None
    if path.suffix == ".toml":
        try:
            table = tomllib.loads(content)
        except tomllib.TOMLDecodeError:
            # the library's message may quote the line, and with it a key
            msg = f'keys file {path} is not TOML; write name = "key" lines'
            raise UsageError(msg) from None
        if not all(isinstance(key, str) for key in table.values()):
            msg = f'keys file {path} holds more than strings; write name = "key" lines'
            raise UsageError(msg)
        return list(table.items())
    pairs = []
    for number, line in enumerate(content.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        name, colon, key = stripped.partition(":")
        if not colon:
            msg = f"keys file {path}, line {number}: no colon; write name:key"
            raise UsageError(msg)
        pairs.append((name.strip(), key.strip()))
    return pairs


def _digest(name: str, key: str) -> bytes:
    if key.startswith(_HASHED):
        if not _HEX.fullmatch(key.removeprefix(_HASHED)):
            msg = f"API key {name}: sha256: is followed by 64 hex digits in lower case; hash the key again"
            raise UsageError(msg)
        return bytes.fromhex(key.removeprefix(_HASHED))
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        msg = (
            f"API key {name} is empty, or has spaces or characters that a header cannot carry; choose another"
        )
        raise UsageError(msg)
    return hashlib.sha256(key.encode()).digest()


class Buckets(Protocol):
    """Where the buckets of a rate limit are."""

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Held while a bucket is read and written."""
        ...

    def get(self, name: str) -> tuple[float, float] | None:
        """What is left in a bucket, and when that was so; None for one that was never used."""
        ...

    def set(self, name: str, left: float, at: float) -> None:
        """Write a bucket."""
        ...


class OwnBuckets:
    """The buckets of one process."""

    def __init__(self) -> None:
        """None used."""
        self._left: dict[str, tuple[float, float]] = {}

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Nobody else is there."""
        return contextlib.nullcontext()

    def get(self, name: str) -> tuple[float, float] | None:
        """What is left in a bucket, and when that was so; None for one that was never used."""
        return self._left.get(name)

    def set(self, name: str, left: float, at: float) -> None:
        """Write a bucket."""
        self._left[name] = (left, at)


@dataclass(slots=True)
class RateLimit:
    """A bucket of documents for each name, filled evenly; time is passed in.

    A bucket holds a minute's worth. A request is let in while the bucket holds a document and may take it
    below zero, so that one larger than the bucket is served too, and paid for afterwards.
    """

    per_minute: int
    """Documents that flow into each bucket in a minute, and most that it holds."""
    buckets: Buckets = field(default_factory=OwnBuckets)

    def seconds_to_wait(self, name: str, num_documents: int, now: float) -> float:
        """0 where the documents are let in, and counted; else seconds until the next may be."""
        with self.buckets.lock():
            left, at = self.buckets.get(name) or (float(self.per_minute), now)
            left = min(float(self.per_minute), left + (now - at) * self.per_minute / 60)
            if left < 1:
                self.buckets.set(name, left, now)
                return (1 - left) * 60 / self.per_minute
            self.buckets.set(name, left - num_documents, now)
            return 0.0
