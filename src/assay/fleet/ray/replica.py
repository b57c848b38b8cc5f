"""A replica of Ray Serve: the server's own application and engine, on one device of some machine.

Ray Serve's proxies pass requests on; admission, batches, keys, limits and the log are those of `assay serve`, in each
replica by itself. What only one server can promise is refused by the settings, and `/metrics` here. Imports Ray
only where a request has come through it.
"""

from typing import Any

from assay.errors import AssayError, WorkError
from assay.processes import Json
from assay.serve.edge import Answer, App, Edge, Message, Receive, Scope, Send
from assay.serve.keys import ENVIRONMENT, read_keys
from assay.serve.log import RequestLog
from assay.serve.metrics import Metrics
from assay.serve.page import PAGE_FILES
from assay.serve.placement import start_first
from assay.serve.refusals import Refusal
from assay.serve.routes import DOCS_PATHS, PROBE_PATHS, make_app
from assay.serve.service import Service
from assay.serve.settings import ServeSettings
from assay.telemetry import configure_logging

NO_METRICS = "each replica counts by itself; Ray's own metrics have the requests of all"


class Replica:
    """What Ray Serve starts on each device."""

    def __init__(self, settings: Json, key_entries: str) -> None:
        """`key_entries` are the hashed keys of the driver's environment; those of the file are read here.

        Nothing is loaded yet: Ray Serve's wrapper does not wait for a constructor, but for `reconfigure`.
        """
        configure_logging()
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()
        }
        self._settings = ServeSettings(**values)
        self._environment = {ENVIRONMENT: key_entries} if key_entries else {}
        self._log = RequestLog()
        metrics = Metrics()
        self.service = Service(self._settings, metrics, self._log)
        self.edge = Edge(
            _without_metrics(make_app(self.service, self._settings, metrics)),
            keys=read_keys(self._settings.keys_file, self._environment),
            open_paths=frozenset((*PAGE_FILES, *DOCS_PATHS, *PROBE_PATHS)),
            log=self._log,
            metrics=metrics,
            is_tls=False,
        )

    async def reconfigure(self, config: Json) -> None:
        """Load the bundle; Ray Serve calls this once, and sends no request before it returns."""
        del config
        children = start_first(self._settings)
        try:
            await self.service.start(children)
        except BaseException:
            for _, child in children:
                child.end()
            raise

    async def reload(self) -> str | None:
        """Take the keys as they are now and begin to read the bundle again, which goes on until it is warm.

        Returns why the old keys go on, None where they do not.
        """
        problem = None
        try:
            self.edge.keys = read_keys(self._settings.keys_file, self._environment)
        except AssayError as error:
            problem = str(error)
        self._log.write("reload", bundle=self._settings.bundle)
        self.service.reload()
        return problem

    def check_health(self) -> None:
        """Raise WorkError where starting the engine again did not help: Ray Serve then replaces this replica."""
        deployment = self.service.deployment
        if deployment is not None and deployment.is_faulty():
            raise WorkError(f"the engine does not start: {deployment.trouble()}")

    async def end(self) -> None:
        """Answer what is left and end the engines; Ray Serve has waited for what was accepted."""
        await self.service.drain()
        self._log.flush()


class Gate:
    """The application that Ray Serve's wrapper is given before there is a replica: it passes on to that."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; at the end of the replica's life end it."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        replica = _this_replica()

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                # the proxy adds the id, which it has given to the request
                headers = [each for each in message["headers"] if each[0] != b"x-request-id"]
                message = {**message, "headers": headers}
            await send(message)

        await replica.edge(scope, receive, send_on)


def _this_replica() -> Replica:
    from ray.serve import get_replica_context

    replica: Replica = get_replica_context().servable_object
    return replica


async def _live(receive: Receive, send: Send) -> None:
    message: Message = {}
    while message.get("type") != "lifespan.shutdown":
        message = await receive()
        if message["type"] == "lifespan.shutdown":
            await _this_replica().end()
        await send({"type": f"{message['type']}.complete"})


def _without_metrics(app: App) -> App:
    async def without_metrics(scope: Scope, receive: Receive) -> Answer:
        if scope["path"] == "/metrics":
            raise Refusal("not_found", NO_METRICS)
        return await app(scope, receive)

    return without_metrics
