"""Publishing a bundle: a folder appears whole or not at all."""

import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from assay.data.syncing import sync_file, sync_folder
from assay.errors import StorageError, UsageError


@contextmanager
def publish_folder(out: Path, *, overwrite: bool = False, what: str = "bundle") -> Iterator[Path]:
    """A scratch folder beside `out` that becomes `out` when the block ends well, and vanishes when not.

    A reader never sees a half-written bundle. Refuses an `out` that holds anything, unless
    `overwrite`; then the old folder is moved aside, replaced and removed. A killed process leaves
    `.<name>.tmp-*` behind, which the next one removes. `what` the folder is, messages say.
    """
    check_out(out, overwrite=overwrite, what=what)
    with storage_errors(out, what=what):
        out.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{out.name}.tmp-"
        _sweep(out.parent, prefix)
        scratch, lock = _scratch_folder(out.parent, prefix)
        try:
            yield scratch
            mode = _default_mode(scratch)
            for file in sorted(scratch.rglob("*")):
                if file.is_file():
                    file.chmod(mode & 0o666)  # safetensors' writer lets only the owner read
                    sync_file(file)
            scratch.chmod(mode)
            _swap_in(scratch, out)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        finally:
            os.close(lock)


def _scratch_folder(parent: Path, prefix: str) -> tuple[Path, int]:
    """A new folder, and a descriptor whose lock goes with the process, however it ends."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        with suppress(FileNotFoundError):  # a sweep may take it before it is locked
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():
                return folder, lock
            os.close(lock)


def _sweep(parent: Path, prefix: str) -> None:
    """Remove what killed processes left; a folder that is locked belongs to a living one."""
    for folder in parent.glob(f"{glob.escape(prefix)}*"):
        with suppress(OSError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def check_out(out: Path, *, overwrite: bool = False, what: str = "bundle") -> None:
    """Raises `UsageError` where `out` cannot become a new bundle folder, before any work is done."""
    if out.exists() and not out.is_dir():
        msg = f"{out}: a file; a {what} is a folder; name another place"
        raise UsageError(msg)
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        msg = (
            f"{out}: the folder is not empty; a {what} is never written over another; "
            "name a new folder, or replace it with --overwrite"
        )
        raise UsageError(msg)


@contextmanager
def storage_errors(target: Path, *, what: str = "bundle") -> Iterator[None]:
    """`StorageError` for what the disk refuses within."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        msg = f"{target}: {reason}; the {what} could not be written; free space or name a writable place"
        raise StorageError(msg) from error


def _default_mode(folder: Path) -> int:
    """Permissions that a new folder gets here."""
    probe = folder / ".mode"
    probe.mkdir()
    mode = probe.stat().st_mode & 0o777
    probe.rmdir()
    return mode


def _swap_in(scratch: Path, out: Path) -> None:
    aside: Path | None = None
    if out.exists():
        aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.old-", dir=out.parent))
        out.replace(aside)
    scratch.replace(out)
    sync_folder(out.parent)
    if aside is not None:
        shutil.rmtree(aside, ignore_errors=True)
