"""Counters, progress and logging. The only module that configures logging.

On a terminal progress is a live bar; elsewhere it is one JSON line a minute on stderr, so that a
log collector can read it.
"""

import json
import logging
import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Self, TextIO

JSON_INTERVAL_SECONDS = 60.0
SHORTEST_RATE_SECONDS = 0.05


@dataclass(kw_only=True, slots=True)
class Counters:
    """What has been worked on so far. Not thread-safe; one writer."""

    rows: int = 0
    """Documents finished."""
    tokens: int = 0
    """Tokens of these documents, special tokens included."""
    padded_tokens: int = 0
    """Tokens that the device computed on, padding included; equals `tokens` where nothing is padded."""
    error_rows: int = 0
    """Documents that became a row with an error code."""
    duplicate_rows: int = 0
    """Documents whose token sequence had been run already."""
    device_seconds: float = 0.0
    """Seconds in the forward pass."""

    def add(self, other: "Counters") -> None:
        """Add another worker's counts to these."""
        self.rows += other.rows
        self.tokens += other.tokens
        self.padded_tokens += other.padded_tokens
        self.error_rows += other.error_rows
        self.duplicate_rows += other.duplicate_rows
        self.device_seconds += other.device_seconds

    def to_json(self) -> dict[str, float]:
        """The counts as a JSON object."""
        return asdict(self)


@dataclass(kw_only=True, slots=True)
class Progress:
    """Where a run stands, as its driver sees it."""

    units_total: int
    units_done: int
    """Published, by anyone."""
    rows_total: int
    rows_done: int
    """Rows in published parts, plus rows under way here."""
    counters: Counters = field(default_factory=Counters)
    """What this driver's workers did since it began."""
    seconds: float = 0.0
    """Since this driver's first worker was ready."""
    num_workers: int = 0

    @property
    def rows_per_second(self) -> float:
        """Documents a second since the first worker was ready."""
        return self.counters.rows / self.seconds if self.seconds > SHORTEST_RATE_SECONDS else 0.0

    @property
    def tokens_per_second(self) -> float:
        """Real tokens a second since the first worker was ready."""
        return self.counters.tokens / self.seconds if self.seconds > SHORTEST_RATE_SECONDS else 0.0

    @property
    def padding_waste(self) -> float:
        """Share of the tokens computed on that was padding, 0 to 1."""
        padded = self.counters.padded_tokens
        return max(0.0, 1.0 - self.counters.tokens / padded) if padded else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Time to the end at the present rate; None while there is no rate."""
        rate = self.rows_per_second
        return (self.rows_total - self.rows_done) / rate if rate > 0 else None

    def to_json(self) -> dict[str, float | int | None]:
        """The figures as one flat JSON object."""
        left = self.seconds_left
        return {
            "units_done": self.units_done,
            "units_total": self.units_total,
            "rows_done": self.rows_done,
            "rows_total": self.rows_total,
            "docs_per_second": round(self.rows_per_second, 1),
            "tokens_per_second": round(self.tokens_per_second),
            "padding_waste": round(self.padding_waste, 4),
            "error_rows": self.counters.error_rows,
            "seconds": round(self.seconds, 1),
            "seconds_left": None if left is None else round(left),
        }


def format_duration(seconds: float | None) -> str:
    """`1:02:03` or `2:03` for people; `-` where unknown."""
    if seconds is None:
        return "-"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def format_count(count: float) -> str:
    """`12,345` below a million, `1.23M` or `1.23G` above."""
    for limit, suffix in ((1e9, "G"), (1e6, "M")):
        if abs(count) >= limit:
            return f"{count / limit:.2f}{suffix}"
    return f"{count:,.0f}"


def format_rate(rate: float) -> str:
    """`0.031`, `4.3`, `88`, `12,345`, `1.23M`: two digits at least, so that no rate above 0 is shown as 0."""
    if not 0 < abs(rate) < 10:
        return format_count(rate)
    digits = 1 - math.floor(math.log10(abs(rate)))
    return f"{rate:.{digits}f}"


def format_number_of(count: int, one: str, many: str | None = None) -> str:
    """`1 unit`, `12,345 units`; `many` where it is not `one` with an s."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


class ProgressDisplay:
    """Shows `Progress` on stderr: a live bar on a terminal, a JSON line a minute elsewhere."""

    def __init__(
        self, title: str, *, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Show progress under `title`, on `stream` (stderr)."""
        self._title = title
        self._stream = stream or sys.stderr
        self._clock = clock
        self._last_line = clock()
        self._bar = LiveBar(title) if self._stream.isatty() else None

    def __enter__(self) -> Self:
        """Begin showing."""
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop showing, leaving the last state on a terminal."""
        if self._bar:
            self._bar.stop()

    def update(self, progress: Progress) -> None:
        """Show where the run stands now; cheap enough to call several times a second."""
        if self._bar:
            figures = (
                f"{format_count(progress.rows_done)}/{format_count(progress.rows_total)} docs, "
                f"{format_count(progress.rows_per_second)} docs/s, "
                f"{format_count(progress.tokens_per_second)} tok/s, "
                f"{progress.padding_waste:.0%} padding, {format_duration(progress.seconds_left)} left"
            )
            self._bar.update(progress.rows_done, progress.rows_total, figures)
        elif self._clock() - self._last_line >= JSON_INTERVAL_SECONDS:
            self._last_line = self._clock()
            line = {"event": "progress", "task": self._title, **progress.to_json()}
            self._stream.write(json.dumps(line) + "\n")
            self._stream.flush()


class LiveBar:
    """A bar with a line of figures on stderr; rich is imported only where there is a terminal to show it on."""

    def __init__(self, title: str) -> None:
        """Show a bar under `title` from `start` on."""
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._rich = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}% {task.fields[figures]}"),
            console=Console(stderr=True),
            refresh_per_second=4,
        )
        self._task = self._rich.add_task(title, total=None, figures="starting")

    def start(self) -> None:
        """Begin showing."""
        self._rich.start()

    def stop(self) -> None:
        """Stop showing, leaving the last state."""
        self._rich.stop()

    def update(self, done: float, total: float, figures: str) -> None:
        """Show that `done` of `total` is done, and the figures."""
        self._rich.update(self._task, completed=done, total=max(total, 1), figures=figures)


def configure_logging(*, debug: bool = False) -> None:
    """Send warnings (everything with `debug`) to stderr and keep chatty libraries quiet."""
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
        force=True,
    )
    for name in ("urllib3", "botocore", "filelock", "fsspec"):
        logging.getLogger(name).setLevel(logging.WARNING)
