"""What the processes of one server must know of each other at once: a few numbers in memory that they share.

    row 0     the core: of each of two models, documents and tokens that wait, tokens a second
    row k     front k: of each of two models, documents and tokens that are not with the core; open documents
    buckets   how much each API key may still send, under a lock

A row is written by one process. Both ends are opened from one file descriptor, which a child inherits.
"""

import contextlib
import fcntl
import hashlib
import mmap
import os
import struct
import tempfile
from collections.abc import Iterator

import numpy as np

COLUMNS = 8
"""Numbers of a row."""
TOKENS = 1
RATE = 2
MODEL_COLUMNS = 3
"""Of one model: documents, tokens, tokens a second."""
OPEN = 6
NUM_BUCKETS = 1 << 16
_BUCKET = struct.Struct("<16sdd")
_RATES, _LOG = 0, 1
"""Bytes of the file that stand for what is locked."""


def make_board(num_fronts: int) -> int:
    """A file descriptor of a board, everything at 0; it is gone with the last process that has it."""
    size = _size(num_fronts)
    with tempfile.TemporaryFile() as file:
        file.truncate(size)
        return os.dup(file.fileno())


def _size(num_fronts: int) -> int:
    return 8 * COLUMNS * (num_fronts + 1) + NUM_BUCKETS * _BUCKET.size


class Board:
    """The shared numbers, from a process's side."""

    def __init__(self, descriptor: int, num_fronts: int) -> None:
        """Open the board of a server with so many fronts."""
        self._descriptor = descriptor
        self._memory = mmap.mmap(descriptor, _size(num_fronts))
        num_numbers = COLUMNS * (num_fronts + 1)
        self.rows = np.frombuffer(self._memory, np.float64, num_numbers).reshape(-1, COLUMNS)
        """[1 + fronts, columns]."""
        self._buckets_at = 8 * num_numbers

    def log_lock(self) -> "contextlib.AbstractContextManager[None]":
        """Held while lines are written to the log, so that those of two processes do not mix."""
        return self._locked(_LOG)

    def lock(self) -> "contextlib.AbstractContextManager[None]":
        """Held while a bucket is read and written."""
        return self._locked(_RATES)

    @contextlib.contextmanager
    def _locked(self, what: int) -> Iterator[None]:
        # the kernel gives the lock back where a process dies with it
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX, 1, what)
        try:
            yield
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, what)

    def get(self, name: str) -> tuple[float, float] | None:
        """The bucket of a key: what is left, and when that was so; None for a key that has sent nothing."""
        place, digest = self._place(name)
        found, left, at = _BUCKET.unpack_from(self._memory, place)
        return (left, at) if found == digest else None

    def set(self, name: str, left: float, at: float) -> None:
        """Write the bucket of a key."""
        place, digest = self._place(name)
        _BUCKET.pack_into(self._memory, place, digest, left, at)

    def _place(self, name: str) -> tuple[int, bytes]:
        """Where the bucket of a key is, or may be, and the digest that it bears."""
        digest = hashlib.blake2b(name.encode(), digest_size=16).digest()
        first = int.from_bytes(digest[:4], "little")
        for step in range(NUM_BUCKETS):
            place = self._buckets_at + (first + step) % NUM_BUCKETS * _BUCKET.size
            found = self._memory[place : place + 16]
            if found in (digest, bytes(16)):
                return place, digest
        # as many names as there are buckets, over the life of a server: the first of them is written over
        return self._buckets_at + first % NUM_BUCKETS * _BUCKET.size, digest
