"""Temporary files that a killed process leaves behind, and how the next one tells them from living ones.

A scratch file is locked (flock) by the process that writes it; the lock goes with the process, however
it ends. Where a filesystem has no locks, nothing is ever swept.
"""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from assay.data.storage import PROCESS_PREFIX, Store, is_object_url, writing

SUFFIX = ".scratch"


@contextmanager
def scratch_file(store: Store, stem: str = "") -> Iterator[Path]:
    """An empty file in the store's scratch folder, locked while in use and gone afterwards.

    Files of its own name and a further ending may lie beside it; they are swept with it. Raises
    StorageError where it cannot be made.
    """
    descriptor = None
    while descriptor is None:
        path = store.scratch() / f"{stem}{uuid4().hex}{SUFFIX}"
        with writing(str(path)), suppress(FileNotFoundError):  # a sweep may take the empty folder away
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink == 0:
                os.close(descriptor)
                descriptor = None
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def sweep_scratch(store: Store) -> None:
    """Remove what killed processes left in the scratch folder of a store, and the folder once it is empty.

    For a bucket these are folders of this user's processes, among the system's temporary files.
    """
    if not is_object_url(store.url):
        _sweep(Path(store.url) / "tmp")
        return
    for folder in Path(tempfile.gettempdir()).glob(f"{PROCESS_PREFIX}*-*"):
        with suppress(OSError):
            if folder.stat(follow_symlinks=False).st_uid == os.getuid() and not folder.is_symlink():
                _sweep(folder)


def _sweep(folder: Path) -> None:
    for path in folder.glob(f"*{SUFFIX}"):
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for beside in folder.glob(f"{path.name}.*"):
                    beside.unlink(missing_ok=True)
                path.unlink()
            finally:
                os.close(descriptor)
    with suppress(OSError):
        folder.rmdir()
