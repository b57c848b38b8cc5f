"""Starts the processes of a training on this machine, and ends them all when one of them ends badly.

The parent holds no model; it imports no torch. Each child gets its rank in the variables that `torchrun`
sets, the job as a line of JSON on stdin, and writes events as lines of JSON to stdout:

    parent -> child   the job; the pipe then stays open, and its end means that the parent is gone
    child -> parent   {"event": "result", "value": ...} | {"event": "failed", ...} | events of the training

Nothing is pickled. Children are sessions of their own, so that Ctrl-C reaches the parent alone, which then
asks them to stop: they write a checkpoint and exit with status 130. `child_main` is a child's side of this.
"""

import collections
import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from assay import errors, machine
from assay.errors import AssayError, WorkError

EXIT_INTERRUPTED = 130
STOP_SECONDS = 120.0
"""For children that were asked to stop: to end their step, agree, and write a checkpoint."""
FAILED_SECONDS = 2.0
"""For children whose peer is gone: they have nothing left to do."""
SETTLE_SECONDS = 1.0
"""From the first sign of a failure to the verdict: what failed first is not always seen first."""
POLL_SECONDS = 0.2
DRAIN_SECONDS = 5.0
TAIL_LINES = 20

Json = dict[str, object]
Send = Callable[[Json], None]


# ---------------------------------------------------------------- the parent


class _Child:
    """A process of the training, and what is known of its end."""

    def __init__(self, rank: int, process: "subprocess.Popen[str]", news: "queue.SimpleQueue[_News]") -> None:
        self.rank = rank
        self.process = process
        self.tail: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
        self.result: object = None
        self.failure: Json | None = None
        self.returncode: int | None = None
        self.ended_at = 0.0
        self._news = news
        self._readers = [
            threading.Thread(target=reader, daemon=True) for reader in (self._read_events, self._read_lines)
        ]
        for thread in (*self._readers, threading.Thread(target=self._wait, daemon=True)):
            thread.start()

    def _read_events(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stdout:
            for line in stdout:
                event = _parse(line)
                self._news.put((self, line if event is None else event))

    def _read_lines(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stderr:
            for line in stderr:
                if line.strip():
                    self.tail.append(line.strip())
                    self._news.put((self, line))

    def _wait(self) -> None:
        self.process.wait()
        ended_at = time.monotonic()
        # A process that the child left behind may hold its pipes open.
        for reader in self._readers:
            reader.join(DRAIN_SECONDS if self.process.returncode == 0 else SETTLE_SECONDS / 4)
        self._news.put((self, ended_at))

    def give(self, job: Json) -> None:
        """Write the job; a child that is gone is noticed by its end."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(job) + "\n")
            self.process.stdin.flush()

    def terminate(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()

    @property
    def failed_at(self) -> float | None:
        """When it failed, on the clock that all processes of a machine share; None where it did not."""
        if self.failure is not None:
            at = self.failure.get("at")
            return at if isinstance(at, float) else self.ended_at
        return self.ended_at if self.returncode not in {None, 0, EXIT_INTERRUPTED} else None

    @property
    def could_not_write(self) -> bool:
        """Whether it failed to write its checkpoint, disk full or the like."""
        return self.failure is not None and self.failure["kind"] == "StorageError"


def _parse(line: str) -> Json | None:
    """An event, None for what a library printed at import or what a kill cut off."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None


_News = tuple[_Child, Json | str | float]


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
    group = _Group(on_event or (lambda _: None))
    try:
        group.start(command, job, num_processes=num_processes, num_threads=num_threads)
        group.wait_until(lambda: group.is_over)
        if group.has_failed:
            raise _verdict(_first_to_fail(group), num_processes, way_out)
        group.pass_interrupt_on()
    except KeyboardInterrupt:
        group.terminate()
        group.wait_until(lambda: not group.running, seconds=stop_seconds)
        unsaved = next((child for child in group.children if child.could_not_write), None)
        if unsaved is not None:
            raise _verdict(unsaved, num_processes, way_out) from None
        if any(child.returncode != 0 for child in group.children):
            raise
    finally:
        for child in group.children:
            child.kill()
    return group.children[0].result


class _Group:
    """The children, and what they say."""

    def __init__(self, on_event: Callable[[Json], None]) -> None:
        self.children: list[_Child] = []
        self._on_event = on_event
        self._news: queue.SimpleQueue[_News] = queue.SimpleQueue()

    @property
    def running(self) -> list[_Child]:
        return [child for child in self.children if child.returncode is None]

    @property
    def has_failed(self) -> bool:
        return any(child.failed_at is not None for child in self.children)

    @property
    def is_over(self) -> bool:
        """All ended, or one failed or was interrupted, so that the others will not end well."""
        interrupted = any(child.returncode == EXIT_INTERRUPTED for child in self.children)
        return not self.running or self.has_failed or interrupted

    def pass_interrupt_on(self) -> None:
        """Raise KeyboardInterrupt where a child ended of one."""
        if any(child.returncode == EXIT_INTERRUPTED for child in self.children):
            raise KeyboardInterrupt

    def start(
        self, command: Sequence[str], job: Json, *, num_processes: int, num_threads: int | None
    ) -> None:
        """Start every child and give it the job; rank 0 inherits the socket at which the ranks will meet."""
        threads = machine.choose_threads(num_threads, num_processes=num_processes).count
        with socket.create_server(("127.0.0.1", 0), backlog=4 * num_processes) as meeting:
            for rank in range(num_processes):
                environment = {
                    **_quiet_defaults(threads),
                    **os.environ,
                    "OMP_NUM_THREADS": str(threads),
                    "RAYON_NUM_THREADS": str(threads),
                    **_place(rank, num_processes, meeting.getsockname()[1]),
                }
                if rank == 0:
                    environment["ASSAY_STORE_FD"] = str(meeting.fileno())
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env=environment,
                    pass_fds=(meeting.fileno(),) if rank == 0 else (),
                    encoding="utf-8",
                    errors="replace",
                    start_new_session=True,  # a Ctrl-C reaches the parent alone
                )
                self.children.append(_Child(rank, process, self._news))
        for child in self.children:
            child.give(job)

    def terminate(self) -> None:
        for child in self.running:
            child.terminate()

    def wait_until(self, is_enough: Callable[[], bool], *, seconds: float | None = None) -> None:
        """Take in news until it is enough, or for so long."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while not is_enough() and (deadline is None or time.monotonic() < deadline):
            with contextlib.suppress(queue.Empty):
                self._take(*self._news.get(timeout=POLL_SECONDS))

    def _take(self, child: _Child, news: Json | str | float) -> None:
        if isinstance(news, float):
            child.returncode, child.ended_at = child.process.returncode, news
        elif isinstance(news, str):
            if child.rank == 0 and not self.has_failed:  # what a rank says of its peer's end is not news
                sys.stderr.write(news)
        elif news["event"] == "failed":
            child.failure = news
        elif news["event"] == "result":
            child.result = news["value"]
        elif child.rank == 0:
            self._on_event(news)


def _quiet_defaults(threads: int) -> dict[str, str]:
    """What children's libraries are told, unless the user's environment says otherwise."""
    return {"TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false", "TORCH_CPP_LOG_LEVEL": "ERROR"}


def _place(rank: int, num_processes: int, port: int) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(num_processes),
        "LOCAL_WORLD_SIZE": str(num_processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _first_to_fail(group: _Group) -> _Child:
    """The child that failed first, after all others were ended.

    The others fail of its end, and may say so before its own is seen: a death without a word (but for
    abort(3), by which C++ libraries die of a peer) comes before errors, an earlier error before a later.
    """
    group.wait_until(lambda: not group.running, seconds=SETTLE_SECONDS)
    failed = [child for child in group.children if child.failed_at is not None]
    group.terminate()
    group.wait_until(lambda: not group.running, seconds=FAILED_SECONDS)

    def order(child: _Child) -> tuple[bool, float]:
        spoke = child.failure is not None or child.returncode == -signal.SIGABRT
        return spoke, child.failed_at or 0.0

    return min(failed, key=order)


def _verdict(child: _Child, num_processes: int, way_out: Callable[[], str]) -> AssayError:
    """The error that a child's failure is to the user; the child's traceback goes with it as a note."""
    failure = child.failure
    if failure is None:
        last = f"; its last line was: {child.tail[-1][:200]}" if child.tail else ""
        how = _death(child.returncode or 0)
        return WorkError(f"rank {child.rank} of {num_processes} {how}{last}; {way_out()}")
    message = str(failure["message"])
    kind = errors.KINDS.get(str(failure["kind"]))
    error = (
        kind(message) if kind else WorkError(f"rank {child.rank} of {num_processes}: {message}; {way_out()}")
    )
    error.add_note(str(failure["trace"]))
    return error


def _death(returncode: int) -> str:
    if returncode < 0:
        name = signal.Signals(-returncode).name
        return f"was killed by {name}{' (out of memory?)' if name == 'SIGKILL' else ''}"
    return f"exited with status {returncode}"


# ---------------------------------------------------------------- a child


def child_main(body: Callable[[Json, Send], object]) -> int:
    """The whole of a child process: take the job, run `body(job, send)`, report; returns the exit status.

    SIGTERM, and the parent's end, are a KeyboardInterrupt in `body`, unless it takes signals itself
    (`stop_signals`). What `body` returns goes to the parent as JSON. What libraries print to stdout goes
    to stderr.
    """
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    lock = threading.Lock()

    def send(event: Json) -> None:
        with lock, contextlib.suppress(BrokenPipeError):  # a parent that is gone is noticed on stdin
            events.write(json.dumps(event) + "\n")
            events.flush()

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        line = sys.stdin.readline()
        if not line:
            return EXIT_INTERRUPTED
        threading.Thread(target=_stop_with_parent, name="parent", daemon=True).start()
        send({"event": "result", "value": body(json.loads(line), send)})
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
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
        "trace": "".join(traceback.format_exception(error)),
        "at": time.monotonic(),
    }


def _stop_with_parent() -> None:
    """Ask this process to stop once the parent is gone, and end it where it does not."""
    while sys.stdin.readline():
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
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
