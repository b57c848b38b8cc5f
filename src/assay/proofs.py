"""Notes on what was proven on this machine, so that no later process proves it again.

A note is a file in the user's cache (`$XDG_CACHE_HOME/assay/proofs`, else `~/.cache`), named by a hash of all that
it depends on: whatever changes of that, Assay's own source files included, the note is another one. What is damaged
or edited counts for nothing. Deleting the folder costs the next start some seconds.
"""

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self
from uuid import uuid4

MOST_WAIT_SECONDS = 120.0
"""For a process that proves the same; longer than a first start with kernels to compile takes."""
POLL_SECONDS = 0.1
_PACKAGE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True, slots=True)
class Note:
    """One note, written or not."""

    name: str

    @classmethod
    def of(cls, *parts: object) -> Self:
        """The note that depends on these parts, in this order, and on Assay's source files."""
        return cls(name=_digest("\n".join([*map(str, parts), _code_state()])))

    def read(self) -> dict[str, Any] | None:
        """What was noted; None where nothing was, or where it is not as it was written."""
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        content = found.get("content") if isinstance(found, dict) else None
        return content if isinstance(content, dict) and found.get("digest") == _seal(content) else None

    def write(self, content: Mapping[str, Any]) -> None:
        """Note this; where the cache cannot be written to, the next start proves it again."""
        plain = json.loads(json.dumps(dict(content), default=str, skipkeys=True))
        scratch = self._file.with_name(f"{self.name}.{uuid4().hex}")
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            try:
                scratch.write_text(json.dumps({"content": plain, "digest": _seal(plain)}), encoding="utf-8")
                scratch.rename(self._file)
            finally:
                scratch.unlink(missing_ok=True)

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Within, no other process proves the same, unless it has waited: it then finds the note, or none is made.

        One waits for the first, not for each other; where the cache cannot be written to, for nobody.
        """
        held = _lock(notes_folder() / "turns" / self.name)
        try:
            yield
        finally:
            if held is not None:
                with contextlib.suppress(OSError):
                    Path(held.name).unlink()
                held.close()

    @property
    def _file(self) -> Path:
        return notes_folder() / "proofs" / self.name


def notes_folder() -> Path:
    """Where notes and their locks lie."""
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "assay"


def _lock(path: Path) -> IO[str] | None:
    """The file, locked until it is closed; None once another process that held the lock has let go of it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("w", encoding="utf-8")
    except OSError:
        return None
    deadline = time.monotonic() + MOST_WAIT_SECONDS
    has_waited = False
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            has_waited = True
        except OSError:  # a file system without locks
            break
        else:
            if has_waited:
                break
            return handle
        if time.monotonic() > deadline:
            break
        time.sleep(POLL_SECONDS)
    handle.close()
    return None


@functools.cache
def _code_state() -> str:
    """Changes whenever a source file of Assay does."""
    files = [file for file in _PACKAGE.rglob("*.py") if "__pycache__" not in file.parts]
    states = [
        (str(file), state.st_size, state.st_mtime_ns) for file in sorted(files) for state in [file.stat()]
    ]
    return _digest(json.dumps(states))


def _seal(content: Mapping[str, Any]) -> str:
    return _digest(json.dumps(content, sort_keys=True))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
