"""The server's side of the engine processes: start, feed, watch, start again."""

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy.typing as npt

from assay import errors, machine
from assay.errors import AssayError, WorkError
from assay.model.sentence_files import PoolingName
from assay.processes import describe_end, spawn
from assay.serve import frames
from assay.serve.frames import BatchFrame, FrameHead, FrameKind
from assay.serve.links import FrameCutter
from assay.serve.settings import ModelKind
from assay.tokenize.settings import OnLong

_log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 30.0
HANG_SECONDS = 60.0
"""A batch that takes longer, and twenty times longer than expected, ends its engine."""
_DECAY = 0.9


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineSpec:
    """What an engine process is asked for."""

    bundle: str
    """Folder, links resolved."""
    device: str
    engine: str
    precision: str
    deterministic: bool
    max_batch_tokens: int | None
    num_threads: int | None
    """CPU threads; None for all."""
    model_kind: ModelKind = "auto"
    pooling: PoolingName | Literal["auto"] = "auto"
    """Of an encoder."""
    stage: int = 0
    """Of a cascade: whether it is for the first model, 0, or for the second, 1."""
    parity_share: float = 0.0
    """Share of documents that run in fp32 too."""
    on_long: OnLong = "truncate"
    """How long documents are read, which says how their windows are brought together."""

    def command(self, descriptor: int) -> list[str]:
        """The command line of the process."""
        words = [sys.executable, "-m", "assay.serve.engine_process", self.bundle, "--socket", str(descriptor)]
        words += ["--model-kind", self.model_kind, "--pooling", self.pooling]
        words += ["--device", self.device, "--engine", self.engine, "--precision", self.precision]
        if self.num_threads is not None:
            words += ["--threads", str(self.num_threads)]
        if self.max_batch_tokens is not None:
            words += ["--max-batch-tokens", str(self.max_batch_tokens)]
        if self.parity_share:
            words += ["--parity-share", repr(self.parity_share), "--on-long", self.on_long]
        return [*words, "--deterministic"] if self.deterministic else words


@dataclass(frozen=True, kw_only=True, slots=True)
class Child:
    """A started process and the socket that leads to it."""

    process: "subprocess.Popen[bytes]"
    connection: socket.socket

    def end(self) -> None:
        """End the process, and wait until it is gone."""
        self.connection.close()
        self.process.kill()
        self.process.wait()


def start_child(spec: EngineSpec) -> Child:
    """Start an engine process; it begins to load at once."""
    ours, theirs = socket.socketpair()
    environment = machine.child_environment(os.environ, num_threads=spec.num_threads)
    with theirs:
        process = spawn(
            spec.command(theirs.fileno()),
            environment=environment,
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
    ours.settimeout(0.0)
    return Child(process=process, connection=ours)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """What an engine said once it was loaded and warm."""

    description: str
    fingerprint: str
    num_outputs: int
    is_padded: bool
    default_batch_tokens: int
    tokens_per_second: float
    dtype: str
    """What it computes in, as torch has it; or `fp8`."""


@dataclass(slots=True)
class InFlight:
    """A batch that an engine has and has not answered."""

    number: int
    batch: Any
    num_tokens: int
    sent_at: float


class Owner(Protocol):
    """Who hears of engines; called in the event loop."""

    def engine_said_hello(self, num_gpus: int) -> None:
        """One runs, and sees so many GPUs."""
        ...

    def engine_is_ready(self, engine: "DeviceEngine") -> None:
        """This one is loaded and has answered its warm-up."""
        ...

    def engine_answered(
        self,
        batch: Any,  # noqa: ANN401  the owner's own
        outputs_SC: npt.NDArray[Any],
        seconds: float,
    ) -> None:
        """One computed a batch."""
        ...

    def engine_compared(self, found: Mapping[str, Any]) -> None:
        """One has compared documents with fp32, as it said."""
        ...

    def engine_refused(self, batch: Any, message: str) -> None:  # noqa: ANN401  as above
        """One could not compute a batch and goes on."""
        ...

    def engine_ended(self, engine: "DeviceEngine", batches: list[Any], reason: str) -> None:
        """This one died, and these batches with it, the one that was computed first."""
        ...


@dataclass(slots=True, eq=False)
class DeviceEngine:
    """One engine process after another on one device. Lives in the event loop."""

    spec: EngineSpec
    owner: Owner
    child: Child | None = None
    """A process that was started already."""
    ready: Ready | None = None
    """What the process said; None while it is not ready."""
    reason: str = "starting"
    """Why it is not ready."""
    first_error: AssayError | None = None
    """What the very first start failed of."""
    num_starts: int = 0
    num_failed_starts: int = 0
    """Starts since it was last ready."""
    in_flight: list[InFlight] = field(default_factory=list)
    tokens_per_second: float = 0.0
    """Measured; of the warm-up at first."""
    _writer: asyncio.WriteTransport | None = None
    _next_number: int = 1
    _tokens: float = 0.0
    _seconds: float = 0.0
    _answered_at: float = 0.0
    _is_stopping: bool = False

    def send(self, batch: Any, frame: BatchFrame) -> None:  # noqa: ANN401  the owner's own batch
        """Give it a batch; the answer comes to the owner."""
        assert self._writer is not None, "an engine that is not ready gets no batch"
        number, self._next_number = self._next_number, self._next_number + 1
        now = asyncio.get_running_loop().time()
        self.in_flight.append(InFlight(number, batch, len(frame.flat_ids), now))
        self._writer.write(frames.pack_batch(number, frame))

    def busy_until(self) -> float:
        """When the first batch in flight is expected to be done, event loop time."""
        return max(self.in_flight[0].sent_at, self._answered_at) + self.seconds_of_first()

    def seconds_of_first(self) -> float:
        """How long the first batch in flight is expected to take."""
        return self.in_flight[0].num_tokens / max(self.tokens_per_second, 1e-6)

    def free_at(self, now: float) -> float:
        """When all that it has is expected to be done, event loop time; `now` where it has nothing."""
        if not self.in_flight:
            return now
        behind = sum(each.num_tokens for each in self.in_flight[1:])
        return max(now, self.busy_until() + behind / max(self.tokens_per_second, 1e-6))

    async def run(self) -> None:
        """Keep a process running until `stop`; returns early where the very first start fails."""
        pause = FIRST_PAUSE_SECONDS
        while not self._stopped():
            self.num_starts += 1
            try:
                child, self.child = self.child or start_child(self.spec), None
                reason = await self._live(child)
            except OSError as error:
                reason = f"no process can be started: {error.strerror or error}"
            lost, self.in_flight = [each.batch for each in self.in_flight], []
            was_ready, self.ready, self._writer = self.ready is not None, None, None
            if self._stopped():
                return
            self.reason = reason
            self.num_failed_starts = 0 if was_ready else self.num_failed_starts + 1
            pause = FIRST_PAUSE_SECONDS if was_ready else min(LONGEST_PAUSE_SECONDS, 2 * pause)
            if self.num_starts == 1 and not was_ready and self.first_error is None:
                self.first_error = WorkError(f"the engine process did not start: {reason}")
            self.owner.engine_ended(self, lost, reason)
            if self.num_starts == 1 and self.first_error is not None:
                return
            await asyncio.sleep(pause)

    def stop(self) -> None:
        """End the process for good."""
        self._is_stopping = True
        if self._writer is not None:
            self._writer.close()
        if self.child is not None:
            self.child.connection.close()
            self.child.process.kill()

    def _stopped(self) -> bool:
        # a call, since a type checker takes the flag for what it was before the last await
        return self._is_stopping

    async def _live(self, child: Child) -> str:
        """One process from start to end; why it ended."""
        said = ""
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        self.reason = "starting" if self.num_starts == 1 else "starting again after: " + self.reason

        def begin(transport: asyncio.WriteTransport) -> None:
            self._writer = transport

        def take(head: FrameHead, payload: bytes) -> None:
            nonlocal said
            said = self._take(head, payload) or said

        transport, _ = await loop.create_connection(
            lambda: FrameCutter(begin, take, ended), sock=child.connection
        )
        watch = asyncio.ensure_future(self._watch(child.process))
        try:
            await ended
        finally:
            watch.cancel()
            transport.close()
            child.process.kill()
            status = await loop.run_in_executor(None, child.process.wait)
        return said or f"the engine process {describe_end(status)}"

    def _take(self, head: FrameHead, payload: bytes) -> str | None:
        """Act on a frame; what the process says it will die of."""
        if head.kind == FrameKind.OUTPUTS:
            done = self._done(head.number)
            self._measure(done)
            try:
                self.owner.engine_answered(done.batch, frames.unpack_outputs(head, payload), head.seconds)
            except BaseException:
                # the connection is given up, and what is in flight is tried again
                self.in_flight.insert(0, done)
                raise
            return None
        content = frames.unpack_json(payload)
        if head.kind == FrameKind.COMPARED:
            self.owner.engine_compared(content)
        elif head.kind == FrameKind.HELLO:
            self.owner.engine_said_hello(content["num_gpus"])
        elif head.kind == FrameKind.READY:
            self.ready = Ready(**content)
            self.reason = ""
            self.num_failed_starts = 0
            self._tokens = self._seconds = 0.0
            self.tokens_per_second = self.ready.tokens_per_second
            self.owner.engine_is_ready(self)
        elif content.get("is_fatal"):
            if self.num_starts == 1 and self.ready is None:
                self.first_error = errors.KINDS.get(content.get("kind") or "", WorkError)(content["message"])
            # of two batches under way, the one that it died of is blamed
            self.in_flight.sort(key=lambda each: each.number != head.number)
            return str(content["message"])
        else:
            self.owner.engine_refused(self._done(head.number).batch, content["message"])
        return None

    def _done(self, number: int) -> InFlight:
        found = next(each for each in self.in_flight if each.number == number)
        self.in_flight.remove(found)
        return found

    def _measure(self, done: InFlight) -> None:
        """Tokens a second over the last few batches; waiting for work does not count."""
        now = asyncio.get_running_loop().time()
        seconds = now - max(done.sent_at, self._answered_at)
        self._answered_at = now
        self._tokens = _DECAY * self._tokens + done.num_tokens
        self._seconds = _DECAY * self._seconds + seconds
        self.tokens_per_second = self._tokens / max(self._seconds, 1e-6)

    async def _watch(self, process: "subprocess.Popen[bytes]") -> None:
        """Kill a process that does not come back from a batch."""
        now: Callable[[], float] = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(1.0)
            if self.ready is None or not self.in_flight:
                continue
            first = self.in_flight[0]
            limit = max(HANG_SECONDS, 20 * first.num_tokens / max(self.tokens_per_second, 1e-6))
            if now() - max(first.sent_at, self._answered_at) > limit:
                _log.error("an engine did not answer within %.0f s and is ended", limit)
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                return
