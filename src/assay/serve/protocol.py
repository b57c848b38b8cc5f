"""One connection: bytes to requests, as uvicorn does it, within limits of time and size."""

import asyncio
import logging
from http import HTTPStatus
from typing import cast

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from assay.serve.edge import new_request_id
from assay.serve.refusals import Refusal

_log = logging.getLogger(__name__)

HEADER_SECONDS = 15.0
"""A connection that has not sent the head of a request by then is closed."""
MOST_HEAD_BYTES = 64 << 10
"""Of the head of a request, and of all that is not body behind it; keys are checked only once it is whole."""
PIECE_BYTES = 2 << 10
"""Bytes that the parser gets at once. A head that follows another request in one packet is measured to within it."""
LINGER_SECONDS = 5.0
MOST_LINGER_BYTES = 64 << 20
"""How long, and how much, is read and thrown away after a refusal before the connection is closed."""
TOO_LARGE = f"the head of the request has more than {MOST_HEAD_BYTES} bytes; send fewer or shorter headers"


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 as uvicorn has it, with limits: a request must come in time, and its head may not be large.

    A client whose request is refused here may still be sending. Were the connection closed at once, the
    answer would be lost (RFC 9112, 9.6): it is written, and what comes after it is thrown away for a while.
    """

    _head_timer: asyncio.TimerHandle | None = None
    """None once the head of a request is whole."""
    _num_head_bytes = 0
    """Since the head, or a piece of the body, was whole."""
    _refusal: Refusal | None = None
    """Why nothing more of this connection is read."""
    _num_lingered_bytes = 0
    _linger_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there."""
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEADER_SECONDS, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._drop_timer()
        if self._linger_timer is not None:
            self._linger_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes came: the parser gets them in pieces, so that the limit holds wherever packets end."""
        left = memoryview(data)
        while left and self._refusal is None:
            room = MOST_HEAD_BYTES - self._num_head_bytes
            if room <= 0:
                self._refuse(Refusal("large_head", TOO_LARGE))
                break
            piece, left = left[: min(PIECE_BYTES, room)], left[min(PIECE_BYTES, room) :]
            self._num_head_bytes += len(piece)
            super().data_received(piece)  # type: ignore[arg-type]  # any buffer does
        if self._refusal is not None:
            self._num_lingered_bytes += len(left)
            if self._num_lingered_bytes > MOST_LINGER_BYTES:
                self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """What came is not a request."""
        del msg
        self._refuse(Refusal("malformed", "this is not an HTTP/1.1 request"))

    def on_message_begin(self) -> None:
        """The first bytes of a request: the rest of its head must follow."""
        super().on_message_begin()
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def on_headers_complete(self) -> None:
        """The head is whole; the body has its own time."""
        self._drop_timer()
        self._num_head_bytes = 0
        super().on_headers_complete()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; those behind a body are left out, as no one asks for them."""
        if self._head_timer is not None:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """A piece of the body, which has its own limit."""
        self._num_head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._num_head_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """A request is answered, and what came behind it may have to be refused."""
        super().on_response_complete()
        if self._refusal is not None and self.cycle.response_complete:
            self._answer_refusal(self._refusal)

    def _refuse(self, refusal: Refusal) -> None:
        """Read nothing more; the refusal is written once all that came before it is answered."""
        self._refusal = refusal
        self._drop_timer()
        _log.warning("a connection is closed: %s", refusal.message)
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if cycle is None or cycle.response_complete:
            self._answer_refusal(refusal)
        elif cycle.more_body:
            # the refused bytes are part of this request: whoever waits for its body learns that it will not come
            cycle.disconnected = True
            cycle.message_event.set()
            if self.pipeline:
                self.transport.close()
            else:
                self._answer_refusal(refusal)

    def _answer_refusal(self, refusal: Refusal) -> None:
        """Write the refusal as the last answer, and wait for the client to close."""
        transport = self.transport
        if transport.is_closing():
            return
        self._unset_keepalive_if_required()
        body = orjson.dumps(refusal.body(new_request_id()))
        head = (
            f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        transport.write(head.encode() + body)
        if transport.can_write_eof():
            transport.write_eof()
        self._linger_timer = self.loop.call_later(LINGER_SECONDS, transport.close)

    def _drop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
