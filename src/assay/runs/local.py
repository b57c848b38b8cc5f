"""Workers as processes of this machine: one kind of handle that a driver can hold."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence

from assay.processes import Exited, JsonChild, News, Printed, describe_end
from assay.runs.driver import WorkerSpec
from assay.runs.protocol import Command, Ended, Event, command_to_json, parse_event


class ProcessHandle:
    """A worker process; see `worker.worker_main` for its side."""

    def __init__(
        self, arguments: Sequence[str], environment: Mapping[str, str], hear: Callable[[Event], None]
    ) -> None:
        """Start the process, with `environment` added to this one's."""
        self._hear = hear
        self._child = JsonChild(arguments, environment={**os.environ, **environment}, hear=self._take)

    def send(self, command: Command) -> None:
        """Give it a command."""
        self._child.send(command_to_json(command))

    def kill(self) -> None:
        """End it by SIGKILL."""
        self._child.kill()

    def wait(self, seconds: float) -> bool:
        """Whether it ended within so many seconds."""
        return self._child.wait(seconds)

    def _take(self, news: News) -> None:
        if isinstance(news, Exited):
            self._hear(Ended(cause=f"worker {describe_end(news.returncode)}"))
        elif not isinstance(news, Printed):
            self._hear(parse_event(news))


def process_worker(
    arguments: Sequence[str], *, name: str, environment: Mapping[str, str] | None = None
) -> WorkerSpec:
    """A worker that is a process of its own: this program with these arguments."""
    return WorkerSpec(name=name, start=lambda hear: ProcessHandle(arguments, environment or {}, hear))


def python_worker(
    module: str, *arguments: str, name: str, environment: Mapping[str, str] | None = None
) -> WorkerSpec:
    """A worker that runs one of our modules in a process of its own."""
    return process_worker((sys.executable, "-m", module, *arguments), name=name, environment=environment)
