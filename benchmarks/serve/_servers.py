"""What the serving benchmarks share: servers in processes of their own, request bodies, the bare engine."""

import argparse
import contextlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

FOLDER = Path(__file__).resolve().parent
SOURCES = str(FOLDER.parents[1] / "src")
sys.path[:0] = [str(FOLDER.parent), str(FOLDER.parent / "gpu")]
if SOURCES not in sys.path:
    sys.path.append(SOURCES)  # where assay is not installed

import _record  # noqa: E402 - the path comes first

PACKAGES = ("assay", "torch", "transformers", "uvicorn", "starlette", "fastapi")
READY_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server that answers."""

    name: str
    port: int
    pid: int
    ready_seconds: float
    """From the start of the command to the first 200 of /health."""

    def rss_mib(self) -> float:
        """Resident memory of the process and of those below it."""
        process = psutil.Process(self.pid)
        return sum(each.memory_info().rss for each in (process, *process.children(recursive=True))) / 2**20

    def post(self, path: str, body: bytes) -> object:
        """The answer to one request."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", data=body, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310  as above
            return json.load(answer)


def environment(**changes: str) -> dict[str, str]:
    """The environment of a process that finds this source tree, and may keep compiled Python as usual."""
    paths = [SOURCES, *filter(None, [os.environ.get("PYTHONPATH")])]
    found = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **changes}
    found.pop("PYTHONDONTWRITEBYTECODE", None)
    return found


class Client:
    """One connection, used for one request after the other."""

    def __init__(self, server: Server) -> None:
        """Connect."""
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def seconds(self, body: bytes) -> float:
        """From the write of a request to the last byte of its answer, which must be a 200."""
        head = f"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        request = head.encode() + b"\r\n\r\n" + body
        began = time.perf_counter()
        self._socket.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer or not answer.endswith(b"}"):
            more = self._socket.recv(65536)
            if not more:
                raise SystemExit("the server closed the connection")
            answer += more
        found = time.perf_counter() - began
        if not answer.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"no 200 but {answer[:200]!r}")
        return found


@contextlib.contextmanager
def assay_serve(bundle: Path, *words: str, name: str = "assay serve") -> Iterator[Server]:
    """`assay serve` with these flags, ready."""
    port = _free_port()
    command = ["-m", "assay", "serve", str(bundle), "--port", str(port), *words]
    with _running(name, port, command) as server:
        yield server


@contextlib.contextmanager
def naive(bundle: Path, *words: str, name: str = "naive FastAPI", **variables: str) -> Iterator[Server]:
    """The naive server with these flags, ready."""
    port = _free_port()
    command = [str(FOLDER / "_naive.py"), str(bundle), "--port", str(port), *words]
    with _running(name, port, command, **variables) as server:
        yield server


def framework() -> str:
    """What the naive server runs on here."""
    return "starlette" if importlib.util.find_spec("fastapi") is None else "FastAPI"


@contextlib.contextmanager
def _running(name: str, port: int, command: Sequence[str], **variables: str) -> Iterator[Server]:
    with tempfile.TemporaryFile() as log:
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *command],
            env=environment(**variables),
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
        try:
            while not _is_healthy(port):
                if process.poll() is not None or time.perf_counter() - began > READY_SECONDS:
                    log.seek(0)
                    said = log.read().decode(errors="replace")[-2000:]
                    raise SystemExit(f"{name} is not ready: {said}")
                time.sleep(0.01)
            yield Server(name=name, port=port, pid=process.pid, ready_seconds=time.perf_counter() - began)
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _is_healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def _free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


def finish(
    arguments: argparse.Namespace,
    claim: str,
    value: float,
    unit: str,
    baseline: str,
    details: Mapping[str, object],
) -> None:
    """The result line of a claim; a smoke test's says so in its name and is never kept."""
    _record.finish(
        claim,
        value,
        unit,
        baseline,
        packages=PACKAGES,
        details=details,
        record=arguments.record,
        trial=arguments.tiny,
    )


def bodies_of(texts: Sequence[str]) -> list[bytes]:
    """A body of `/predict` for each text."""
    return [json.dumps({"text": text}).encode() for text in texts]


def check_same(first: Server, second: Server, bodies: Sequence[bytes], allowed: float) -> float:
    """The largest difference between two servers' probabilities (or scores); exits where it is too large."""
    worst = 0.0
    for body in bodies:
        values = [_values(server.post("/predict", body)) for server in (first, second)]
        worst = max(worst, *(abs(one - other) for one, other in zip(*values, strict=True)))
    if not worst <= allowed:
        raise SystemExit(f"{first.name} and {second.name} differ by {worst:.2e}; nothing is timed")
    return worst


def _values(answer: object) -> list[float]:
    assert isinstance(answer, dict), "an answer is an object"
    score = answer.get("score")
    return [score] if score is not None else list(answer["all_probabilities"].values())
