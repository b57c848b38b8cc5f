"""Documents of many requests to the engines of one model, and the answers back.

A batch is closed when an engine is free, or so shortly before that the device does not wait for the
next one. An engine that dies has its batch tried once more: each document of it alone, so that one
which ends engines takes no other with it.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from assay.serve.engines import DeviceEngine
from assay.serve.frames import BatchFrame
from assay.serve.metrics import Compared, Metrics
from assay.serve.policy import Queue, Waiting, done_together
from assay.serve.refusals import Refusal
from assay.serve.tickets import QueuedDocument, TextAnswer, Ticket

_log = logging.getLogger(__name__)

AHEAD_SECONDS = 0.003
"""How long before a batch is expected to be done the next one is sent, at least."""
AHEAD_SHARE = 0.25
"""The same as a share of the time that the batch takes: the longer it takes, the less exactly its end is known."""
LEAST_SHARE_TOKENS = 1024
"""Of one engine, where several share what waits."""
MOST_BATCH_DOCUMENTS = 4096
MOST_TRIES = 2
"""Engines that may die of a document before it is given up."""


class Answering(Protocol):
    """What makes answers of outputs."""

    def answers(
        self, outputs_SC: npt.NDArray[np.float32], num_views_N: list[int]
    ) -> Sequence[TextAnswer | None]:
        """An answer a document that has so many views; None where there is none to give."""
        ...


Deliver = Callable[[list[QueuedDocument], npt.NDArray[np.float32], float], None]
"""Hands the outputs of a batch's views, [S, C], and the seconds that they took to whoever asked."""


def delivery(answering: Answering) -> Deliver:
    """What gives the answers of outputs to the requests in this process."""

    def deliver(batch: list[QueuedDocument], outputs_SC: npt.NDArray[np.float32], seconds: float) -> None:
        answers = answering.answers(outputs_SC, [len(document.lengths) for document in batch])
        for document, answer in zip(batch, answers, strict=True):
            ticket = document.ticket
            ticket.forward_seconds = max(ticket.forward_seconds, seconds)
            if answer is None:
                where = ticket.where(document.index).rstrip()
                message = f"the model gave no finite numbers{' for ' if where else ''}{where}"
                ticket.fail(Refusal("backend", message))
            else:
                ticket.take(document.index, answer)

    return deliver


class Dispatcher:
    """The queue before the engines. Lives in the event loop; owns no process."""

    def __init__(
        self,
        deliver: Deliver,
        metrics: Metrics,
        *,
        max_batch_tokens: int | None,
        on_ready: Callable[[DeviceEngine], None],
        on_hello: Callable[[int], None],
    ) -> None:
        """`on_ready` and `on_hello` hear of engines that are loaded, and of the GPUs that one sees."""
        self.engines: list[DeviceEngine] = []
        self._deliver = deliver
        self._metrics = metrics
        self._max_batch_tokens = max_batch_tokens
        self._on_ready = on_ready
        self._on_hello = on_hello
        self._queue: Queue[Ticket, QueuedDocument] = Queue()
        self._timer: asyncio.TimerHandle | None = None

    # ------------------------------------------------------------ in

    @property
    def num_documents(self) -> int:
        """Documents that wait."""
        return self._queue.num_documents

    @property
    def num_tokens(self) -> int:
        """Tokens that wait or are being computed."""
        return self._queue.num_tokens + sum(
            each.num_tokens for engine in self.engines for each in engine.in_flight
        )

    @property
    def tokens_per_second(self) -> float:
        """What all engines do together, as last measured; 0 before any was ready."""
        return sum(engine.tokens_per_second for engine in self.engines)

    def add(self, ticket: Ticket, documents: list[QueuedDocument]) -> None:
        """Queue tokenized documents of a request."""
        self.add_all([(ticket, documents)])

    def add_all(self, requests: Sequence[tuple[Ticket, list[QueuedDocument]]]) -> None:
        """Queue tokenized documents of several requests, which came together."""
        for ticket, documents in requests:
            waiting = [Waiting(len(document.flat_ids), document) for document in documents]
            self._queue.add(ticket, waiting, deadline=ticket.deadline)
        self.send_batches()

    def cancel(self, ticket: Ticket) -> None:
        """Forget what waits of a request; what is being computed is thrown away later."""
        self._queue.cancel(ticket)

    # ------------------------------------------------------------ to the engines

    def send_batches(self) -> None:
        """Give every engine that can take one a batch; asks again when the next may."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop = asyncio.get_running_loop()
        ready = [engine for engine in self.engines if engine.ready is not None]
        while self._queue.num_documents:
            able = [engine for engine in ready if len(engine.in_flight) < 2]
            if not able:
                return
            engine = min(able, key=_readiness)
            budget = self._budget(engine)
            if engine.in_flight and self._queue.num_tokens < budget:
                wanted = engine.busy_until() - max(AHEAD_SECONDS, AHEAD_SHARE * engine.seconds_of_first())
                if wanted > loop.time():
                    self._timer = loop.call_at(wanted, self.send_batches)
                    return
            self._send(engine, min(budget, self._share(engine, ready, loop.time())), loop.time())

    def _share(self, engine: DeviceEngine, ready: Sequence[DeviceEngine], now: float) -> int:
        """Tokens of what waits for an engine, so that all are done with it at the same moment.

        An engine that is busy for long leaves more to one that is free now than one that soon is too.
        """
        # one rate for all: by its own, an engine that had small batches would go on getting small ones
        rate = sum(each.tokens_per_second for each in ready) / len(ready)
        ends = done_together([each.free_at(now) for each in ready], self._queue.num_tokens / max(rate, 1e-6))
        return max(LEAST_SHARE_TOKENS, math.ceil(rate * (ends - engine.free_at(now))))

    def _budget(self, engine: DeviceEngine) -> int:
        assert engine.ready is not None, "a batch goes to a ready engine"
        return self._max_batch_tokens or engine.ready.default_batch_tokens

    def _send(self, engine: DeviceEngine, budget: int, now: float) -> None:
        assert engine.ready is not None, "a batch goes to a ready engine"
        taken = self._queue.take(
            now, budget=budget, max_documents=MOST_BATCH_DOCUMENTS, is_padded=engine.ready.is_padded
        )
        documents = [waiting.document for waiting in taken]
        if not documents:
            return
        started_at = time.perf_counter()
        for document in documents:
            document.ticket.started_at = document.ticket.started_at or started_at
        frame = _frame(documents)
        engine.send(documents, frame)
        self._metrics.batch(len(documents), len(frame.flat_ids))

    # ------------------------------------------------------------ from the engines

    def engine_said_hello(self, num_gpus: int) -> None:
        """An engine process sees so many GPUs."""
        self._on_hello(num_gpus)

    def engine_is_ready(self, engine: DeviceEngine) -> None:
        """An engine is loaded and warm."""
        self._on_ready(engine)
        self.send_batches()

    def engine_answered(
        self,
        batch: list[QueuedDocument],
        outputs_SC: npt.NDArray[np.float32],
        seconds: float,
    ) -> None:
        """Outputs of a batch came: on to the next one, then what they say to the requests."""
        self.send_batches()
        self._deliver(batch, outputs_SC, seconds)

    def engine_compared(self, found: Mapping[str, Any]) -> None:
        """An engine has compared documents with fp32, as it said."""
        self._metrics.compared(Compared(**found))

    def engine_refused(self, batch: list[QueuedDocument], message: str) -> None:
        """An engine could not compute a batch: each document of it once more, alone."""
        _log.warning("a batch of %d documents was refused: %s", len(batch), message)
        self._again(batch)
        self.send_batches()

    def engine_ended(self, engine: DeviceEngine, batches: list[list[QueuedDocument]], reason: str) -> None:
        """An engine died: what it was computing once more, each alone; what waited there waits again."""
        _log.error("the engine on %s ended: %s", engine.spec.device, reason)
        for batch in reversed(batches[1:]):
            self._put_back(batch, is_alone=False)
        if batches:
            self._again(batches[0])
        self.send_batches()

    def _again(self, batch: list[QueuedDocument]) -> None:
        retried = []
        for document in batch:
            document.num_tried += 1
            if document.num_tried < MOST_TRIES:
                retried.append(document)
            else:
                document.ticket.fail(Refusal("backend", "the model failed on this input twice"))
                self.cancel(document.ticket)
        self._metrics.retried(len(retried))
        self._put_back(retried, is_alone=True)

    def _put_back(self, batch: Sequence[QueuedDocument], *, is_alone: bool) -> None:
        by_ticket: dict[Ticket, list[Waiting[QueuedDocument]]] = {}
        for document in batch:
            if not document.ticket.is_over():
                waiting = Waiting(len(document.flat_ids), document, is_alone or document.num_tried > 0)
                by_ticket.setdefault(document.ticket, []).append(waiting)
        for ticket, waiting_again in reversed(by_ticket.items()):
            self._queue.add(ticket, waiting_again, deadline=ticket.deadline, is_first=True)


def _readiness(engine: DeviceEngine) -> float:
    """Idle engines first, then by when they are expected to be done."""
    return engine.busy_until() if engine.in_flight else 0.0


def _frame(documents: list[QueuedDocument]) -> BatchFrame:
    lengths = [length for document in documents for length in document.lengths]
    offsets = np.fromiter(accumulate(lengths, initial=0), np.int32, len(lengths) + 1)
    starts = normalize = numbers = None
    if len(lengths) > len(documents):
        numbers = np.repeat(
            np.arange(len(documents), dtype=np.int32), [len(document.lengths) for document in documents]
        )
    if any(document.second_start for document in documents):
        starts = np.array([document.second_start for document in documents], dtype=np.int32)
    if any(document.ticket.how.normalize for document in documents):
        asked = [document.ticket.how.normalize for document in documents for _ in document.lengths]
        normalize = np.array(asked, dtype=np.int32)
    flat_ids = np.concatenate([document.flat_ids for document in documents])
    return BatchFrame(flat_ids, offsets, starts, normalize, numbers)
