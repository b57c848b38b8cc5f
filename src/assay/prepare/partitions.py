"""Hash records of all books on disk, in parts by hash: one part at a time fits in memory, however many books."""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from assay.prepare.duplicates import RECORD, Records

NUM_PARTITIONS = 64
"""Of 40 million chunks, 625,000 records of 16 bytes each."""


class Partitions:
    """Records added in any order, read back so that all of one hash come together."""

    def __init__(self, folder: Path, name: str) -> None:
        """Files `name`-00 and so on in `folder`, empty at first, gone when the block ends."""
        folder.mkdir(parents=True, exist_ok=True)
        self._paths = [folder / f"{name}-{number:02d}" for number in range(NUM_PARTITIONS)]
        self._files: list[Any] = []

    def __enter__(self) -> Self:
        self._files = [path.open("wb") for path in self._paths]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file, path in zip(self._files, self._paths, strict=True):
            file.close()
            path.unlink(missing_ok=True)

    def add(self, records: Records) -> None:
        """Add records, of a book at a time or of many."""
        numbers = (records["hash"] >> np.uint64(58)).astype(np.int64)
        order = np.argsort(numbers, kind="stable")
        bounds = np.searchsorted(numbers[order], np.arange(NUM_PARTITIONS + 1))
        ordered = records[order]
        for number in np.flatnonzero(np.diff(bounds)).tolist():
            self._files[number].write(ordered[bounds[number] : bounds[number + 1]].tobytes())

    def read(self) -> Iterator[Records]:
        """All records, a partition at a time."""
        for file, path in zip(self._files, self._paths, strict=True):
            file.flush()
            yield np.fromfile(path, dtype=RECORD)


def records_of(hashes: Any, book: int) -> Records:  # noqa: ANN401  signed or unsigned
    """The records of a book's hashes, numbered by their places."""
    records = np.zeros(len(hashes), dtype=RECORD)
    records["hash"] = np.asarray(hashes).view(np.uint64)
    records["book"] = book
    records["position"] = np.arange(len(hashes))
    return records
