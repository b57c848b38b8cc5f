"""What was written survives a loss of power. Imports nothing heavy, for those who write a single file."""

import errno
import os
import uuid
from pathlib import Path


def replace_local(target: Path, content: bytes) -> None:
    """Write a file in one step, over what is there; a reader sees the old or the new one."""
    staged = target.with_name(f".{target.name[:100]}.{uuid.uuid4().hex[:8]}")
    try:
        staged.write_bytes(content)
        sync_file(staged)
        staged.replace(target)
        sync_folder(target.parent)
    finally:
        staged.unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    """Make what was written to a file survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a loss of power: what was made, renamed or removed there."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network filesystems cannot sync a folder; their rename is durable or nothing is.
        if error.errno not in {errno.EINVAL, errno.EOPNOTSUPP}:
            raise
    finally:
        os.close(descriptor)
