"""The driver: worker processes, handing out units, retrying, stopping.

It holds no model and no data, only who has which unit. A worker that dies costs its units' work,
nothing else: they are handed out again. The order of units makes the executor: all of them
(`local`), or one's own share first and then what others have not published (`static`).
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from assay import errors
from assay.data.scratch import sweep_scratch
from assay.errors import CheckError, InputError, RefusedError, StorageError, UnitError, UsageError, WorkError
from assay.runs.manifest import Manifest
from assay.runs.plan import Unit, helping_order, own_share
from assay.runs.run import Run, create_or_join
from assay.telemetry import Counters, Progress, format_number_of

UNITS_AHEAD = 2
TRIES_PER_UNIT = 3
STARTS_PER_WORKER = 3
POLL_SECONDS = 0.2
SETTINGS_OF_A_TRY = ("strict", "deduplicate", "max_batch_tokens", "parity_documents", "parity_tolerance")
"""What a later try might ask for anew, though workers follow the plan."""
STOP_SECONDS = 60.0
FATAL_ERRORS = (UsageError, InputError, RefusedError, CheckError, StorageError)
"""What no retry can fix, of whichever worker it comes."""

Json = dict[str, object]


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerCommand:
    """How to start one worker process."""

    name: str
    """What a person calls it: "the worker on cuda:1"."""
    arguments: tuple[str, ...]
    """Program and arguments."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to the driver's own environment: which device, how many threads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a driver leaves behind."""

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
    def idle_share(self) -> float | None:
        """Share of the time that devices had nothing to do, 0 to 1; None where none was at work."""
        if not self.counters.device_seconds or self.seconds <= 0:
            return None
        return max(0.0, 1.0 - self.counters.device_seconds / (self.seconds * self.num_workers))


class _Worker:
    """A worker process and what it was given."""

    def __init__(self, index: int, command: WorkerCommand, events: "queue.SimpleQueue[_Event]") -> None:
        self.index = index
        self.assigned: deque[Unit] = deque()
        self.counters = Counters()
        self.listening = False
        self.ready = False
        self.ended = False
        self.process = subprocess.Popen(
            command.arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **command.environment},
            encoding="utf-8",
            start_new_session=True,  # a Ctrl-C reaches the driver alone, which then stops the workers
        )
        threading.Thread(target=self._read, args=(events,), daemon=True).start()

    def _read(self, events: "queue.SimpleQueue[_Event]") -> None:
        """Pass events on until the worker is gone; closes the pipe, which nobody else touches."""
        if self.process.stdout is not None:
            with self.process.stdout as stdout:
                for line in stdout:
                    if line.endswith("\n"):  # a worker may be killed in the middle of a line
                        events.put((self, json.loads(line)))
        events.put((self, None))

    def send(self, command: Json) -> None:
        """Write a command; a worker that is gone is noticed by its closed stdout."""
        stdin = self.process.stdin
        try:
            if stdin is not None:
                stdin.write(json.dumps(command) + "\n")
                stdin.flush()
        except (BrokenPipeError, ValueError):
            return

    def end(self) -> None:
        """No more units for this worker; it exits after the last, and at once where it is still loading."""
        if not self.ended:
            self.ended = True
            if self.ready:
                self.send({"end": True})
            else:
                self.kill()

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()


_Event = tuple[_Worker, Json | None]


class Driver:
    """Hands the units of a run to worker processes until all are published."""

    def __init__(
        self,
        run: Run,
        commands: Sequence[WorkerCommand],
        *,
        rank: int = 0,
        world_size: int = 1,
        on_progress: Callable[[Progress], None] | None = None,
        on_message: Callable[[str], None] | None = None,
    ) -> None:
        """Drive `run` with one process for each of `commands`, as `rank` of `world_size` drivers.

        `on_message` hears of workers that died and units that are tried again, a line at a time.
        """
        self._target = run
        self._commands = commands
        self._on_progress = on_progress
        self._say = on_message or (lambda _: None)
        units = run.manifest.units()
        found = run.part_files()
        share = own_share(len(units), rank, world_size)
        order = [*share, *helping_order(len(units), rank, world_size)]
        self._units = {unit.name: unit for unit in units}
        self._units_total = len(units)
        self._rows_total = run.manifest.planned_rows
        self._published = {unit.name for unit in units if unit.name in found}
        self._units_found = len(self._published)
        self._rows_published = sum(unit.num_rows for unit in units if unit.name in self._published)
        self._pending = deque(units[index] for index in order if units[index].name not in self._published)
        self._published_here = 0
        self._tries: Counter[str] = Counter()
        self._failures: dict[str, str] = {}
        self._starts: Counter[int] = Counter()
        self._last_death = ""
        self._descriptions: dict[str, None] = {}
        self._lost = Counters()
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._workers: list[_Worker] = []
        self._began = time.monotonic()
        self._ready_at: float | None = None
        self._published_at: float | None = None

    @property
    def units_total(self) -> int:
        """Units of the run."""
        return self._units_total

    @property
    def units_left(self) -> int:
        """Units not published when this driver was made, or not yet handed out."""
        return len(self._pending)

    def run(self) -> Outcome:
        """Publish every unit; raises UnitError naming the units that failed three times.

        On KeyboardInterrupt the workers finish their batch, publish nothing half and exit; then the
        interrupt goes on to the caller. A second one kills them.
        """
        try:
            while self._pending and len(self._workers) < min(len(self._commands), len(self._pending)):
                self._start(len(self._workers))
            while self._workers:
                self._step()
        except BaseException:
            self._stop_workers()
            raise
        for unit in [unit for unit in self._failures if self._target.is_published(self._units[unit])]:
            del self._failures[unit]  # another driver had better luck
        if self._failures:
            shown = "; ".join(f"{unit}: {message}" for unit, message in list(self._failures.items())[:3])
            msg = (
                f"{len(self._failures)} of {self._units_total} units failed {TRIES_PER_UNIT} times ({shown}); "
                "the others are published; mend the cause and run the same command again"
            )
            raise UnitError(msg)
        return self._outcome()

    def _step(self) -> None:
        """Wait a moment for one event and act on it."""
        try:
            worker, event = self._events.get(timeout=POLL_SECONDS)
        except queue.Empty:
            self._report()
            return
        if event is None:
            self._on_exit(worker)
        elif event["event"] == "failed":
            self._on_failure(worker, event)
        else:
            self._on_news(worker, event)
        self._hand_out()
        self._report()

    def _start(self, index: int) -> None:
        self._starts[index] += 1
        self._workers.append(_Worker(index, self._commands[index], self._events))

    def _on_news(self, worker: _Worker, event: Json) -> None:
        counters = event.get("counters")
        if isinstance(counters, dict):
            worker.counters = Counters(**counters)
        if event["event"] == "listening":
            worker.listening = True
        elif event["event"] == "ready":
            worker.ready = True
            self._ready_at = self._ready_at or time.monotonic()
            self._descriptions[str(event["description"])] = None
        elif event["event"] == "published":
            unit = worker.assigned.popleft()
            self._mark_published(unit)
            self._published_here += bool(event["created"])
            self._published_at = time.monotonic()
            self._starts[worker.index] = 1

    def _on_failure(self, worker: _Worker, event: Json) -> None:
        message, kind = str(event["message"]), errors.KINDS.get(str(event["kind"]))
        if kind is not None and issubclass(kind, FATAL_ERRORS):
            raise kind(message)
        if event["unit"] is None:
            # It could not start, and would not the next time; its exit is the next event.
            self._last_death = message
            self._starts[worker.index] = STARTS_PER_WORKER
            worker.listening = False
            self._put_back(worker)
            return
        self._retry(worker.assigned.popleft(), message)

    def _on_exit(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.kill()
        self._lost.add(worker.counters)
        if worker.ended and not worker.assigned:
            return
        cause = (
            _death(worker.process.returncode) if worker.ready or not self._last_death else self._last_death
        )
        if worker.assigned and worker.ready:
            self._retry(worker.assigned.popleft(), cause)
        self._put_back(worker)
        self._last_death = cause
        name = self._commands[worker.index].name
        if not self._pending:
            self._say(f"{name} ended early ({cause}); there is nothing left for it")
        elif self._starts[worker.index] < STARTS_PER_WORKER:
            self._say(f"{name} ended early ({cause}); starting it again")
            self._start(worker.index)
        elif self._workers:
            others = format_number_of(len(self._workers), "other")
            self._say(f"{name} is given up ({cause}); going on with {others}")
        else:
            msg = (
                f"no worker is left ({cause}), {len(self._pending):,} units are; mend the cause and "
                "run the same command again"
            )
            raise WorkError(msg)

    def _put_back(self, worker: _Worker) -> None:
        """Its units are the next again; none of them was at fault."""
        self._pending.extendleft(reversed(worker.assigned))
        worker.assigned.clear()

    def _retry(self, unit: Unit, message: str) -> None:
        self._tries[unit.name] += 1
        if self._tries[unit.name] >= TRIES_PER_UNIT:
            self._failures[unit.name] = message
        else:
            self._say(f"unit {unit.name} failed ({message}); it is tried again")
            self._pending.append(unit)

    def _hand_out(self) -> None:
        """Keep every listening worker supplied; once nothing is left or under way, let them all go.

        A unit is given ahead only while there is at least one for each worker, so that the last
        units are shared out; one that is still loading gets the unit that it begins with. What
        others published in the meantime is passed over.
        """
        for worker in self._workers:
            while worker.listening and self._pending and len(worker.assigned) < self._units_ahead(worker):
                unit = self._pending.popleft()
                if self._target.is_published(unit):
                    self._mark_published(unit)
                    continue
                worker.assigned.append(unit)
                worker.send({"unit": unit.name})
        if not self._pending and not any(worker.assigned for worker in self._workers):
            for worker in self._workers:
                worker.end()

    def _units_ahead(self, worker: _Worker) -> int:
        return UNITS_AHEAD if worker.ready and len(self._pending) >= len(self._workers) else 1

    def _mark_published(self, unit: Unit) -> None:
        if unit.name not in self._published:
            self._published.add(unit.name)
            self._rows_published += unit.num_rows

    def _report(self) -> None:
        if self._on_progress is None:
            return
        counters = self._counters()
        begun = self._ready_at
        self._on_progress(
            Progress(
                units_total=self._units_total,
                units_done=len(self._published),
                rows_total=self._rows_total,
                rows_done=self._rows_published,
                counters=counters,
                seconds=time.monotonic() - begun if begun is not None else 0.0,
                num_workers=len(self._workers),
            )
        )

    def _counters(self) -> Counters:
        total = Counters()
        total.add(self._lost)
        for worker in self._workers:
            total.add(worker.counters)
        return total

    def _outcome(self) -> Outcome:
        ready_at = self._ready_at or time.monotonic()
        return Outcome(
            units_total=self._units_total,
            units_found=self._units_found,
            units_published=self._published_here,
            counters=self._counters(),
            seconds=max(0.0, (self._published_at or ready_at) - ready_at),
            ready_seconds=ready_at - self._began,
            descriptions=tuple(self._descriptions),
            num_workers=max(1, min(len(self._commands), self._units_total - self._units_found)),
        )

    def _stop_workers(self) -> None:
        deadline = time.monotonic() + STOP_SECONDS
        try:
            for worker in self._workers:
                if worker.ready:
                    worker.send({"stop": True})
                else:
                    worker.kill()  # still loading its model; nothing of it can be half
            for worker in self._workers:
                worker.process.wait(timeout=max(deadline - time.monotonic(), 0.1))
        except (KeyboardInterrupt, subprocess.TimeoutExpired):
            pass
        finally:
            for worker in self._workers:
                worker.kill()


def _death(returncode: int) -> str:
    """How a worker process ended, in words."""
    if returncode < 0:
        name = signal.Signals(-returncode).name
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        return f"worker killed by {name}{hint}"
    return f"worker exited with status {returncode}"


def python_command(
    module: str, *arguments: str, name: str, environment: Mapping[str, str] | None = None
) -> WorkerCommand:
    """The command that runs one of our modules in a process of its own."""
    return WorkerCommand(
        arguments=(sys.executable, "-m", module, *arguments),
        environment=dict(environment or {}),
        name=name,
    )


def drive_run(
    url: str,
    manifest: Manifest,
    commands: Callable[[Run], Sequence[WorkerCommand]],
    *,
    rank: int = 0,
    world_size: int = 1,
    on_progress: Callable[[Progress], None] | None = None,
    on_message: Callable[[str], None] | None = None,
) -> tuple[Run, Outcome]:
    """Create the run at `url` or join it, and work on it until every unit is published.

    `commands` gives the worker processes for the run. `on_message` hears what a person should know,
    a line at a time: "412 of 480 units are published; going on with 68.", and that a device was lost.
    """
    say = on_message or (lambda _: None)
    run, is_new = create_or_join(url, manifest)
    sweep_scratch(run.store)
    for key, value in run.manifest.settings.items():
        asked = manifest.settings.get(key)
        if key in SETTINGS_OF_A_TRY and asked != value:
            say(f"{key} stays {value}, as the run was planned with; {asked} needs a new --run.")
    driver = Driver(
        run,
        commands(run),
        rank=rank,
        world_size=world_size,
        on_progress=on_progress,
        on_message=on_message,
    )
    total, left = driver.units_total, driver.units_left
    if is_new or left == total:
        say(f"{format_number_of(total, 'unit')} to do, {format_number_of(run.manifest.planned_rows, 'row')}.")
    elif left:
        say(f"{total - left:,} of {total:,} units are published; going on with {left:,}.")
    elif total == 1:
        say("The one unit is published already; nothing to do.")
    else:
        say(f"All {total:,} units are published already; nothing to do.")
    return run, driver.run()
