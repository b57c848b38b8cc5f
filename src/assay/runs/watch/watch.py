"""Look at a run, show it, wait, until it is complete."""

import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from assay.data.storage import replace_file
from assay.errors import AssayError
from assay.runs.status import Status, Watcher
from assay.runs.watch.lines import lines

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_BUSY_SHARE = 0.2
"""Of the time, at most, in which a watcher looks; a run of 100,000 parts takes seconds to list."""

Show = Callable[[Status | None, str], None]
"""Shows a status, and what went wrong with the last look, if anything did."""


def watch(
    url: str,
    *,
    every_seconds: float,
    show: Show,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.time,
) -> Status:
    """Show the run at `url` again and again; returns its last status once it is complete.

    Raises as `status` does for the first look, later a store that does not answer is told and asked again; and
    whatever `show` raises.
    """
    watcher = Watcher(url, clock=clock)
    last: Status | None = None
    while True:
        began = time.monotonic()
        try:
            last = watcher.look()
        except AssayError as error:
            if last is None:
                raise
            show(last, str(error))
        else:
            show(last, "")
            if last.is_complete:
                return last
        spent = time.monotonic() - began
        sleep(max(every_seconds, spent / MOST_BUSY_SHARE))


def write_page(
    status: Status, url: str, out: str, *, price_per_hour: float | None, refresh_seconds: float | None
) -> None:
    """Write the page of a run to a file, whole or not at all."""
    from assay.runs.watch.page import render_status

    content = render_status(
        status,
        url,
        created=f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
        price_per_hour=price_per_hour,
        refresh_seconds=None if status.is_complete else refresh_seconds,
    )
    replace_file(out, content)


@contextmanager
def terminal(*, price_per_hour: float | None) -> "Iterator[Show]":
    """Shows a run on the terminal that stdout is, drawn again at each look; as one line a look elsewhere."""
    if not sys.stdout.isatty():
        yield _print
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console()
    with Live(console=console, auto_refresh=False) as live:

        def show(status: Status | None, problem: str) -> None:
            width, height = console.size
            shown = [] if status is None else lines(status, width, price_per_hour=price_per_hour)
            if problem:
                shown.insert(0, f"asking again: {problem}"[:width])
            text = "\n".join(shown[: max(height - 1, 1)])
            live.update(Text(text, no_wrap=True, overflow="crop"), refresh=True)

        yield show


def _print(status: Status | None, problem: str) -> None:
    sys.stdout.write(f"asking again: {problem}\n" if problem else f"{status}\n")
    sys.stdout.flush()
