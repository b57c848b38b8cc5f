"""Python's collector of garbage, off where looking for it costs or harms.

An import of torch or transformers makes a million objects that stay, and the collector goes through them again and
again: a fifth of the time that the import takes.
"""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_inside = 0
_was_enabled = False


@contextmanager
def not_collecting() -> Iterator[None]:
    """Within, in all threads, nothing is collected; on again once the last that is within has left."""
    global _inside, _was_enabled  # noqa: PLW0603  the collector is the process's, and so is who wants it off
    with _lock:
        if not _inside:
            _was_enabled = gc.isenabled()
            gc.disable()
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside and _was_enabled:
                gc.enable()
