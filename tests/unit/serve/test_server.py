"""Connections: those that never send a request are closed, the others are kept."""

import asyncio
import socket

import pytest
from support.bundles import write_bundle
from support.serving import make_edge, open_service

from assay.serve import server
from assay.serve.settings import ServeSettings


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A bundle."""
    return write_bundle(tmp_path_factory.mktemp("server") / "bundle")


def talk(folder, conversation):
    """What a conversation with a running server comes to; it is given the server's port."""

    async def run():
        service, _ = open_service(folder)
        running = server.Server(server._config(ServeSettings(bundle=str(folder)), make_edge(service)))
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
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.2)

    async def conversation(port):
        found = []
        for start in (b"", REQUEST[:20]):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(start)
            found.append(await asyncio.wait_for(reader.read(), 10))
            writer.close()
        return found

    assert talk(folder, conversation) == [b"", b""]


def test_a_connection_is_kept_between_requests(folder, monkeypatch):
    """The time for a head counts from its first byte, not from the last answer."""
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.2)

    async def conversation(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        found = []
        for _ in range(2):
            writer.write(REQUEST)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            found.append(head.split(b"\r\n")[0])
            await reader.readexactly(len(b'{"status":"live"}'))
            await asyncio.sleep(0.5)
        writer.close()
        return found

    assert talk(folder, conversation) == [b"HTTP/1.1 200 OK"] * 2


def test_tls_files_that_are_none(folder, tmp_path):
    """Are refused with a line."""
    from assay.errors import UsageError

    file = tmp_path / "cert.pem"
    file.write_text("nothing")
    settings = ServeSettings(bundle=str(folder), tls_cert=str(file), tls_key=str(file))
    with pytest.raises(UsageError, match="TLS files"):
        server._config(settings, None)
