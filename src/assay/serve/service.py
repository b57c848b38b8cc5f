"""Which deployment answers now: how requests are admitted to it, and how it is started, exchanged and ended.

A reload makes a whole second deployment and switches to it once it is warm; what the old one has
accepted it still answers.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from assay.bundle.folders import cascade_file
from assay.errors import AssayError
from assay.serve.cascade import CascadeDeployment, OpenedCascade, load_cascade_here
from assay.serve.deployment import BUSY_HEADERS, Deployment, Opened, load_here
from assay.serve.dispatcher import delivery
from assay.serve.engine_pool import EnginePool, Pool
from assay.serve.engines import Child, EngineSpec
from assay.serve.keys import RateLimit
from assay.serve.log import RequestLog
from assay.serve.metrics import Metrics
from assay.serve.placement import start_first
from assay.serve.refusals import Refusal
from assay.serve.settings import ServeSettings
from assay.serve.tickets import QueuedDocument

_log = logging.getLogger(__name__)

State = Literal["starting", "serving", "draining"]

WAIT_SHARE = 0.8
"""Of the timeout: a request that is estimated to wait longer is refused."""


class Followers(Protocol):
    """Front processes that take the requests for the deployments of a service."""

    def deliver(
        self, batch: list[QueuedDocument], outputs_SC: npt.NDArray[np.float32], seconds: float
    ) -> None:
        """Give outputs of the engines to the fronts that asked."""
        ...

    def num_waiting(self) -> int:
        """Documents that wait in the fronts."""
        ...

    async def open(self, deployment: Deployment | CascadeDeployment) -> None:
        """Have every front load the same model; raises AssayError where one cannot."""
        ...

    async def switch(self, deployment: Deployment | CascadeDeployment) -> None:
        """Have every front take requests for it from now on."""
        ...

    async def retire(self, deployment: Deployment | CascadeDeployment, limit_seconds: float) -> None:
        """Have every front answer what it accepted for it, for as long as allowed, and forget it."""
        ...

    async def drain(self, limit_seconds: float) -> None:
        """Have every front accept nothing more, answer what it accepted, and end."""
        ...


class Service:
    """Accepts requests for the deployment of the moment. Lives in the event loop."""

    def __init__(
        self,
        settings: ServeSettings,
        metrics: Metrics,
        log: RequestLog,
        *,
        fronts: Followers | None = None,
    ) -> None:
        """Nothing is loaded before `start`; `log` hears of engines and bundles that are ready.

        With `fronts`, these take the requests, and get the outputs of the engines here.
        """
        self.settings = settings
        self.metrics = metrics
        self.limit = None if settings.rate_limit is None else RateLimit(settings.rate_limit)
        self.num_processes = 1
        """That share what is bounded for all of them."""
        self._events = log
        self._fronts = fronts
        self.state: State = "starting"
        self.deployment: Deployment | CascadeDeployment | None = None
        self._reloading = asyncio.Lock()
        self._retiring: set[Deployment | CascadeDeployment] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        metrics.gauge("te_queue_size", "Documents that wait.", self._num_waiting)
        metrics.gauge("assay_ready", "Whether predictions are answered now.", self._is_ready)

    # ------------------------------------------------------------ the state

    def trouble(self) -> str | None:
        """Why predictions are not answered now; None where they are."""
        if self.state == "draining":
            return "shutting down"
        if self.deployment is None:
            return "starting: the model is being loaded"
        return self.deployment.trouble()

    def _num_waiting(self) -> float:
        before = 0 if self._fronts is None else self._fronts.num_waiting()
        return float(before) + (0.0 if self.deployment is None else float(self.deployment.num_waiting))

    def _is_ready(self) -> float:
        return float(self.trouble() is None)

    async def exposition(self) -> bytes:
        """All that is counted, as Prometheus reads it."""
        return self.metrics.exposition()

    # ------------------------------------------------------------ requests

    def admit(self, num_texts: int) -> Deployment | CascadeDeployment:
        """The deployment that takes so many texts; raises Refusal where it would not answer in time."""
        deployment = self.deployment
        if self.state == "draining" or deployment is None or deployment.is_faulty():
            raise Refusal("unhealthy", f"not ready: {self.trouble()}", BUSY_HEADERS)
        num_waiting, seconds = deployment.num_waiting, deployment.seconds_of_work
        is_slow = num_waiting > 0 and seconds > WAIT_SHARE * self.settings.timeout
        if is_slow or num_waiting + num_texts > self.settings.max_queue:
            wait = max(1, math.ceil(seconds / 2))
            message = f"{num_waiting} documents wait already; try again in {wait} s"
            raise Refusal("overloaded", message, {"Retry-After": str(wait)})
        return deployment

    # ------------------------------------------------------------ start, reload, end

    async def start(self, children: Sequence[tuple[EngineSpec, Child]]) -> None:
        """Load the bundle that the children load too; returns once all are warm. Raises AssayError."""
        self.deployment = await self._open(children)
        if self._fronts is not None:
            await self._fronts.switch(self.deployment)
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
        if self._fronts is not None:
            await self._fronts.drain(self.settings.drain_seconds)
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
                made = await self._open(start_first(self.settings))
            except (AssayError, OSError) as error:
                self.metrics.reload("failed")
                _log.error("reload failed, the old bundle goes on: %s", error)
                return
            self.deployment = made
            if self._fronts is not None:
                await self._fronts.switch(made)
            self.metrics.reload("done")
            self._events.write("serving", bundle=str(made.model.path), fingerprint=made.model.fingerprint)
        if old is not None:
            self._retiring.add(old)
            # one without an engine has nothing to wait for
            limit_seconds = 0 if old.trouble() else self.settings.timeout + 1
            if self._fronts is not None:
                await self._fronts.retire(old, limit_seconds)
            await old.end(limit_seconds)
            self._retiring.discard(old)

    async def _open(self, children: Sequence[tuple[EngineSpec, Child]]) -> Deployment | CascadeDeployment:
        """A warm deployment of the bundle that the children load; they end with it where that fails."""
        loop = asyncio.get_running_loop()
        try:
            opened = await loop.run_in_executor(None, open_here, self.settings, children[0][0].bundle)
            for note in opened.notes():
                _log.warning("%s", note)
            deployment = self.deploy(opened)
        except BaseException:
            for _, child in children:
                child.end()
            raise
        following = None if self._fronts is None else asyncio.ensure_future(self._fronts.open(deployment))
        try:
            await deployment.start(children)
            if following is not None:
                await following
        except BaseException:
            if following is not None:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
                assert self._fronts is not None, "they were asked to follow"
                await self._fronts.retire(deployment, 0)
            await deployment.end(0)
            raise
        return deployment

    def deploy(self, opened: Opened | OpenedCascade) -> Deployment | CascadeDeployment:
        """A deployment of an opened model or cascade, not started."""
        if isinstance(opened, Opened):
            return Deployment(self.settings, opened, pool=self._pool(opened, 0))
        pools = [self._pool(each, stage) for stage, each in enumerate((opened.first, opened.second))]
        return CascadeDeployment(self.settings, opened, pools)

    def _pool(self, opened: Opened, stage: int) -> Pool:
        """Engines for a model, which is the first or second one of a cascade, or the only one."""
        del stage
        if self._fronts is None:
            deliver = delivery(opened.model.answering(opened.tokenizer.encoder.views))
        else:
            deliver = self._fronts.deliver
        return EnginePool(
            self.settings, opened.model, self.metrics, self._events, deliver=deliver, on_stale=self.reload
        )


def open_here(settings: ServeSettings, folder: str) -> Opened | OpenedCascade:
    """The server's half of what is served; `folder` is the one that the engines load, of one model."""
    if cascade_file(settings.bundle) is None:
        return load_here(settings, folder)
    return load_cascade_here(settings)
