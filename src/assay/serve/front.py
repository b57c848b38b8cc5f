"""A front process: `python -m assay.serve.front`, started by the core (`fronts`).

It has clients, keys, tokenizer and answers; token ids go to the core and outputs come back. Signals are the core's
business. The process ends with the core.
"""

import argparse
import asyncio
import socket
from dataclasses import replace
from typing import Any

from assay import errors
from assay.errors import RefusedError
from assay.serve import document_frames, frames
from assay.serve.board import Board
from assay.serve.cascade import CascadeDeployment
from assay.serve.core_link import CoreLink
from assay.serve.deployment import Deployment, Opened
from assay.serve.dispatcher import delivery
from assay.serve.edge import Edge
from assay.serve.engine_pool import Pool, PoolStatus
from assay.serve.engine_process import begin_as_child
from assay.serve.engines import Ready
from assay.serve.frames import FrameHead, FrameKind
from assay.serve.keys import Keys, RateLimit
from assay.serve.log import RequestLog
from assay.serve.metrics import Metrics
from assay.serve.placement import choose_front_threads
from assay.serve.refusals import Reason, Refusal
from assay.serve.remote_pool import RemotePool
from assay.serve.server import Server, loop_factory, make_edge, uvicorn_config
from assay.serve.service import Service, open_here
from assay.serve.settings import ServeSettings

COUNT_SECONDS = 1.0
"""How often the core hears what was counted here, asked or not."""
METRICS_SECONDS = 5.0


class FrontService(Service):
    """Takes requests for what the core serves."""

    def __init__(
        self, settings: ServeSettings, metrics: Metrics, log: RequestLog, board: Board, core: "Core"
    ) -> None:
        """Nothing is loaded before the core says what."""
        super().__init__(settings, metrics, log)
        self._board = board
        self._core = core
        self.num_processes = core.num_fronts
        if settings.rate_limit is not None:
            self.limit = RateLimit(settings.rate_limit, board)

    async def exposition(self) -> bytes:
        """What all processes have counted, from the core."""
        return await self._core.metrics()

    def _pool(self, opened: Opened, stage: int) -> Pool:
        deliver = delivery(opened.model.answering(opened.tokenizer.encoder.views))
        return self._core.make_pool(stage, self._board, deliver)


class Core:
    """The core, from here: what it says is done."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        """Not connected; `run` does all."""
        self.num_fronts: int = arguments.num_fronts
        self._index: int = arguments.index
        self._arguments = arguments
        self._link = CoreLink()
        self._pools: dict[int, RemotePool] = {}
        self._deployments: dict[int, Deployment | CascadeDeployment] = {}
        """By generation."""
        self._opening = 0
        self._asked: dict[int, asyncio.Future[bytes]] = {}
        self._started: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._draining = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_loading = asyncio.Lock()
        self._service: FrontService
        self._edge: Edge
        self._metrics = Metrics()

    async def run(self) -> None:
        """Serve until the core says to drain."""
        await self._link.connect(self._arguments.socket, self._take)
        told = await self._started
        threads = choose_front_threads(self.num_fronts)
        settings = ServeSettings(**told["settings"])
        settings = replace(settings, num_threads=min(threads, settings.num_threads or threads))
        board = Board(self._arguments.board, self.num_fronts)
        log = RequestLog(lock=board.log_lock)
        self._service = FrontService(settings, self._metrics, log, board, self)
        self._edge = make_edge(self._service, _keys_of(told["keys"]), log)
        server = Server(uvicorn_config(settings, self._edge))
        listener = socket.socket(fileno=self._arguments.listener)
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        counting = asyncio.ensure_future(self._keep_counting())
        draining = asyncio.ensure_future(self._draining.wait())
        await asyncio.wait([serving, draining], return_when=asyncio.FIRST_COMPLETED)
        await self._service.drain()
        server.should_exit = True
        await serving
        counting.cancel()
        log.flush()
        self._count(None)
        await self._link.close()

    async def metrics(self) -> bytes:
        """What all processes have counted; raises Refusal where the core does not say."""
        number = len(self._asked) + 1 + max(self._asked, default=0)
        self._asked[number] = asyncio.get_running_loop().create_future()
        self._link.say("metrics", number=number)
        try:
            return await asyncio.wait_for(self._asked[number], METRICS_SECONDS)
        except TimeoutError:
            raise Refusal("unhealthy", "the core process did not answer", {"Retry-After": "1"}) from None
        finally:
            del self._asked[number]

    def make_pool(self, stage: int, board: Board, deliver: Any) -> RemotePool:  # noqa: ANN401  a `Deliver`
        """The pool of a stage of the generation that is being loaded."""
        number = 2 * self._opening + stage
        pool = self._pools[number] = RemotePool(self._link, board, self._index, number, deliver=deliver)
        return pool

    # ------------------------------------------------------------ what the core says

    def _take(self, head: FrameHead, payload: bytes) -> None:
        if head.kind == FrameKind.SCORES:
            pool = self._pools.get(head.number)
            if pool is not None:
                pool.take_scores(document_frames.unpack_scores(head, payload))
        else:
            self._hear(frames.unpack_json(payload))

    def _hear(self, said: dict[str, Any]) -> None:
        event = said.pop("event")
        if event in {"open", "close"}:
            self._do(getattr(self, f"_{event}")(**said))
        else:
            getattr(self, f"_{event}")(**said)

    def _start(self, **told: Any) -> None:  # noqa: ANN401  JSON
        self._started.set_result(told)

    def _status(self, generation: int, pools: list[dict[str, Any]]) -> None:
        for stage, status in enumerate(pools):
            pool = self._pools.get(2 * generation + stage)
            if pool is not None:
                engines = tuple(Ready(**each) for each in status["engines"])
                pool.state = PoolStatus(
                    trouble=status["trouble"], is_faulty=status["is_faulty"], engines=engines
                )

    def _refused(
        self, pool: int, request: int, reason: Reason, message: str, headers: dict[str, str]
    ) -> None:
        asked = self._pools.get(pool)
        if asked is not None:
            asked.refuse(request, Refusal(reason, message, headers))

    def _keys(self, keys: list[tuple[str, str]]) -> None:
        self._edge.keys = _keys_of(keys)

    def _count(self, number: int | None) -> None:
        self._link.say("counts", number=number, taken=self._metrics.take())

    def _metrics_sum(self, number: int, text: str) -> None:
        asked = self._asked.get(number)
        if asked is not None and not asked.done():
            asked.set_result(text.encode())

    def _drain(self) -> None:
        self._draining.set()

    def _do(self, work: Any) -> None:  # noqa: ANN401  a coroutine
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open(self, generation: int, folder: str, fingerprint: str) -> None:
        await self._started
        async with self._is_loading:
            try:
                settings = self._service.settings
                opened = await asyncio.get_running_loop().run_in_executor(None, open_here, settings, folder)
                self._opening = generation
                deployment = self._service.deploy(opened)
                _check_same(deployment, fingerprint)
            except Exception as error:  # noqa: BLE001  whatever it is, the core decides what follows
                kind = errors.kind_of(error)
                message = str(error) if kind else f"{type(error).__name__}: {error}"
                self._link.say("not_opened", generation=generation, message=message, kind=kind)
                return
            self._deployments[generation] = deployment
            self._link.say("opened", generation=generation)

    def _switch(self, generation: int) -> None:
        for number, pool in self._pools.items():
            if number >> 1 != generation:
                pool.stop_publishing()
        self._service.deployment = self._deployments[generation]
        if self._service.state == "starting":
            self._service.state = "serving"
        self._link.say("switched", generation=generation)

    async def _close(self, generation: int, limit_seconds: float) -> None:
        async with self._is_loading:  # one that is being loaded is closed once it is there
            deployment = self._deployments.pop(generation, None)
        if deployment is not None:
            await deployment.end(limit_seconds)
        for stage in (0, 1):
            self._pools.pop(2 * generation + stage, None)
        self._link.say("closed", generation=generation)

    async def _keep_counting(self) -> None:
        while True:
            await asyncio.sleep(COUNT_SECONDS)
            self._count(None)


def _check_same(deployment: Deployment | CascadeDeployment, fingerprint: str) -> None:
    """Raise RefusedError where a front has loaded another model than the core."""
    if deployment.model.fingerprint != fingerprint:
        raise RefusedError(f"{deployment.model.path} changed while it was being loaded; try again")


def _keys_of(listed: list[tuple[str, str]]) -> Keys:
    return Keys(tuple((name, bytes.fromhex(digest)) for name, digest in listed))


def main() -> None:
    """Parse the core's arguments and serve until it says to drain."""
    parser = argparse.ArgumentParser(prog="assay.serve.front", description=__doc__)
    for flag in ("--index", "--num-fronts", "--socket", "--listener", "--board"):
        parser.add_argument(flag, type=int, required=True)
    arguments = parser.parse_args()
    begin_as_child()

    async def run() -> None:
        await Core(arguments).run()

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(run())


if __name__ == "__main__":
    main()
