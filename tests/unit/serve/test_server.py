"""Connections: what is not a request in time and of a size is refused, and the client hears of it."""

import asyncio
import contextlib
import socket

import pytest
from support.bundles import write_bundle
from support.serving import make_edge, open_service, until

from assay.serve import protocol, routes, server
from assay.serve.bodies import Held
from assay.serve.settings import ServeSettings


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A bundle."""
    return write_bundle(tmp_path_factory.mktemp("server") / "bundle")


def talk(folder, conversation, **settings):
    """What a conversation with a running server comes to; it is given the server's port."""

    async def run():
        service, _ = open_service(folder, **settings)
        running = server.Server(server.uvicorn_config(ServeSettings(bundle=str(folder)), make_edge(service)))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            task = asyncio.ensure_future(running.serve(sockets=[listener]))
            try:
                return await conversation(listener.getsockname()[1])
            finally:
                running.should_exit = True
                await task
                await service.drain()

    return asyncio.run(run())


REQUEST = b"GET /live HTTP/1.1\r\nHost: test\r\n\r\n"


def test_a_connection_without_a_request_is_closed(folder, monkeypatch):
    """Nothing, or half a head, within the time for a head: the connection is closed, and no file left open."""
    monkeypatch.setattr(protocol, "HEADER_SECONDS", 0.2)

    async def conversation(port):
        found = []
        for start in (b"", REQUEST[:20]):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(start)
            found.append(await asyncio.wait_for(reader.read(), 10))
            writer.close()
        return found

    assert talk(folder, conversation) == [b"", b""]


def in_turn(request, *, times, pause=0.0):
    """A conversation: the same request over one connection again and again; the first line of each answer."""

    async def conversation(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        found = []
        for _ in range(times):
            writer.write(request)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            found.append(head.split(b"\r\n")[0])
            await reader.readexactly(len(b'{"status":"live"}'))
            await asyncio.sleep(pause)
        writer.close()
        return found

    return conversation


def test_a_connection_is_kept_between_requests(folder, monkeypatch):
    """The time for a head counts from its first byte, not from the last answer."""
    monkeypatch.setattr(protocol, "HEADER_SECONDS", 0.2)

    assert talk(folder, in_turn(REQUEST, times=2, pause=0.5)) == [b"HTTP/1.1 200 OK"] * 2


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (b"GET /live HTTP/1.1\r\nX-Long: ", b"a" * 50_000),
        (b"GET /live HTTP/1.1\r\n", b"X-Many: a\r\n" * 5_000),
        (b"GET /", b"a" * 50_000),
    ],
)
def test_a_head_without_end_is_refused(folder, start, more):
    """Long before the time for a head is over, and before it takes memory: 431, and the connection is closed."""

    async def conversation(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(start)
        num_sent = 0
        with contextlib.suppress(ConnectionError):
            while not reader.at_eof() and num_sent < 50_000_000 and not reader._buffer:
                writer.write(more)
                num_sent += len(more)
                await writer.drain()
                await asyncio.sleep(0)
        found = await asyncio.wait_for(reader.read(12), 5)
        writer.close()
        return found, num_sent

    found, num_sent = talk(folder, conversation)
    assert found == b"HTTP/1.1 431"
    assert num_sent < 10_000_000


HEAD = b"GET /live HTTP/1.1\r\nHost: test\r\n"
OVER = protocol.MOST_HEAD_BYTES + 1
HEADS = {
    "one header": lambda size: HEAD + b"X: " + b"a" * (size - len(HEAD) - 7) + b"\r\n\r\n",
    "spaces": lambda size: HEAD + b"X:" + b" " * (size - len(HEAD) - 7) + b"a\r\n\r\n",
    "many headers": lambda size: HEAD + b"X: aaa\r\n" * ((size - len(HEAD)) // 8) + b"X: a\r\n\r\n",
    "an address": lambda size: b"GET /" + b"a" * (size - 18) + b" HTTP/1.1\r\n\r\n",
}
"""Heads of a size, the many headers of one up to ten bytes larger."""


@pytest.mark.parametrize("piece", [1 << 30, 16_384, 1_000])
@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("size", [OVER, 120_000, 1_000_000])
def test_a_head_over_the_limit_is_refused_however_it_comes(folder, kind, size, piece):
    """At once or in pieces: 431 with a sentence, which the client can read after all that it sends."""
    head = HEADS[kind](size)

    async def conversation(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for start in range(0, len(head), piece):
            writer.write(head[start : start + piece])
            await writer.drain()
            await asyncio.sleep(0)
        found = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        return found

    found = talk(folder, conversation)
    assert found.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    assert b"more than 65536 bytes; send fewer" in found


@pytest.mark.parametrize("piece", [1 << 30, 4_096, 97])
@pytest.mark.parametrize("kind", ["one header", "spaces"])
def test_a_head_of_the_limit_is_answered_however_it_comes(folder, kind, piece):
    """Exactly as many bytes as are allowed: 200."""
    head = HEADS[kind](OVER - 1)
    assert len(head) == protocol.MOST_HEAD_BYTES

    async def conversation(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for start in range(0, len(head), piece):
            writer.write(head[start : start + piece])
            await asyncio.sleep(0)
        found = await asyncio.wait_for(reader.readuntil(b"\r\n"), 10)
        writer.close()
        return found

    assert talk(folder, conversation) == b"HTTP/1.1 200 OK\r\n"


def test_a_large_head_behind_other_requests(folder):
    """In one packet with requests before it: these are answered first, in order; then 431."""

    async def conversation(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST * 3 + HEADS["one header"](70_000))
        found = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        return found

    found = talk(folder, conversation)
    assert found.count(b"HTTP/1.1 200 OK") == 3
    assert found.rindex(b"HTTP/1.1 200 OK") < found.index(b"HTTP/1.1 431 ")


def test_what_is_not_http_is_said_so(folder):
    """Another protocol, even where much of it is sent: 400, which the client can read."""

    async def conversation(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\x16\x03\x01" + b"a" * 1_000_000)
        await writer.drain()
        found = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        return found

    found = talk(folder, conversation)
    assert found.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"this is not an HTTP/1.1 request" in found


def test_a_refused_connection_is_closed_after_a_while(folder, monkeypatch):
    """A client that neither reads nor closes keeps its connection for the time to linger and no longer."""
    monkeypatch.setattr(protocol, "LINGER_SECONDS", 0.2)

    async def conversation(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEADS["one header"](70_000))
        await asyncio.wait_for(reader.read(), 10)  # the answer; the server sends no more
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                await asyncio.sleep(0.05)
                writer.write(b"a")
                await writer.drain()
            return "open"
        return "closed"

    assert talk(folder, conversation) == "closed"


def test_large_heads_within_the_limit_and_many_requests_are_answered(folder):
    """60 KB of headers, a hundred times over one connection: the limit is one of each head."""
    request = REQUEST[:-2] + b"X-Long: " + b"a" * 60_000 + b"\r\n\r\n"
    assert talk(folder, in_turn(request, times=100)) == [b"HTTP/1.1 200 OK"] * 100


BODY = b'{"text": "document of 3"}'
CHUNKED = (
    b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(b"1\r\n%c\r\n" % byte for byte in BODY)
)


def test_headers_behind_a_body(folder):
    """A few are left out, so that none of them counts as one of the head; without end, the connection is closed."""

    async def conversation(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(CHUNKED + b"0\r\nX-Request-Id: behind\r\n\r\n")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(CHUNKED + b"0\r\n")
        num_sent = 0
        with contextlib.suppress(ConnectionError):
            while not reader._buffer and num_sent < 50_000_000:
                writer.write(b"X-Many: a\r\n" * 5_000)
                num_sent += 55_000
                await writer.drain()
                await asyncio.sleep(0)
        writer.close()
        return head, num_sent

    head, num_sent = talk(folder, conversation)
    assert head.startswith(b"HTTP/1.1 200")
    assert b"behind" not in head
    assert num_sent < 10_000_000


def test_bodies_together_are_bounded(folder, monkeypatch):
    """While others' bodies fill the room, a large one is refused with 429 and small ones are answered."""
    held = Held(most_bytes=200_000)
    monkeypatch.setattr(routes, "Held", lambda: held)
    text = BODY + b" " * 250_000
    post = b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"

    async def ask(port, body, *, num_first=0, between=None):
        """The head of the answer; the body goes in two pieces, with something between them."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post % len(body) + body[:num_first])
        found = await between if between else await asyncio.sleep(0.2)
        writer.write(body[num_first:])
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        writer.close()
        return head, found

    async def meanwhile(port):
        await until(lambda: held.num_bytes >= 230_000)
        return [(await ask(port, text, num_first=90_000))[0], (await ask(port, BODY))[0]]

    async def conversation(port):
        first, (refused, small) = await ask(port, text, num_first=230_000, between=meanwhile(port))
        vanishing = (await asyncio.open_connection("127.0.0.1", port))[1]
        vanishing.write(post % len(text) + text[:90_000])
        await until(lambda: held.num_bytes)
        vanishing.close()
        await until(lambda: not held.num_bytes)
        return refused, small, first, (await ask(port, text, num_first=90_000))[0]

    refused, *answered = talk(folder, conversation, max_body_bytes=300_000)
    assert refused.startswith(b"HTTP/1.1 429")
    assert b"retry-after: 1" in refused
    assert [head.split(b"\r\n")[0] for head in answered] == [b"HTTP/1.1 200 OK"] * 3
    assert held.num_bytes == 0


def test_tls_files_that_are_none(folder, tmp_path):
    """Are refused with a line."""
    from assay.errors import UsageError

    file = tmp_path / "cert.pem"
    file.write_text("nothing")
    settings = ServeSettings(bundle=str(folder), tls_cert=str(file), tls_key=str(file))
    with pytest.raises(UsageError, match="TLS files"):
        server.uvicorn_config(settings, None)
