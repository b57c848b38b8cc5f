"""A load generator for HTTP servers, in a process of its own, and what it measured.

One connection a client, kept open; the bodies are made beforehand. Two ways to load a server:

closed   so many clients, each sends its next request once it has its answer
open     requests at a fixed rate, whether answers come or not, each on an idle connection or a new one

Plain asyncio protocols that send from where the answer came in: a request costs the generator some
30 microseconds, which on a machine of few cores is taken from the server.
"""

import asyncio
import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

DRAIN_SECONDS = 40.0
"""How long answers are waited for after the last request, or the first where none came in time."""

START_SECONDS = 2.0
"""For several processes to start and connect."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is sent, and for how long."""

    port: int
    path: str
    clients: int
    """Connections; with a rate those opened beforehand."""
    seconds: float
    """Of the measurement, after `warm_seconds`; closed, one without an answer goes on until there is one."""
    warm_seconds: float = 1.0
    rate: float | None = None
    """Requests a second; None for closed."""
    most_requests: int | None = None
    """The measurement ends with so many answers too."""
    begins_at: float | None = None
    """Of the measurement, by `time.perf_counter`, which the processes of a machine share; instead of `warm_seconds`."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What came back within the measurement."""

    seconds: float
    statuses: dict[int, int]
    """Answers by HTTP status; 0 counts connections that were lost."""
    latencies_ms: dict[int, list[float]]
    """By status, in order of arrival; from the write of the request to the last byte of its answer."""
    which: dict[int, list[int]] = field(repr=False)
    """By status, the number of each answer's body."""
    num_sent: int
    num_connections: int
    lag_ms_p99: float
    """How late requests of a fixed rate were sent; 0 for closed."""

    def rate(self, status: int = 200) -> float:
        """Answers a second."""
        return self.statuses.get(status, 0) / self.seconds

    def quantile_ms(self, share: float, status: int = 200) -> float:
        """A quantile of the latency."""
        return quantile(self.latencies_ms.get(status, []), share)

    def line(self) -> str:
        """For people."""
        counts = ", ".join(f"{count} x {status}" for status, count in sorted(self.statuses.items()))
        return (
            f"{self.rate():9.1f} requests/s, p50 {self.quantile_ms(0.5):8.2f} ms, "
            f"p99 {self.quantile_ms(0.99):8.2f} ms ({counts})"
        )


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values do not exceed; NaN of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def load(plan: Plan, bodies: Sequence[bytes]) -> Loaded:
    """Load a server on this machine from a process of its own; the bodies are sent round and round."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "plan.json").write_text(json.dumps(asdict(plan)))
        (Path(folder) / "bodies.jsonl").write_bytes(b"\n".join(bodies))
        done = subprocess.run(
            [sys.executable, __file__, folder],
            capture_output=True,
            text=True,
            check=False,
            env=dict(os.environ),
        )
    if done.returncode:
        raise SystemExit(f"the load generator: {done.stderr.strip()}")
    content = json.loads(done.stdout)
    for name in ("statuses", "latencies_ms", "which"):
        content[name] = {int(status): value for status, value in content[name].items()}
    return Loaded(**content)


def load_by_many(plan: Plan, bodies: Sequence[bytes], num_processes: int) -> Loaded:
    """The same from several processes, which share the clients and measure at the same time."""
    begins_at = time.perf_counter() + START_SECONDS + plan.warm_seconds
    shares = [len(range(first, plan.clients, num_processes)) for first in range(num_processes)]
    # no two send the same texts at once
    starts = [first * len(bodies) // num_processes for first in range(num_processes)]
    with ThreadPoolExecutor(num_processes) as threads:
        parts = list(
            threads.map(
                lambda clients, start: load(
                    replace(plan, clients=clients, begins_at=begins_at), [*bodies[start:], *bodies[:start]]
                ),
                shares,
                starts,
            )
        )
    statuses = {status for part in parts for status in part.statuses}
    return Loaded(
        seconds=plan.seconds,
        statuses={status: sum(part.statuses.get(status, 0) for part in parts) for status in statuses},
        latencies_ms={
            status: [value for part in parts for value in part.latencies_ms.get(status, [])]
            for status in statuses
        },
        which={},
        num_sent=sum(part.num_sent for part in parts),
        num_connections=sum(part.num_connections for part in parts),
        lag_ms_p99=0.0,
    )


# ------------------------------------------------------------ in the process


class Connection(asyncio.Protocol):
    """One connection; at most one request is under way."""

    def __init__(self, generator: "Generator") -> None:
        self.generator = generator
        self.transport: Any = None
        self.buffer = b""
        self.needed = 0
        """Bytes of the whole answer; 0 before its head is there."""
        self.body = -1
        """Number of the body under way; -1 for none."""
        self.sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def send(self, number: int) -> None:
        self.body = number
        self.sent_at = time.perf_counter()
        self.transport.write(self.generator.requests[number])

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.needed:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self.buffer[:end].lower()
            self.needed = end + 4 + int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(self.buffer) >= self.needed:
            status, self.buffer, self.needed = int(self.buffer[9:12]), b"", 0
            self._answered(status)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.transport = None
        self._answered(0)

    def _answered(self, status: int) -> None:
        if self.body >= 0:
            number, self.body = self.body, -1
            self.generator.answered(self, status, number, time.perf_counter() - self.sent_at)


class Generator:
    """Sends, counts, and knows when it is over."""

    def __init__(self, plan: Plan, bodies: Sequence[bytes]) -> None:
        self.plan = plan
        head = (
            f"POST {plan.path} HTTP/1.1\r\nHost: 127.0.0.1:{plan.port}\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        ).encode()
        self.requests = [head + str(len(body)).encode() + b"\r\n\r\n" + body for body in bodies]
        self.next_body = 0
        self.idle: list[Connection] = []
        self.num_connections = 0
        self.num_sent = 0
        self.num_under_way = 0
        self.num_counted = 0
        self.is_over = False
        self.most_requests = plan.most_requests
        self.begins = self.ends = 0.0
        self.last = 0.0
        self.latencies: dict[int, array[float]] = {}
        self.which: dict[int, array[int]] = {}
        self.lags: list[float] = []
        self.over = asyncio.Event()
        self.settled = asyncio.Event()

    async def run(self) -> None:
        for _ in range(self.plan.clients):
            self.idle.append(await self.connect())
        now = time.perf_counter()
        self.begins = self.plan.begins_at or now + self.plan.warm_seconds
        self.ends = self.begins + self.plan.seconds
        if self.plan.rate is None:
            clients, self.idle = self.idle, []
            for client in clients:
                self.send(client)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.over.wait(), self.ends - now)
            if not self.num_counted:
                self.most_requests, self.ends = 1, math.inf
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.over.wait(), DRAIN_SECONDS)
        else:
            await self.send_at_rate(now, self.plan.rate)
        self.is_over = True
        if self.num_under_way:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.settled.wait(), DRAIN_SECONDS)

    async def send_at_rate(self, began: float, rate: float) -> None:
        for number in range(int(rate * (self.plan.warm_seconds + self.plan.seconds))):
            due = began + number / rate
            wait = due - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            elif number % 16 == 0:
                await asyncio.sleep(0)  # answers are read even where sending is late
            self.lags.append(max(0.0, time.perf_counter() - due))
            self.send(await self.free())

    async def free(self) -> Connection:
        """A connection on which nothing is under way; servers close those that were never used."""
        while self.idle:
            client = self.idle.pop()
            if client.transport is not None:
                return client
        return await self.connect()

    async def connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(lambda: Connection(self), "127.0.0.1", self.plan.port)
        self.num_connections += 1
        return made

    def send(self, client: Connection) -> None:
        self.num_sent += 1
        self.num_under_way += 1
        number, self.next_body = self.next_body, (self.next_body + 1) % len(self.requests)
        client.send(number)

    def answered(self, client: Connection, status: int, number: int, seconds: float) -> None:
        self.num_under_way -= 1
        now = time.perf_counter()
        if self.begins <= now <= self.ends and not self.is_over:
            self.latencies.setdefault(status, array("d")).append(1000 * seconds)
            self.which.setdefault(status, array("q")).append(number)
            self.num_counted += 1
            self.last = now
            if self.num_counted == self.most_requests:
                self.is_over = True
                self.over.set()
        if self.is_over and not self.num_under_way:
            self.settled.set()
        if client.transport is None:
            if self.plan.rate is None and not self.is_over:
                task = asyncio.ensure_future(self.replace())
                task.add_done_callback(lambda done: done.exception())
        elif self.plan.rate is not None:
            self.idle.append(client)
        elif not self.is_over:
            self.send(client)

    async def replace(self) -> None:
        self.send(await self.connect())

    def result(self) -> dict[str, object]:
        whole = self.num_counted != self.most_requests
        return {
            "seconds": self.plan.seconds if whole else self.last - self.begins,
            "statuses": {status: len(values) for status, values in self.latencies.items()},
            "latencies_ms": {status: list(values) for status, values in self.latencies.items()},
            "which": {status: list(values) for status, values in self.which.items()},
            "num_sent": self.num_sent,
            "num_connections": self.num_connections,
            "lag_ms_p99": 1000 * quantile(self.lags, 0.99) if self.lags else 0.0,
        }


def main() -> None:
    """Load as the folder named on the command line says; the result as JSON on stdout."""
    folder = Path(sys.argv[1])
    plan = Plan(**json.loads((folder / "plan.json").read_text()))
    bodies = (folder / "bodies.jsonl").read_bytes().split(b"\n")
    new_loop = asyncio.new_event_loop
    with contextlib.suppress(ImportError):
        import uvloop

        new_loop = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=new_loop) as runner:
        generator = Generator(plan, bodies)
        runner.run(generator.run())
    json.dump(generator.result(), sys.stdout)


if __name__ == "__main__":
    main()
