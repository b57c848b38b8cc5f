"""The driver's side of workers on a Ray cluster: an actor each, started, heard and ended by one thread.

An actor is never restarted by Ray: the driver puts its units back and asks for another, which Ray places where there
is room; until there is, it is what an autoscaler sees as demand. An actor whose machine is lost before the worker
could say a word is asked for again from here.
"""

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError

from assay.fleet.ray.remote import RemoteWorker
from assay.processes import Json
from assay.runs.driver import WorkerSpec
from assay.runs.protocol import Command, Ended, Event, Failed, command_to_json, parse_event

POLL_SECONDS = 0.2
"""Until the thread sees that a worker is to be started."""
AGAIN_SECONDS = 2.0
"""Before another actor is asked for, in place of one that never ran; twice as long before each that follows."""
TRIES_TO_RUN = 4
"""Actors in a row that never ran, after which a worker is given up: it is not machines that come and go."""
GROW_SECONDS = 5.0
"""Between two looks for machines that joined."""
END_SECONDS = 5.0
"""For an actor to end its process, before it is killed itself."""


class Crew:
    """The workers of one run."""

    def __init__(
        self, asked: Json, options: Mapping[str, Any], *, num_workers: int, room: Callable[[], int] | None
    ) -> None:
        """`asked` is what each worker is started with, `options` what its actor needs of a machine.

        With `room`, which says how many workers the cluster could hold now, there are more where it grows.
        """
        self.specs: list[WorkerSpec] = []
        """Of the workers; more are appended while the driver runs."""
        self.asked = asked
        self._actors = ray.remote(
            max_restarts=0, max_task_retries=0, concurrency_groups={"news": 1}, **options
        )(RemoteWorker)
        self._room = room
        self._starting: queue.SimpleQueue[RayHandle] = queue.SimpleQueue()
        self._waiting: list[tuple[float, RayHandle]] = []
        """Workers that get another actor, and from when on."""
        self._calls: dict[Any, RayHandle] = {}
        """What each call that is under way is asked of."""
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ray crew", daemon=True)
        self._grow(num_workers)
        self._thread.start()

    def close(self) -> None:
        """Hear of no worker any more; those that are left go with the connection to the cluster."""
        self._is_closed.set()
        self._thread.join()

    def start(self, hear: Callable[[Event], None]) -> "RayHandle":
        """A worker that is started as soon as a machine has room for it."""
        handle = RayHandle(hear)
        self._starting.put(handle)
        return handle

    def _grow(self, num_workers: int) -> None:
        while len(self.specs) < num_workers:
            self.specs.append(
                WorkerSpec(name=f"worker {len(self.specs) + 1}", start=self.start, is_lent=True)
            )

    def _run(self) -> None:
        grown_at = time.monotonic()
        try:
            while not self._is_closed.is_set():
                self._start_new()
                self._hear()
                if self._room is not None and time.monotonic() - grown_at >= GROW_SECONDS:
                    grown_at = time.monotonic()
                    self._grow(self._room())
        except Exception as error:  # noqa: BLE001  whatever it is, the driver must not wait for it
            self._give_up(f"the Ray cluster cannot be reached any more ({_last_line(error)})")

    def _give_up(self, cause: str) -> None:
        """Say of every worker that there is, or is asked for later, that it is gone for good."""
        left = [*self._calls.values(), *(handle for _, handle in self._waiting)]
        while not self._is_closed.is_set():
            for handle in left:
                handle.give_up(cause)
            with contextlib.suppress(queue.Empty):
                left = [self._starting.get(timeout=POLL_SECONDS)]

    def _start_new(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._waiting.append((0.0, self._starting.get(block=not self._calls, timeout=POLL_SECONDS)))
        now = time.monotonic()
        due = [handle for at, handle in self._waiting if at <= now]
        self._waiting = [(at, handle) for at, handle in self._waiting if at > now]
        for handle in due:
            if call := handle.begin(self._actors, self.asked):
                self._calls[call] = handle

    def _hear(self) -> None:
        if not self._calls:
            return
        ready, _ = ray.wait(list(self._calls), num_returns=1, timeout=POLL_SECONDS)
        if ready:
            ready, _ = ray.wait(list(self._calls), num_returns=len(self._calls), timeout=0)
        for call in ready:
            handle = self._calls.pop(call)
            try:
                following = handle.take(ray.get(call))
            except RayActorError as error:
                if handle.has_started or handle.is_killed:
                    handle.lose(error)
                elif error.actor_init_failed or handle.num_tries == TRIES_TO_RUN:
                    handle.give_up(
                        f"Ray starts no actor ({_last_line(error)}); see `ray status`, and whether the cluster's "
                        f"RAY_AUTH_MODE is {os.environ['RAY_AUTH_MODE']}, as here"
                    )
                else:
                    delay = AGAIN_SECONDS * 2 ** (handle.num_tries - 1)
                    self._waiting.append((time.monotonic() + delay, handle))
                continue
            except RayError as error:
                handle.lose(error)
                continue
            if following is not None:
                self._calls[following] = handle


class RayHandle:
    """A worker on some machine of the cluster, or one that waits for a machine."""

    def __init__(self, hear: Callable[[Event], None]) -> None:
        """`hear` gets what the worker says."""
        self.has_started = False
        """Whether there was an actor that could start the worker."""
        self.is_killed = False
        self.num_tries = 0
        """Actors that were asked for."""
        self._is_lost = False
        self._host = "a machine of the cluster"
        self._hear = hear
        self._actor: Any = None
        self._lock = threading.Lock()
        self._has_ended = threading.Event()

    def send(self, command: Command) -> None:
        """Give it a command; calls to an actor keep their order."""
        if self._actor is not None:
            self._actor.tell.remote(command_to_json(command))

    def kill(self) -> None:
        """End its process, then the actor."""
        with self._lock:
            self.is_killed = True
            actor = self._actor
        if actor is None:
            return
        if self.has_started and not self._is_lost:
            with contextlib.suppress(RayError):
                ray.get(actor.end.remote(), timeout=END_SECONDS)
        with contextlib.suppress(RayError):
            ray.kill(actor)

    def wait(self, seconds: float) -> bool:
        """Whether it ended within so many seconds."""
        return self._has_ended.wait(seconds)

    # ------------------------------------------------------------ for the crew's thread

    def begin(self, actors: Any, asked: Json) -> Any:  # noqa: ANN401  Ray's own have no types
        """Ask for an actor that starts the worker; the call, or None where it is not wanted any more."""
        with self._lock:
            if not self.is_killed:
                self.num_tries += 1
                self._actor = actors.remote()
                return self._actor.start.remote(asked)
        self.say(Ended(cause="worker was not started"))
        return None

    def take(self, answer: Any) -> Any:  # noqa: ANN401
        """What a call came to; returns the call that follows, None after the last."""
        if not self.has_started:
            self._host = answer["host"]
            if answer["problem"] is not None:
                self.give_up(f"{self._host} {answer['problem']}")
                return None
            self.has_started = True
        else:
            for message in answer:
                self.say(self._with_host(parse_event(message)))
        if self._has_ended.is_set():
            return None
        return self._actor.news.options(concurrency_group="news").remote()

    def lose(self, error: RayError) -> None:
        """The actor is gone."""
        self._is_lost = True
        if isinstance(error, ActorUnavailableError):
            cause = f"{self._host} cannot be reached"
        elif "node has died" in str(error) or getattr(error, "preempted", False):
            cause = f"{self._host} is lost"
        elif isinstance(error, RayActorError) and not error.actor_init_failed:
            cause = f"its actor on {self._host} died"
        else:
            cause = _last_line(error)
        self.say(Ended(cause=cause))

    def give_up(self, cause: str) -> None:
        """It cannot be started, and could not the next time."""
        self.say(Failed(unit=None, kind=None, message=cause, trace=""))
        self.say(Ended(cause=cause))

    def say(self, event: Event) -> None:
        """Tell the driver; nothing follows `Ended`."""
        if self._has_ended.is_set():
            return
        if isinstance(event, Ended):
            self._has_ended.set()
        self._hear(event)

    def _with_host(self, event: Event) -> Event:
        """An event that a person reads names the machine."""
        match event:
            case Ended(cause=cause):
                return Ended(cause=f"{cause} on {self._host}")
            case Failed(message=message):
                return replace(event, message=f"{message} [{self._host}]")
        return event


def _last_line(error: BaseException) -> str:
    return next(reversed(str(error).strip().splitlines()), type(error).__name__)
