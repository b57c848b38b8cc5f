"""What is served now: a bundle, its tokenizer and its engines; how it starts, is exchanged and ends.

    accept a request -> tokenize -> queue -> engine -> scores -> its answer

A reload makes a whole second deployment and switches to it once it is warm; what the old one has
accepted it still answers.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from assay.bundle.bundle import Bundle
from assay.bundle.load import load_bundle
from assay.errors import AssayError, RefusedError, UsageError, WorkError
from assay.serve.dispatcher import Dispatcher
from assay.serve.edge import Receive
from assay.serve.engines import Child, DeviceEngine, EngineSpec
from assay.serve.log import RequestLog
from assay.serve.metrics import Metrics
from assay.serve.placement import further_specs, start_first
from assay.serve.refusals import Refusal
from assay.serve.scores import Scoring
from assay.serve.settings import ServeSettings
from assay.serve.tickets import ClientGoneError, Document, ScoredText, Side, Text, Ticket
from assay.serve.tokenizing import Tokenizer, TokenizingStage
from assay.tokenize.encode import Encoder
from assay.tokenize.plan import choose_max_length, other_lengths
from assay.tokenize.settings import WINDOWS

_log = logging.getLogger(__name__)

State = Literal["starting", "serving", "draining"]

WAIT_SHARE = 0.8
"""Of the timeout that a request may be reckoned to wait; one that would wait longer is refused."""
CHARS_PER_TOKEN = 3
"""To reckon with before a text is tokenized."""
FAULT_STARTS = 1
"""Failed starts in a row after which requests are refused rather than queued."""
BUSY_HEADERS = {"Retry-After": "1"}


@dataclass(eq=False, kw_only=True, slots=True)
class Deployment:
    """One bundle with all that answers for it."""

    bundle: Bundle
    encoder: Encoder
    stage: TokenizingStage
    dispatcher: Dispatcher
    device_engines: dict[DeviceEngine, "asyncio.Task[None]"] = field(default_factory=dict)
    tickets: set[Ticket] = field(default_factory=set)
    """Accepted and not yet answered."""
    reckoned_tokens: int = 0
    """Of tickets that are not tokenized."""
    warm: "asyncio.Future[None]"
    """Done once every engine has been ready, or failed."""

    def trouble(self) -> str | None:
        """Why no engine can answer now; None where one can."""
        engines = list(self.device_engines)
        if any(engine.ready is not None for engine in engines):
            return None
        return engines[0].reason if engines else "starting"

    def is_faulty(self) -> bool:
        """Whether no engine answers and starting again has failed too."""
        return self.trouble() is not None and all(
            engine.num_failed_starts >= FAULT_STARTS for engine in self.device_engines
        )

    async def end(self, limit_seconds: float) -> None:
        """Answer what was accepted, for as long as allowed, and stop the engines."""
        waiting = {ticket.done for ticket in self.tickets}
        if waiting:
            await asyncio.wait(waiting, timeout=limit_seconds)
        for ticket in list(self.tickets):
            ticket.fail(Refusal("unhealthy", "the server is shutting down", BUSY_HEADERS))
        for engine, task in self.device_engines.items():
            engine.stop()
            task.cancel()
        await asyncio.gather(*self.device_engines.values(), return_exceptions=True)
        self.stage.close()


class Service:
    """Accepts requests for the deployment of the moment. Lives in the event loop."""

    def __init__(self, settings: ServeSettings, metrics: Metrics, log: RequestLog) -> None:
        """Nothing is loaded before `start`; `log` hears of engines and bundles that are ready."""
        self.settings = settings
        self.metrics = metrics
        self._events = log
        self.state: State = "starting"
        self.deployment: Deployment | None = None
        self._reloading = asyncio.Lock()
        self._retiring: set[Deployment] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        metrics.gauge("te_queue_size", "Documents that wait.", lambda: float(self.num_waiting))
        metrics.gauge("assay_ready", "Whether predictions are answered now.", self._is_ready)

    # ------------------------------------------------------------ the state

    @property
    def num_waiting(self) -> int:
        """Documents that were accepted and are not with an engine."""
        deployment = self.deployment
        return (
            0 if deployment is None else deployment.stage.num_documents + deployment.dispatcher.num_documents
        )

    def trouble(self) -> str | None:
        """Why predictions are not answered now; None where they are."""
        if self.state == "draining":
            return "shutting down"
        if self.deployment is None:
            return "starting: the model is being loaded"
        return self.deployment.trouble()

    def _is_ready(self) -> float:
        return float(self.trouble() is None)

    # ------------------------------------------------------------ requests

    async def score(
        self,
        texts: Sequence[tuple[str, str | None]],
        *,
        truncate: bool | None,
        truncation_side: Side = "right",
        request_id: str,
        receive: Receive,
    ) -> tuple[Deployment, Ticket, list[ScoredText]]:
        """The scores of texts, in order, and who gave them.

        Raises Refusal where they are not accepted, take too long or cannot be scored; ClientGoneError
        once `receive` says that nobody waits any more.
        """
        deployment = self._admit(texts)
        loop = asyncio.get_running_loop()
        now = loop.time()
        ticket = Ticket(
            request_id=request_id,
            num_documents=len(texts),
            deadline=now + self.settings.timeout,
            truncate=truncate,
            truncation_side=truncation_side,
            done=loop.create_future(),
            arrived_at=time.perf_counter(),
            reckoned_tokens=_reckoned(texts, deployment),
        )
        deployment.tickets.add(ticket)
        deployment.reckoned_tokens += ticket.reckoned_tokens
        timer = loop.call_at(ticket.deadline, ticket.fail, _too_slow(self.settings))
        watch = loop.create_task(_watch(receive, ticket))
        try:
            deployment.stage.add(
                ticket, [Text(ticket, index, first, second) for index, (first, second) in enumerate(texts)]
            )
            return deployment, ticket, await ticket.done
        finally:
            timer.cancel()
            watch.cancel()
            deployment.tickets.discard(ticket)
            deployment.reckoned_tokens -= ticket.reckoned_tokens
            deployment.stage.cancel(ticket)
            deployment.dispatcher.cancel(ticket)

    def _admit(self, texts: Sequence[tuple[str, str | None]]) -> Deployment:
        """The deployment that takes the texts; raises Refusal where it would not answer in time."""
        deployment = self.deployment
        if self.state == "draining" or deployment is None or deployment.is_faulty():
            raise Refusal("unhealthy", f"not ready: {self.trouble()}", BUSY_HEADERS)
        num_waiting = self.num_waiting
        num_tokens = deployment.dispatcher.num_tokens + deployment.reckoned_tokens
        seconds = num_tokens / max(deployment.dispatcher.tokens_per_second, 1e-6) if num_tokens else 0.0
        is_slow = num_waiting > 0 and seconds > WAIT_SHARE * self.settings.timeout
        if is_slow or num_waiting + len(texts) > self.settings.max_queue:
            wait = max(1, math.ceil(seconds / 2))
            message = f"{num_waiting} documents wait already; try again in {wait} s"
            raise Refusal("overloaded", message, {"Retry-After": str(wait)})
        return deployment

    # ------------------------------------------------------------ start, reload, end

    async def start(self, children: Sequence[tuple[EngineSpec, Child]]) -> None:
        """Load the bundle that the children load too; returns once all are warm. Raises AssayError."""
        self.deployment = await self._open(self.settings, children)
        if self.state == "starting":
            self.state = "serving"

    def reload(self) -> "asyncio.Task[None]":
        """Load the bundle's folder again and switch to it; the old one goes on where that fails."""
        task = asyncio.get_running_loop().create_task(self._reload())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def drain(self) -> None:
        """Accept nothing more, answer what was accepted, end the engines."""
        self.state = "draining"
        serving = [] if self.deployment is None else [self.deployment]
        await asyncio.gather(
            *(deployment.end(self.settings.drain_seconds) for deployment in (*serving, *self._retiring))
        )
        for task in list(self._tasks):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _reload(self) -> None:
        async with self._reloading:
            if self.state != "serving":
                _log.warning("no reload while the server is %s", self.state)
                return
            old = self.deployment
            try:
                made = await self._open(self.settings, start_first(self.settings))
            except (AssayError, OSError) as error:
                self.metrics.reload("failed")
                _log.error("reload failed, the old bundle goes on: %s", error)
                return
            self.deployment = made
            self.metrics.reload("done")
            self._events.write("serving", bundle=str(made.bundle.path), fingerprint=made.bundle.fingerprint)
        if old is not None:
            self._retiring.add(old)
            # one without an engine has nothing to wait for
            await old.end(0 if old.trouble() else self.settings.timeout + 1)
            self._retiring.discard(old)

    async def _open(
        self, settings: ServeSettings, children: Sequence[tuple[EngineSpec, Child]]
    ) -> Deployment:
        loop = asyncio.get_running_loop()
        folder = children[0][0].bundle
        try:
            bundle, encoder, tokenizer = await loop.run_in_executor(None, load_here, settings, folder)
            for note in notes_of(bundle, encoder):
                _log.warning("%s", note)
            deployment = self._deploy(bundle, encoder, tokenizer)
        except BaseException:
            for _, child in children:
                child.process.kill()
                child.connection.close()
                child.process.wait()
            raise
        for spec, child in children:
            self._add_engine(deployment, spec, child)
        try:
            await deployment.warm
        except BaseException:
            await deployment.end(0)
            raise
        return deployment

    def _deploy(self, bundle: Bundle, encoder: Encoder, tokenizer: Tokenizer) -> Deployment:
        loop = asyncio.get_running_loop()
        made: list[Deployment] = []
        dispatcher = Dispatcher(
            Scoring(bundle.decider, encoder.views),
            self.metrics,
            max_batch_tokens=self.settings.max_batch_tokens,
            on_ready=lambda engine: self._engine_is_ready(made[0], engine),
            on_hello=lambda num_gpus: self._place_further(made[0], num_gpus),
        )

        def hand_on(ticket: Ticket, documents: list[Document]) -> None:
            made[0].reckoned_tokens -= ticket.reckoned_tokens
            ticket.reckoned_tokens = 0
            ticket.tokenized_at = time.perf_counter()
            dispatcher.add(ticket, documents)

        made.append(
            Deployment(
                bundle=bundle,
                encoder=encoder,
                stage=TokenizingStage(tokenizer, hand_on, num_threads=self.settings.num_threads),
                dispatcher=dispatcher,
                warm=loop.create_future(),
            )
        )
        return made[0]

    def _add_engine(self, deployment: Deployment, spec: EngineSpec, child: Child | None) -> None:
        engine = DeviceEngine(spec=spec, owner=deployment.dispatcher, child=child)
        deployment.dispatcher.engines.append(engine)
        task = asyncio.get_running_loop().create_task(self._run_engine(deployment, engine))
        deployment.device_engines[engine] = task

    async def _run_engine(self, deployment: Deployment, engine: DeviceEngine) -> None:
        await engine.run()
        if engine.first_error is not None and not deployment.warm.done():
            deployment.warm.set_exception(engine.first_error)

    def _place_further(self, deployment: Deployment, num_gpus: int) -> None:
        """The first engine knows how many GPUs there are: start the others."""
        if len(deployment.device_engines) > 1 or deployment.warm.done():
            return
        first = next(iter(deployment.device_engines))
        try:
            for spec in further_specs(first.spec, self.settings, num_gpus):
                self._add_engine(deployment, spec, None)
        except UsageError as error:
            deployment.warm.set_exception(error)

    def _engine_is_ready(self, deployment: Deployment, engine: DeviceEngine) -> None:
        assert engine.ready is not None, "it said that it is ready"
        if engine.num_starts > 1:
            self.metrics.restart()
        self._events.write("engine_ready", engine=engine.ready.description)
        if engine.ready.fingerprint != deployment.bundle.fingerprint:
            engine.ready = None
            engine.stop()
            engine.reason = "the bundle changed on disk; it is being loaded again"
            engine.num_failed_starts = FAULT_STARTS
            if deployment.warm.done():
                self.reload()
            else:
                msg = f"{deployment.bundle.path} changed while it was being loaded; try again"
                deployment.warm.set_exception(RefusedError(msg))
        elif engine.ready.num_outputs != len(deployment.bundle.labels):
            msg = f"the model has {engine.ready.num_outputs} outputs, the bundle {len(deployment.bundle.labels)}"
            if not deployment.warm.done():
                deployment.warm.set_exception(WorkError(msg))
        elif not deployment.warm.done() and all(each.ready for each in deployment.device_engines):
            deployment.warm.set_result(None)


def load_here(settings: ServeSettings, folder: str) -> tuple[Bundle, Encoder, Tokenizer]:
    """The server's own half of a bundle: labels, calibration, tokenizer; takes a moment, in any thread."""
    bundle = load_bundle(folder)
    max_length = choose_max_length(bundle, settings.max_length)
    encoder = Encoder.from_bundle(
        bundle.path, max_length=max_length, on_long=settings.on_long, stride=settings.stride
    )
    if bundle.is_pair:
        encoder.check_pairs()
    tokenizer = Tokenizer(encoder)
    tokenizer.warm_up()
    return bundle, encoder, tokenizer


def notes_of(bundle: Bundle, encoder: Encoder) -> list[str]:
    """What the user should hear of a bundle and of how it is served."""
    meta = None if bundle.calibration is None else bundle.calibration.meta
    lengths = other_lengths(meta, max_length=encoder.max_length, on_long=encoder.on_long)
    return [*bundle.notes, *([lengths] if lengths else [])]


def _reckoned(texts: Sequence[tuple[str, str | None]], deployment: Deployment) -> int:
    """Tokens that texts may have, from their characters."""
    chars = sum(len(first) + len(second or "") for first, second in texts)
    most = math.inf if deployment.encoder.on_long in WINDOWS else deployment.encoder.max_length
    return int(min(chars // CHARS_PER_TOKEN, most * len(texts))) + len(texts)


def _too_slow(settings: ServeSettings) -> Refusal:
    return Refusal("timeout", f"not answered within {settings.timeout:g} s")


async def _watch(receive: Receive, ticket: Ticket) -> None:
    """End a request whose client goes away."""
    while (await receive())["type"] != "http.disconnect":
        pass
    ticket.fail(ClientGoneError())
