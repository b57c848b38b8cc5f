"""The lock of a training's folder. Imports no torch."""

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from assay.data.storage import writing
from assay.errors import UsageError

_LOCK = "lock"
_POLL_SECONDS = 0.5

_log = logging.getLogger(__name__)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder and hold it, so that two trainings never write to one; the lock goes with the process.

    Raises UsageError where another process holds it, StorageError where the folder cannot be made. A
    filesystem without locks holds nothing. Afterwards an empty folder is removed.
    """
    descriptor = None
    while descriptor is None:
        with writing(str(folder)):
            folder.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # whoever held it before may be removing the folder
                descriptor = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o666)
        if descriptor is not None and not _lock(descriptor, folder):
            os.close(descriptor)
            descriptor = None
    try:
        yield
    finally:
        if [path.name for path in folder.iterdir()] == [_LOCK]:
            with suppress(OSError):
                (folder / _LOCK).unlink()
                folder.rmdir()
        os.close(descriptor)


def wait_until_free(folder: Path, seconds: float) -> None:
    """Return once no process holds the folder, or after so many seconds."""
    deadline = time.monotonic() + seconds
    while _is_held(folder) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


def _is_held(folder: Path) -> bool:
    try:
        descriptor = os.open(folder / _LOCK, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _lock(descriptor: int, folder: Path) -> bool:
    """Lock an open file; False where it was removed meanwhile and another has its name."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UsageError(
            f"{folder}: another process trains there; wait until it has ended, or name another out"
        ) from None
    except OSError as error:
        _log.warning("%s: cannot be locked (%s); start no second training of it", folder, error.strerror)
    return os.fstat(descriptor).st_nlink > 0
