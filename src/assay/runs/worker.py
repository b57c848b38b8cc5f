"""One worker process: a unit in, a published part out, until told to stop.

The driver writes JSON lines to the worker's stdin and reads JSON lines from its stdout; nothing is
pickled. A closed stdin means that the driver is gone: the worker stops and publishes nothing half.

    driver -> worker   {"unit": "<name>"} | {"end": true} | {"stop": true}
    worker -> driver   {"event": "listening" | "ready" | "progress" | "published" | "failed", ...}

`run_unit` says how a unit becomes a part. A process that serves many units takes the same steps in
three threads (`Pipeline`), across unit borders, so that the device waits neither for reading nor
for writing. Units are taken from "listening" on: what takes seconds to load (`Work.load`) is loaded
while the first of them is read; "ready" is said once it is there.
"""

import concurrent.futures
import contextlib
import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self, TextIO, TypeVar

import pyarrow as pa

from assay import errors
from assay.errors import AssayError
from assay.runs.plan import Unit
from assay.runs.run import Published, Run
from assay.telemetry import Counters

PreparedT = TypeVar("PreparedT")
ComputedT = TypeVar("ComputedT")

CHUNKS_AHEAD = 2
"""Most chunks (and ends of units) that wait between two steps."""
WAIT_SECONDS = 0.1
"""How often whoever waits asks whether to stop."""
PROGRESS_SECONDS = 0.5
DEVICE_SECONDS = 60.0
"""What the device is given to end its batch; an interpreter that ends while it computes may crash."""


class StopRequestedError(Exception):
    """The worker was told to stop; never leaves this module and the works that check for it."""


class Work(Protocol[PreparedT, ComputedT]):
    """What is done to a unit. `prepare`, `compute` and `finish` may run in three threads."""

    counters: Counters
    """Totals since the worker began; only `finish` changes them."""

    def load(self) -> str:
        """Get ready to compute, in the thread that will; returns a line on device, precision, kernels."""
        ...

    def prepare(self, unit: Unit) -> Iterator[PreparedT]:
        """The unit's rows, read and made ready, in order, a chunk at a time; may begin before `load`."""
        ...

    def compute(self, chunk: PreparedT) -> ComputedT:
        """What the device makes of a chunk; after `load`."""
        ...

    def finish(self, unit: Unit, computed: Iterator[ComputedT]) -> Iterator[pa.RecordBatch]:
        """The rows of the unit's part, in order, in the run's part schema."""
        ...

    def stats(self) -> dict[str, Any]:
        """Figures of the unit just finished, for the part's footer."""
        ...


def run_unit(run: Run, work: Work[PreparedT, ComputedT], unit: Unit) -> Published:
    """Turn one unit into its part. The whole of the job, in one thread; the work must be loaded."""
    prepared = work.prepare(unit)
    computed = map(work.compute, prepared)
    return run.publish(unit, work.finish(unit, computed), stats=work.stats)


@dataclass(kw_only=True, slots=True)
class _UnderWay:
    """A unit on its way through the threads."""

    unit: Unit
    is_over: bool = False
    """It failed, or was given up: nothing more of it need be prepared or computed."""
    error: Exception | None = None
    """What it failed of; raised at its end, to whoever takes its chunks."""
    computed_from: float = 0.0
    """When its first chunk was taken up, unix seconds; 0 before."""

    @contextlib.contextmanager
    def owning_errors(self) -> Iterator[None]:
        """Whatever is raised within belongs to this unit alone."""
        try:
            yield
        except StopRequestedError:
            raise
        except BaseException as error:  # noqa: BLE001  a panic in a Rust library is no Exception
            self.is_over = True
            self.error = error if isinstance(error, Exception) else RuntimeError(repr(error))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Item:
    """What one thread hands to the next: a chunk of a unit, or its end."""

    of: _UnderWay
    chunk: Any = None
    is_end: bool = False


class _Channel:
    """A bounded queue between two threads, both of which are let go when told to stop. None ends it."""

    def __init__(self, should_stop: Callable[[], bool]) -> None:
        self._should_stop = should_stop
        self._queue: queue.Queue[_Item | None] = queue.Queue(maxsize=CHUNKS_AHEAD)

    def put(self, item: _Item | None) -> None:
        while not self._should_stop():
            with contextlib.suppress(queue.Full):
                return self._queue.put(item, timeout=WAIT_SECONDS)
        raise StopRequestedError

    def get(self) -> _Item | None:
        while not self._should_stop():
            with contextlib.suppress(queue.Empty):
                return self._queue.get(timeout=WAIT_SECONDS)
        raise StopRequestedError


class Pipeline:
    """Prepares and computes units in two threads, a few chunks ahead of whoever finishes them.

        with Pipeline(work, should_stop) as pipeline:
            pipeline.add(unit)
            pipeline.close()
            for unit, computed in pipeline.units():
                run.publish(unit, work.finish(unit, computed), stats=work.stats)

    `unit_started_at` says when the unit given last was taken up, unix seconds: once the unit before it
    was done, or once something of it was computed. The work is loaded and computes in one and the
    same thread: a CUDA device is current by thread.
    """

    def __init__(self, work: Work[Any, Any], should_stop: Callable[[], bool]) -> None:
        """Start both threads; they end after the last unit, or once `should_stop` says so."""
        self._work = work
        self._was_stopped = should_stop
        self._ended = threading.Event()
        self._units: queue.SimpleQueue[Unit | None] = queue.SimpleQueue()
        self._prepared = _Channel(self._should_stop)
        self._computed = _Channel(self._should_stop)
        self._loaded: concurrent.futures.Future[str] = concurrent.futures.Future()
        self.unit_started_at = 0.0
        self._preparing = self._start("prepare", self._prepare_units)
        self._computing = self._start("compute", self._compute_chunks)

    def __enter__(self) -> Self:
        """The pipeline itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the threads; waits for the batch on the device, but for no loading."""
        self._ended.set()
        self.close()
        if self._loaded.done():
            self._computing.join(DEVICE_SECONDS)

    def add(self, unit: Unit) -> None:
        """Queue a unit."""
        self._units.put(unit)

    def close(self) -> None:
        """No more units will come; `units` ends after the last."""
        self._units.put(None)

    def load(self) -> str:
        """Wait until the work is loaded; what `Work.load` returned or raised."""
        while not self._should_stop():
            if concurrent.futures.wait([self._loaded], WAIT_SECONDS).done:
                return self._loaded.result()
        raise StopRequestedError

    def units(self) -> Iterator[tuple[Unit, Iterator[Any]]]:
        """Each unit with its computed chunks, in the order added, once the work is loaded.

        The chunks raise what preparing or computing them raised. Those left when the next unit is
        asked for are thrown away.
        """
        self.load()
        taken = None
        free_since = time.time()
        while (item := self._computed.get()) is not None:
            if item.of is taken:
                continue
            taken = item.of
            # its time is its own: what was computed of it ahead, while the unit before was written, is not
            self.unit_started_at = max(free_since, item.of.computed_from)
            yield taken.unit, self._chunks(item)
            taken.is_over = True
            free_since = time.time()

    def _chunks(self, item: _Item | None) -> Iterator[Any]:
        while item is not None and not item.is_end:
            yield item.chunk
            item = self._computed.get()
        if item is not None and item.of.error is not None:
            raise item.of.error

    def _prepare_units(self) -> None:
        while (unit := self._units.get()) is not None:
            under_way = _UnderWay(unit=unit)
            with under_way.owning_errors():
                for chunk in self._work.prepare(unit):
                    self._prepared.put(_Item(of=under_way, chunk=chunk))
                    if under_way.is_over:
                        break
            self._prepared.put(_Item(of=under_way, is_end=True))
        self._prepared.put(None)

    def _compute_chunks(self) -> None:
        try:
            self._loaded.set_result(self._work.load())
        except StopRequestedError:
            raise
        except BaseException as error:  # noqa: BLE001  raised to whoever waits in `load`
            self._loaded.set_exception(error)
            return
        while (item := self._prepared.get()) is not None:
            if item.is_end:
                self._computed.put(item)
            elif not item.of.is_over:
                item.of.computed_from = item.of.computed_from or time.time()
                with item.of.owning_errors():
                    computed = self._work.compute(item.chunk)
                    self._computed.put(_Item(of=item.of, chunk=computed))
        self._computed.put(None)

    def _should_stop(self) -> bool:
        return self._ended.is_set() or self._was_stopped()

    def _start(self, name: str, steps: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                steps()
            except BaseException as error:  # one thread that ends early ends them all
                self._ended.set()
                if not isinstance(error, StopRequestedError):
                    raise

        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        return thread


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

    def listen(self, pipeline: Pipeline) -> None:
        """Pass the driver's units on to `pipeline` from a thread of its own."""
        threading.Thread(target=self._listen, args=(pipeline,), name="listen", daemon=True).start()

    def _listen(self, pipeline: Pipeline) -> None:
        for line in self._commands:
            command = json.loads(line)
            if "unit" in command:
                pipeline.add(self._units[command["unit"]])
            elif "end" in command:
                pipeline.close()
                return
            else:
                break
        self._stop.set()
        pipeline.close()


def serve_units(run: Run, work: Work[Any, Any], mailbox: Mailbox) -> None:
    """Take units from the driver and publish their parts until it says end or stop.

    Raises what loading the work raised.
    """
    with Pipeline(work, mailbox.should_stop) as pipeline, contextlib.suppress(StopRequestedError):
        mailbox.listen(pipeline)
        mailbox.send("listening")
        mailbox.send("ready", description=pipeline.load())
        for unit, computed in pipeline.units():
            _serve_unit(run, work, mailbox, unit, computed, pipeline.unit_started_at)


def _serve_unit(
    run: Run, work: Work[Any, Any], mailbox: Mailbox, unit: Unit, computed: Iterator[Any], started_at: float
) -> None:
    def batches() -> Iterator[pa.RecordBatch]:
        last = time.monotonic()
        for batch in work.finish(unit, computed):
            yield batch
            if mailbox.should_stop():
                raise StopRequestedError
            if time.monotonic() - last >= PROGRESS_SECONDS:
                last = time.monotonic()
                mailbox.send("progress", unit=unit.name, counters=work.counters.to_json())

    try:
        published = run.publish(unit, batches(), stats=lambda: {**work.stats(), "started_at": started_at})
    except StopRequestedError:
        raise
    except Exception as error:  # noqa: BLE001  whatever a unit dies of, the driver decides what follows
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
    mailbox.send(
        "failed",
        unit=unit.name if unit else None,
        kind=errors.kind_of(error),
        message=str(error) if isinstance(error, AssayError) else f"{type(error).__name__}: {error}",
        trace="".join(traceback.format_exception(error)),
    )


def worker_main(run: Run, open_work: Callable[[Callable[[], bool]], Work[Any, Any]]) -> int:
    """The body of a worker process: open the work, serve units. Returns the exit status.

    `open_work` is given a function that says whether to stop, and returns the work, not yet loaded.
    Whatever libraries print goes to stderr.
    """
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    mailbox = Mailbox(run, sys.stdin, events)
    try:
        serve_units(run, open_work(mailbox.should_stop), mailbox)
    except Exception as error:  # noqa: BLE001  it could not start; the driver reports it and decides
        _send_failure(mailbox, error, None)
        return 1
    return 0
