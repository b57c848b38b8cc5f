"""A worker in a thread of its driver's process, for work that is done before a process would have started.

It is driven and publishes as any other. Not covered: a crash, which ends the driver too.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

from assay.runs.driver import WorkerSpec
from assay.runs.pipeline import Work
from assay.runs.protocol import Command, Ended, Event, Json, Stop, command_to_json, parse_event
from assay.runs.run import Run
from assay.runs.worker import Mailbox, serve_run

STOP_SECONDS = 60.0
"""What it is given to end what it is at: a thread cannot be killed."""


class _Line:
    """The worker's end of the line to its driver."""

    def __init__(self, hear: Callable[[Event], None]) -> None:
        self.commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._hear = hear

    def send(self, event: Json) -> bool:
        """Tell the driver."""
        self._hear(parse_event(event))
        return True

    def messages(self) -> Iterator[Json]:
        """What the driver says; whoever listens ends after the last."""
        while True:
            yield command_to_json(self.commands.get())


class ThreadHandle:
    """A worker thread; see `worker.serve_run` for its side."""

    def __init__(self, run: Run, work: Callable[[], Work[Any, Any]], hear: Callable[[Event], None]) -> None:
        """Start the thread, which opens the work."""
        line = _Line(hear)

        def serve() -> None:
            status = serve_run(run, lambda _: work(), Mailbox(run, line))
            hear(Ended(cause=f"worker ended with status {status}"))

        self._commands = line.commands
        self._thread = threading.Thread(target=serve, name="worker", daemon=True)
        self._thread.start()

    def send(self, command: Command) -> None:
        """Give it a command."""
        self._commands.put(command)

    def kill(self) -> None:
        """End it after the batch under way."""
        self._commands.put(Stop())
        self._thread.join(STOP_SECONDS)

    def wait(self, seconds: float) -> bool:
        """Whether it ended within so many seconds."""
        self._thread.join(seconds)
        return not self._thread.is_alive()


def thread_worker(run: Run, work: Callable[[], Work[Any, Any]]) -> WorkerSpec:
    """A worker that opens this work in a thread of this process."""
    return WorkerSpec(name="the worker", start=lambda hear: ThreadHandle(run, work, hear))
