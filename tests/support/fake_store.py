"""A store of objects over HTTP on loopback, in memory, as S3 and Google answer; it fails as services do, as told.

    with FakeStore() as store:
        ...  store.s3_environment() or store.google_environment(), store.requests, store.faults

Objects are put whole and conditionally under one lock, so that what it says about who was first is true. Both
services' clients are understood: `If-None-Match: *` and `x-goog-if-generation-match: 0`, the same XML for listings,
uploads in pieces, deletions one by one and in bulk. Signatures are not looked at.

`plan(kind, key)` names the fault of each request, "" for none; `orders` are those of the next puts, before it:

    409, 429, 500, 503      the answer is an error, nothing happened
    reset, stall            the connection is torn, or no answer comes, and nothing happened
    torn                    half an answer, and then the connection is torn: of a request that reads
    late                    a listing that does not show what was put within the last second
    done, then FAULT        it happened, and then a fault but for the last two
    other, then FAULT       another caller's object is there, and then a fault

Kinds: create (a put only where there is nothing), put, get, head, list, delete, and of uploads in pieces start, piece,
complete, abort.
"""

import hashlib
import random
import re
import socket
import struct
import threading
import time
import urllib.parse
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from datetime import UTC, datetime
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from xml.sax.saxutils import escape, unescape

CODES = {
    400: "InvalidRequest",
    404: "NoSuchKey",
    409: "ConditionalRequestConflict",
    412: "PreconditionFailed",
    416: "InvalidRange",
    429: "rateLimitExceeded",
    500: "InternalError",
    501: "NotImplemented",
    503: "SlowDown",
}
_TORN = [f"{effect}{fault}" for effect in ("", "done, then ") for fault in ("500", "503", "reset")]
FAULTS = {
    "create": [*_TORN, "409", "409"],
    "put": [*_TORN, "409"],
    "get": ["500", "503", "reset", "torn"],
    "head": ["500", "503", "reset"],
    "list": ["500", "503", "reset", "torn", "late"],
    "delete": _TORN,
    "start": ["500", "503"],
    "piece": ["500", "503", "reset"],
    "complete": ["500", "503"],
    "abort": ["500", "503"],
}
"""What may happen to each kind of request."""
PAGE_OBJECTS = 1000


def at_random(seed, share):
    """A plan that has this share of all requests fail, each in a way that such a request can."""
    chance = random.Random(seed)
    return lambda kind, _: chance.choice(FAULTS[kind]) if chance.random() < share else ""


class Bucket:
    """Objects by key, and their keys in order."""

    def __init__(self):
        self.objects = {}
        self.keys = []
        self.uploads = {}

    def put(self, key, content, metadata):
        if key not in self.objects:
            insort(self.keys, key)
        etag = hashlib.md5(content).hexdigest()  # noqa: S324  as S3 does
        self.objects[key] = (content, metadata, etag, time.time())

    def delete(self, key):
        if self.objects.pop(key, None) is not None:
            del self.keys[bisect_left(self.keys, key)]

    def listed(self, prefix, after, most):
        """Up to so many keys with this prefix, after that key; and whether there are more."""
        start = max(bisect_left(self.keys, prefix), bisect_right(self.keys, after) if after else 0)
        stop = bisect_left(self.keys, prefix + "\U0010ffff")
        found = self.keys[start : min(stop, start + most)]
        return found, stop - start > len(found)


class FakeStore:
    """The server, in threads of this process."""

    def __init__(self, *buckets, conditional="kept", latency=0.0):
        """`conditional`: `kept`, `ignored` or `refused`; each answer takes `latency` seconds at least."""
        self.buckets = {name: Bucket() for name in buckets or ("bucket",)}
        self.conditional = conditional
        self.latency = latency
        self.orders = []
        self.plan = lambda _kind, _key: ""
        self.stall_seconds = 30.0
        self.requests = Counter()
        """By kind."""
        self.faults = Counter()
        """By kind and fault."""
        self.asked = []
        """Of each listing, what was asked."""
        self.lock = threading.Lock()
        self._is_over = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"store": self}))
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._is_over.set()
        self._server.shutdown()
        self._server.server_close()

    def s3_environment(self):
        """The variables by which a client of S3 finds it."""
        return {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
        }

    def google_environment(self):
        """The variables by which a client of Google's store finds it."""
        return {
            "GOOGLE_BASE_URL": self.endpoint,
            "GOOGLE_BEARER_TOKEN": "testing",
            "GOOGLE_ALLOW_HTTP": "true",
        }

    @property
    def uploads(self):
        """The keys of uploads in pieces that were neither completed nor aborted."""
        return sorted(key for bucket in self.buckets.values() for key, _ in bucket.uploads.values())

    @property
    def puts(self):
        """How many puts came."""
        return self.requests["put"] + self.requests["create"]

    def order(self, kind, key):
        """The fault of this request, which is counted."""
        with self.lock:
            self.requests[kind] += 1
            fault = self.orders.pop(0) if self.orders and kind in {"put", "create"} else self.plan(kind, key)
            if fault:
                self.faults[kind, fault] += 1
            return fault

    def wait(self, seconds):
        """Until then, or until the server ends."""
        self._is_over.wait(seconds)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer is one packet
    disable_nagle_algorithm = True
    store = None

    def log_message(self, *_):
        pass

    def handle_all(self):
        url = urllib.parse.urlsplit(self.path)
        name, _, self.key = urllib.parse.unquote(url.path).lstrip("/").partition("/")
        self.query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        self.body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.store.latency:
            self.store.wait(self.store.latency)
        self.bucket = self.store.buckets.get(name)
        kind = self._kind()
        effect, _, fault = self.store.order(kind, self.key or self.query.get("prefix", "")).rpartition(
            ", then "
        )
        if effect == "other":
            with self.store.lock:
                self.bucket.put(self.key, b"another's", {})
        answer = None
        if effect == "done" or fault in {"", "torn", "late"}:
            with self.store.lock:
                answer = getattr(self, f"_{kind}")() if self.bucket is not None else (404, b"")
                if fault == "late":
                    answer = self._list(until=time.time() - 1)
        if fault == "stall":
            self.store.wait(self.store.stall_seconds)
        if fault in {"reset", "stall"}:
            return self._reset()
        if fault.isdecimal():
            answer = (int(fault), b"")
        return self._answer(*answer, torn=fault == "torn")

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_all

    def _kind(self):
        match self.command:
            case "PUT" if "partNumber" in self.query:
                return "piece"
            case "PUT":
                return "create" if self._is_conditional() else "put"
            case "POST" if "uploads" in self.query:
                return "start"
            case "POST" if "uploadId" in self.query:
                return "complete"
            case "DELETE" if "uploadId" in self.query:
                return "abort"
            case "POST" | "DELETE":
                return "delete"
            case "GET" if not self.key:
                return "list"
        return self.command.lower()

    def _is_conditional(self):
        return (
            self.headers.get("if-none-match") == "*" or self.headers.get("x-goog-if-generation-match") == "0"
        )

    # ------------------------------------------------------------ what is done

    def _put(self):
        metadata = {k: v for k, v in self.headers.items() if re.match("x-(amz|goog)-meta-", k, re.IGNORECASE)}
        return self._place(self.body, metadata)

    _create = _put

    def _place(self, content, metadata):
        if self._is_conditional() and self.store.conditional != "ignored":
            if self.store.conditional == "refused":
                return 501, b""
            if self.key in self.bucket.objects:
                return 412, b""
        self.bucket.put(self.key, content, metadata)
        return 200, b"", {"ETag": f'"{self.bucket.objects[self.key][2]}"', "x-goog-generation": "1"}

    def _get(self):
        if self.key not in self.bucket.objects:
            return 404, b""
        content, metadata, etag, at = self.bucket.objects[self.key]
        headers = {**metadata, "ETag": f'"{etag}"', "Last-Modified": formatdate(at, usegmt=True)}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range") or "")
        if wanted is None:
            return 200, content, headers
        start, stop = int(wanted[1]), min(int(wanted[2] or len(content)) + 1, len(content))
        if start >= len(content):
            return 416, b""
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
        return 206, content[start:stop], headers

    _head = _get

    def _list(self, *, until=None):
        prefix, after = self.query.get("prefix", ""), self.query.get("start-after", "")
        token = self.query.get("continuation-token")
        most = min(int(self.query.get("max-keys", PAGE_OBJECTS)), PAGE_OBJECTS)
        keys, has_more = self.bucket.listed(prefix, token or after, most)
        self.store.asked.append((prefix, after, token, len(keys)))
        rows = []
        for key in keys:
            content, _, etag, at = self.bucket.objects[key]
            if until is None or at < until:
                day = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
                rows.append(
                    f"<Contents><Key>{escape(key)}</Key><LastModified>{day}</LastModified>"
                    f"<ETag>&quot;{etag}&quot;</ETag><Size>{len(content)}</Size></Contents>"
                )
        following = f"<NextContinuationToken>{escape(keys[-1])}</NextContinuationToken>" if has_more else ""
        more = str(has_more).lower()
        body = f"<ListBucketResult><IsTruncated>{more}</IsTruncated>{following}{''.join(rows)}</ListBucketResult>"
        return 200, body.encode()

    def _delete(self):
        if self.command == "DELETE":
            self.bucket.delete(self.key)
            return 204, b""
        keys = [unescape(key) for key in re.findall("<Key>(.*?)</Key>", self.body.decode(), re.DOTALL)]
        for key in keys:
            self.bucket.delete(key)
        done = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
        return 200, f"<DeleteResult>{done}</DeleteResult>".encode()

    def _start(self):
        name = f"upload-{self.store.requests['start']}"
        self.bucket.uploads[name] = (self.key, {})
        result = "InitiateMultipartUploadResult"
        return 200, f"<{result}><UploadId>{name}</UploadId></{result}>".encode()

    def _piece(self):
        if self.query["uploadId"] not in self.bucket.uploads:
            return 404, b""
        etag = hashlib.md5(self.body).hexdigest()  # noqa: S324
        self.bucket.uploads[self.query["uploadId"]][1][int(self.query["partNumber"])] = self.body
        return 200, b"", {"ETag": f'"{etag}"'}

    def _complete(self):
        if self.query["uploadId"] not in self.bucket.uploads:
            return 404, b""
        pieces = self.bucket.uploads[self.query["uploadId"]][1]
        status, body, *headers = self._place(b"".join(pieces[number] for number in sorted(pieces)), {})
        if status == 200:
            del self.bucket.uploads[self.query["uploadId"]]
            etag, result = self.bucket.objects[self.key][2], "CompleteMultipartUploadResult"
            body = f"<{result}><ETag>&quot;{etag}&quot;</ETag></{result}>".encode()
        return status, body, *headers

    def _abort(self):
        return (204 if self.bucket.uploads.pop(self.query["uploadId"], None) else 404), b""

    # ------------------------------------------------------------ what is answered

    def _answer(self, status, content, headers=None, *, torn=False):
        if status >= 400:
            code = "NoSuchBucket" if self.bucket is None else CODES[status]
            content = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if torn else content)
        if torn:
            self.wfile.flush()
            self._reset()

    def _reset(self):
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
