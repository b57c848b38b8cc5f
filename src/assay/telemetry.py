"""Counters, progress and logging. The only module that configures logging.

On a terminal progress is a live bar; elsewhere it is one JSON line a minute on stderr, so that a
log collector can read it.
"""

import json
import logging
import math
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Self, TextIO

JSON_INTERVAL_SECONDS = 60.0
SHORTEST_RATE_SECONDS = 0.05
SMOOTHED_SECONDS = 5.0
SMOOTHED_SHARE = 0.5
"""A new end counts in full after so many seconds, or such a share of the time so far."""
SHORTEST_BAR = 8
LONGEST_BAR = 24


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
    fp32_rows: int = 0
    """Documents whose numbers were not finite in half precision, run again in fp32."""
    device_seconds: float = 0.0
    """Seconds in the forward pass."""
    members: int = 0
    """Of an ensemble: turns of members that are over."""

    def add(self, other: "Counters") -> None:
        """Add another worker's counts to these."""
        self.rows += other.rows
        self.tokens += other.tokens
        self.padded_tokens += other.padded_tokens
        self.error_rows += other.error_rows
        self.duplicate_rows += other.duplicate_rows
        self.fp32_rows += other.fp32_rows
        self.device_seconds += other.device_seconds
        self.members += other.members

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
    phase: str | None = None
    """What is done before there is a first row or part: `starting`, `loading`, `first unit`, `parity`; else None."""
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

    def to_json(self, seconds_left: float | None = None) -> dict[str, float | int | str | None]:
        """The figures as one flat JSON object."""
        return {
            "phase": self.phase,
            "units_done": self.units_done,
            "units_total": self.units_total,
            "rows_done": self.rows_done,
            "rows_total": self.rows_total,
            "docs_per_second": _rounded(self.rows_per_second),
            "tokens_per_second": round(self.tokens_per_second),
            "padding_waste": round(self.padding_waste, 4),
            "error_rows": self.counters.error_rows,
            "seconds": round(self.seconds, 1),
            "seconds_left": None if seconds_left is None else round(seconds_left),
        }


def _rounded(rate: float) -> float:
    """One decimal, or two digits of a slow rate."""
    return round(rate, 1) if rate >= 1 else float(f"{rate:.2g}")


class TimeLeft:
    """How long until all is done, from readings of what is: (0, 0), (2.5, 512), ... seconds and rows.

    Each reading tells an end, at the rate of the whole time; the answer is to a mean of these ends in which
    the later ones weigh more. So what comes in bursts, a unit or a chunk at a time, makes no jump, and at a
    steady rate the answer counts down.
    """

    def __init__(self, *, done: float) -> None:
        """Begin at 0 seconds, with so much done before."""
        self._first = done
        self._seconds = 0.0
        self._end: float | None = None

    def add(self, seconds: float, done: float, total: float) -> float | None:
        """The seconds left after a reading; None while nothing was done."""
        if done >= total:
            return 0.0
        if done > self._first and seconds > max(self._seconds, SHORTEST_RATE_SECONDS):
            end = seconds + (total - done) * seconds / (done - self._first)
            share = min(1.0, (seconds - self._seconds) / max(SMOOTHED_SECONDS, SMOOTHED_SHARE * seconds))
            self._end = end if self._end is None else self._end + share * (end - self._end)
            self._seconds = seconds
        return None if self._end is None else max(0.0, self._end - seconds)


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


def format_bytes(count: int) -> str:
    """`812 B`, `3.4 MB`, `1,234.0 PB`."""
    power = min((len(str(count)) - 1) // 3, 5)
    return f"{count / 1000**power:,.1f} {' kMGTP'[power]}B" if power else f"{count} B"


def printable(text: str) -> str:
    """A text on one line: line ends, and marks that change how a line is shown, as Python would write them."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def format_number_of(count: int, one: str, many: str | None = None) -> str:
    """`1 unit`, `12,345 units`; `many` where it is not `one` with an s."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


class Display(ABC):
    """What a command shows on stderr while it runs: a live line on a terminal, lines of JSON elsewhere."""

    def __init__(
        self, task: str, *, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Show the progress of `task`, on `stream` (stderr)."""
        self._task = task
        self._stream = stream or sys.stderr
        self._clock = clock
        self._began = self._last_line = clock()
        self._live = LiveLine(self.line) if self._stream.isatty() else None

    def __enter__(self) -> Self:
        """Begin showing."""
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop showing, leaving the last state on a terminal."""
        if self._live:
            self._live.stop()

    @abstractmethod
    def line(self, width: int) -> str:
        """What a terminal of so many columns shows now."""

    @property
    def is_live(self) -> bool:
        """Whether there is a terminal."""
        return self._live is not None

    @property
    def elapsed(self) -> float:
        """Seconds since the start of the command."""
        return self._clock() - self._began

    def is_due(self) -> bool:
        """Whether the progress is to be written: the last time was a minute ago."""
        return self._clock() - self._last_line >= JSON_INTERVAL_SECONDS

    def write_progress(self, fields: Mapping[str, object]) -> None:
        """Write the progress as a line of JSON."""
        self._last_line = self._clock()
        self.write("progress", fields)

    def write(self, event: str, fields: Mapping[str, object]) -> None:
        """Write a line of JSON."""
        self._stream.write(json.dumps({"event": event, "task": self._task, **fields}) + "\n")
        self._stream.flush()


class ProgressDisplay(Display):
    """Shows the `Progress` of a run: a live bar on a terminal, a JSON line a minute elsewhere."""

    def __init__(
        self, task: str, *, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Show the progress of `task`, on `stream` (stderr)."""
        super().__init__(task, stream=stream, clock=clock)
        self._progress: Progress | None = None
        self._time_left: TimeLeft | None = None
        self._seconds_left: float | None = None

    def update(self, progress: Progress) -> None:
        """Show where the run stands now; cheap enough to call several times a second."""
        self._progress = progress
        if self._time_left is None and progress.seconds:
            self._time_left = TimeLeft(done=progress.rows_done - progress.counters.rows)
        if self._time_left is not None:
            self._seconds_left = self._time_left.add(
                progress.seconds, progress.rows_done, progress.rows_total
            )
        if not self.is_live and self.is_due():
            self.write_progress(progress.to_json(self._seconds_left))

    def line(self, width: int) -> str:
        """What a terminal of so many columns shows now."""
        progress = self._progress
        if progress is None:
            return bar_line(self._task, 0.0, ["starting", format_duration(self.elapsed)], width)
        share = progress.rows_done / progress.rows_total if progress.rows_total else 1.0
        return bar_line(self._task, share, run_figures(progress, self._seconds_left, self.elapsed), width)


def run_figures(progress: Progress, seconds_left: float | None, elapsed: float) -> list[str]:
    """What stands behind the bar of a run, the most important first; `elapsed` from the start of the command."""
    if progress.phase is not None:
        return [progress.phase, format_duration(elapsed)]
    return [
        f"{format_rate(progress.rows_per_second)} docs/s",
        f"{format_duration(seconds_left)} left",
        f"{format_count(progress.rows_done)}/{format_count(progress.rows_total)} docs",
        f"{format_rate(progress.tokens_per_second)} tok/s",
        f"{progress.padding_waste:.0%} padding",
        f"{format_duration(elapsed)} so far",
    ]


def bar_line(title: str, share: float, figures: Sequence[str], width: int) -> str:
    """`score ━━━━━━────── 42% 12 docs/s, 1:02 left`, in at most `width` columns.

    Figures come with the most important first; the last ones are left out whole until a bar fits, the
    first two stay.
    """
    percent = f"{math.floor(100 * min(max(share, 0.0), 1.0)):3d}%"  # 100% is for the end alone
    for count in range(len(figures), 1, -1):
        text = f"{percent} {', '.join(figures[:count])}"
        room = width - len(title) - len(text) - 2
        if room >= SHORTEST_BAR:
            break
    cells = max(0, min(room, LONGEST_BAR))
    full = round(cells * min(max(share, 0.0), 1.0))
    return f"{title} {'━' * full}{'─' * (cells - full)} {text}"[:width]


class LiveLine:
    """A line on stderr that is made again four times a second; rich is imported only where there is a terminal."""

    def __init__(self, make: Callable[[int], str]) -> None:
        """Show what `make` gives for a number of columns, from `start` on."""
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        console = Console(stderr=True)
        self._live = Live(
            console=console,
            get_renderable=lambda: Text(make(console.width), no_wrap=True, overflow="crop"),
            refresh_per_second=4,
        )

    def start(self) -> None:
        """Begin showing."""
        self._live.start()

    def stop(self) -> None:
        """Stop showing, leaving the last state."""
        self._live.stop()


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
