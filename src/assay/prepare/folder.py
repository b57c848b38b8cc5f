"""The folder of a data set while it is made: nothing of others lies in it, and one command works there at a time."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from assay.data.locking import locked
from assay.errors import RefusedError

WORK = "work"
"""Folder of what is made on the way, within the data set's."""
LOCK = "lock"
REPORT_FILE = "report.json"
RECIPE_FILE = "train.toml"
_OURS = (
    LOCK,
    "books.arrow",
    "candidate_books.",
    "candidates-",
    "chunks-",
    "pair_books.",
    "pairs-",
    "sample.parquet",
    "scores-",
    "shelf-",
    "vectors-",
)
"""What names in the folder of work begin with; staged files have a full stop before."""
_SHOWN = 3


@contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """Within the block `folder` is there, and this process alone makes a data set in it.

    Raises RefusedError where it holds files of others, or where another process is at work in it; and
    StorageError where it cannot be made.
    """
    refuse_others(folder)
    is_new = not folder.exists()
    busy = f"another command is making a data set in {folder}; wait for it, or use another --out"
    with locked(folder / WORK / LOCK, busy):
        for name in (RECIPE_FILE, REPORT_FILE):
            for left in folder.glob(f".{name}.*"):
                left.unlink()  # of a command that was killed as it wrote them
        try:
            yield
        finally:
            if is_new and {path.name for path in (folder / WORK).iterdir()} <= {LOCK, "books.arrow"}:
                shutil.rmtree(folder)  # there were no books, or none that can be used


def refuse_others(folder: Path) -> None:
    """Raise RefusedError where a folder holds something, and nothing shows that it is a data set of ours."""
    if not folder.is_dir():
        return
    names = sorted(path.name for path in folder.iterdir())
    if names and not _is_ours(folder / WORK):
        more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
        raise RefusedError(
            f"{folder} holds other files ({', '.join(names[:_SHOWN])}{more}), which might be written over; "
            "use an --out that is new or empty"
        )


def _is_ours(work: Path) -> bool:
    return work.is_dir() and all(path.name.lstrip(".").startswith(_OURS) for path in work.iterdir())
