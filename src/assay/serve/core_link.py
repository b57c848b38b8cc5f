"""A front process's end of the socket to the core."""

import asyncio
import os
import socket
from collections.abc import Callable

from assay.serve import frames
from assay.serve.frames import FrameHead, FrameKind
from assay.serve.links import FrameCutter


class CoreLink:
    """Lives in the event loop. The process ends with the core."""

    def __init__(self) -> None:
        """Not connected."""
        self._writer: asyncio.WriteTransport | None = None
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ended.add_done_callback(self._end)
        self._is_closing = False

    async def connect(self, descriptor: int, take: Callable[[FrameHead, bytes], None]) -> None:
        """Give every frame of the core to `take`."""
        connection = socket.socket(fileno=descriptor)
        connection.setblocking(False)  # noqa: FBT003  the standard library's own
        loop = asyncio.get_running_loop()

        def begin(transport: asyncio.WriteTransport) -> None:
            self._writer = transport

        await loop.create_connection(lambda: FrameCutter(begin, take, self._ended), sock=connection)

    def _end(self, _: object) -> None:
        # without the core nothing can be answered
        if not self._is_closing:
            os._exit(1)

    def write(self, frame: bytes) -> None:
        """Send a frame."""
        assert self._writer is not None, "it is connected"
        self._writer.write(frame)

    def say(self, event: str, **content: object) -> None:
        """Tell the core something."""
        self.write(frames.pack_json(FrameKind.SAY, {"event": event, **content}))

    async def close(self) -> None:
        """Close once what was written is with the core, whose end of the socket then closes too."""
        assert self._writer is not None, "it is connected"
        self._is_closing = True
        self._writer.close()
        await self._ended
