"""The progress of an ensemble run: a bar of batches above a bar of members. Imports nothing heavy."""

import time
from collections.abc import Callable
from typing import TextIO

from assay.telemetry import Progress, ProgressDisplay, bar_line, format_count, format_duration


class EnsembleDisplay(ProgressDisplay):
    """Two live bars on a terminal, a JSON line a minute elsewhere."""

    def __init__(
        self,
        num_members: int,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Show the progress of so many members, on `stream` (stderr)."""
        super().__init__("ensemble", stream=stream, clock=clock)
        self._num_members = num_members
        self._now: Progress | None = None
        self._found = 0

    def update(self, progress: Progress) -> None:
        """Show where the run stands now."""
        if self._now is None:
            self._found = progress.units_done  # before this command
        self._now = progress
        super().update(progress)

    def line(self, width: int) -> str:
        """What a terminal of so many columns shows now, on two lines."""
        now = self._now
        if now is None or now.phase in {"starting", "loading"}:
            return super().line(width)
        turns = now.units_total * self._num_members
        turns_done = min(turns, self._found * self._num_members + now.counters.members)
        batches = [
            f"{now.units_done:,}/{now.units_total:,} batches",
            f"{format_duration(self.elapsed)} so far",
        ]
        members = [
            f"{format_count(turns_done)}/{format_count(turns)} members",
            f"{self._num_members:,} a batch",
        ]
        return "\n".join(
            (
                bar_line("batches", now.units_done / max(now.units_total, 1), batches, width),
                bar_line("members", turns_done / max(turns, 1), members, width),
            )
        )
