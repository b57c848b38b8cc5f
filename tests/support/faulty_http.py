"""An HTTP server on loopback that misbehaves as a test says: raw sockets, so that it can cut, lie and never end.

    with FaultyServer({"/a.txt": [reply(429, retry_after=7), text(b"whole")]}) as server:
        ...  server.url("/a.txt"), server.asked

A path has a list of scripts, one for each request; the last one is used from then on. A path without any is a 404.
"""

import asyncio
import threading
from collections import Counter

CUT = object()
"""The connection is closed here."""
STALL = object()
"""Nothing more comes, and the connection stays."""


def reply(status=200, body=b"", kind="text/plain; charset=utf-8", *, length=None, **headers):
    """The bytes of an answer; `length` is what the server claims, where it lies."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body) if length is None else length}"]
    if kind:
        lines.append(f"Content-Type: {kind}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ["\r\n".join(lines).encode() + b"\r\n\r\n" + body]


def endless(kind="text/plain"):
    """A body in chunks that never ends."""
    head = f"HTTP/1.1 200 X\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    piece = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"

    def pieces():
        yield head
        while True:
            yield piece

    return pieces


class FaultyServer:
    """The server, in a thread of its own; `asked` has each request's path, `headers` its headers."""

    def __init__(self, scripts):
        self.scripts = {path: list(each) for path, each in scripts.items()}
        self.asked = []
        self.headers = []
        self.open_now = 0
        self.most_open = 0
        self._counts = Counter()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def url(self, path=""):
        """An address on this server."""
        return f"http://127.0.0.1:{self.port}{path}"

    def __enter__(self):
        self._thread.start()
        started = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop
        )
        self._server = started.result(10)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_):
        async def end():
            self._server.close()
            mine = asyncio.current_task()
            others = [task for task in asyncio.all_tasks() if task is not mine]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _serve(self, reader, writer):
        try:
            await self._answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader, writer):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            path = head.split(" ")[1]
            self.asked.append(path)
            self.headers.append(head)
            self.open_now += 1
            self.most_open = max(self.most_open, self.open_now)
            try:
                scripts = self.scripts.get(path, [reply(404, b"no")])
                script = scripts[min(self._counts[path], len(scripts) - 1)]
                self._counts[path] += 1
                for piece in script() if callable(script) else script:
                    if piece is CUT:
                        return
                    if piece is STALL:
                        await asyncio.sleep(3600)
                    writer.write(piece)
                    await writer.drain()
                await asyncio.sleep(0)
            finally:
                self.open_now -= 1


class FakeClock:
    """Time that passes when someone waits, and is written down."""

    def __init__(self):
        self.time = 1_000_000.0
        self.waits = []

    def now(self):
        return self.time

    def draw(self):
        """No chance in a test."""
        return 0.5

    async def sleep(self, seconds):
        self.waits.append(round(seconds, 3))
        self.time += seconds
        await asyncio.sleep(0)
