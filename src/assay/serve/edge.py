"""The outermost layer, plain ASGI: request ids, API keys, security headers, the log, and errors as answers.

Nothing beneath it is reached without a key where there are keys, but for the routes that a probe or a
browser asks first (`open_paths`); these tell nothing about the model.
"""

import asyncio
import itertools
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from assay.serve.keys import ANONYMOUS, Keys
from assay.serve.log import RequestLog
from assay.serve.metrics import Metrics
from assay.serve.refusals import Refusal, refusal_of
from assay.serve.tickets import ClientGoneError

_log = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

EXCHANGE = "assay.exchange"
"""Key of the scope under which the `Exchange` is found."""
SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
STRICT_TRANSPORT = (b"strict-transport-security", b"max-age=31536000")
QUIET_PATHS = frozenset({"/health", "/ping", "/live", "/metrics"})
"""Asked every few seconds by probes; not logged."""
PREDICTING = frozenset(
    {"/", "/invocations", "/predict", "/predict/batch", "/rerank", "/embed", "/v1/embeddings"}
)
OPENAI = "/v1/"
"""Addresses under which errors have the shape that clients of OpenAI read."""
_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.:/-]{1,128}")
_START = secrets.token_hex(8)
"""The first half of the ids made here; the second counts. Asking for randomness costs a system call."""
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client is sent."""

    body: bytes
    media: str = "application/json"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    """Beside those that all answers have."""


App = Callable[[Scope, Receive], Awaitable[Answer]]
"""What lies beneath: raises Refusal, or ClientGoneError where no answer is wanted any more."""


@dataclass(slots=True)
class Exchange:
    """One request and its answer, for the log and for the routes."""

    request_id: str
    began: float
    """By `time.perf_counter`."""
    key: str | None = None
    """Name of the API key; None where there are no keys or the route is open."""
    status: int = 0
    body_bytes: int = 0
    """Of its body, as far as it came and is held."""
    documents: int | None = None
    tokens: int | None = None
    texts: object = None
    """For the log, where texts are logged."""
    error: str | None = None
    """What the client was told."""
    when_answered: Callable[[], None] | None = None
    """What is left to do for a request once its answer is written."""

    @property
    def who(self) -> str:
        """Whose rate limit the request counts for."""
        return self.key or ANONYMOUS


class Edge:
    """Wraps the application."""

    def __init__(
        self,
        app: App,
        *,
        keys: Keys,
        open_paths: frozenset[str],
        log: RequestLog,
        metrics: Metrics,
        is_tls: bool,
    ) -> None:
        """`open_paths` need no key; `keys` may be replaced at any time."""
        self._app = app
        self.keys = keys
        self._open_paths = open_paths
        self._log = log
        self._metrics = metrics
        self._headers = [*SECURITY_HEADERS, STRICT_TRANSPORT] if is_tls else list(SECURITY_HEADERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        exchange = Exchange(_request_id(scope), time.perf_counter())
        scope[EXCHANGE] = exchange
        answer: Answer | None = None
        try:
            self._check_key(scope, exchange)
            answer = await self._app(scope, receive)
        except ClientGoneError:
            exchange.error = "the client went away"
            self._metrics.disconnect()
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001  whatever it is, the client gets an answer without its text
            if not isinstance(error, Refusal):
                _log.exception("request %s failed", exchange.request_id)
            answer = self._refused(scope, exchange, refusal_of(error))
        if answer is not None:
            exchange.status = answer.status
            await self._send(answer, exchange, send)
        if exchange.when_answered is not None:
            exchange.when_answered()
        self._write(scope, exchange)

    async def _send(self, answer: Answer, exchange: Exchange, send: Send) -> None:
        """Write an answer, with the headers that all have."""
        headers = [
            *self._headers,
            (b"x-request-id", exchange.request_id.encode()),
            (b"content-type", answer.media.encode()),
            (b"content-length", b"%d" % len(answer.body)),
        ]
        names = {name.lower(): value for name, value in answer.headers.items()}
        headers += [(name.encode(), value.encode()) for name, value in names.items()]
        if "content-security-policy" not in names:
            headers.append(POLICY)
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    def _check_key(self, scope: Scope, exchange: Exchange) -> None:
        if not self.keys.digests or (
            scope["path"] in self._open_paths and scope["method"] in {"GET", "HEAD"}
        ):
            return
        presented = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, key = presented.decode("latin-1").partition(" ")
        name = self.keys.name_of(key.strip()) if scheme.lower() == "bearer" else None
        if name is None:
            said = (
                "no API key; send Authorization: Bearer KEY" if not presented else "this API key is not known"
            )
            raise Refusal("unauthorized", said, {"WWW-Authenticate": "Bearer"})
        exchange.key = name

    def _refused(self, scope: Scope, exchange: Exchange, refusal: Refusal) -> Answer:
        exchange.error, exchange.when_answered = refusal.message, None
        if scope["path"] in PREDICTING:
            self._metrics.failure(refusal.error_type)
        shape = refusal.openai_body if scope["path"].startswith(OPENAI) else refusal.body
        return Answer(
            orjson.dumps(shape(exchange.request_id)), status=refusal.status, headers=refusal.headers
        )

    def _write(self, scope: Scope, exchange: Exchange) -> None:
        if scope["path"] in QUIET_PATHS:
            return
        self._log.write(
            "request",
            request_id=exchange.request_id,
            method=scope["method"],
            route=scope["path"] if exchange.status not in {404, 405} else "?",
            status=exchange.status or None,
            ms=round((time.perf_counter() - exchange.began) * 1000, 2),
            documents=exchange.documents,
            tokens=exchange.tokens,
            key=exchange.key,
            error=exchange.error,
            texts=exchange.texts,
        )


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return bytes(value).decode()
    return new_request_id()


def new_request_id() -> str:
    """An id for a request that brought none."""
    return f"{_START}{next(_numbers):016x}"
