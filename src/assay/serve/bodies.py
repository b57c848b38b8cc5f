"""The body of a request: read within limits of size and time, parsed as JSON."""

import asyncio
import contextlib
from codecs import BOM_UTF8
from dataclasses import dataclass
from typing import Any

import orjson

from assay.serve.edge import EXCHANGE, Exchange, Receive, Scope
from assay.serve.refusals import Refusal
from assay.serve.tickets import ClientGoneError

MOST_DISCARDED_BYTES = 256 << 20
DISCARD_SECONDS = 10.0
MOST_HELD_BYTES = 512 << 20
"""Of the bodies of all requests that are not answered yet; large ones beyond that are refused."""
MOST_DEPTH = 1024
"""Of arrays and objects in each other; orjson reads no more."""
_CLOSE = {"Connection": "close"}


@dataclass(slots=True)
class Held:
    """Bytes of bodies that are held now. Lives in the event loop."""

    most_bytes: int = MOST_HELD_BYTES
    num_bytes: int = 0

    def take(self, exchange: Exchange, num_bytes: int) -> None:
        """Count bytes that came for a request."""
        exchange.body_bytes += num_bytes
        self.num_bytes += num_bytes

    def release(self, exchange: Exchange) -> None:
        """Stop counting those of a request."""
        self.num_bytes -= exchange.body_bytes
        exchange.body_bytes = 0


async def read_json(
    scope: Scope, receive: Receive, *, held: Held, max_bytes: int, timeout_seconds: float
) -> Any:  # noqa: ANN401  JSON
    """The JSON value of a body; raises Refusal for one that is too large, too slow, or not JSON.

    Bytes are counted as they come, so that a body without a length is bounded too, and in `held`, so
    that all bodies together are; one that came in a single piece is small and always read. NaN, lone
    surrogates and nesting too deep to parse are refused like all that is not JSON.
    """
    await _check_head(scope, receive, max_bytes)
    exchange: Exchange = scope[EXCHANGE]
    message = await _next(receive, timeout_seconds)
    chunks = [message.get("body", b"")]
    held.take(exchange, len(chunks[0]))
    deadline = asyncio.get_running_loop().time() + timeout_seconds
    while message.get("more_body") and exchange.body_bytes <= max_bytes:
        if held.num_bytes > max(held.most_bytes, max_bytes):
            chunks.clear()
            held.release(exchange)
            await _discard(receive)
            headers = {"Retry-After": "1", **_CLOSE}
            raise Refusal("overloaded", "too many large bodies at once; try again in 1 s", headers)
        message = await _next(receive, deadline - asyncio.get_running_loop().time())
        chunks.append(message.get("body", b""))
        held.take(exchange, len(chunks[-1]))
    if exchange.body_bytes > max_bytes:
        chunks.clear()
        held.release(exchange)
        if message.get("more_body"):
            await _discard(receive)
        raise Refusal("too_large", f"the body has more than {max_bytes} bytes", _CLOSE)
    body = b"".join(chunks)
    del chunks
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refusal("invalid", json_fault(body, error)) from None


def json_fault(body: bytes, error: orjson.JSONDecodeError) -> str:
    """Why a body cannot be read as JSON and where, in one sentence that quotes nothing of it."""
    if not body.strip():
        return "the body is empty; send a JSON object"
    try:
        body.decode()
    except UnicodeDecodeError as found:
        before = body[: found.start].decode()
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        return (
            f"the body is not UTF-8: byte 0x{body[found.start]:02x} at line {line}, column {column} "
            f"(byte {found.start}); encode it as UTF-8"
        )
    where = f"line {error.lineno}, column {error.colno}"
    if body.startswith(BOM_UTF8):
        return f"the body begins with a byte order mark ({where}); send it without"
    if "depth" in error.msg:
        # orjson points behind the bracket that is one too many
        where = f"line {error.lineno}, column {error.colno - 1}"
        return f"the body is nested too deep at {where}; at most {MOST_DEPTH} arrays and objects may be open"
    return f"the body is not JSON: {error.msg} at {where}"


async def _check_head(scope: Scope, receive: Receive, max_bytes: int) -> None:
    media, length, is_expecting, coding = b"", b"", False, b""
    for name, value in scope["headers"]:
        if name == b"content-type":
            media = value
        elif name == b"content-length":
            length = value
        elif name == b"expect":
            is_expecting = True
        elif name == b"content-encoding":
            coding = value.strip().lower()
    if media.partition(b";")[0].strip().lower() != b"application/json":
        raise Refusal("media_type", "the body must be JSON; send Content-Type: application/json")
    if coding not in {b"", b"identity"}:
        message = "the body is compressed; send it as it is, without Content-Encoding"
        raise Refusal("media_type", message, {"Accept-Encoding": "identity"})
    if length.isdigit() and int(length) > max_bytes:
        if not is_expecting and int(length) <= max_bytes + MOST_DISCARDED_BYTES:
            await _discard(receive)
        raise Refusal("too_large", f"the body has {int(length)} bytes; at most {max_bytes} are taken", _CLOSE)


async def _discard(receive: Receive) -> None:
    """Read on for a while and keep nothing: a client that is still sending would not see its answer."""
    num_bytes = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_SECONDS):
            while num_bytes <= MOST_DISCARDED_BYTES:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body"):
                    return
                num_bytes += len(message.get("body", b""))


async def _next(receive: Receive, timeout_seconds: float) -> Any:  # noqa: ANN401  an ASGI message
    try:
        async with asyncio.timeout(timeout_seconds):
            message = await receive()
    except TimeoutError:
        raise Refusal("slow_body", "the body did not come in time", _CLOSE) from None
    if message["type"] == "http.disconnect":
        raise ClientGoneError
    return message
