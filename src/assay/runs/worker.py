"""One worker process: a unit in, a published part out, until told to stop.

The driver writes JSON lines to the worker's stdin and reads JSON lines from its stdout; nothing is
pickled. A closed stdin means that the driver is gone: the worker stops and publishes nothing half.

    driver -> worker   {"unit": "<name>"} | {"end": true} | {"stop": true}
    worker -> driver   {"event": "ready" | "progress" | "published" | "failed", ...}

Reading and tokenizing (`Work.prepare`) run in a thread ahead of the device (`Work.finish`), across
unit borders, so that the device does not wait between units.
"""

import contextlib
import json
import os
import queue
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TextIO, TypeVar

import pyarrow as pa

from assay.errors import AssayError, CheckError, InputError, RefusedError, StorageError, UsageError
from assay.runs.plan import Unit
from assay.runs.run import Published, Run
from assay.telemetry import Counters

T = TypeVar("T")

CHUNKS_AHEAD = 2
PROGRESS_SECONDS = 0.5

FATAL_ERRORS: dict[str, type[AssayError]] = {
    kind.__name__: kind for kind in (UsageError, InputError, RefusedError, CheckError, StorageError)
}
"""Errors that no retry can mend, by the name under which a worker reports them."""


class StopRequestedError(Exception):
    """The worker was told to stop; never leaves this module and the works that check for it."""


class Work(Protocol[T]):
    """What is done to a unit. `prepare` and `finish` run in two threads."""

    counters: Counters
    """Totals since the worker began; only `finish` changes them."""

    def prepare(self, unit: Unit) -> Iterator[T]:
        """The unit's rows, read and made ready, in order, a chunk at a time."""
        ...

    def finish(self, unit: Unit, prepared: Iterator[T]) -> Iterator[pa.RecordBatch]:
        """The rows of the unit's part, in order, in the run's part schema."""
        ...

    def stats(self) -> dict[str, Any]:
        """Figures of the unit just finished, for the part's footer."""
        ...


def run_unit(run: Run, work: Work[T], unit: Unit) -> Published:
    """Turn one unit into its part: prepare, finish, publish. The whole of the job, in one line."""
    return run.publish(unit, work.finish(unit, work.prepare(unit)), stats=work.stats)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Prepared:
    """What the preparing thread hands over: a chunk, the end of a unit, or the error that ended it."""

    unit: Unit
    chunk: Any = None
    ended: bool = False
    error: Exception | None = None


class UnitFeed:
    """Prepares units in a thread, a few chunks ahead of whoever takes them."""

    def __init__(self, work: Work[Any], should_stop: Callable[[], bool]) -> None:
        """Start the preparing thread for `work`; it ends once `should_stop` says so or at `close`."""
        self._work = work
        self._should_stop = should_stop
        self._units: queue.SimpleQueue[Unit | None] = queue.SimpleQueue()
        self._prepared: queue.Queue[_Prepared | None] = queue.Queue(maxsize=CHUNKS_AHEAD)
        self._thread = threading.Thread(target=self._prepare_units, name="prepare", daemon=True)
        self._thread.start()

    def add(self, unit: Unit) -> None:
        """Queue a unit for preparing."""
        self._units.put(unit)

    def close(self) -> None:
        """No more units will come; `next_unit` gives None after the last."""
        self._units.put(None)

    def next_unit(self) -> tuple[Unit, Iterator[Any]] | None:
        """The next unit and its prepared chunks (to be used up), or None after the last."""
        first = self._take()
        if first is None:
            return None
        return first.unit, self._chunks(first)

    def _chunks(self, first: _Prepared) -> Iterator[Any]:
        item: _Prepared | None = first
        while item is not None:
            if item.error is not None:
                raise item.error
            if item.ended:
                return
            yield item.chunk
            item = self._take()
        raise StopRequestedError

    def _take(self) -> _Prepared | None:
        while True:
            try:
                return self._prepared.get(timeout=0.1)
            except queue.Empty:
                if self._should_stop():
                    raise StopRequestedError from None

    def _put(self, item: _Prepared | None) -> None:
        while not self._should_stop():
            try:
                self._prepared.put(item, timeout=0.1)
            except queue.Full:
                continue
            return
        raise StopRequestedError

    def _prepare_units(self) -> None:
        try:
            while (unit := self._units.get()) is not None:
                try:
                    for chunk in self._work.prepare(unit):
                        self._put(_Prepared(unit=unit, chunk=chunk))
                    self._put(_Prepared(unit=unit, ended=True))
                except StopRequestedError:
                    raise
                except Exception as error:  # noqa: BLE001  any failure of a unit belongs to the taker
                    self._put(_Prepared(unit=unit, error=error))
            self._put(None)
        except StopRequestedError:
            return


class Mailbox:
    """The worker's end of the pipe to its driver."""

    def __init__(self, run: Run, commands: TextIO, events: TextIO) -> None:
        """Read commands from `commands`, write events to `events`."""
        self._units = {unit.name: unit for unit in run.manifest.units()}
        self._commands = commands
        self._events = events
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def should_stop(self) -> bool:
        """Whether the driver said stop, or is gone."""
        return self._stop.is_set()

    def send(self, event: str, **fields: object) -> None:
        """Tell the driver; a driver that is gone is a reason to stop."""
        line = json.dumps({"event": event, **fields})
        try:
            with self._lock:
                self._events.write(line + "\n")
                self._events.flush()
        except (BrokenPipeError, ValueError):
            self._stop.set()

    def listen(self, feed: UnitFeed) -> None:
        """Pass the driver's units on to `feed` from a thread of its own."""
        threading.Thread(target=self._listen, args=(feed,), name="listen", daemon=True).start()

    def _listen(self, feed: UnitFeed) -> None:
        for line in self._commands:
            command = json.loads(line)
            if "unit" in command:
                feed.add(self._units[command["unit"]])
            elif "end" in command:
                feed.close()
                return
            else:
                break
        self._stop.set()
        feed.close()


def serve_units(run: Run, work: Work[Any], mailbox: Mailbox) -> None:
    """Take units from the driver and publish their parts until it says end or stop."""
    feed = UnitFeed(work, mailbox.should_stop)
    mailbox.listen(feed)
    try:
        while (taken := feed.next_unit()) is not None:
            unit, prepared = taken
            _serve_unit(run, work, mailbox, unit, prepared)
    except StopRequestedError:
        return


def _serve_unit(run: Run, work: Work[Any], mailbox: Mailbox, unit: Unit, prepared: Iterator[Any]) -> None:
    def batches() -> Iterator[pa.RecordBatch]:
        last = time.monotonic()
        for batch in work.finish(unit, prepared):
            yield batch
            if mailbox.should_stop():
                raise StopRequestedError
            if time.monotonic() - last >= PROGRESS_SECONDS:
                last = time.monotonic()
                mailbox.send("progress", unit=unit.name, counters=work.counters.to_json())

    try:
        published = run.publish(unit, batches(), stats=work.stats)
    except StopRequestedError:
        raise
    except Exception as error:  # noqa: BLE001  whatever a unit dies of, the driver decides what follows
        with contextlib.suppress(Exception):
            deque(prepared, maxlen=0)  # what was read ahead of the failure belongs to nobody
        _send_failure(mailbox, error, unit)
    else:
        mailbox.send(
            "published",
            unit=unit.name,
            created=published.created,
            num_rows=published.num_rows,
            counters=work.counters.to_json(),
        )


def _send_failure(mailbox: Mailbox, error: Exception, unit: Unit | None) -> None:
    fatal = next((name for name, kind in FATAL_ERRORS.items() if isinstance(error, kind)), None)
    mailbox.send(
        "failed",
        unit=unit.name if unit else None,
        kind=fatal,
        message=str(error) if isinstance(error, AssayError) else f"{type(error).__name__}: {error}",
        trace="".join(traceback.format_exception(error)),
    )


def worker_main(run: Run, open_work: Callable[[Callable[[], bool]], tuple[Work[Any], str]]) -> int:
    """The body of a worker process: open the work, say ready, serve units. Returns the exit status.

    `open_work` is given a function that says whether to stop, and returns the work and a line that
    describes it (device, precision, kernels). Whatever libraries print goes to stderr.
    """
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    mailbox = Mailbox(run, sys.stdin, events)
    try:
        work, description = open_work(mailbox.should_stop)
    except Exception as error:  # noqa: BLE001  the driver reports it and decides
        _send_failure(mailbox, error, None)
        return 1
    mailbox.send("ready", description=description)
    serve_units(run, work, mailbox)
    return 0
