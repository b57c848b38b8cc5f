"""A small S3 over HTTP on loopback, in memory, that fails as real services do: on order, before or after the effect.

Objects are put whole and conditionally under one lock, so that what it says about who was first is true.
Orders are taken one a PUT:

    409             two puts met: ConditionalRequestConflict, nothing is there
    500, 503        an error of the server, nothing is there
    reset           the connection is torn before anything happened
    done, then 500  the object is there, the answer is an error
    done, then reset    the object is there, the connection is torn
    done, then stall    the object is there, no answer comes
    other, then 409     another caller's object is there, the answer is the conflict
"""

import hashlib
import socket
import struct
import threading
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CODES = {
    "409": "ConditionalRequestConflict",
    "412": "PreconditionFailed",
    "500": "InternalError",
    "503": "SlowDown",
}


class FaultyS3:
    """The server; `orders` are the faults of the next PUTs, `puts` counts those that came."""

    def __init__(self):
        self.objects = {}
        self.orders = []
        self.puts = 0
        self.lock = threading.Lock()
        self.stalled = threading.Event()
        handler = type("Handler", (_Handler,), {"s3": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def put(self, key, content, metadata, *, only_new):
        """Whether the object was put."""
        with self.lock:
            if only_new and key in self.objects:
                return False
            self.objects[key] = (content, metadata)
            return True

    def close(self):
        self.stalled.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    s3 = None

    def log_message(self, *_):
        pass

    def do_PUT(self):
        content = self.rfile.read(int(self.headers.get("content-length") or 0))
        metadata = {k: v for k, v in self.headers.items() if k.lower().startswith("x-amz-meta-")}
        with self.s3.lock:
            self.s3.puts += 1
            order = self.s3.orders.pop(0) if self.s3.orders else ""
        effect, _, fault = order.rpartition(", then ")
        if effect == "other":
            self.s3.put(self.path, b"another's", {}, only_new=True)
        elif effect == "done" or not fault:
            is_new = self.s3.put(
                self.path, content, metadata, only_new=self.headers.get("if-none-match") == "*"
            )
            if not fault:
                return self.answer(200 if is_new else 412)
        if fault == "reset":
            return self.reset()
        if fault == "stall":
            self.s3.stalled.wait(30)
            return self.reset()
        return self.answer(int(fault))

    def do_GET(self):
        found = self.s3.objects.get(self.path)
        if found is None:
            return self.answer(404)
        content, metadata = found
        return self.answer(200, content, metadata)

    do_HEAD = do_GET

    def answer(self, status, content=b"", headers=None):
        if status >= 400:
            content = f"<Error><Code>{CODES.get(str(status), 'NoSuchKey')}</Code></Error>".encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("ETag", f'"{hashlib.md5(content).hexdigest()}"')  # noqa: S324  as S3 does
        self.send_header("Last-Modified", formatdate(usegmt=True))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def reset(self):
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
