"""The core's side of front processes: they have the clients, the core has the engines.

    client -> front 1..N   HTTP, JSON, API key, token ids    -> core   queue, engines, reload, sums of the metrics
    client <- front        scores, JSON                      <- core   outputs

The fronts share the port: each has a listening socket of its own (SO_REUSEPORT), which the core keeps open, so that
one which ends is replaced before any connection that waits there is lost. Requests that it had are lost with it, and
no others. A core that ends ends its fronts.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from assay import errors
from assay.errors import WorkError
from assay.serve import document_frames, frames
from assay.serve.board import MODEL_COLUMNS, OPEN, RATE, TOKENS, Board, make_board
from assay.serve.cascade import CascadeDeployment
from assay.serve.deployment import REFUSED_SECONDS, Deployment
from assay.serve.document_frames import ScoresFrame
from assay.serve.engine_pool import EnginePool
from assay.serve.frames import FrameHead, FrameKind
from assay.serve.front_process import FrontProcess
from assay.serve.keys import Keys
from assay.serve.metrics import Metrics
from assay.serve.refusals import Refusal
from assay.serve.settings import ServeSettings
from assay.serve.tickets import How, QueuedDocument, Ticket

_log = logging.getLogger(__name__)

STATUS_SECONDS = 0.02
"""How often the fronts may hear of the engines."""
COUNT_SECONDS = 1.0
"""How long a front may take to say what it has counted."""
SWITCH_SECONDS = 30.0
EXIT_SECONDS = 10.0
"""For fronts to close their connections and end, once everything is answered."""


class FrontTicket(Ticket):
    """A request of a front: what a dispatcher asks of it, and where its outputs go."""

    __slots__ = ("is_gone", "number", "owner", "pool")

    def __init__(self, owner: "Front", pool: int, number: int, deadline: float, *, normalize: bool) -> None:
        """Request `number` of a front, for a pool."""
        self.owner, self.pool, self.number, self.deadline = owner, pool, number, deadline
        self.how = _NORMALIZED if normalize else _PLAIN
        self.started_at = 0.0
        self.num_left = 0
        self.is_gone = False

    def is_over(self) -> bool:
        """Whether nobody waits any more."""
        return self.is_gone

    def fail(self, refusal: Exception) -> None:
        """Tell the front."""
        if not self.is_gone and isinstance(refusal, Refusal):
            self.owner.forget(self)
            self.owner.say(
                "refused",
                pool=self.pool,
                request=self.number,
                reason=refusal.reason,
                message=refusal.message,
                headers=dict(refusal.headers),
            )


_PLAIN, _NORMALIZED = How(), How(normalize=True)


class Front:
    """One front process after another on one listening socket."""

    def __init__(self, fronts: "FrontProcesses", index: int, listener: socket.socket) -> None:
        """Front `index`, counted from 1."""
        self.index = index
        self.opened: set[int] = set()
        """Generations that it has loaded."""
        self.closed: set[int] = set()
        self.serving: int | None = None
        """The generation that it takes requests for."""
        self.counting: set[int] = set()
        """Numbers of the sums that it has not said yet what it counted for."""
        self.tickets: dict[tuple[int, int], FrontTicket] = {}
        """By pool and number."""
        self._fronts = fronts
        self.process = FrontProcess(
            index, listener, fronts.board_descriptor, fronts.num_fronts, begin=self._begin, take=self._take
        )

    def say(self, event: str, **content: object) -> None:
        """Tell it something; nothing where it is not there."""
        self.process.write(frames.pack_json(FrameKind.SAY, {"event": event, **content}))

    def forget(self, ticket: FrontTicket) -> None:
        """Nothing of a request is wanted any more."""
        ticket.is_gone = True
        self.tickets.pop((ticket.pool, ticket.number), None)
        pool = self._fronts.pools.get(ticket.pool)
        if pool is not None:
            pool.cancel(ticket)

    def ended(self) -> None:
        """The process is gone, and its requests with it."""
        for ticket in list(self.tickets.values()):
            self.forget(ticket)
        self.opened, self.closed, self.serving, self.counting = set(), set(), None, set()
        self._fronts.board.rows[self.index] = 0

    def _begin(self) -> None:
        self._fronts.front_begins(self)

    def _take(self, head: FrameHead, payload: bytes) -> None:
        if head.kind == FrameKind.DOCUMENTS:
            self._take_documents(head, payload)
        elif head.kind == FrameKind.CANCEL:
            for number in document_frames.unpack_cancel(payload):
                ticket = self.tickets.get((head.number, number))
                if ticket is not None:
                    self.forget(ticket)
        else:
            self._fronts.hear(self, frames.unpack_json(payload))

    def _take_documents(self, head: FrameHead, payload: bytes) -> None:
        frame = document_frames.unpack_documents(head, payload)
        requests, flat_ids, lengths = frame.requests_N.tolist(), frame.flat_ids, frame.lengths.tolist()
        deadlines, normalize = frame.deadlines_N.tolist(), frame.normalize_N.tolist()
        view = start = 0
        found: dict[int, tuple[FrontTicket, list[QueuedDocument]]] = {}
        for row, (document, second_start, num_views) in enumerate(
            zip(
                frame.documents_N.tolist(),
                frame.second_starts_N.tolist(),
                frame.num_views_N.tolist(),
                strict=True,
            )
        ):
            number = requests[row]
            if number not in found:
                key = (head.number, number)
                ticket = self.tickets.get(key)
                if ticket is None:
                    ticket = self.tickets[key] = FrontTicket(
                        self, head.number, number, deadlines[row], normalize=bool(normalize[row])
                    )
                found[number] = ticket, []
            ticket, documents = found[number]
            of_views = lengths[view : view + num_views]
            stop = start + sum(of_views)
            documents.append(QueuedDocument(ticket, document, flat_ids[start:stop], of_views, second_start))
            ticket.num_left += 1
            view, start = view + num_views, stop
        self._fronts.queue(head.number, list(found.values()))


class FrontProcesses:
    """All fronts of a server. Lives in the event loop of the core."""

    def __init__(
        self,
        settings: ServeSettings,
        keys: Keys,
        metrics: Metrics,
        listeners: Sequence[socket.socket],
    ) -> None:
        """A front for each bound socket."""
        self.num_fronts = len(listeners)
        self.board_descriptor = make_board(self.num_fronts)
        self.board = Board(self.board_descriptor, self.num_fronts)
        self.pools: dict[int, EnginePool] = {}
        """By number: two for each generation, of which one model needs the first."""
        self.on_stale: Callable[[], object] = lambda: None
        self._settings = settings
        self._keys = keys
        self._metrics = metrics
        self._deployments: dict[int, Deployment | CascadeDeployment] = {}
        """By generation."""
        self._failures: dict[int, Exception] = {}
        """Why a front cannot load a generation."""
        self._opening: int | None = None
        self._current: int | None = None
        self._num_generations = 0
        self._num_sums = 0
        self._said: dict[int, object] = {}
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._fronts = [Front(self, index, listener) for index, listener in enumerate(listeners, start=1)]

    async def run(self) -> None:
        """Keep every front running until they are drained."""
        telling = asyncio.ensure_future(self._tell_status())
        try:
            await asyncio.gather(*(self._keep(front) for front in self._fronts))
        finally:
            telling.cancel()

    def set_keys(self, keys: Keys) -> None:
        """Have every front take these keys, and no others."""
        self._keys = keys
        for front in self._fronts:
            front.say("keys", keys=_listed(keys))

    # ------------------------------------------------------------ documents and outputs

    def queue(self, number: int, requests: list[tuple[FrontTicket, list[QueuedDocument]]]) -> None:
        """Documents of a front's requests wait for an engine of a pool; those above the bound are refused."""
        pool = self.pools.get(number)
        if pool is None:
            for ticket, _ in requests:
                ticket.fail(Refusal("unhealthy", "the model was exchanged", {"Retry-After": "1"}))
            return
        taken: list[tuple[Ticket, list[QueuedDocument]]] = []
        num_waiting, is_cascade = pool.num_documents, number ^ 1 in self.pools
        for ticket, documents in requests:
            # fronts see each other's numbers, but two may let requests in at the same moment
            if not is_cascade and num_waiting + len(documents) > max(
                self._settings.max_queue, len(documents)
            ):
                message = f"{num_waiting} documents wait already; try again in 1 s"
                ticket.fail(Refusal("overloaded", message, {"Retry-After": "1"}))
                continue
            num_waiting += len(documents)
            taken.append((ticket, documents))
        pool.dispatcher.add_all(taken)
        self._note(number, pool)

    def deliver(
        self, batch: list[QueuedDocument], outputs_SC: npt.NDArray[np.float32], seconds: float
    ) -> None:
        """Give the outputs of a batch to the fronts that asked."""
        by_front: dict[Front, list[int]] = {}
        number = 0
        for row, document in enumerate(batch):
            ticket = document.ticket
            assert isinstance(ticket, FrontTicket), "all requests are of fronts"
            if ticket.is_gone:
                continue
            number = ticket.pool
            by_front.setdefault(ticket.owner, []).append(row)
            ticket.num_left -= 1
            if not ticket.num_left:
                del ticket.owner.tickets[number, ticket.number]
        num_views_N = np.fromiter((len(document.lengths) for document in batch), np.int32, len(batch))
        for front, rows in by_front.items():
            of_front = np.zeros(len(batch), np.bool_)
            of_front[rows] = True
            frame = ScoresFrame(
                documents_N=np.fromiter((batch[row].index for row in rows), np.int64, len(rows)),
                num_views_N=num_views_N[rows],
                started_N=np.fromiter((batch[row].ticket.started_at for row in rows), np.float64, len(rows)),
                outputs_SC=outputs_SC[np.repeat(of_front, num_views_N)],
                seconds=seconds,
            )
            front.process.write(document_frames.pack_scores(number, frame))
        pool = self.pools.get(number)
        if pool is not None:
            self._note(number, pool)

    def num_waiting(self) -> int:
        """Documents that wait in the fronts; of a cascade, of requests that are not answered."""
        sums = self.board.rows[1:].sum(axis=0)
        deployment = None if self._current is None else self._deployments.get(self._current)
        return int(sums[OPEN] if isinstance(deployment, CascadeDeployment) else sums[0])

    def _note(self, number: int, pool: EnginePool) -> None:
        if number >> 1 == self._current:
            column = MODEL_COLUMNS * (number & 1)
            row = self.board.rows[0]
            row[column] = pool.num_documents
            row[column + TOKENS] = pool.num_tokens
            row[column + RATE] = pool.tokens_per_second

    # ------------------------------------------------------------ one model after another

    async def open(self, deployment: Deployment | CascadeDeployment) -> None:
        """Have every front load the same model; raises AssayError where one cannot."""
        self._num_generations += 1
        generation = self._opening = self._num_generations
        self._deployments[generation] = deployment
        self.pools |= {2 * generation + stage: pool for stage, pool in enumerate(_pools(deployment))}
        for front in self._fronts:
            self._say_open(front, generation)
        await self._until(
            lambda: generation in self._failures or all(generation in front.opened for front in self._fronts)
        )
        if generation in self._failures:
            raise self._failures[generation]

    async def switch(self, deployment: Deployment | CascadeDeployment) -> None:
        """Have every front that is there take requests for it from now on."""
        generation = self._generation(deployment)
        self._current, self._opening = generation, None
        for stage, pool in enumerate(_pools(deployment)):
            self._note(2 * generation + stage, pool)
        for front in self._fronts:
            if (
                generation in front.opened
            ):  # one that was started again meanwhile is told once it has loaded it
                self._say_switch(front, generation)
        await self._until(
            lambda: all(front.serving == generation for front in self._fronts if front.process.is_there),
            SWITCH_SECONDS,
        )

    async def retire(self, deployment: Deployment | CascadeDeployment, limit_seconds: float) -> None:
        """Have every front answer what it accepted for it, for as long as allowed, and forget it."""
        generation = self._generation(deployment)
        if self._opening == generation:
            self._opening = None
        for front in self._fronts:
            front.say("close", generation=generation, limit_seconds=limit_seconds)
        await self._until(
            lambda: all(generation in front.closed for front in self._fronts if front.process.is_there),
            limit_seconds + 2 * REFUSED_SECONDS,
        )
        del self._deployments[generation]
        for stage in (0, 1):
            self.pools.pop(2 * generation + stage, None)

    async def drain(self, limit_seconds: float) -> None:
        """Have every front accept nothing more, answer what it accepted, and end."""
        for front in self._fronts:
            front.process.is_stopping = True
            front.say("drain")
        await self._until(
            lambda: not any(front.process.is_there for front in self._fronts),
            limit_seconds + 2 * REFUSED_SECONDS + EXIT_SECONDS,
        )
        self.kill()

    def kill(self) -> None:
        """End every front at once."""
        for front in self._fronts:
            front.process.is_stopping = True
            front.process.kill()

    def _generation(self, deployment: Deployment | CascadeDeployment) -> int:
        return next(number for number, each in self._deployments.items() if each is deployment)

    def _say_open(self, front: Front, generation: int) -> None:
        model = self._deployments[generation].model
        front.say("open", generation=generation, folder=str(model.path), fingerprint=model.fingerprint)

    def _say_switch(self, front: Front, generation: int) -> None:
        front.say("status", generation=generation, pools=self._status(generation))
        front.say("switch", generation=generation)

    def _status(self, generation: int) -> list[dict[str, object]]:
        return [asdict(pool.status()) for pool in _pools(self._deployments[generation])]

    async def _tell_status(self) -> None:
        """Tell the fronts how the engines are whenever that has changed, and what waits for them."""
        while True:
            await asyncio.sleep(STATUS_SECONDS)
            # what was given up, or had failed, no longer waits, and no batch need come back to say so
            for number, pool in self.pools.items():
                self._note(number, pool)
            for generation in self._deployments:
                status = self._status(generation)
                if self._said.get(generation) != status:
                    self._said[generation] = status
                    for front in self._fronts:
                        front.say("status", generation=generation, pools=status)

    # ------------------------------------------------------------ the fronts

    async def _keep(self, front: Front) -> None:
        """Replace a front as often as it ends."""

        def is_stopping() -> bool:
            return front.process.is_stopping

        while not is_stopping():
            reason = await front.process.live()
            front.ended()
            self._tell()
            if is_stopping():
                return
            _log.error("front process %d ended and is started again: %s", front.index, reason)
            self._metrics.front_restart()
            if self._current is None:
                self._fail(WorkError(f"a front process did not start: {reason}"))
                return
            await asyncio.sleep(front.process.pause_seconds())

    def front_begins(self, front: Front) -> None:
        """A front runs: tell it what to do."""
        front.say("start", settings=asdict(self._settings), keys=_listed(self._keys))
        for generation in {self._current, self._opening} - {None}:
            assert generation is not None, "taken out"
            self._say_open(front, generation)

    def hear(self, front: Front, said: dict[str, Any]) -> None:
        """A front said something."""
        match said["event"]:
            case "opened":
                front.opened.add(said["generation"])
                front.process.num_failed = 0
                if said["generation"] == self._current:
                    self._say_switch(front, said["generation"])
            case "not_opened":
                self._not_opened(said)
            case "switched":
                front.serving = said["generation"]
            case "closed":
                front.closed.add(said["generation"])
            case "counts":
                self._metrics.add(said["taken"])
                front.counting.discard(said["number"])
            case "metrics":
                task = asyncio.get_running_loop().create_task(self._send_metrics(front, said["number"]))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        self._tell()

    def _not_opened(self, said: dict[str, Any]) -> None:
        error = errors.KINDS.get(said["kind"] or "", WorkError)(said["message"])
        if said["generation"] == self._opening or self._current is None:
            self._failures[said["generation"]] = error
        elif said["generation"] == self._current:
            _log.error("a front process that was started again cannot load the model: %s", error)
            self.on_stale()

    def _fail(self, error: Exception) -> None:
        if self._opening is not None:
            self._failures[self._opening] = error
        self._failures[self._num_generations + 1] = error
        self._tell()

    async def _send_metrics(self, front: Front, number: int) -> None:
        """Ask every front what it has counted, and give the sums to one."""
        self._num_sums += 1
        asked = self._num_sums
        for each in self._fronts:
            if each.process.is_there:
                each.counting.add(asked)
                each.say("count", number=asked)
        await self._until(lambda: not any(asked in each.counting for each in self._fronts), COUNT_SECONDS)
        for each in self._fronts:
            each.counting.discard(asked)
        front.say("metrics_sum", number=number, text=self._metrics.exposition().decode())

    def _tell(self) -> None:
        """Something changed that somebody may wait for."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def _until(self, holds: Callable[[], bool], limit_seconds: float | None = None) -> None:
        """Wait until something holds, or for so long."""
        try:
            async with asyncio.timeout(limit_seconds):
                while not holds():
                    await self._changed.wait()
        except TimeoutError:
            pass


def _pools(deployment: Deployment | CascadeDeployment) -> list[EnginePool]:
    stages = [deployment] if isinstance(deployment, Deployment) else [deployment.first, deployment.second]
    found = []
    for stage in stages:
        assert isinstance(stage.pool, EnginePool), "the engines are the core's"
        found.append(stage.pool)
    return found


def _listed(keys: Keys) -> list[tuple[str, str]]:
    return [(name, digest.hex()) for name, digest in keys.digests]
