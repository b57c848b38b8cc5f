"""A bucket behind the interface of `storage`: conditional puts, and reads of ranges.

`create` is a conditional put (`If-None-Match: *`) through obstore. The object carries a mark of the call as
metadata. Where the answer was lost (a reset, a timeout, an error of the server) or was a conflict of two puts at
once (S3: 409), one look at the object decides: the call's own mark means True, another's False, no object that
the put is tried again. Only a service that keeps no metadata may give False to the one that published.

Not covered: objects above the single-put limit of the service (5 GB on S3) in `create`; `replace` takes those too.
"""

import atexit
import functools
import io
import os
import random
import re
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from assay.data.creating import create_once, repeat
from assay.data.storage import (
    FOOTER_READ_BYTES,
    MAX_READ_AHEAD_BYTES,
    PAGE_OBJECTS,
    PROCESS_PREFIX,
    READ_AHEAD_BYTES,
    FileInfo,
    is_between,
)
from assay.errors import InputError, StorageError

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore as ObstoreStore

_CHANCE = random.SystemRandom()
_USER_INFO = re.compile(r"//[^/\s]*@")
"""What may be a password in an address."""
_MARK = "assayput"  # letters alone: a name that S3, Google and Azure all take for metadata


class _TornError(OSError):
    """The connection was torn in the middle of an answer."""


class ObjectStore:
    """A bucket prefix, reached through obstore; credentials and endpoint from the usual variables.

    S3 reads `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT_URL` and
    `AWS_ALLOW_HTTP`, and `AWS_TIMEOUT` for one request (30s); Google and Azure read their own
    (obstore's documentation lists them).
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._opened: ObstoreStore | None = None

    @property
    def url(self) -> str:
        """The URL as typed, without a slash at its end."""
        return self._url

    def list(
        self, prefix: str = "", *, after: str | None = None, until: str | None = None
    ) -> Iterator[FileInfo]:
        """Every object below `prefix`, sorted by path; one request for each 1,000."""
        found: list[FileInfo] = []
        with _object_errors(self._url, "listed"):
            _repeat(lambda: _list_on(self._store(), found, prefix.strip("/") or None, after, until))
        yield from sorted(
            (info for info in found if is_between(info.path, after, until)), key=lambda info: info.path
        )

    def info(self, path: str) -> FileInfo | None:
        """The object at `path`, None where there is none."""
        import obstore

        with _object_errors(self._name(path), "read"):
            try:
                return _object_info(obstore.head(self._store(), path))
            except FileNotFoundError:
                return None

    def obstacles(self, prefix: str) -> dict[str, str]:  # noqa: ARG002
        """Nothing: a bucket holds objects alone."""
        return {}

    def read_bytes(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        """Up to `length` bytes from `start` on, in one request."""
        import obstore

        if length is not None and length <= 0:
            return b""
        with _object_errors(self._name(path), "read"):
            try:
                if length is not None:
                    return bytes(obstore.get_range(self._store(), path, start=start, length=length))
                if start == 0:
                    return bytes(obstore.get(self._store(), path).bytes())
                options: obstore.GetOptions = {"range": {"offset": start}}
                return bytes(obstore.get(self._store(), path, options=options).bytes())
            except obstore.exceptions.GenericError as error:
                # 416: the object ends before `start`.
                if "416 Range Not Satisfiable" in str(error):
                    return b""
                raise

    def open_input(self, path: str, *, size_bytes: int | None = None) -> pa.NativeFile:
        """A seekable file for pyarrow's readers; a footer costs one request, reads in order are batched.

        One more tells the size, where it is not given; of an object of another size, reading fails.
        """
        if size_bytes is None:
            info = self.info(path)
            if info is None:
                msg = f"{self._name(path)}: could not be read (no such object); check the path"
                raise StorageError(msg)
            size_bytes = info.size_bytes
        return pa.PythonFile(_RangeFile(self, path, size_bytes), mode="r")

    def create(self, path: str, content: Path | bytes) -> bool:
        """Publish `content` unless `path` exists, by a conditional put; True = this call did.

        Raises StorageError where after some tries it is still open whether the object can be there, and InputError
        where the service says that it has no conditional puts.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError, GenericError

        mark = uuid.uuid4().hex

        def put() -> None:
            try:
                obstore.put(
                    self._store(), path, content, mode="create", use_multipart=False, attributes={_MARK: mark}
                )
            except GenericError as error:
                if "501 Not Implemented" in str(error):
                    raise InputError(no_conditional_writes(self._url)) from error
                raise

        with _object_errors(self._name(path), "written"), _taken_over(content):
            return create_once(
                put,
                lambda: self._mark_of(path),
                mark,
                # obstore says AlreadyExists for S3's 409 too, when two puts met and neither may have won
                unsure=(AlreadyExistsError, GenericError),
                sleep=time.sleep,
                chance=_CHANCE,
            )

    def _mark_of(self, path: str) -> str | None:
        """The mark of the call that created the object, "" where it has none; None where there is no object."""
        import obstore

        try:
            found = obstore.get(self._store(), path, options={"head": True})
        except FileNotFoundError:
            return None
        return found.attributes.get(_MARK, "")

    def replace(self, path: str, content: Path | bytes) -> None:
        """Put `content` at `path` over what is there; large files in several requests, still atomic."""
        import obstore
        from obstore.exceptions import AlreadyExistsError

        def put() -> None:
            with _torn_answers():
                obstore.put(self._store(), path, content)

        with _object_errors(self._name(path), "written"), _taken_over(content):
            _repeat(put, unsure=(AlreadyExistsError, _TornError))  # the first is S3's 409: two puts met

    def delete(self, path: str) -> None:
        """Remove the object at `path`; a missing one is fine."""
        with _object_errors(self._name(path), "deleted"), suppress(FileNotFoundError):
            _repeat(lambda: _delete(self._store(), path))

    def delete_all(self, paths: Sequence[str]) -> None:
        """Remove these objects; missing ones are fine. On S3 one request for each thousand."""
        with _object_errors(self._url, "deleted"):
            try:
                _repeat(lambda: _delete(self._store(), list(paths)))
                return
            except FileNotFoundError:  # of Google alone, which stops there
                pass
        for path in paths:
            self.delete(path)

    def scratch(self) -> Path:
        """A folder of this process below the system's temporary folder, removed when it ends."""
        folder = Path(_process_scratch(os.getpid()).name)
        folder.mkdir(mode=0o700, exist_ok=True)  # `sweep_scratch` may take an empty one away
        return folder

    def _name(self, path: str) -> str:
        return f"{self._url}/{path}"

    def _store(self) -> "ObstoreStore":
        if self._opened is None:
            from obstore.store import from_url

            with _object_errors(self._url, "opened"):
                self._opened = from_url(self._url)
        return self._opened


def _repeat(request: Callable[[], object], *, unsure: tuple[type[Exception], ...] = (_TornError,)) -> None:
    """Send a request; again, after a pause, where the connection was torn."""
    repeat(request, unsure=unsure, sleep=time.sleep, chance=_CHANCE)


def _list_on(
    store: "ObstoreStore", found: list[FileInfo], prefix: str | None, after: str | None, until: str | None
) -> None:
    """List what comes after the last that was `found`, which a listing that was torn goes on from."""
    import obstore

    begin = found[-1].path if found else after
    with _torn_answers():
        for chunk in obstore.list(store, prefix, offset=begin, chunk_size=PAGE_OBJECTS):
            found.extend(_object_info(meta) for meta in chunk)
            if until is not None and found and found[-1].path >= until:
                break  # a listing is in the order of its paths


def _delete(store: "ObstoreStore", paths: str | list[str]) -> None:
    """Remove objects, which may be tried again: what is gone is gone."""
    import obstore

    with _torn_answers():
        obstore.delete(store, paths)


@contextmanager
def _torn_answers() -> Iterator[None]:
    """Raise _TornError for a connection that was torn under a request that obstore does not repeat by itself.

    It does not where the answer was begun, and not for a POST, which deletions on S3 are.
    """
    from obstore.exceptions import GenericError

    try:
        yield
    except GenericError as error:
        if "HTTP error:" in str(error) and " retries, " not in str(error):
            raise _TornError(*error.args) from error
        raise


def _object_info(meta: "ObjectMeta") -> FileInfo:
    modified = meta["last_modified"].timestamp()
    version = (meta["e_tag"] or "").strip('"') or str(modified)
    return FileInfo(path=meta["path"], size_bytes=meta["size"], version=version, modified=modified)


def no_conditional_writes(url: str) -> str:
    """What to say of a store that cannot keep the one promise that a run needs."""
    return (
        f"{url}: this store has no conditional writes (put only where there is nothing), without which two workers "
        "could overwrite each other's parts; use a bucket that has them (S3, Google, Azure), or a folder on a disk"
    )


@contextmanager
def _taken_over(content: Path | bytes) -> Iterator[None]:
    try:
        yield
    finally:
        if isinstance(content, Path):
            with suppress(OSError):
                content.unlink(missing_ok=True)


@contextmanager
def _object_errors(name: str, verb: str) -> Iterator[None]:
    """Turn what obstore raises into one line that names the object and a way out."""
    from obstore.exceptions import (
        BaseError,
        PermissionDeniedError,
        UnauthenticatedError,
    )

    try:
        yield
    except (PermissionDeniedError, UnauthenticatedError) as error:
        msg = f"{name}: could not be {verb} (permission denied); check the credentials in the environment"
        raise StorageError(msg) from error
    except FileNotFoundError as error:
        msg = f"{name}: could not be {verb} (no such bucket or object); check the URL"
        raise StorageError(msg) from error
    except (BaseError, OSError, ValueError) as error:
        reason = " ".join(_USER_INFO.sub("//", str(error).split("\n", 1)[0]).split())[:300]
        msg = f"{name}: could not be {verb} ({reason}); check the URL, the endpoint and the credentials"
        raise StorageError(msg) from error


@functools.lru_cache(maxsize=1)
def _process_scratch(pid: int) -> "tempfile.TemporaryDirectory[str]":
    folder = tempfile.TemporaryDirectory(prefix=f"{PROCESS_PREFIX}{pid}-", ignore_cleanup_errors=True)
    atexit.register(folder.cleanup)
    return folder


class _RangeFile(io.RawIOBase):
    """Random access to one object, by range requests through a window that grows while read in order.

    Large reads (a column chunk) are one request of just their size. Not thread-safe: pyarrow
    serialises its calls to a Python file.
    """

    def __init__(self, store: ObjectStore, path: str, size_bytes: int) -> None:
        super().__init__()
        self._store = store
        self._path = path
        self._size = size_bytes
        self._position = 0
        self._window = b""
        self._window_start = 0
        self._ahead = READ_AHEAD_BYTES

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def size(self) -> int:
        return self._size

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        remaining = max(0, self._size - self._position)
        length = remaining if size is None or size < 0 else min(size, remaining)
        begin = self._position - self._window_start
        if begin < 0 or begin + length > len(self._window):
            self._fetch(length)
            begin = self._position - self._window_start
        piece = self._window[begin : begin + length]
        self._position += len(piece)
        return piece

    def _fetch(self, length: int) -> None:
        window_stop = self._window_start + len(self._window)
        in_order = bool(self._window) and self._window_start <= self._position <= window_stop
        self._ahead = min(self._ahead * 2, MAX_READ_AHEAD_BYTES) if in_order else READ_AHEAD_BYTES
        start = self._position
        # A first read near the end is a footer: take as much before it as pyarrow may want next.
        if not self._window and self._size - start <= FOOTER_READ_BYTES:
            start = max(0, self._size - FOOTER_READ_BYTES)
        wanted = max(length + self._position - start, self._ahead)
        self._window = self._store.read_bytes(self._path, start, min(wanted, self._size - start))
        self._window_start = start
