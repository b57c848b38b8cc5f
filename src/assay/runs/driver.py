"""The driver: units handed out to workers, handed out again, and published until none is left.

It holds no model and no data, only who has which unit, and knows its workers by small handles: a process
(`local.py`), an actor elsewhere, or a fake in a test. A worker that dies costs its units' work, nothing
else: they are handed out again. Which unit is next, `supply.py` says: all of them in order where a driver is alone;
one's own share first, and then what others have neither published nor claimed, in company.
"""

import contextlib
import queue
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from assay import errors
from assay.errors import CheckError, InputError, RefusedError, StorageError, UnitError, UsageError, WorkError
from assay.runs.agenda import TRIES_PER_UNIT
from assay.runs.notes import State
from assay.runs.plan import Unit
from assay.runs.protocol import (
    Command,
    Done,
    Ended,
    Event,
    Failed,
    Finish,
    Listening,
    Loaded,
    Loading,
    Phase,
    Stop,
    Take,
    UnderWay,
)
from assay.runs.run import Run
from assay.runs.supply import open_supply
from assay.telemetry import Counters, Progress, format_number_of

STARTS_PER_WORKER = 3
UNITS_IN_A_ROW = 3
"""Units that fail one after the other in one worker, of what has no name here, before the worker is taken for sick."""
POLL_SECONDS = 0.2
GRACE_SECONDS: Mapping[int, float] = {signal.SIGTERM: 20.0, signal.SIGUSR1: 90.0}
"""For units under way: most schedulers leave half a minute after SIGTERM; SIGUSR1 comes as early as one asks."""
STOP_SECONDS = 60.0
PHASES: tuple[Phase, ...] = ("starting", "loading", "parity")
"""Of a worker, in order, before its first part."""
FATAL_ERRORS = (UsageError, InputError, RefusedError, CheckError, StorageError)
"""What no retry can fix, of whichever worker it comes."""


class Handle(Protocol):
    """A worker that was started, wherever it runs. What it says goes to the `hear` it was started with."""

    def send(self, command: Command) -> None:
        """Give it a command; one that is gone is noticed by `Ended`, not by an error here."""
        ...

    def kill(self) -> None:
        """End it at once and wait until it is gone; does nothing to one that is."""
        ...

    def wait(self, seconds: float) -> bool:
        """Whether it ended within so many seconds."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerSpec:
    """A worker that can be started, and started again."""

    name: str
    """What a person calls it: "the worker on cuda:1"."""
    start: Callable[[Callable[[Event], None]], Handle]
    """Start it, with what hears its events (from any thread), `Ended` last."""
    is_lent: bool = False
    """Whether what it runs on is someone else's: it is let go as soon as nothing is left for it, not with the last."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a driver leaves behind, once every unit is published."""

    units_total: int
    units_found: int
    """Published before this driver began."""
    units_published: int
    """Published by this driver's workers."""
    counters: Counters
    seconds: float
    """From the first worker being ready to the last part."""
    ready_seconds: float
    """From the start of the driver to the first worker being ready."""
    descriptions: tuple[str, ...]
    """What the workers said of themselves, distinct."""
    num_workers: int = 1
    """Workers that were started at first."""

    @property
    def units_by_others(self) -> int:
        """Published while this driver ran, by the workers of others."""
        return self.units_total - self.units_found - self.units_published

    @property
    def idle_share(self) -> float | None:
        """Share of the time that devices had nothing to do, 0 to 1; None where none was at work."""
        if not self.counters.device_seconds or self.seconds <= 0:
            return None
        return max(0.0, 1.0 - self.counters.device_seconds / (self.seconds * self.num_workers))


class _Worker:
    """A worker that was started, and what it was given."""

    def __init__(self, index: int, spec: WorkerSpec, events: "queue.SimpleQueue[_News]") -> None:
        self.index = index
        self.assigned: deque[Unit] = deque()
        self.counters = Counters()
        self.phase: Phase = "starting"
        self.rows_before = 0
        """Rows that it had counted when it began with the unit it is at."""
        self.free_since = 0.0
        """When it began with the unit it is at, at the earliest."""
        self.unit_seconds: float | None = None
        """How long it took for a unit, lately."""
        self.listening = False
        self.ready = False
        self.ended = False
        self.failed: set[str] = set()
        """Units that failed here since the last that was done; a device in a bad state fails all that come after."""
        self.is_sick = False
        """Nothing that it still says counts."""
        self.handle = spec.start(lambda event: events.put((self, event)))

    def took(self, seconds: float) -> None:
        """It did a unit in so many seconds."""
        self.unit_seconds = seconds if self.unit_seconds is None else (3 * self.unit_seconds + seconds) / 4

    def end(self) -> None:
        """No more units for this worker; it exits after the last, and at once where it is still loading."""
        if not self.ended:
            self.ended = True
            if self.ready:
                self.handle.send(Finish())
            else:
                self.handle.kill()


_News = tuple[_Worker, Event]


class Driver:
    """Hands the units of a run to workers until all are published."""

    def __init__(
        self,
        run: Run,
        workers: Sequence[WorkerSpec],
        *,
        rank: int = 0,
        world_size: int = 1,
        joins: bool = False,
        on_progress: Callable[[Progress], None] | None = None,
        on_message: Callable[[str], None] | None = None,
    ) -> None:
        """Drive `run` with these workers, as `rank` of `world_size` drivers, or as one that `joins` to help.

        `workers` may grow meanwhile: more are started then, while there is something to give them.
        `on_message` hears of workers that died and units that are tried again, a line at a time.
        """
        self._target = run
        self._specs = workers
        self._on_progress = on_progress
        self._say = on_message or (lambda _: None)
        self._units = run.units
        self._numbers = {unit.name: number for number, unit in enumerate(self._units)}
        self._rows_total = run.manifest.planned_rows
        self._units_done = 0
        self._rows_published = 0
        self._supply, self._board = open_supply(
            run,
            rank=rank,
            world_size=world_size,
            joins=joins,
            num_workers=len(workers),
            on_published=self._mark_published,
        )
        self._units_found = self._units_done
        self._published_here = 0
        self._failures: dict[str, str] = {}
        self._starts: Counter[int] = Counter()
        self._last_death = ""
        self._descriptions: dict[str, None] = {}
        self._lost = Counters()
        self._events: queue.SimpleQueue[_News] = queue.SimpleQueue()
        self._workers: list[_Worker] = []
        self._began = time.monotonic()
        self._ready_at: float | None = None
        self._published_at: float | None = None

    @property
    def units_total(self) -> int:
        """Units of the run."""
        return len(self._units)

    @property
    def units_left(self) -> int:
        """Units not published when this driver was made, or not yet handed out."""
        return self._supply.num_open

    @property
    def knows_all(self) -> bool:
        """Whether `units_left` is exact: a command among many does not list a large run to start."""
        return self._supply.knows_all

    def run(self) -> Outcome:
        """Publish every unit; raises UnitError naming the units that failed three times.

        On KeyboardInterrupt the workers finish their batch, publish nothing half and exit; then the
        interrupt goes on to the caller. Where it names a signal of a scheduler, they may publish the units
        they are at first, for as long as such a signal leaves. A second one kills them.
        """
        try:
            self._start_new()
            while self._workers:
                self._step()
            self._find_failures()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                self._finish_begun(next((GRACE_SECONDS.get(number, 0.0) for number in error.args), 0.0))
            self._stop_workers()
            self._leave("drained" if isinstance(error, KeyboardInterrupt) else "failed")
            raise
        self._leave("failed" if self._failures else "finished")
        if self._failures:
            shown = "; ".join(f"{unit}: {message}" for unit, message in list(self._failures.items())[:3])
            msg = (
                f"{len(self._failures)} of {len(self._units)} units failed {TRIES_PER_UNIT} times ({shown}); "
                "the others are published; fix the cause and run the same command again"
            )
            raise UnitError(msg)
        return self._outcome()

    def _step(self) -> None:
        """Wait a moment for one event and act on it."""
        try:
            worker, event = self._events.get(timeout=POLL_SECONDS)
        except queue.Empty:
            self._hand_out()
            self._report()
            return
        if isinstance(event, Ended):
            self._on_end(worker, event)
        elif worker.is_sick:
            pass
        elif isinstance(event, Failed):
            self._on_failure(worker, event)
        else:
            self._on_news(worker, event)
        self._hand_out()
        self._report()

    def _start_new(self) -> None:
        """Start workers that never were, while there is a unit for each that has none."""
        num_idle = sum(not worker.assigned for worker in self._workers)
        while len(self._starts) < len(self._specs) and num_idle < self._supply.num_open:
            self._start(len(self._starts))
            num_idle += 1

    def _start(self, index: int) -> None:
        self._starts[index] += 1
        self._workers.append(_Worker(index, self._specs[index], self._events))

    def _on_news(self, worker: _Worker, event: Listening | Loading | Loaded | UnderWay | Done) -> None:
        match event:
            case Listening():
                worker.listening, worker.phase = True, "loading"
            case Loading(phase=phase):
                worker.phase = phase
            case Loaded(description=description):
                worker.ready, worker.free_since = True, time.monotonic()
                self._ready_at = self._ready_at or time.monotonic()
                self._descriptions[description] = None
            case UnderWay(counters=counters):
                worker.counters = counters
            case Done(created=created, counters=counters):
                worker.counters, worker.rows_before = counters, counters.rows
                now = time.monotonic()
                worker.took(now - worker.free_since)
                self._supply.done(self._numbers[worker.assigned.popleft().name], now - worker.free_since)
                self._published_here += created
                self._published_at = worker.free_since = now
                self._starts[worker.index] = 1
                worker.failed.clear()

    def _on_failure(self, worker: _Worker, event: Failed) -> None:
        kind = errors.KINDS.get(event.kind or "")
        if kind is not None and issubclass(kind, FATAL_ERRORS):
            raise kind(event.message)
        if event.unit is None:
            # It cannot do its work, and could not the next time; its end is the next event.
            self._starts[worker.index] = STARTS_PER_WORKER
            self._give_none(worker, event.message)
            return
        worker.rows_before, worker.free_since = worker.counters.rows, time.monotonic()
        self._retry(worker.assigned.popleft(), event.message)
        if kind is None:
            worker.failed.add(event.unit)
        if len(worker.failed) == UNITS_IN_A_ROW:
            worker.is_sick = True
            self._give_none(worker, event.message)
            worker.handle.kill()

    def _give_none(self, worker: _Worker, cause: str) -> None:
        """It does no unit any more, of this cause; its end is one of the next events."""
        self._last_death = cause
        worker.listening = worker.ready = False
        self._put_back(worker)

    def _on_end(self, worker: _Worker, event: Ended) -> None:
        self._workers.remove(worker)
        worker.handle.kill()
        self._lost.add(worker.counters)
        if worker.ended and not worker.assigned:
            return
        cause = event.cause if worker.ready or not self._last_death else self._last_death
        if worker.assigned and worker.ready:
            self._retry(worker.assigned.popleft(), cause)
        self._put_back(worker)
        self._last_death = cause
        name = self._specs[worker.index].name
        left = self._supply.num_open
        if not left:
            self._say(f"{name} ended early ({cause}); there is nothing left for it")
        elif self._starts[worker.index] < STARTS_PER_WORKER:
            self._say(f"{name} ended early ({cause}); starting it again")
            self._start(worker.index)
        elif self._workers:
            others = format_number_of(len(self._workers), "other")
            self._say(f"{name} is given up ({cause}); going on with {others}")
        else:
            msg = (
                f"no worker is left ({cause}), {format_number_of(left, 'unit')} to do; fix the cause and "
                "run the same command again"
            )
            raise WorkError(msg)

    def _put_back(self, worker: _Worker) -> None:
        """Its units are the next again; none of them was at fault."""
        for unit in reversed(worker.assigned):
            self._supply.put_back(self._numbers[unit.name])
        worker.assigned.clear()

    def _retry(self, unit: Unit, message: str) -> None:
        if self._supply.failed(self._numbers[unit.name], message):
            self._failures[unit.name] = message
        else:
            self._say(f"unit {unit.name} failed ({message}); it is tried again")

    def _find_failures(self) -> None:
        """What was set aside, here or elsewhere, and is not published by one that had better luck."""
        names = {self._units[number].name for number in self._supply.aside} | self._failures.keys()
        found = {name: self._failures.get(name) for name in sorted(names)}
        self._failures = {
            name: message or self._board.last_message(name) or "as others noted"
            for name, message in found.items()
            if not self._target.is_published(self._units[self._numbers[name]])
        }

    def _hand_out(self) -> None:
        """Keep every listening worker supplied; once nothing is left or under way, let them all go.

        A unit is given ahead only while there is at least one for each worker, so that the last
        units are shared out; one that is still loading gets the unit that it begins with.
        """
        self._supply.keep_up(
            units=tuple(unit.name for worker in self._workers for unit in worker.assigned),
            units_published=self._published_here,
            rows=self._counters().rows,
        )
        for worker in self._workers:
            while worker.listening and len(worker.assigned) < self._units_for(worker):
                number = self._supply.take()
                if number is None:
                    break
                worker.assigned.append(self._units[number])
                worker.handle.send(Take(self._units[number].name))
        if self._supply.is_over and not any(worker.assigned for worker in self._workers):
            for worker in self._workers:
                worker.end()
        self._start_new()
        self._let_go()

    def _let_go(self) -> None:
        """End lent workers for which nothing is left, those that are not ready first."""
        idle = [worker for worker in self._workers if not worker.assigned and not worker.ended]
        for worker in sorted(idle, key=lambda each: each.ready)[: max(len(idle) - self._supply.num_open, 0)]:
            if self._specs[worker.index].is_lent:
                worker.end()

    def _units_for(self, worker: _Worker) -> int:
        if not worker.ready:
            return 1
        wanted = self._supply.units_for(len(worker.assigned), worker.unit_seconds, len(self._workers))
        are_others_at_work = any(each.assigned for each in self._workers if each is not worker)
        return wanted if are_others_at_work else max(wanted, 1)

    def _mark_published(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._units_done += 1
            self._rows_published += self._units[number].num_rows

    def _report(self) -> None:
        if self._on_progress is None:
            return
        begun = self._ready_at
        under_way = sum(worker.counters.rows - worker.rows_before for worker in self._workers)
        self._on_progress(
            Progress(
                units_total=len(self._units),
                units_done=self._units_done,
                rows_total=self._rows_total,
                rows_done=min(self._rows_published + under_way, self._rows_total),
                phase=self._phase(),
                counters=self._counters(),
                seconds=time.monotonic() - begun if begun is not None else 0.0,
                num_workers=len(self._workers),
            )
        )

    def _phase(self) -> str | None:
        """What the worker that is furthest is doing, while none has counted a row, or none has passed its gate."""
        if self._published_at is not None:
            return None
        ready = [worker for worker in self._workers if worker.ready]
        if ready and all(worker.phase == "parity" for worker in ready):
            return "parity"
        if self._counters().rows:
            return None
        if ready:
            return "first unit"
        phases = [worker.phase for worker in self._workers]
        return max(phases, key=PHASES.index, default="starting")

    def _leave(self, state: State) -> None:
        self._board.leave(state, units_published=self._published_here, rows=self._counters().rows)

    def _counters(self) -> Counters:
        total = Counters()
        total.add(self._lost)
        for worker in self._workers:
            total.add(worker.counters)
        return total

    def _outcome(self) -> Outcome:
        ready_at = self._ready_at or time.monotonic()
        return Outcome(
            units_total=len(self._units),
            units_found=self._units_found,
            units_published=self._published_here,
            counters=self._counters(),
            seconds=max(0.0, (self._published_at or ready_at) - ready_at),
            ready_seconds=ready_at - self._began,
            descriptions=tuple(self._descriptions),
            num_workers=max(1, min(len(self._specs), len(self._units) - self._units_found)),
        )

    def _finish_begun(self, seconds: float) -> None:
        """Let workers publish the unit that each is at, for so many seconds; nothing more is given."""
        deadline = time.monotonic() + seconds
        begun = [(worker, worker.assigned[0]) for worker in self._workers if worker.ready and worker.assigned]
        if not seconds or not begun:
            return
        units = format_number_of(len(begun), "unit is", "units are")
        self._say(f"told to stop: {units} under way and published if done within {seconds:.0f} s")
        with contextlib.suppress(KeyboardInterrupt):
            while time.monotonic() < deadline and any(
                worker.assigned and worker.assigned[0] is unit for worker, unit in begun
            ):
                try:
                    worker, event = self._events.get(timeout=POLL_SECONDS)
                except queue.Empty:
                    continue
                if isinstance(event, Ended | Failed):
                    worker.assigned.clear()
                else:
                    self._on_news(worker, event)

    def _stop_workers(self) -> None:
        deadline = time.monotonic() + STOP_SECONDS
        try:
            for worker in self._workers:
                if worker.ready:
                    worker.handle.send(Stop())
                else:
                    worker.handle.kill()  # still loading its model; nothing of it can be half
            for worker in self._workers:
                if not worker.handle.wait(max(deadline - time.monotonic(), 0.1)):
                    break
        except KeyboardInterrupt:
            pass
        finally:
            for worker in self._workers:
                worker.handle.kill()
