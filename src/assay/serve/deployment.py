"""One model with all that answers for it: tokenizer, queue and engines.

texts of a request -> stage (token ids) -> dispatcher (queue) -> engines -> answers of its ticket
"""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from assay.errors import RefusedError, UsageError, WorkError
from assay.serve.dispatcher import Dispatcher
from assay.serve.edge import Receive
from assay.serve.engines import Child, DeviceEngine, EngineSpec
from assay.serve.kinds import ServedClassifier, ServedModel, open_model
from assay.serve.log import RequestLog
from assay.serve.metrics import Metrics
from assay.serve.pairs import PairJoiner, SplitPairs, split_pairs
from assay.serve.placement import further_specs
from assay.serve.refusals import Refusal
from assay.serve.settings import ServeSettings
from assay.serve.tickets import AnsweredText, ClientGoneError, How, QueuedDocument, RequestTexts, Text, Ticket
from assay.serve.tokenizing import Tokenizer, TokenizingStage
from assay.tokenize.settings import WINDOWS

CHARS_PER_TOKEN = 3
"""To estimate with before a text is tokenized."""
FAULT_STARTS = 1
"""Failed starts in a row after which requests are refused rather than queued."""
BUSY_HEADERS = {"Retry-After": "1"}
REFUSED_SECONDS = 1.0
"""For requests to learn that they are refused at the end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """The server's own half of a model: what its outputs mean, and its tokenizer."""

    model: ServedModel
    tokenizer: Tokenizer
    joiner: PairJoiner | None
    """Makes scores of pairs, of a Siamese model."""

    def notes(self) -> list[str]:
        """What the user should hear of the model and of how it is served."""
        return self.model.notes(self.tokenizer.encoder)


class Deployment:
    """Lives in the event loop; answers once it is started."""

    def __init__(
        self,
        settings: ServeSettings,
        opened: Opened,
        metrics: Metrics,
        log: RequestLog,
        *,
        on_stale: Callable[[], object],
    ) -> None:
        """Serve what `load_here` opened; `on_stale` hears of a model that has changed on disk."""
        self.model, self.encoder = opened.model, opened.tokenizer.encoder
        self._joiner = opened.joiner
        self._settings = settings
        self._metrics = metrics
        self._log = log
        self._on_stale = on_stale
        self.stage = TokenizingStage(
            opened.tokenizer, self._queue_documents, num_threads=settings.num_threads
        )
        self.dispatcher = Dispatcher(
            self.model.answering(self.encoder.views),
            metrics,
            max_batch_tokens=settings.max_batch_tokens,
            on_ready=self._engine_is_ready,
            on_hello=self._start_further,
        )
        self._running: list[asyncio.Task[None]] = []
        """One for each engine."""
        self._warm: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once every engine has been ready, or failed."""
        self._tickets: set[Ticket] = set()
        """Accepted and not yet answered."""
        self._open: set[asyncio.Future[None]] = set()
        """One for each request that is not answered, pairs still to be made of its texts included."""
        self._estimated_tokens = 0
        """Of tickets that are not tokenized."""

    # ------------------------------------------------------------ the state

    @property
    def engines(self) -> Sequence[DeviceEngine]:
        """One for each device."""
        return self.dispatcher.engines

    @property
    def num_tokenizing_threads(self) -> int:
        """Threads that make token ids."""
        return self.stage.num_threads

    @property
    def num_waiting(self) -> int:
        """Documents that were accepted and are not with an engine."""
        return self.stage.num_documents + self.dispatcher.num_documents

    @property
    def seconds_of_work(self) -> float:
        """How long the engines will take for what was accepted, as far as that can be told."""
        num_tokens = self.dispatcher.num_tokens + self._estimated_tokens
        return num_tokens / max(self.dispatcher.tokens_per_second, 1e-6) if num_tokens else 0.0

    def trouble(self) -> str | None:
        """Why no engine can answer now; None where one can."""
        if any(engine.ready is not None for engine in self.engines):
            return None
        return self.engines[0].reason if self.engines else "starting"

    def is_faulty(self) -> bool:
        """Whether no engine answers and starting again has failed too."""
        return self.trouble() is not None and all(
            engine.num_failed_starts >= FAULT_STARTS for engine in self.engines
        )

    # ------------------------------------------------------------ a request

    def num_documents(self, texts: RequestTexts) -> int:
        """How many documents rows count for where documents are counted: the distinct texts of pairs, rows at least."""
        if self._joiner is None:
            return len(texts)
        return max(len(texts), len({text for pair in texts for text in pair}))

    async def answer(
        self,
        texts: RequestTexts,
        how: How,
        *,
        request_id: str,
        receive: Receive,
        deadline: float | None = None,
        rows: Sequence[int] | None = None,
    ) -> tuple[Ticket, list[AnsweredText]]:
        """What the model says of rows, in order, and the request's ticket, of its documents.

        `deadline` is event loop time, by default the timeout from now; `rows` are the numbers by which the client
        knows the rows, by default their places. Raises Refusal where they take too long or cannot be read;
        ClientGoneError once `receive` says that nobody waits any more.
        """
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        self._open.add(over)
        until = loop.time() + self._settings.timeout if deadline is None else deadline
        pairs = None if self._joiner is None else split_pairs(texts)
        if pairs is not None:
            texts = [(text, None) for text in pairs.texts]
            rows = pairs.rows if rows is None else [rows[row] for row in pairs.rows]
        ticket = Ticket(
            request_id=request_id,
            num_documents=len(texts),
            deadline=until,
            how=how,
            done=loop.create_future(),
            arrived_at=time.perf_counter(),
            rows=rows,
            estimated_tokens=self._estimate(texts),
        )
        try:
            found = await self._answer(ticket, texts, receive)
            if pairs is not None and self._joiner is not None:
                found = await self._join(self._joiner, pairs, ticket, found)
            return ticket, found
        finally:
            over.set_result(None)
            self._open.discard(over)

    async def _answer(self, ticket: Ticket, texts: RequestTexts, receive: Receive) -> list[AnsweredText]:
        """What the engines say of documents, in order."""
        loop = asyncio.get_running_loop()
        self._tickets.add(ticket)
        self._estimated_tokens += ticket.estimated_tokens
        timer = loop.call_at(ticket.deadline, ticket.fail, self._too_slow())
        watch = loop.create_task(_watch(receive, ticket))
        try:
            self.stage.add(
                ticket, [Text(ticket, index, first, second) for index, (first, second) in enumerate(texts)]
            )
            return await ticket.done
        finally:
            timer.cancel()
            watch.cancel()
            self._tickets.discard(ticket)
            self._estimated_tokens -= ticket.estimated_tokens
            self.stage.cancel(ticket)
            self.dispatcher.cancel(ticket)

    async def _join(
        self, joiner: PairJoiner, pairs: SplitPairs, ticket: Ticket, found: list[AnsweredText]
    ) -> list[AnsweredText]:
        """The scores of pairs whose texts have vectors."""
        try:
            async with asyncio.timeout_at(ticket.deadline):
                return await self.stage.run(lambda: joiner.answers(pairs, ticket, found))
        except TimeoutError:
            raise self._too_slow() from None

    def _too_slow(self) -> Refusal:
        return Refusal("timeout", f"not answered within {self._settings.timeout:g} s")

    def _queue_documents(self, ticket: Ticket, documents: list[QueuedDocument]) -> None:
        """Texts of a request were tokenized: its documents wait for an engine."""
        self._estimated_tokens -= ticket.estimated_tokens
        ticket.estimated_tokens = 0
        ticket.tokenized_at = time.perf_counter()
        self.dispatcher.add(ticket, documents)

    def _estimate(self, texts: RequestTexts) -> int:
        """Tokens that texts may have, from their characters."""
        chars = sum(len(first) + len(second or "") for first, second in texts)
        most = math.inf if self.encoder.on_long in WINDOWS else self.encoder.max_length
        return int(min(chars // CHARS_PER_TOKEN, most * len(texts))) + len(texts)

    # ------------------------------------------------------------ start and end

    async def start(self, children: Sequence[tuple[EngineSpec, Child]]) -> None:
        """Take over engine processes; returns once all are warm. Raises AssayError, with everything ended."""
        for spec, child in children:
            self._add_engine(spec, child)
        try:
            await self._warm
        except BaseException:
            await self.end(0)
            raise

    async def end(self, limit_seconds: float) -> None:
        """Answer what was accepted, for as long as allowed, and stop the engines."""
        if self._open:
            await asyncio.wait(self._open, timeout=limit_seconds)
        self.refuse_open()
        if self._open:
            await asyncio.wait(self._open, timeout=REFUSED_SECONDS)
        for engine in self.engines:
            engine.stop()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self.stage.close()

    def refuse_open(self) -> None:
        """Give requests that are not answered a refusal."""
        for ticket in list(self._tickets):
            ticket.fail(Refusal("unhealthy", "the server is shutting down", BUSY_HEADERS))

    def _add_engine(self, spec: EngineSpec, child: Child | None) -> None:
        engine = DeviceEngine(spec=spec, owner=self.dispatcher, child=child)
        self.dispatcher.engines.append(engine)
        self._running.append(asyncio.get_running_loop().create_task(self._run(engine)))

    async def _run(self, engine: DeviceEngine) -> None:
        await engine.run()
        if engine.first_error is not None:
            self._fail(engine.first_error)

    def _start_further(self, num_gpus: int) -> None:
        """The first engine knows how many GPUs there are: start the others."""
        if len(self.engines) > 1 or self._warm.done():
            return
        try:
            for spec in further_specs(self.engines[0].spec, self._settings, num_gpus):
                self._add_engine(spec, None)
        except UsageError as error:
            self._fail(error)

    def _engine_is_ready(self, engine: DeviceEngine) -> None:
        assert engine.ready is not None, "it said that it is ready"
        if engine.num_starts > 1:
            self._metrics.restart()
        self._log.write("engine_ready", engine=engine.ready.description)
        if engine.ready.fingerprint != self.model.fingerprint:
            self._refuse_stale(engine)
        elif engine.ready.num_outputs != self.model.num_outputs:
            msg = (
                f"the model has {engine.ready.num_outputs} outputs, its folder says {self.model.num_outputs}"
            )
            self._fail(WorkError(msg))
        elif not self._warm.done() and all(each.ready for each in self.engines):
            self._warm.set_result(None)

    def _refuse_stale(self, engine: DeviceEngine) -> None:
        """An engine has loaded another model than the one that is served here."""
        engine.ready = None
        engine.stop()
        engine.reason = "the bundle changed on disk; it is being loaded again"
        engine.num_failed_starts = FAULT_STARTS
        if self._warm.done():
            self._on_stale()
        else:
            self._fail(RefusedError(f"{self.model.path} changed while it was being loaded; try again"))

    def _fail(self, error: Exception) -> None:
        """The start failed, unless it is over."""
        if not self._warm.done():
            self._warm.set_exception(error)


def load_here(settings: ServeSettings, folder: str) -> Opened:
    """The server's half of a model; takes a moment, in any thread.

    Raises UsageError where the queue cannot hold one request of pairs.
    """
    model = open_model(
        folder, kind=settings.model_kind, pooling=settings.pooling, normalize=settings.normalize
    )
    encoder = model.make_encoder(settings)
    joiner = None
    if isinstance(model, ServedClassifier) and model.siamese is not None:
        if settings.max_queue < 2 * settings.max_client_batch_size:
            raise UsageError(
                f"max_queue is {settings.max_queue} and max_client_batch_size {settings.max_client_batch_size} pairs of"
                " two texts; a queue must hold one request; raise the first or lower the second"
            )
        joiner = PairJoiner(model.siamese, encoder)
    tokenizer = Tokenizer(encoder, None if joiner is None else joiner.features)
    tokenizer.warm_up()
    return Opened(model=model, tokenizer=tokenizer, joiner=joiner)


async def _watch(receive: Receive, ticket: Ticket) -> None:
    """End a request whose client goes away."""
    while (await receive())["type"] != "http.disconnect":
        pass
    ticket.fail(ClientGoneError())
