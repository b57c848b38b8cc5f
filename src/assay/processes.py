"""Child processes: start one, talk to it, end it, and say how it ended. Both ends of the pipe.

    parent -> child   lines of JSON on stdin; the end of the pipe means that the parent is gone
    child -> parent   lines of JSON on stdout, each an object with a key "event"

Nothing is pickled. A child is a session of its own, so that Ctrl-C reaches the parent alone, which then
decides what its children do. Not covered: what the messages mean, and whether a child is started again.
"""

import collections
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, TextIO, TypeAlias

DRAIN_SECONDS = 5.0
"""For what a child that ended well has left in its pipes; a process that it left behind may hold them open."""
DRAIN_FAILED_SECONDS = 0.25
TAIL_LINES = 20

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Printed:
    """A line that is not an event: from a library, or cut off by a kill."""

    line: str
    """With its line end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exited:
    """The last news of a child."""

    returncode: int
    """Negative for the signal that killed it."""
    at: float
    """`time.monotonic`, which all processes of a machine share."""


News: TypeAlias = Json | Printed | Exited


# ---------------------------------------------------------------- the parent's end


def spawn(
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    stdin: int,
    stdout: int | None = None,
    stderr: int | None = None,
    pass_fds: Collection[int] = (),
    folder: str | None = None,
) -> "subprocess.Popen[bytes]":
    """A process of ours with exactly this environment, in a session of its own; in this folder or in `folder`."""
    return subprocess.Popen(
        arguments,
        env=environment,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        pass_fds=pass_fds,
        cwd=folder,
        start_new_session=True,
    )


class JsonChild:
    """A child that speaks in lines of JSON. `hear` gets its news, from threads, `Exited` last."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        hear: Callable[[News], None],
        hear_stderr: bool = False,
        pass_fds: Collection[int] = (),
        folder: str | None = None,
    ) -> None:
        """Start it, with `environment` as its whole environment, in this folder or in `folder`.

        With `hear_stderr` its stderr comes as `Printed` lines, the last of which `tail` holds; without,
        it goes to this process's.
        """
        self.tail: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
        self._hear = hear
        self._process = spawn(
            arguments,
            environment=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if hear_stderr else None,
            pass_fds=pass_fds,
            folder=folder,
        )
        self._readers = [
            threading.Thread(target=read, args=(pipe,), daemon=True)
            for read, pipe in (
                (self._read_events, self._process.stdout),
                (self._read_lines, self._process.stderr),
            )
            if pipe is not None
        ]
        for thread in (*self._readers, threading.Thread(target=self._wait_for_end, daemon=True)):
            thread.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def send(self, message: Json) -> None:
        """Write a message; a child that is gone is noticed by its end."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def terminate(self) -> None:
        """Ask it to stop, by SIGTERM."""
        if self._process.poll() is None:
            self._process.terminate()

    def kill(self) -> None:
        """End it at once, and wait until it is gone; whatever is left of it is cleaned up."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def wait(self, seconds: float) -> bool:
        """Whether it ended within so many seconds."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _read_events(self, pipe: IO[bytes]) -> None:
        with pipe:
            for line in pipe:
                event = _parse(line)
                self._hear(Printed(line=line.decode(errors="replace")) if event is None else event)

    def _read_lines(self, pipe: IO[bytes]) -> None:
        with pipe:
            for line in pipe:
                text = line.decode(errors="replace")
                if text.strip():
                    self.tail.append(text.strip())
                    self._hear(Printed(line=text))

    def _wait_for_end(self) -> None:
        returncode = self._process.wait()
        ended_at = time.monotonic()
        for reader in self._readers:
            reader.join(DRAIN_FAILED_SECONDS if returncode else DRAIN_SECONDS)
        self._hear(Exited(returncode=returncode, at=ended_at))


def _parse(line: bytes) -> Json | None:
    """An event, or None for any other line."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None


def describe_end(returncode: int) -> str:
    """How a process ended, in words that follow its name: "exited with status 3", "was killed by SIGKILL"."""
    if returncode >= 0:
        return f"exited with status {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:  # a real-time signal has no name
        name = f"signal {-returncode}"
    return f"was killed by {name}{' (out of memory?)' if name == 'SIGKILL' else ''}"


def stopping_signals() -> list[signal.Signals]:
    """SIGINT and SIGTERM, but for one that this process was started to ignore (`nohup`, `&` in a script)."""
    both = (signal.SIGINT, signal.SIGTERM)
    return [number for number in both if signal.getsignal(number) is not signal.SIG_IGN]


# ---------------------------------------------------------------- the child's end


def take_stdout() -> TextIO:
    """The stdout of this process, for events alone: what libraries print goes to stderr from now on."""
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return events


class Parent:
    """The process that started this one, as seen from here. Any thread may send."""

    def __init__(self, messages: TextIO, events: TextIO) -> None:
        """Hear it on `messages`, tell it on `events`; in a process of its own stdin and `take_stdout()`."""
        self._messages = messages
        self._events = events
        self._lock = threading.Lock()

    def send(self, event: Json) -> bool:
        """Tell it; False where it is gone."""
        line = json.dumps(event) + "\n"
        try:
            with self._lock:
                self._events.write(line)
                self._events.flush()
        except (BrokenPipeError, ValueError):
            return False
        return True

    def messages(self) -> Iterator[Json]:
        """What it says, until it is gone."""
        for line in self._messages:
            if line.endswith("\n"):  # the parent may be killed in the middle of a line
                yield json.loads(line)


def trace_of(error: BaseException) -> str:
    """The traceback of an error, for the parent to show where it is asked for."""
    return "".join(traceback.format_exception(error))
