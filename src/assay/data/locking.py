"""One command at a time in a folder: a lock file that ends with its process."""

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from assay.data.storage import writing
from assay.errors import RefusedError


@contextmanager
def locked(path: Path, refusal: str) -> Iterator[None]:
    """Within the block this process alone holds the lock file `path`, made with its folder.

    Raises RefusedError with `refusal` where another process holds it, and StorageError where it cannot be made. Some
    network filesystems have no locks: there all may enter.
    """
    with writing(str(path.parent)):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RefusedError(refusal) from error
        except OSError as error:
            if error.errno not in {errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL}:
                raise
        yield
