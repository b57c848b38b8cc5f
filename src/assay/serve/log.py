"""A JSON line on stderr for each request, reload and engine that is ready.

They are written a few times a second rather than with a system call each.
"""

import asyncio
import contextlib
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TextIO

import orjson

FLUSH_SECONDS = 0.1


class RequestLog:
    """Lines for a log collector. Lives in the event loop; `flush` writes what is left."""

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        lock: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        """Write to `stream`, by default stderr; `lock` is held meanwhile, where others write to it too."""
        self._lock = lock
        self._stream = stream or sys.stderr
        self._lines: list[str] = []
        self._timer: asyncio.TimerHandle | None = None

    def write(self, event: str, **fields: object) -> None:
        """Note a line; fields that are None are left out."""
        said = {name: value for name, value in fields.items() if value is not None}
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._lines.append(orjson.dumps({"time": time, "event": event, **said}).decode())
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Write what was noted."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._lines:
            lines, self._lines = self._lines, []
            with self._lock():
                self._stream.write("\n".join(lines) + "\n")
                self._stream.flush()
