"""Frames over a socket of the event loop: cut from what comes, written together at the end of a turn of the loop."""

import asyncio
from collections.abc import Callable
from typing import cast

from assay.serve import frames
from assay.serve.frames import FrameHead


class FrameCutter(asyncio.Protocol):
    """Cuts what a process sends into frames."""

    def __init__(
        self,
        begin: Callable[[asyncio.WriteTransport], None],
        take: Callable[[FrameHead, bytes], None],
        ended: "asyncio.Future[None]",
    ) -> None:
        """Give each frame to `take`; `ended` is done once the process sends no more."""
        self._begin = begin
        self._take = take
        self._ended = ended
        self._held = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Before any frame: uvloop hands on what waits already before the connection is returned."""
        self._begin(cast("asyncio.WriteTransport", transport))

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        self._held += data
        while len(self._held) >= frames.HEAD.size:
            head = frames.read_head(self._held)
            stop = frames.HEAD.size + head.num_bytes
            if len(self._held) < stop:
                return
            payload = bytes(self._held[frames.HEAD.size : stop])
            del self._held[:stop]
            self._take(head, payload)

    def connection_lost(self, exc: Exception | None) -> None:
        """The process has closed the socket, or has ended."""
        del exc
        if not self._ended.done():
            self._ended.set_result(None)
