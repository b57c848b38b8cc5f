"""The engines of one model with the queue before them: started, watched, replaced, ended.

A `Pool` is what a deployment asks for outputs. This one has its engines in processes of their own; that of a front
process (`front`) has them behind the core.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from assay.errors import RefusedError, UsageError, WorkError
from assay.serve.dispatcher import Deliver, Dispatcher
from assay.serve.engines import Child, DeviceEngine, EngineSpec, Ready
from assay.serve.kinds import ServedModel
from assay.serve.log import RequestLog
from assay.serve.metrics import Metrics
from assay.serve.placement import further_specs
from assay.serve.settings import ServeSettings
from assay.serve.tickets import QueuedDocument, Ticket

FAULT_STARTS = 1
"""Failed starts in a row after which requests are refused rather than queued."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolStatus:
    """How a pool's engines are."""

    trouble: str | None
    """Why no engine can answer now; None where one can."""
    is_faulty: bool
    """Whether no engine answers and starting again has failed too."""
    engines: tuple[Ready, ...]
    """Those that are ready."""


class Pool(Protocol):
    """What answers the tokenized documents of a deployment. Lives in the event loop."""

    @property
    def num_documents(self) -> int:
        """Documents that wait here, and those of other processes."""
        ...

    @property
    def num_tokens(self) -> int:
        """Tokens that wait or are being computed, and those of other processes."""
        ...

    @property
    def tokens_per_second(self) -> float:
        """What all engines do together, as last measured; 0 before any was ready."""
        ...

    def status(self) -> PoolStatus:
        """How the engines are."""
        ...

    def add(self, ticket: Ticket, documents: list[QueuedDocument]) -> None:
        """Queue tokenized documents of a request."""
        ...

    def cancel(self, ticket: Ticket) -> None:
        """Forget what waits of a request."""
        ...

    def publish(self, num_documents: int, num_tokens: int) -> None:
        """Tell other processes what waits here before it comes to the pool."""
        ...

    def open_elsewhere(self, num_documents: int) -> int:
        """Documents of requests open in other processes; tells them how many are here. Of a cascade."""
        ...

    async def start(self, children: Sequence[tuple[EngineSpec, Child]]) -> None:
        """Take over engine processes; returns once all are warm. Raises AssayError, with nothing ended."""
        ...

    async def stop(self) -> None:
        """End the engines."""
        ...


class EnginePool:
    """Engines in processes of this one's. Lives in the event loop."""

    def __init__(
        self,
        settings: ServeSettings,
        model: ServedModel,
        metrics: Metrics,
        log: RequestLog,
        *,
        deliver: Deliver,
        on_stale: Callable[[], object],
    ) -> None:
        """Outputs go to `deliver`; `on_stale` hears of a model that has changed on disk."""
        self._settings = settings
        self._model = model
        self._metrics = metrics
        self._log = log
        self._on_stale = on_stale
        self.dispatcher = Dispatcher(
            deliver,
            metrics,
            max_batch_tokens=settings.max_batch_tokens,
            on_ready=self._engine_is_ready,
            on_hello=self._start_further,
        )
        self._running: list[asyncio.Task[None]] = []
        """One for each engine."""
        self._warm: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once every engine has been ready, or failed."""

    # ------------------------------------------------------------ the state

    @property
    def engines(self) -> Sequence[DeviceEngine]:
        """One for each device."""
        return self.dispatcher.engines

    @property
    def num_documents(self) -> int:
        """Documents that wait."""
        return self.dispatcher.num_documents

    @property
    def num_tokens(self) -> int:
        """Tokens that wait or are being computed."""
        return self.dispatcher.num_tokens

    @property
    def tokens_per_second(self) -> float:
        """What all engines do together, as last measured; 0 before any was ready."""
        return self.dispatcher.tokens_per_second

    def status(self) -> PoolStatus:
        """How the engines are."""
        ready = tuple(engine.ready for engine in self.engines if engine.ready is not None)
        trouble = None
        if not ready:
            trouble = self.engines[0].reason if self.engines else "starting"
        is_faulty = not ready and all(engine.num_failed_starts >= FAULT_STARTS for engine in self.engines)
        return PoolStatus(trouble=trouble, is_faulty=is_faulty, engines=ready)

    # ------------------------------------------------------------ documents

    def add(self, ticket: Ticket, documents: list[QueuedDocument]) -> None:
        """Queue tokenized documents of a request."""
        self.dispatcher.add(ticket, documents)

    def cancel(self, ticket: Ticket) -> None:
        """Forget what waits of a request; what is being computed is thrown away later."""
        self.dispatcher.cancel(ticket)

    def publish(self, num_documents: int, num_tokens: int) -> None:
        """Nobody else asks these engines."""

    def open_elsewhere(self, num_documents: int) -> int:
        """Nobody else asks these engines."""
        del num_documents
        return 0

    # ------------------------------------------------------------ start and end

    async def start(self, children: Sequence[tuple[EngineSpec, Child]]) -> None:
        """Take over engine processes; returns once all are warm. Raises AssayError, with nothing ended."""
        for spec, child in children:
            self._add_engine(spec, child)
        await self._warm

    async def stop(self) -> None:
        """End the engines, and a start that is under way."""
        self._warm.cancel()
        for engine in self.engines:
            engine.stop()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

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
        if engine.ready.fingerprint != self._model.fingerprint:
            self._refuse_stale(engine)
        elif engine.ready.num_outputs != self._model.num_outputs:
            msg = (
                f"the model has {engine.ready.num_outputs} outputs, its folder says {self._model.num_outputs}"
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
            self._fail(RefusedError(f"{self._model.path} changed while it was being loaded; try again"))

    def _fail(self, error: Exception) -> None:
        """The start failed, unless it is over."""
        if not self._warm.done():
            self._warm.set_exception(error)
