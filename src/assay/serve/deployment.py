"""One model with all that answers for it: tokenizer, and a pool of engines.

texts of a request -> stage (token ids) -> pool (queue, engines) -> answers of its ticket
"""

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from assay.errors import UsageError
from assay.serve.edge import Receive
from assay.serve.engine_pool import Pool
from assay.serve.engines import Child, EngineSpec, Ready
from assay.serve.kinds import ServedClassifier, ServedModel, open_model
from assay.serve.pairs import PairJoiner, SplitPairs, split_pairs
from assay.serve.refusals import Refusal
from assay.serve.settings import ServeSettings
from assay.serve.tickets import AnsweredText, ClientGoneError, How, QueuedDocument, RequestTexts, Text, Ticket
from assay.serve.tokenizing import Tokenizer, TokenizingStage
from assay.tokenize.settings import WINDOWS

CHARS_PER_TOKEN = 3
"""To estimate with before a text is tokenized."""
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
        pool: Pool,
    ) -> None:
        """Serve what `load_here` opened, by the engines of `pool`."""
        self.model, self.encoder = opened.model, opened.tokenizer.encoder
        self.pool = pool
        self._joiner = opened.joiner
        self._settings = settings
        self.stage = TokenizingStage(
            opened.tokenizer, self._queue_documents, num_threads=settings.num_threads
        )
        self._tickets: set[Ticket] = set()
        """Accepted and not yet answered."""
        self._open: set[asyncio.Future[None]] = set()
        """One for each request that is not answered, pairs still to be made of its texts included."""
        self._estimated_tokens = 0
        """Of tickets that are not tokenized."""

    # ------------------------------------------------------------ the state

    @property
    def num_tokenizing_threads(self) -> int:
        """Threads that make token ids."""
        return self.stage.num_threads

    @property
    def num_waiting(self) -> int:
        """Documents that were accepted and are not with an engine."""
        return self.stage.num_documents + self.pool.num_documents

    @property
    def seconds_of_work(self) -> float:
        """How long the engines will take for what was accepted, as far as that can be told."""
        num_tokens = self.pool.num_tokens + self._estimated_tokens
        return num_tokens / max(self.pool.tokens_per_second, 1e-6) if num_tokens else 0.0

    def trouble(self) -> str | None:
        """Why no engine can answer now; None where one can."""
        return self.pool.status().trouble

    def is_faulty(self) -> bool:
        """Whether no engine answers and starting again has failed too."""
        return self.pool.status().is_faulty

    def ready_engines(self) -> Sequence[Ready]:
        """What the engines that can answer said of themselves."""
        return self.pool.status().engines

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
            self._publish()
            return await ticket.done
        finally:
            timer.cancel()
            watch.cancel()
            self._tickets.discard(ticket)
            self._estimated_tokens -= ticket.estimated_tokens
            self.stage.cancel(ticket)
            self.pool.cancel(ticket)
            self._publish()

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
        self.pool.add(ticket, documents)
        self._publish()

    def _publish(self) -> None:
        self.pool.publish(self.stage.num_documents, self._estimated_tokens)

    def _estimate(self, texts: RequestTexts) -> int:
        """Tokens that texts may have, from their characters."""
        chars = sum(len(first) + len(second or "") for first, second in texts)
        most = math.inf if self.encoder.on_long in WINDOWS else self.encoder.max_length
        return int(min(chars // CHARS_PER_TOKEN, most * len(texts))) + len(texts)

    # ------------------------------------------------------------ start and end

    async def start(self, children: Sequence[tuple[EngineSpec, Child]]) -> None:
        """Take over engine processes; returns once all are warm. Raises AssayError, with everything ended."""
        try:
            await self.pool.start(children)
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
        await self.pool.stop()
        self.stage.close()

    def refuse_open(self) -> None:
        """Give requests that are not answered a refusal."""
        for ticket in list(self._tickets):
            ticket.fail(Refusal("unhealthy", "the server is shutting down", BUSY_HEADERS))


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
