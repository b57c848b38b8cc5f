"""Starts the processes of a training on this machine, and ends them all when one of them ends badly.

The parent holds no model; it imports no torch. Each child gets its rank in the variables that `torchrun`
sets and the job as its one message; it says

    {"event": "result", "value": ...} | {"event": "failed", ...} | events of the training

Asked to stop, children write a checkpoint and exit with status 130. `child_main` is a child's side of this.
"""

import contextlib
import functools
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Protocol

from assay import errors, machine
from assay.errors import AssayError, WorkError
from assay.exits import INTERRUPTED
from assay.processes import (
    Exited,
    Json,
    JsonChild,
    News,
    Parent,
    Printed,
    describe_end,
    stopping_signals,
    take_stdout,
    trace_of,
)

STOP_SECONDS = 120.0
"""For children that were asked to stop: to end their step, agree, and write a checkpoint."""
FAILED_SECONDS = 2.0
"""For children whose peer is gone: they have nothing left to do."""
SETTLE_SECONDS = 1.0
"""From the first sign of a failure to the verdict: what failed first is not always seen first."""
POLL_SECONDS = 0.2

SendEvent = Callable[[Json], None]


class Ranks(Protocol):
    """The processes of a training that is about to begin."""

    @property
    def num_processes(self) -> int:
        """How many."""
        ...

    def launch(
        self, job: Json, *, way_out: Callable[[], str], on_event: Callable[[Json], None] | None = None
    ) -> object:
        """As `launch`, for a job that is the settings of a training."""
        ...


# ---------------------------------------------------------------- the parent


@dataclass(frozen=True, slots=True)
class LocalRanks:
    """Processes on this machine; see `Ranks`."""

    command: Sequence[str]
    num_processes: int
    num_threads: int | None
    """Of each."""

    def launch(
        self, job: Json, *, way_out: Callable[[], str], on_event: Callable[[Json], None] | None = None
    ) -> object:
        """As `launch`."""
        return launch(
            self.command,
            job,
            num_processes=self.num_processes,
            way_out=way_out,
            on_event=on_event,
            num_threads=self.num_threads,
        )


class _Rank:
    """A process of the training, and what is known of its end."""

    def __init__(self, rank: int, child: JsonChild) -> None:
        self.rank = rank
        self.child = child
        self.result: object = None
        self.failure: Json | None = None
        self.end: Exited | None = None

    @property
    def was_interrupted(self) -> bool:
        """Whether it stopped because it was asked to."""
        return self.end is not None and self.end.returncode == INTERRUPTED

    @property
    def failed_at(self) -> float | None:
        """When it failed, on the clock that all processes of a machine share; None where it did not."""
        if self.failure is not None:
            return float(self.failure["at"])
        if self.end is None or self.end.returncode in {0, INTERRUPTED}:
            return None
        return self.end.at

    @property
    def could_not_write(self) -> bool:
        """Whether it failed to write its checkpoint, disk full or the like."""
        return self.failure is not None and self.failure["kind"] == "StorageError"

    def verdict(self, num_processes: int, way_out: Callable[[], str]) -> AssayError:
        """The error that its failure is to the user."""
        name = f"rank {self.rank} of {num_processes}"
        if self.failure is not None:
            return error_of(name, self.failure, way_out)
        return WorkError(
            f"{describe_loss(name, self.end.returncode if self.end else 0, self.child.tail)}; {way_out()}"
        )


def launch(
    command: Sequence[str],
    job: Json,
    *,
    num_processes: int,
    way_out: Callable[[], str],
    on_event: Callable[[Json], None] | None = None,
    num_threads: int | None = None,
    stop_seconds: float = STOP_SECONDS,
) -> object:
    """Run `command` as ranks 0 to `num_processes` - 1 of one training; returns what rank 0's body returned.

    `command` is a program that calls `child_main`. `on_event` hears rank 0's events, in this thread;
    rank 0's stderr goes on to this process's. `num_threads` a process; None: the cores shared out.

    Where a child fails the others are ended, and its error is raised here: an error of ours as it is,
    anything else as WorkError naming the rank, how it ended and its last line on stderr, and ending with
    what `way_out` says. On KeyboardInterrupt children get SIGTERM and `stop_seconds` to write a
    checkpoint; a second one kills them. Children that were interrupted themselves raise it here. No child
    outlives this call, nor this process by more than `stop_seconds`.
    """
    group = _Ranks(on_event or (lambda _: None))
    try:
        group.start(command, job, num_processes=num_processes, num_threads=num_threads)
        group.wait_until(lambda: group.is_over)
        if group.has_failed:
            raise _first_to_fail(group).verdict(num_processes, way_out)
        group.pass_interrupt_on()
    except KeyboardInterrupt:
        group.terminate()
        group.wait_until(lambda: not group.running, seconds=stop_seconds)
        unsaved = next((rank for rank in group.ranks if rank.could_not_write), None)
        if unsaved is not None:
            raise unsaved.verdict(num_processes, way_out) from None
        if any(rank.end is None or rank.end.returncode != 0 for rank in group.ranks):
            raise
    finally:
        for rank in group.ranks:
            rank.child.kill()
    return group.ranks[0].result


class _Ranks:
    """The ranks, and what they say."""

    def __init__(self, on_event: Callable[[Json], None]) -> None:
        self.ranks: list[_Rank] = []
        self._on_event = on_event
        self._news: queue.SimpleQueue[tuple[int, News]] = queue.SimpleQueue()

    @property
    def running(self) -> list[_Rank]:
        return [rank for rank in self.ranks if rank.end is None]

    @property
    def has_failed(self) -> bool:
        return any(rank.failed_at is not None for rank in self.ranks)

    @property
    def is_over(self) -> bool:
        """All ended, or one failed or was interrupted, so that the others will not end well."""
        return not self.running or self.has_failed or any(rank.was_interrupted for rank in self.ranks)

    def pass_interrupt_on(self) -> None:
        """Raise KeyboardInterrupt where a rank ended of one."""
        if any(rank.was_interrupted for rank in self.ranks):
            raise KeyboardInterrupt

    def start(
        self, command: Sequence[str], job: Json, *, num_processes: int, num_threads: int | None
    ) -> None:
        """Start every rank and give it the job; rank 0 inherits the socket at which the ranks will meet."""
        threads = machine.choose_threads(num_threads, num_processes=num_processes).count
        with socket.create_server(("127.0.0.1", 0), backlog=4 * num_processes) as meeting:
            for rank in range(num_processes):
                environment = {
                    "TORCH_CPP_LOG_LEVEL": "ERROR",
                    **machine.child_environment(os.environ, num_threads=threads),
                    **_place(rank, num_processes, meeting.getsockname()[1]),
                }
                if rank == 0:
                    environment["ASSAY_STORE_FD"] = str(meeting.fileno())
                child = JsonChild(
                    command,
                    environment=environment,
                    hear=functools.partial(self._hear, rank),
                    hear_stderr=True,
                    pass_fds=(meeting.fileno(),) if rank == 0 else (),
                )
                self.ranks.append(_Rank(rank, child))
        for each in self.ranks:
            each.child.send(job)

    def _hear(self, rank: int, news: News) -> None:
        self._news.put((rank, news))

    def terminate(self) -> None:
        for rank in self.running:
            rank.child.terminate()

    def wait_until(self, is_enough: Callable[[], bool], *, seconds: float | None = None) -> None:
        """Take in news until it is enough, or for so long."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while not is_enough() and (deadline is None or time.monotonic() < deadline):
            with contextlib.suppress(queue.Empty):
                self._take(*self._news.get(timeout=POLL_SECONDS))

    def _take(self, index: int, news: News) -> None:
        rank = self.ranks[index]
        if isinstance(news, Exited):
            rank.end = news
        elif isinstance(news, Printed):
            if rank.rank == 0 and not self.has_failed:  # what a rank says of its peer's end is not news
                sys.stderr.write(news.line)
        elif news["event"] == "failed":
            rank.failure = news
        elif news["event"] == "result":
            rank.result = news["value"]
        elif rank.rank == 0:
            self._on_event(news)


def _place(rank: int, num_processes: int, port: int) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(num_processes),
        "LOCAL_WORLD_SIZE": str(num_processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _first_to_fail(group: _Ranks) -> _Rank:
    """The rank that failed first, after all others were ended.

    The others fail of its end, and may say so before its own is seen: a death without a word (but for
    abort(3), by which C++ libraries die of a peer) comes before errors, an earlier error before a later.
    """
    group.wait_until(lambda: not group.running, seconds=SETTLE_SECONDS)
    failed = [rank for rank in group.ranks if rank.failed_at is not None]
    group.terminate()
    group.wait_until(lambda: not group.running, seconds=FAILED_SECONDS)

    def order(rank: _Rank) -> tuple[bool, float]:
        aborted = rank.end is not None and rank.end.returncode == -signal.SIGABRT
        return rank.failure is not None or aborted, rank.failed_at or 0.0

    return min(failed, key=order)


def describe_loss(name: str, returncode: int, tail: Sequence[str]) -> str:
    """How a rank ended that said nothing of a failure; `tail` holds its last lines on stderr."""
    last = f"; its last line was: {tail[-1][:200]}" if tail else ""
    return f"{name} {describe_end(returncode)}{last}"


def error_of(name: str, failure: Json, way_out: Callable[[], str]) -> AssayError:
    """The error that a rank has told as `failed`; the child's traceback goes with it as a note."""
    message = str(failure["message"])
    kind = errors.KINDS.get(str(failure["kind"]))
    error = kind(message) if kind else WorkError(f"{name}: {message}; {way_out()}")
    error.add_note(str(failure["trace"]))
    return error


# ---------------------------------------------------------------- a child


def child_main(body: Callable[[Json, SendEvent], object]) -> int:
    """The whole of a child process: take the job, run `body(job, send)`, report; returns the exit status.

    SIGTERM, and the parent's end, are a KeyboardInterrupt in `body`, unless it takes signals itself
    (`stop_signals`). What `body` returns goes to the parent as JSON. What libraries print to stdout goes
    to stderr.
    """
    parent = Parent(sys.stdin, take_stdout())
    messages = parent.messages()

    def send(event: Json) -> None:
        parent.send(event)  # a parent that is gone is noticed by the end of its messages

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        job = next(messages, None)
        if job is None:
            return INTERRUPTED
        threading.Thread(target=_stop_with_parent, args=(messages,), name="parent", daemon=True).start()
        send({"event": "result", "value": body(job, send)})
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001  whatever it dies of, the parent decides what follows
        send(_failure(error))
        return 1
    return 0


def _failure(error: Exception) -> Json:
    kind = errors.kind_of(error)
    return {
        "event": "failed",
        "kind": kind,
        "message": str(error) if kind else f"{type(error).__name__}: {error}",
        "trace": trace_of(error),
        "at": time.monotonic(),
    }


def _stop_with_parent(messages: Iterator[Json]) -> None:
    """Ask this process to stop once the parent is gone, and end it where it does not."""
    for _ in messages:
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_SECONDS)
    os._exit(1)


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Inside, the first SIGINT or SIGTERM is noted for a loop that asks whether to stop; a second interrupts.

    In a thread other than the main one signals are left alone, and the answer is always no.
    """
    asked = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        del number, frame
        if asked:
            raise KeyboardInterrupt
        asked = True

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, note) for number in stopping_signals()}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
