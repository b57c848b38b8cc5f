"""How a unit becomes a part, and how many units go through the same steps in three threads.

`run_unit` is the whole of it. A process that serves many units takes the same steps in three threads
(`Pipeline`), across unit borders, so that the device waits neither for reading nor for writing. What
takes seconds to load (`Work.load`) is loaded while the first unit is read.
"""

import concurrent.futures
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import pyarrow as pa

from assay.errors import InputError
from assay.garbage import not_collecting
from assay.runs.plan import Unit
from assay.runs.run import Published, Run
from assay.telemetry import Counters

PreparedT = TypeVar("PreparedT")
ComputedT = TypeVar("ComputedT")

CHUNKS_AHEAD = 2
"""Most chunks (and ends of units) that wait between two steps."""
WAIT_SECONDS = 0.1
"""How often whoever waits asks whether to stop."""
DEVICE_SECONDS = 60.0
"""What the device is given to end its batch; an interpreter that ends while it computes may crash."""


class StopRequestedError(Exception):
    """The worker was told to stop; never leaves this module and the works that check for it."""


class UnfitError(Exception):
    """The worker cannot do this unit and no other; never leaves this room and the works that raise it."""

    def __init__(self, cause: BaseException) -> None:
        """`cause` is what it failed of."""
        super().__init__(str(cause))
        self.cause = cause if isinstance(cause, Exception) else RuntimeError(repr(cause))


def strict_error(what: str, code: str) -> InputError:
    """The error that `--strict` stops with, at a row such as `row 7 of source a`."""
    return InputError(
        f"{what} is bad ({code}); --strict stops here; fix it, or leave --strict out to give it an error code; "
        "both need another --run"
    )


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

    @property
    def rows_in(self) -> int:
        """Rows of the unit just finished that were read, whatever came of them."""
        ...

    def stats(self) -> dict[str, Any]:
        """Figures of the unit just finished, for the part's footer."""
        ...


def run_unit(run: Run, work: Work[PreparedT, ComputedT], unit: Unit) -> Published:
    """Turn one unit into its part. The whole of the job, in one thread; the work must be loaded."""
    prepared = work.prepare(unit)
    computed = map(work.compute, prepared)
    try:
        return run.publish(unit, work.finish(unit, computed), stats=work.stats, rows_in=lambda: work.rows_in)
    except UnfitError as unfit:
        raise unfit.cause from None


@dataclass(kw_only=True, slots=True)
class _UnitState:
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
        except BaseException as error:  # noqa: BLE001  a panic in a Rust library is not an Exception
            self.is_over = True
            self.error = error if isinstance(error, Exception) else RuntimeError(repr(error))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Item:
    """What one thread hands to the next: a chunk of a unit, or its end."""

    of: _UnitState
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
                run.publish(unit, work.finish(unit, computed), rows_in=lambda: work.rows_in)

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
            under_way = _UnitState(unit=unit)
            with under_way.owning_errors():
                for chunk in self._work.prepare(unit):
                    self._prepared.put(_Item(of=under_way, chunk=chunk))
                    if under_way.is_over:
                        break
            self._prepared.put(_Item(of=under_way, is_end=True))
        self._prepared.put(None)

    def _compute_chunks(self) -> None:
        try:
            with not_collecting():
                description = self._work.load()
            self._loaded.set_result(description)
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
