"""`assay serve` on a Ray cluster: a replica for each device, behind the proxies of Ray Serve.

SIGTERM, SIGINT   no new requests, answer what was accepted, end with status 0
SIGHUP            every replica reads the bundle again and gets the keys as they are now
"""

import contextlib
import io
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import Any

from ray import serve
from ray.exceptions import RayError

from assay.errors import InputError, UsageError, WorkError
from assay.fleet.ray.cluster import RayCluster, needs
from assay.fleet.ray.replica import Gate, Replica
from assay.processes import Json, stopping_signals
from assay.runs.placement import Placement
from assay.serve.keys import hashed_entries, read_keys
from assay.serve.placement import bundle_folders
from assay.serve.settings import ServeSettings
from assay.serve.verb import check_bundle, is_loopback, need_server_packages, warnings

APPLICATION = "assay"
KEEP_ALIVE_SECONDS = 75
POLL_SECONDS = 0.5
WATCH_SECONDS = 5.0
END_SECONDS = 30.0
"""Beyond the drain, for replicas and proxies to end."""
MORE_REQUESTS = 256
"""A replica gets, beyond those that may wait in it: to refuse them itself, and for probes."""
QUIET_SECONDS = 2.0
"""For Ray to have said what it says of the end of its own actors."""
RELOAD_SECONDS = 30.0
"""For every replica to say that it reloads."""
STARTS = 2
"""Of a replica, before the start is given up."""
GOOD = "RUNNING"
FAILED = "DEPLOY_FAILED"


def serve_on(cluster: RayCluster, settings: ServeSettings, say: Callable[[str], None]) -> None:
    """Serve the bundle on the cluster until SIGTERM or SIGINT; see `serve.verb.serve`.

    Raises UsageError where Ray Serve runs there already, where there is no room for so many replicas or where the
    address cannot be had, InputError where a machine does not see the bundle.
    """
    need_server_packages()
    check_bundle(settings)
    keys = read_keys(settings.keys_file, os.environ)
    for warning in warnings(settings, keys):
        say(warning)
    _refuse_running(cluster)
    placement = cluster.place_at_once(settings.devices, num_threads=settings.num_threads, work="a server")
    folders = {
        str(path): None for path in (Path(settings.bundle).absolute(), *bundle_folders(settings.bundle))
    }
    if problem := cluster.first_problem_with(folders):
        raise InputError(problem)
    if problem := cluster.address_problem(settings.host, settings.port):
        raise UsageError(problem)
    _Served(settings, placement, say).run()


def _refuse_running(cluster: RayCluster) -> None:
    """Raise UsageError where Ray Serve runs: its address is fixed, and may be that of others."""
    found = serve.status()
    if found.proxies or found.applications:
        names = ", ".join(found.applications) or "no application"
        msg = (
            f"Ray Serve runs on {cluster.name} already, with {names}; its address cannot be changed; "
            "end it first with `serve shutdown` on a machine of the cluster"
        )
        raise UsageError(msg)


class _Served:
    """The application on the cluster, and the signals that this process gets for it."""

    def __init__(self, settings: ServeSettings, placement: Placement, say: Callable[[str], None]) -> None:
        self._settings = settings
        self._placement = placement
        self._say = say
        self._handle: Any = None
        self._num_stops = 0
        self._is_to_reload = False

    def run(self) -> None:
        settings = self._settings
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        is_local = is_loopback(settings.host)
        address = f"http://{host}:{settings.port}"
        where = "of the head node" if is_local else "of the head node and of each machine with a replica"
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        with self._signals():
            try:
                self._say(f"workers: {self._placement}")
                serve.start(
                    proxy_location="HeadOnly" if is_local else "EveryNode",
                    http_options={
                        "host": settings.host,
                        "port": settings.port,
                        "keep_alive_timeout_s": KEEP_ALIVE_SECONDS,
                    },
                    logging_config={"enable_access_log": False},
                )
                self._deploy()
                self._say(f"listening on {address} {where}, loading {settings.bundle}")
                if self._wait_until_ready():
                    self._say(f"ready on {address} {where}")
                    self._watch()
                if self._num_stops:
                    self._say("stopping: answering what was accepted")
            except (RayError, RuntimeError) as error:
                msg = f"Ray Serve ended: {_last_line(str(error))}; see `serve status` and its logs"
                raise WorkError(msg) from error
            finally:
                with contextlib.suppress(RayError, RuntimeError):
                    self._end()

    def _deploy(self) -> None:
        """Begin to start the replicas."""
        settings = self._settings
        own: Json = asdict(
            replace(
                settings,
                bundle=str(Path(settings.bundle).absolute()),
                keys_file=None if settings.keys_file is None else str(Path(settings.keys_file).absolute()),
                devices="1",
                num_threads=self._placement.threads.count if self._placement.kind == "cpu" else None,
            )
        )
        made: Any = serve.deployment(serve.ingress(Gate())(Replica))
        target = made.options(
            name="server",
            num_replicas=self._placement.num_workers,
            ray_actor_options=needs(self._placement.kind, self._placement.threads.count),
            max_ongoing_requests=settings.max_queue + MORE_REQUESTS,
            max_constructor_retry_count=STARTS,
            graceful_shutdown_timeout_s=settings.drain_seconds + END_SECONDS / 2,
            graceful_shutdown_wait_loop_s=POLL_SECONDS,
            user_config={},
        ).bind(own, hashed_entries(read_keys(None, os.environ)))
        (self._handle,) = serve.run_many(
            [serve.RunTarget(target, name=APPLICATION, route_prefix="/")], wait_for_applications_running=False
        )

    def _wait_until_ready(self) -> bool:
        """Whether it serves; False where it is stopped before. Raises WorkError where it does not start."""
        while not self._num_stops:
            status, why = _state()
            if status == GOOD:
                return True
            if status == FAILED:
                raise WorkError(f"the replicas did not start: {why}")
            time.sleep(POLL_SECONDS)
        return False

    def _watch(self) -> None:
        """Until it is stopped; say where replicas fail and where they are back."""
        before, looked_at = GOOD, time.monotonic()
        while not self._num_stops:
            time.sleep(POLL_SECONDS)
            if self._is_to_reload:
                self._reload()
            if time.monotonic() - looked_at < WATCH_SECONDS:
                continue
            looked_at = time.monotonic()
            status, why = _state()
            if status != before:
                self._say("every replica serves" if status == GOOD else f"warning: {status}: {why}")
                before = status

    def _reload(self) -> None:
        """Keys and bundle, in every replica."""
        self._is_to_reload = False
        try:
            problems = self._handle.broadcast("reload").results(timeout_s=RELOAD_SECONDS)
        except (RayError, RuntimeError, TimeoutError) as error:
            self._say(f"warning: not every replica reloads: {_last_line(str(error))}")
            return
        for problem in sorted({each for each in problems if each}):
            self._say(f"warning: keys are not read again, the old ones go on: {problem}")
        self._say(f"every replica reads {self._settings.bundle} again; their logs say when it is done")

    def _end(self) -> None:
        """Let replicas answer what they have, then end Ray Serve, which was started for this."""
        serve.delete(APPLICATION, _blocking=False)
        deadline = time.monotonic() + self._settings.drain_seconds + END_SECONDS
        while APPLICATION in serve.status().applications and time.monotonic() < deadline:
            if self._num_stops > 1:
                break
            time.sleep(POLL_SECONDS)
        # the calls of the controller to itself end with it, which Ray prints as failures
        with contextlib.redirect_stderr(io.StringIO()):
            serve.shutdown()
            time.sleep(QUIET_SECONDS)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def stop(number: int, frame: FrameType | None) -> None:
            del number, frame
            self._num_stops += 1

        def reload(number: int, frame: FrameType | None) -> None:
            del number, frame
            self._is_to_reload = True

        handlers = {**dict.fromkeys(stopping_signals(), stop), signal.SIGHUP: reload}
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _state() -> tuple[str, str]:
    """What Ray Serve says of the application, and why."""
    found = serve.status().applications.get(APPLICATION)
    if found is None:
        return "NOT_STARTED", "it is not known to Ray Serve"
    messages = [each.message for each in found.deployments.values() if each.message] or [found.message]
    return str(found.status.value), _last_line(messages[0])


def _last_line(text: str) -> str:
    return next(reversed(text.strip().splitlines()), "it does not say why")[:300]
