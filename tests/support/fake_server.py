"""A server with the routes, answers and errors of `assay serve`, and made-up scores: for its clients and its page.

    with FakeServer(labels=("ham", "spam")) as server:
        server.url
        server.faults.append(Fault(429, {"Retry-After": "1"}))   # the next prediction is answered so
        server.requests                                          # what came

The score of a text depends on its characters alone, so a mix-up of rows shows.
"""

import json
import threading
import zlib
from base64 import b64encode
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from assay.serve.page import CONTENT_SECURITY_POLICY, read_page_files

LABELS = ("World", "Sports", "Business", "Sci/Tech")
MAX_TOKENS = 32


@dataclass
class Fault:
    """An answer that is none."""

    status: int
    headers: dict = field(default_factory=dict)
    error: str = "a made-up fault"


def made_up(text, labels=LABELS):
    """A probability for each label, which sum to 1."""
    weights = [1 + zlib.crc32(f"{label}{text}".encode("utf-8", "surrogatepass")) % 997 for label in labels]
    return {label: weight / sum(weights) for label, weight in zip(labels, weights, strict=True)}


def made_up_vector(text):
    """A vector of three numbers of either sign, float32."""
    return np.array([zlib.crc32(f"{axis}{text}".encode()) / 2**31 - 1 for axis in range(3)], "<f4")


def answer_to(text, *, labels=LABELS, task="single_label", details=False):
    """The answer to one text, as `assay serve` gives it."""
    probabilities = made_up(text, labels)
    if task == "regression":
        score = 5 * made_up(text)["World"]
        answer = {"score": score, "int_score": round(score), "interval": [score - 0.5, score + 0.5]}
    elif task == "multi_label":
        held = [label for label, value in probabilities.items() if value >= 0.3]
        answer = {"labels": held, "all_probabilities": probabilities}
    else:
        best = max(probabilities, key=probabilities.get)
        answer = {"label": best, "confidence": probabilities[best], "all_probabilities": probabilities}
    if details:
        words = len(text.split())
        answer |= {
            "num_tokens": min(words + 2, MAX_TOKENS),
            "truncated": words + 2 > MAX_TOKENS,
            "timings": {"tokenize_ms": 0.2, "queue_ms": 1.1, "forward_ms": 3.3},
        }
    return answer


class FakeServer:
    """Listens on a free port of loopback while in its `with` block."""

    def __init__(self, *, labels=LABELS, task="single_label", is_pair=False, key=None, max_batch=8):
        self.labels, self.task, self.is_pair, self.key = labels, task, is_pair, key
        self.info = {
            "model_id": "/models/news",
            "fingerprint": "0" * 32,
            "task": task,
            "labels": list(labels),
            "is_pair": is_pair,
            "calibrated": True,
            "version": "0.1.0",
            "max_client_batch_size": max_batch,
            "max_body_bytes": 100_000,
            "max_text_chars": 50_000,
            "max_input_length": MAX_TOKENS,
        }
        if task is None:  # an encoder
            self.info |= {"dimension": 3, "model_type": {"embedding": {"pooling": "mean"}}}
            for name in ("task", "labels", "calibrated"):
                del self.info[name]
        self.faults = deque()
        self.requests = []
        self.refused = "refuse me"
        """A text that holds this is answered with 422, and its whole batch with it."""
        self.breaking = "break down"
        """A text that holds this is answered with 500."""
        self.permits = None
        """A semaphore that each prediction takes from, while there is one."""
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()

    def __enter__(self):
        handler = type("Handler", (_Handler,), {"fake": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.open()
        self.http.shutdown()
        self.http.server_close()

    def hold_after(self, number):
        """Answer so many predictions and hold the others until `open`."""
        self.permits = threading.Semaphore(number)

    def open(self):
        """Hold nothing any more."""
        permits, self.permits = self.permits, None
        if permits is not None:
            permits.release(1_000)

    def answer(self, method, path, headers, body):
        """Status, headers and content of the answer to a request."""
        pages = read_page_files()
        if method == "GET" and path in pages:
            content, media = pages[path]
            return 200, {"Content-Type": media, "Content-Security-Policy": CONTENT_SECURITY_POLICY}, content
        if self.key is not None and headers.get("Authorization") != f"Bearer {self.key}":
            return _error(401, "no API key, or one that is not known")
        if path == "/health":
            return 200, {}, b""
        if path == "/info":
            return _json(self.info)
        if path == "/predict/batch":
            return self._predict(json.loads(body))
        if path == "/v1/embeddings":
            return self._embed(json.loads(body))
        if path == "/rerank":
            given = json.loads(body)
            scores = [made_up(given["query"] + text)["World"] for text in given["texts"]]
            ranks = [{"index": index, "score": score} for index, score in enumerate(scores)]
            if given["return_text"]:
                ranks = [{**rank, "text": given["texts"][rank["index"]]} for rank in ranks]
            return _json(sorted(ranks, key=lambda rank: -rank["score"]))
        return _error(404, "no such route")

    def _embed(self, given):
        fault = self._next_fault(given)
        if fault is not None or self.task is not None:
            fault = fault or Fault(424, error="a classifier gives no vectors")
            content = json.dumps({"message": fault.error, "code": fault.status, "type": "backend"}).encode()
            return fault.status, {"Content-Type": "application/json", **fault.headers}, content
        vectors = [made_up_vector(given.get("prompt_name", "") + text) for text in given["input"]]
        assert given["encoding_format"] == "base64"
        data = [
            {"object": "embedding", "embedding": b64encode(vector.tobytes()).decode(), "index": index}
            for index, vector in enumerate(vectors)
        ]
        return _json({"object": "list", "data": data, "model": "m", "usage": {}})

    def _next_fault(self, given):
        with self.lock:
            self.requests.append(given)
            fault = self.faults.popleft() if self.faults else None
        permits = self.permits
        if permits is not None:
            permits.acquire(timeout=20)
        return fault

    def _predict(self, given):
        fault = self._next_fault(given)
        if fault is not None:
            return _error(fault.status, fault.error, fault.headers)
        if any(self.breaking in text for text in given["texts"]):
            return _error(500, "a made-up failure")
        pairs = given.get("text_pairs") or [""] * len(given["texts"])
        if len(given["texts"]) > self.info["max_client_batch_size"] or any(
            self.refused in text for text in given["texts"]
        ):
            return _error(422, "a text holds what it must not")
        return _json(
            [
                answer_to(text + pair, labels=self.labels, task=self.task, details=given["details"])
                for text, pair in zip(given["texts"], pairs, strict=True)
            ]
        )


def _json(content):
    return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()


def _error(status, error, headers=None):
    content = json.dumps({"error": error, "error_type": "Validation"}).encode()
    return status, {"Content-Type": "application/json", **(headers or {})}, content


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake = None

    def do_GET(self):
        self._answer("GET", b"")

    def do_POST(self):
        self._answer("POST", self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, method, body):
        fake = self.fake
        with fake.lock:
            fake.at_once += 1
            fake.most_at_once = max(fake.most_at_once, fake.at_once)
        try:
            status, headers, content = fake.answer(method, self.path, self.headers, body)
        finally:
            with fake.lock:
                fake.at_once -= 1
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except ConnectionError:  # a client that left
            self.close_connection = True

    def log_message(self, *_):
        """Nothing on the terminal."""
