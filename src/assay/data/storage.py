"""Folders and buckets behind one small interface: list, read, create-if-absent, replace, delete.

Everything above this module names a file by a path relative to a store's root, so that a run on a
shared disk and a run in a bucket are the same code. `create` is the one promise that the rest of
Assay is built on: of any number of callers, on any number of machines, one gets True.

- On disk: the content lies complete and synced under a temporary name before `link(2)` gives it its
  own, which fails where the name is taken. A reader never sees half a file, a power cut leaves none.
- On an object store (`object_store`, imported when the first such URL is opened): a conditional put.

Not covered: permissions of new files beyond the umask, links that lead out of the root.
"""

import ctypes
import errno
import functools
import os
import re
import shutil
import urllib.parse
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa

from assay.data.syncing import replace_local, sync_file, sync_folder
from assay.errors import InputError, StorageError, UsageError

if TYPE_CHECKING:
    from assay.data.object_store import ObjectStore

OBJECT_SCHEMES = ("s3", "s3a", "gs", "az", "abfs", "abfss", "adl", "azure")
"""Schemes that obstore opens; `file://` is read as a local path."""

_SCHEMES_WITH_CONTAINERS = ("abfs", "abfss")
"""`abfss://container@account...`: what comes before the @ is not a secret."""
_SIGNED = re.compile(
    r"[?&](sig|signature|x-(amz|goog)-(signature|credential|security-token)|awsaccesskeyid)=", re.IGNORECASE
)
"""In an address that gives rights to whoever has it."""

PAGE_OBJECTS = 1000
"""In one answer of a bucket's listing."""
PROCESS_PREFIX = "assay-scratch-"
"""Begins the name of the folder where a process makes what it will put into a bucket; its id follows."""
FOOTER_READ_BYTES = 64 * 1024
READ_AHEAD_BYTES = 1024 * 1024
MAX_READ_AHEAD_BYTES = 8 * 1024 * 1024

_WAY_OUT = {
    errno.ENOSPC: "free space on that disk, or put the run on another, and rerun the same command",
    errno.EDQUOT: "raise the quota or free space, and rerun the same command",
    errno.EROFS: "name a folder on a disk that can be written",
    errno.EACCES: "give this user the right to it, or name another folder",
    errno.EPERM: "give this user the right to it, or name another folder",
    errno.ENAMETOOLONG: "use a shorter path",
    errno.ENOTDIR: "a part of the path is a file; name a folder",
    errno.EEXIST: "a part of the path is a file; name a folder",
    errno.EISDIR: "a folder lies there; name a file",
    errno.ELOOP: "remove the link, which leads to itself",
}
# link(2) gives these where the filesystem has no hard links (FAT, some network mounts).
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class FileInfo:
    """One file of a store, as a listing shows it."""

    path: str
    """Path relative to the store's root, '/'-separated."""
    size_bytes: int
    """Size in bytes."""
    version: str
    """Changes when the content does: the etag, or the modification time in ns on disk."""
    modified: float
    """Time of the last change, Unix seconds."""


class Store(Protocol):
    """A folder or a bucket prefix; every path is relative to it. Safe to use from many threads."""

    @property
    def url(self) -> str:
        """What the user typed, normalised: an absolute path, or `s3://bucket/prefix`."""
        ...

    def list(
        self, prefix: str = "", *, after: str | None = None, until: str | None = None
    ) -> Iterator[FileInfo]:
        """Every file below the folder `prefix`, recursively, sorted by path; nothing where it is missing.

        Only those whose path comes after `after` and not after `until`, where these are given: in a bucket one request
        for each thousand of them.
        """
        ...

    def info(self, path: str) -> FileInfo | None:
        """The file at `path`, None where there is none."""
        ...

    def obstacles(self, prefix: str) -> dict[str, str]:
        """What lies directly in the folder `prefix` and is not a file, by path: a sentence with the way out."""
        ...

    def read_bytes(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        """Up to `length` bytes from `start` on; short or empty where the file ends before."""
        ...

    def open_input(self, path: str, *, size_bytes: int | None = None) -> pa.NativeFile:
        """A seekable file for pyarrow's readers; where its size is known, a bucket is not asked for it."""
        ...

    def create(self, path: str, content: Path | bytes) -> bool:
        """Publish `content` unless `path` exists; True = this call did.

        Atomic. A `Path` is taken over: it is gone afterwards, whatever came of the call.
        """
        ...

    def replace(self, path: str, content: Path | bytes) -> None:
        """Put `content` at `path`, atomically, over what is there. A `Path` is taken over."""
        ...

    def delete(self, path: str) -> None:
        """Remove the file at `path`; a missing one is fine."""
        ...

    def delete_all(self, paths: Sequence[str]) -> None:
        """Remove these files; missing ones are fine. In a bucket of S3 one request for each thousand."""
        ...

    def scratch(self) -> Path:
        """A local folder for temporary files, from where `create` needs no copy on a local store."""
        ...


def open_store(url: str | os.PathLike[str]) -> Store:
    """The store at a local path or an object-store URL. Touches neither disk nor network."""
    text = os.fspath(url)
    if text.startswith("file://"):
        text = urllib.parse.unquote(urllib.parse.urlsplit(text).path)
    if "://" not in text:
        return LocalStore(text)
    check_url(text)
    return _object_store(text)


def split_url(uri: str) -> tuple[Store, str]:
    """The store that holds the file `uri`, and the file's path in it: its folder, or its bucket."""
    if is_object_url(uri):
        check_url(uri)
        parts = urllib.parse.urlsplit(uri, allow_fragments=False)
        # Not parts.path: a '?' or '%41' in a key is a plain character.
        path = uri.split("://", 1)[1][len(parts.netloc) :].lstrip("/")
        return _bucket_store(f"{parts.scheme}://{parts.netloc}"), path
    local = local_path(uri)
    return LocalStore(local.parent), local.name


def is_object_url(uri: str) -> bool:
    """True for a URL of an object store, False for a local path or `file://`."""
    return "://" in uri and not uri.startswith("file://")


def local_path(uri: str) -> Path:
    """The absolute local path that a path or a `file://` URL names; links are not resolved."""
    if uri.startswith("file://"):
        uri = urllib.parse.unquote(urllib.parse.urlsplit(uri).path)
    return Path(os.path.abspath(Path(uri).expanduser()))  # noqa: PTH100  resolve() would follow links


def check_url(url: str) -> None:
    """Raise UsageError for a URL that no store opens, or that holds credentials; touches no network."""
    scheme, _, rest = url.partition("://")
    if scheme not in OBJECT_SCHEMES:
        msg = f"{url}: no store for {scheme}://; use a local path or one of s3://, gs://, az://"
        raise UsageError(msg)
    host = rest.split("/", 1)[0]
    if not host:
        msg = f"{url} names no bucket; write {scheme}://bucket/folder"
        raise UsageError(msg)
    if ":" in host or ("@" in host and scheme not in _SCHEMES_WITH_CONTAINERS) or _SIGNED.search(rest):
        place = f"{scheme}://{re.split('[/:?]', rest.rpartition('@')[2], maxsplit=1)[0]}"  # a secret may hold a slash
        msg = (
            f"{place}: the URL holds credentials or a port, and would be written down with them; take them out, and "
            "set credentials and endpoint in the environment"
        )
        raise UsageError(msg)


@functools.lru_cache(maxsize=64)
def _bucket_store(url: str) -> "ObjectStore":
    return _object_store(url)


def _object_store(url: str) -> "ObjectStore":
    from assay.data.object_store import ObjectStore

    return ObjectStore(url)


class LocalStore:
    """A folder on a local or shared disk; made when first written to."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._root = local_path(os.fspath(root))

    @property
    def url(self) -> str:
        """The absolute path of the folder."""
        return str(self._root)

    def list(
        self, prefix: str = "", *, after: str | None = None, until: str | None = None
    ) -> Iterator[FileInfo]:
        """Every file below the folder `prefix`, sorted by path; temporary files of `scratch` included."""
        found: list[FileInfo] = []
        prefix = prefix.strip("/")
        folders = [(self._root / prefix, f"{prefix}/" if prefix else "")]
        while folders:
            folder, relative = folders.pop()
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if entry.is_dir():
                            folders.append((folder / entry.name, f"{relative}{entry.name}/"))
                        elif is_between(relative + entry.name, after, until):
                            # A file may be gone between the listing and the look at it.
                            with suppress(FileNotFoundError):
                                found.append(_local_info(relative + entry.name, entry.stat()))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise _storage_error(error.filename or folder, error, "listed") from error
        yield from sorted(found, key=lambda info: info.path)

    def info(self, path: str) -> FileInfo | None:
        """The file at `path`, None where there is none or a folder."""
        target = self._root / path
        try:
            status = target.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _storage_error(target, error, "read") from error
        return None if target.is_dir() else _local_info(path, status)

    def obstacles(self, prefix: str) -> dict[str, str]:
        """Folders and broken links directly in the folder `prefix`, by path: a sentence with the way out."""
        folder = prefix.strip("/")
        try:
            with os.scandir(self._root / folder) as entries:
                names = sorted(entry.name for entry in entries if not entry.is_file())
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise _storage_error(self._root / folder, error, "listed") from error
        return {f"{folder}/{name}": _in_the_way(self._root / folder / name) for name in names}

    def read_bytes(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        """Up to `length` bytes from `start` on."""
        target = self._root / path
        try:
            with target.open("rb", buffering=0) as file:
                file.seek(start)
                if length is None:
                    return file.readall()
                pieces: list[bytes] = []
                while length > 0 and (piece := file.read(length)):
                    pieces.append(piece)
                    length -= len(piece)
                return b"".join(pieces)
        except OSError as error:
            raise _storage_error(target, error, "read") from error

    def open_input(self, path: str, *, size_bytes: int | None = None) -> pa.NativeFile:  # noqa: ARG002
        """A seekable file for pyarrow's readers."""
        target = self._root / path
        try:
            return pa.OSFile(os.fspath(target), "rb")
        except OSError as error:
            raise _storage_error(target, error, "read") from error

    def create(self, path: str, content: Path | bytes) -> bool:
        """Publish `content` unless `path` exists; True = this call did. InputError where the disk has no such step."""
        target = self._root / path
        with self._staged(target, content) as staged:
            while not _link(staged, target):
                if target.is_file():
                    return False
                if os.path.lexists(target):
                    raise StorageError(_in_the_way(target))
            sync_folder(target.parent)
        return True

    def replace(self, path: str, content: Path | bytes) -> None:
        """Put `content` at `path`, atomically, over what is there."""
        target = self._root / path
        with self._staged(target, content) as staged:
            staged.replace(target)
            sync_folder(target.parent)

    def delete(self, path: str) -> None:
        """Remove the file at `path`; a missing one is fine."""
        target = self._root / path
        try:
            target.unlink(missing_ok=True)
        except NotADirectoryError:
            return
        except OSError as error:
            raise _storage_error(target, error, "deleted") from error

    def delete_all(self, paths: Sequence[str]) -> None:
        """Remove these files; missing ones are fine."""
        for path in paths:
            self.delete(path)

    def scratch(self) -> Path:
        """`<root>/tmp`, on the same filesystem as the rest of the store."""
        folder = self._root / "tmp"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _storage_error(folder, error, "made") from error
        return folder

    @contextmanager
    def _staged(self, target: Path, content: Path | bytes) -> Iterator[Path]:
        """A synced file with `content` in `scratch`; removed afterwards unless it was moved away."""
        scratch = self.scratch()
        given = content if isinstance(content, Path) else None
        if given is not None and given.parent == scratch:
            staged = given
        else:
            staged = scratch / f"{target.name[:100]}.{os.getpid()}.{uuid.uuid4().hex}"
        try:
            if isinstance(content, bytes):
                staged.write_bytes(content)
            elif staged is not content:
                shutil.copyfile(content, staged)
            sync_file(staged)
            _make_folder(target.parent)
            yield staged
        except OSError as error:
            raise _storage_error(target, error, "written") from error
        finally:
            with suppress(OSError):
                staged.unlink(missing_ok=True)
            if given is not None:
                with suppress(OSError):
                    given.unlink(missing_ok=True)


def is_between(path: str, after: str | None, until: str | None) -> bool:
    """Whether a path comes after the one and not after the other; None for either end."""
    return (after is None or path > after) and (until is None or path <= until)


def _local_info(path: str, status: os.stat_result) -> FileInfo:
    return FileInfo(
        path=path, size_bytes=status.st_size, version=str(status.st_mtime_ns), modified=status.st_mtime
    )


def _in_the_way(target: Path) -> str:
    return f"{target} is in the way and is not a file (a folder, a broken link); remove it"


def _link(staged: Path, target: Path) -> bool:
    """Give `staged` the second name `target`; False where that name is taken."""
    try:
        os.link(staged, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _rename_without_replacing(staged, target)
    return True


def _rename_without_replacing(staged: Path, target: Path) -> bool:
    """`renameat2(RENAME_NOREPLACE)`, for filesystems without hard links; False where the name is taken."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    number = errno.ENOSYS
    if renameat2 is not None:
        failed = renameat2(
            _AT_FDCWD, os.fsencode(staged), _AT_FDCWD, os.fsencode(target), ctypes.c_uint(_RENAME_NOREPLACE)
        )
        if not failed:
            return True
        number = ctypes.get_errno()
    if number == errno.EEXIST:
        return False
    if number in _NO_LINKS:
        raise InputError(
            f"{target.parent}: this file system has neither hard links nor a rename that replaces nothing, without "
            "which two workers could overwrite each other's parts; use a local disk, NFS or Lustre, or a bucket by "
            "its URL"
        )
    raise OSError(number, os.strerror(number), str(target))


def _make_folder(folder: Path) -> None:
    """Make `folder` and its parents, each new name synced into the folder above it."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


@contextmanager
def writing(path: str) -> Iterator[None]:
    """Turn an OSError while the file `path` is written into a StorageError that names it."""
    try:
        yield
    except OSError as error:
        raise _storage_error(path, error, "written") from error


def writable_place(path: Path, said: str) -> Path:
    """The folder nearest above a local path; raises StorageError, with what was `said` of it, where it is read-only."""
    place = next(each for each in path.absolute().parents if each.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        msg = f"{place}: a folder that can be written to is needed for {said}; name another"
        raise StorageError(msg)
    return place


def replace_file(uri: str, content: bytes) -> None:
    """Write one file, a local path or an object URL, in one step; a reader sees the old or the new one.

    It survives a loss of power from then on.
    """
    if is_object_url(uri):
        store, path = split_url(uri)
        store.replace(path, content)
        return
    target = local_path(uri)
    with writing(os.fspath(target)):
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_local(target, content)


def _storage_error(path: Path | str, error: OSError, verb: str) -> StorageError:
    # pyarrow's errors have a sentence with the path for a strerror
    reason = os.strerror(error.errno) if error.errno else str(error)
    if isinstance(error, FileNotFoundError):
        way_out = "check the path"
    else:
        way_out = _WAY_OUT.get(error.errno or 0, "check the disk and the path, and rerun the same command")
    return StorageError(f"{path}: could not be {verb} ({reason}); {way_out}")
