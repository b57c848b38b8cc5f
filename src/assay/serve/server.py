"""The event loop: uvicorn, signals, start, reload and drain. Imports what `verb` leaves to the engines' start."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence

import uvicorn

from assay.errors import AssayError, UsageError
from assay.exits import INTERRUPTED
from assay.processes import stopping_signals
from assay.serve.edge import Edge
from assay.serve.engines import Child, EngineSpec
from assay.serve.fronts import FrontProcesses
from assay.serve.keys import Keys, read_keys
from assay.serve.log import RequestLog
from assay.serve.metrics import Metrics
from assay.serve.page import PAGE_FILES
from assay.serve.protocol import BoundedProtocol
from assay.serve.routes import DOCS_PATHS, PROBE_PATHS, make_app
from assay.serve.service import Service
from assay.serve.settings import ServeSettings
from assay.telemetry import configure_logging

_log = logging.getLogger(__name__)

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 75
CLOSE_SECONDS = 5
"""For connections to close once everything is answered."""


class Server(uvicorn.Server):
    """uvicorn, which leaves the signals to us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing to capture."""
        yield


def run_server(
    settings: ServeSettings,
    keys: Keys,
    listeners: Sequence[socket.socket],
    children: Sequence[tuple[EngineSpec, Child]],
    say: Callable[[str], None],
) -> None:
    """Serve with engines that were started, until told to stop; on several bound sockets with a front process each."""
    configure_logging()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_run(settings, keys, listeners, children, say))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes event loops: uvloop, where it is there."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def make_edge(service: Service, keys: Keys, log: RequestLog) -> Edge:
    """The whole application around a service."""
    return Edge(
        make_app(service, service.settings, service.metrics),
        keys=keys,
        open_paths=frozenset((*PAGE_FILES, *DOCS_PATHS, *PROBE_PATHS)),
        log=log,
        metrics=service.metrics,
        is_tls=service.settings.tls_cert is not None,
    )


async def _run(
    settings: ServeSettings,
    keys: Keys,
    listeners: Sequence[socket.socket],
    children: Sequence[tuple[EngineSpec, Child]],
    say: Callable[[str], None],
) -> None:
    metrics, log = Metrics(), RequestLog()
    loop = asyncio.get_running_loop()
    if len(listeners) == 1:
        service = Service(settings, metrics, log)
        edge = make_edge(service, keys, log)
        server = Server(uvicorn_config(settings, edge))
        serving = loop.create_task(server.serve(sockets=list(listeners)))

        def set_keys(keys: Keys) -> None:
            edge.keys = keys

        def close() -> None:
            server.should_exit = True
    else:
        uvicorn_config(settings, None)  # what the fronts would fail of
        fronts = FrontProcesses(settings, keys, metrics, listeners)
        service = Service(settings, metrics, log, fronts=fronts)
        fronts.on_stale = service.reload
        set_keys, close = fronts.set_keys, fronts.kill
        serving = loop.create_task(fronts.run())
    stop = asyncio.Event()
    for number in stopping_signals():
        loop.add_signal_handler(number, _stop, stop)
    loop.add_signal_handler(signal.SIGHUP, _reload, settings, set_keys, service, log)

    address = _address(settings, listeners[0])
    starting = loop.create_task(service.start(children))
    stopping = loop.create_task(stop.wait())
    say(f"listening on {address}, loading {settings.bundle}")
    try:
        await asyncio.wait([starting, stopping, serving], return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            say(f"ready on {address}")
            await asyncio.wait([stopping, serving], return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            say("stopping: answering what was accepted")
    finally:
        await _end(service, starting, children)
        close()
        stopping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving
        log.flush()


async def _end(
    service: Service, starting: "asyncio.Task[None]", children: Sequence[tuple[EngineSpec, Child]]
) -> None:
    """Drain, and leave no process behind."""
    service.state = "draining"
    if not starting.done():
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError, AssayError):
            await starting
    await service.drain()
    for _, child in children:
        child.end()


def uvicorn_config(settings: ServeSettings, edge: Edge | None) -> uvicorn.Config:
    """How uvicorn serves; raises UsageError for TLS files that are none."""
    config = uvicorn.Config(
        edge,  # type: ignore[arg-type]
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=CLOSE_SECONDS,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        msg = f"TLS files {settings.tls_cert} and {settings.tls_key}: {error}; give PEM files of one certificate"
        raise UsageError(msg) from None
    return config


def _stop(stop: asyncio.Event) -> None:
    """Drain; asked a second time, end at once."""
    if stop.is_set():
        os._exit(INTERRUPTED)
    stop.set()


def _reload(
    settings: ServeSettings, set_keys: Callable[[Keys], None], service: Service, log: RequestLog
) -> None:
    """Keys at once, the bundle once it is warm; what cannot be read leaves the old in place."""
    try:
        set_keys(read_keys(settings.keys_file, os.environ))
    except AssayError as error:
        _log.error("keys are not read again, the old ones go on: %s", error)
    log.write("reload", bundle=settings.bundle)
    service.reload()


def _address(settings: ServeSettings, listener: socket.socket) -> str:
    scheme = "http" if settings.tls_cert is None else "https"
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
