"""What runs on the machines of the cluster: a look around, and an actor that holds one worker process.

The process is the one that a driver starts on its own machine, and speaks the same lines of JSON; the actor passes
them on. So a crash, a full memory or a library that prints hits the process alone, threads are set before torch is
loaded, and every kind of run works alike. Only plain values travel; the parts go from the process to the run. Where
the actor is killed, the process sees the end of its pipe and stops.

Imports no Ray: whoever calls makes actors and tasks of what is here.
"""

import importlib.metadata
import os
import platform
import socket
import sys
import threading
from collections import deque
from pathlib import Path

from assay import machine
from assay._version import __version__
from assay.errors import AssayError
from assay.processes import Exited, Json, JsonChild, News, Printed, describe_end
from assay.runs.protocol import Ended, event_to_json
from assay.runs.run import find_run

QUIET_SECONDS = 30.0
"""After which an actor with nothing to say answers all the same."""
COUNTS_SECONDS = 2.0
"""For which counts of rows wait, in case that something else is to be said."""
COUNTS = "underway"
"""The event that only counts."""


def versions() -> str:
    """What has to be the same on every machine: `Assay 0.5.0, Ray 2.60.0, Python 3.11`."""
    python = ".".join(platform.python_version_tuple()[:2])
    return f"Assay {__version__}, Ray {importlib.metadata.version('ray')}, Python {python}"


def find_problem(asked: Json) -> str | None:
    """Why this machine cannot work on the run, in words that follow its name; None where it can.

    `asked`: `versions`; for a run that there is `run` and `run_id`; `paths`, local paths with the bytes of files.
    """
    if (found := versions()) != asked["versions"]:
        return f"has {found}, and the driver {asked['versions']}; install the same everywhere"
    shared = "put it on a disk that all machines share under one path, or in a bucket"
    if "run" in asked:
        try:
            run = find_run(asked["run"])
        except AssayError as error:
            return f"cannot read the run {asked['run']} ({error})"
        if run is None or run.manifest.run_id != asked["run_id"]:
            return f"does not see the run {asked['run']}; {shared}"
    for path, num_bytes in asked.get("paths", {}).items():
        if not Path(path).exists():
            return f"does not see {path}; {shared}"
        if num_bytes is not None and Path(path).stat().st_size != num_bytes:
            return f"has another {path} than the driver; {shared}"
    return None


def find_address_problem(asked: Json) -> str | None:
    """Why this machine cannot listen on `host` and `port`, in words that follow its name; None where it can."""
    host, port = asked["host"], asked["port"]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            return (
                f"cannot listen on {host}:{port} ({error.strerror or error}); choose another --port or --host"
            )
    return None


def bf16_of_gpus() -> list[bool]:
    """Whether each GPU that PyTorch finds here computes in bf16 itself."""
    from assay.embed.place import find_gpus

    return [target.has_bf16 for target in find_gpus()]


class RemoteWorker:
    """A worker process on this machine, for a driver elsewhere.

    `start`, `tell` and `end` are called one at a time; `news` waits beside them, in a thread of its own.
    """

    def __init__(self) -> None:
        """Nothing is started yet."""
        self._child: JsonChild | None = None
        self._last_line = ""
        self._news: deque[Json] = deque()
        self._is_there = threading.Condition()

    def start(self, asked: Json) -> Json:
        """Start the worker `module` on a `device`, with `num_threads`; or say why not: see `find_problem`.

        Returns `host`, the name of this machine, and `problem`.
        """
        if (problem := find_problem(asked)) is not None:
            return {"host": socket.gethostname(), "problem": problem}
        num_threads: int = asked["num_threads"]
        arguments = (asked["run"], "--device", asked["device"], "--threads", str(num_threads))
        self._child = JsonChild(
            (sys.executable, "-m", asked["module"], *arguments),
            environment=machine.child_environment(os.environ, num_threads=num_threads),
            hear=self._take,
            hear_stderr=True,
        )
        return {"host": socket.gethostname(), "problem": None}

    def tell(self, command: Json) -> None:
        """Pass a command on."""
        if self._child is not None:
            self._child.send(command)

    def news(self) -> list[Json]:
        """What the worker said since the last call, waiting for it; of counts the latest alone."""
        with self._is_there:
            self._is_there.wait_for(lambda: bool(self._news), QUIET_SECONDS)
            self._is_there.wait_for(self._is_more_than_counts, COUNTS_SECONDS)
            said = list(self._news)
            self._news.clear()
        return [
            each for each, after in zip(said, [*said[1:], None], strict=True) if not _is_outdated(each, after)
        ]

    def end(self) -> None:
        """Kill the process and wait until it is gone."""
        if self._child is not None:
            self._child.kill()

    def _is_more_than_counts(self) -> bool:
        return not self._news or any(each["event"] != COUNTS for each in self._news)

    def _take(self, news: News) -> None:
        if isinstance(news, Printed):
            sys.stderr.write(news.line)  # into the node's logs
            self._last_line = news.line.strip() or self._last_line
            return
        if isinstance(news, Exited):
            why = f": {self._last_line}" if news.returncode > 0 and self._last_line else ""
            news = event_to_json(Ended(cause=f"worker {describe_end(news.returncode)}{why}"))
        with self._is_there:
            self._news.append(news)
            self._is_there.notify_all()


def _is_outdated(each: Json, after: Json | None) -> bool:
    return after is not None and each["event"] == after["event"] == COUNTS
