"""Servers for tests: the application in this process with an engine that is a function, and the real command."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import numpy as np

from assay.embed.unit_length import unit_length
from assay.serve import frames
from assay.serve.cascade import load_cascade_here
from assay.serve.deployment import load_here
from assay.serve.edge import Edge
from assay.serve.engine_process import run_batch
from assay.serve.engines import EngineSpec, Ready
from assay.serve.keys import Keys
from assay.serve.log import RequestLog
from assay.serve.metrics import Metrics
from assay.serve.page import PAGE_FILES
from assay.serve.routes import DOCS_PATHS, PROBE_PATHS, make_app
from assay.serve.service import Service
from assay.serve.settings import ServeSettings

READY = re.compile(r"ready on (\S+)")
JSON = {"Content-Type": "application/json"}


class FunctionEngine:
    """An engine of the dispatcher without a process: answers by `logits_of`, after a while, until it is ended."""

    def __init__(self, owner, *, num_outputs=2, seconds=0.0, budget=2048, engine=None):
        self.owner, self.num_outputs, self.seconds, self.engine = owner, num_outputs, seconds, engine
        self.spec = EngineSpec(
            bundle="", device="cpu", engine="auto", precision="auto", deterministic=False,
            max_batch_tokens=None, num_threads=None,
        )  # fmt: skip
        self.ready = Ready(
            description="a function", fingerprint="", num_outputs=num_outputs, is_padded=False,
            default_batch_tokens=budget, tokens_per_second=1e6, dtype="float32",
        )  # fmt: skip
        self.was_ready = self.ready
        self.reason = ""
        self.num_starts, self.num_failed_starts = 1, 0
        self.tokens_per_second = 1e6
        self.in_flight = []
        self.batches = []
        """Every batch that it got, as lists of documents."""
        self.poison = None
        """A token id that ends it."""

    def send(self, batch, frame):
        self.batches.append(batch)
        item = _InFlight(batch, len(frame.flat_ids))
        self.in_flight.append(item)
        asyncio.get_running_loop().call_later(self.seconds, self._answer, item, frame)

    def busy_until(self):
        """As an engine reckons it."""
        return asyncio.get_running_loop().time() + self.seconds

    def seconds_of_first(self):
        """As an engine reckons it."""
        return self.seconds

    def free_at(self, now):
        """As an engine reckons it."""
        return self.in_flight[0].sent_at + len(self.in_flight) * self.seconds if self.in_flight else now

    def end(self, *, for_seconds=0.0):
        """Die, as a killed process does, and be ready again after a while."""
        lost, self.in_flight, self.ready = [item.batch for item in self.in_flight], [], None
        self.reason = "killed"
        self.owner.engine_ended(self, lost, "killed")
        asyncio.get_running_loop().call_later(for_seconds, self._start)

    def stop(self):
        self.ready = None

    def _start(self):
        self.ready = self.was_ready
        self.owner.send_batches()

    def _answer(self, item, frame):
        if item not in self.in_flight:
            return
        if self.poison is not None and self.poison in frame.flat_ids:
            self.end()
            return
        self.in_flight.remove(item)
        if self.engine is None:
            outputs_SC = logits_of(frame, self.num_outputs)
            if frame.normalize is not None:
                rows = np.flatnonzero(frame.normalize)
                outputs_SC[rows] = unit_length(outputs_SC[rows])
        else:
            packed = frames.pack_batch(1, frame)
            head = frames.read_head(packed[: frames.HEAD.size])
            received = frames.unpack_batch(head, packed[frames.HEAD.size :])
            outputs_SC, _ = run_batch(self.engine, received, max_batch_tokens=None)
        self.owner.engine_answered(item.batch, outputs_SC, self.seconds)


class _InFlight:
    def __init__(self, batch, num_tokens):
        self.batch, self.num_tokens = batch, num_tokens
        self.sent_at = asyncio.get_running_loop().time()


def logits_of(frame, num_outputs):
    """Logits that depend on a sequence's ids alone."""
    sums = [
        int(frame.flat_ids[start:stop].sum())
        for start, stop in zip(frame.offsets, frame.offsets[1:], strict=False)
    ]
    return np.array([[(k + 1) * total % 17 / 4 for k in range(num_outputs)] for total in sums], np.float32)


async def until(condition, *, seconds=10.0):
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to hold"
        await asyncio.sleep(0.005)


def open_service(folder, *, seconds=0.0, budget=2048, num_engines=1, engine=None, **settings):
    """A service in the running loop, on function engines; the service and these.

    With `engine`, a loaded one, they give its outputs, by the steps of an engine process.
    """
    chosen = ServeSettings(bundle=str(folder), **settings)
    service = Service(chosen, Metrics(), RequestLog())
    deployment = service.deploy(load_here(chosen, str(folder)))
    engines = [
        _add_engine(deployment, seconds=seconds, budget=budget, engine=engine) for _ in range(num_engines)
    ]
    service.deployment, service.state = deployment, "serving"
    return service, engines


def open_cascade(file, *, engines=(None, None), seconds=0.0, budget=2048, **settings):
    """A service of a cascade in the running loop; the service and the engine of each of its models."""
    chosen = ServeSettings(bundle=str(file), **settings)
    service = Service(chosen, Metrics(), RequestLog())
    deployment = service.deploy(load_cascade_here(chosen))
    made = [
        _add_engine(each, seconds=seconds, budget=budget, engine=engine)
        for each, engine in zip((deployment.first, deployment.second), engines, strict=True)
    ]
    service.deployment, service.state = deployment, "serving"
    return service, made


def _add_engine(deployment, *, seconds, budget, engine):
    made = FunctionEngine(
        deployment.pool.dispatcher,
        num_outputs=deployment.model.num_outputs,
        seconds=seconds,
        budget=budget,
        engine=engine,
    )
    deployment.pool.dispatcher.engines.append(made)
    return made


def make_edge(service, *, keys=None, stream=None):
    """The whole application around a service."""
    return Edge(
        make_app(service, service.settings, service.metrics),
        keys=keys or Keys(),
        open_paths=frozenset((*PAGE_FILES, *DOCS_PATHS, *PROBE_PATHS)),
        log=RequestLog(stream),
        metrics=service.metrics,
        is_tls=False,
    )


@contextlib.asynccontextmanager
async def client_of(service, *, keys=None, stream=None):
    """An HTTP client that talks to the application without a socket."""
    edge = make_edge(service, keys=keys, stream=stream)
    transport = httpx.ASGITransport(app=edge)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        client.edge = edge
        yield client
    edge._log.flush()
    await service.drain()


class Served:
    """`assay serve` in a process of its own."""

    def __init__(self, process, url, lines):
        self.process, self.url, self.lines = process, url, lines

    def post(self, path, body, **headers):
        """The answer to a JSON body."""
        return httpx.post(f"{self.url}{path}", json=body, headers=headers, timeout=60)

    def get(self, path, **headers):
        """The answer to a GET."""
        return httpx.get(f"{self.url}{path}", headers=headers, timeout=60)

    def kill(self, number):
        """Send it a signal."""
        self.process.send_signal(number)

    def wait_for(self, word, *, seconds=60):
        """Wait until a line of its stderr holds `word`; the line."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for line in list(self.lines):
                if word in line:
                    return line
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(f"no {word!r} in:\n" + "".join(self.lines))

    def children(self, kind="engine_process"):
        """Process ids of its engines, or of its `front` processes."""
        found = []
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found += map(int, (task / "children").read_text().split())
        return [child for child in found if f"assay.serve.{kind}\0" in _command_line(child)]

    def stop(self, number=signal.SIGTERM):
        """End it; the exit status."""
        self.kill(number)
        return self.process.wait(60)


@contextlib.contextmanager
def served(folder, *flags, environment=None, seconds=60):
    """A server of a bundle, on a free port where the flags name none; ready, within so many seconds."""
    port = () if "--port" in flags else ("--port", "0")
    command = [sys.executable, "-m", "assay", "serve", str(folder), *port, *flags]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, encoding="utf-8", env={**os.environ, **(environment or {})}
    )
    lines = []
    reading = threading.Thread(target=_collect, args=(process.stderr, lines), daemon=True)
    reading.start()
    server = Served(process, "", lines)
    try:
        server.url = READY.search(server.wait_for("ready on ", seconds=seconds)).group(1)
        yield server
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        reading.join(10)
        process.stderr.close()


def _command_line(process_id):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{process_id}/cmdline").read_text()
    return ""


def _collect(stream, lines):
    for line in stream:
        lines.append(line)
