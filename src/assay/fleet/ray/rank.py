"""What a training runs on the machines of the cluster: a rank's process, held by a worker of Ray Train.

The process is the one that a training starts on its own machine, and makes its process group itself; Ray Train
places the workers, all at once, and starts them again where one is lost. Between them and the driver stands a
board, an actor on the driver's machine.
"""

import asyncio
import contextlib
import os
import queue
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
import ray.train
from ray.train import UserCallback
from ray.train.backend import Backend, BackendConfig
from ray.train.collective import broadcast_from_rank_zero

from assay import machine
from assay.processes import Exited, Json, JsonChild, News, Printed, describe_end
from assay.train.launch import FAILED_SECONDS, STOP_SECONDS
from assay.train.locking import wait_until_free

TELL_SECONDS = 0.5
"""Between two words of a rank to the board, and so until it hears that it is to stop."""
MODULE = "assay.train.process"


class _OwnGroups(Backend):  # type: ignore[misc]  # as below
    share_cuda_visible_devices = True
    """Ranks of a machine see each other's GPUs, for NCCL; each takes the one of its local rank."""


class OwnGroup(BackendConfig):  # type: ignore[misc]  # as below
    """Ray Train leaves the process group to the ranks' processes."""

    backend = "own"

    @property
    def backend_cls(self) -> type[Backend]:
        """What is set up around the workers."""
        return _OwnGroups


class Board:
    """What the ranks tell the driver, and the driver them. Its methods run in one event loop."""

    def __init__(self) -> None:
        """Nothing was said yet."""
        self._news: list[tuple[int, Json]] = []
        self._is_there = asyncio.Event()
        self._answers: dict[str, asyncio.Future[Json]] = {}
        self._broken: set[str] = set()
        self._is_stopping = False

    async def begin(self, attempt: str) -> Json:
        """What the driver says to the ranks of an attempt."""
        if attempt not in self._answers:
            self._answers[attempt] = asyncio.get_running_loop().create_future()
            self._say(0, {"event": "begin", "attempt": attempt})
        return await self._answers[attempt]

    async def answer(self, attempt: str, answer: Json) -> None:
        """Let the ranks of an attempt begin, or end at once."""
        self._answers[attempt].set_result(answer)

    async def tell(self, attempt: str, rank: int, said: list[Json]) -> Json:
        """What a rank says; returns whether it is to stop, and whether the attempt is over without it."""
        for event in said:
            self._say(rank, event)
            if event["event"] == "ended" and event["returncode"] and not self._is_stopping:
                self._broken.add(attempt)
        return {"stop": self._is_stopping, "end": attempt in self._broken}

    async def lose(self, lost: dict[int, str]) -> None:
        """Workers that Ray has lost, and how."""
        for rank, why in lost.items():
            self._say(rank, {"event": "lost", "why": why})

    async def stop(self) -> None:
        """Ask every rank to write a checkpoint and end."""
        self._is_stopping = True

    async def news(self, seconds: float) -> list[tuple[int, Json]]:
        """What was said since the last call, by rank, waiting for it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._is_there.wait()
        self._is_there.clear()
        said, self._news = self._news, []
        return said

    def _say(self, rank: int, event: Json) -> None:
        self._news.append((rank, event))
        self._is_there.set()


class Losses(UserCallback):  # type: ignore[misc]  # Ray's own have no types
    """Tells the board of workers that Ray has lost; called in the controller of Ray Train."""

    def __init__(self, board: Any) -> None:  # noqa: ANN401
        """Of a training whose board this is."""
        self._board = board

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:  # noqa: ANN401
        """An attempt is over."""
        del run_context
        self._board.lose.remote({rank: _last_line(error) for rank, error in worker_exceptions.items()})


class RankLostError(Exception):
    """A rank's process ended and did not say why: Ray Train is to start all ranks again."""


def train_rank(asked: Json) -> None:
    """A rank of the training, in a worker of Ray Train; `asked` holds `board`, `folder` and `num_threads`.

    Raises RankLostError where its process was lost; the driver then says whether there is another attempt. One that
    says what it failed of ends the training.
    """
    context = ray.train.get_context()
    rank, board = context.get_world_rank(), asked["board"]
    with contextlib.ExitStack() as stack:
        meeting = None
        if rank == 0:
            address = ray.util.get_node_ip_address()
            meeting = stack.enter_context(socket.create_server((address, 0), backlog=1024))
        place = broadcast_from_rank_zero(
            meeting and {"attempt": uuid4().hex, "host": address, "port": meeting.getsockname()[1]}
        )
        answer = ray.get(board.begin.remote(place["attempt"]))
        if answer["job"] is None:
            return
        _end_processes_of(answer["earlier"])
        if rank == 0 and answer["earlier"]:
            wait_until_free(Path(asked["training"]), STOP_SECONDS)
        environment = {
            "TORCH_CPP_LOG_LEVEL": "ERROR",
            **machine.child_environment(os.environ, num_threads=asked["num_threads"]),
            "RANK": str(rank),
            "WORLD_SIZE": str(context.get_world_size()),
            "LOCAL_RANK": str(context.get_local_rank()),
            "LOCAL_WORLD_SIZE": str(context.get_local_world_size()),
            "MASTER_ADDR": place["host"],
            "MASTER_PORT": str(place["port"]),
        }
        if meeting is not None:
            environment["ASSAY_STORE_FD"] = str(meeting.fileno())
        news: queue.SimpleQueue[News] = queue.SimpleQueue()
        child = JsonChild(
            (sys.executable, "-m", MODULE, place["attempt"]),
            environment=environment,
            hear=news.put,
            hear_stderr=True,
            pass_fds=() if meeting is None else (meeting.fileno(),),
            folder=asked["folder"] if Path(asked["folder"]).is_dir() else None,
        )
        stack.callback(child.kill)
        if meeting is not None:
            meeting.close()  # the child has it, and its end is the end of it
        child.send(answer["job"])
        why = _follow(child, news, rank, lambda said: board.tell.remote(place["attempt"], rank, said))
    if why is not None:
        raise RankLostError(why)


def _follow(child: JsonChild, news: "queue.SimpleQueue[News]", rank: int, tell: Any) -> str | None:  # noqa: ANN401
    """Pass on what a process says until it ends, and end it when it is to; returns how it was lost, if it was."""
    kill_at, was_asked, has_failed = float("inf"), False, False
    while True:
        said, end = _said(news, rank)
        has_failed |= any(event["event"] == "failed" for event in said)
        if end is not None:
            said.append(
                {
                    "event": "ended",
                    "returncode": end.returncode,
                    "tail": list(child.tail),
                    "host": socket.gethostname(),
                    "was_asked": was_asked,
                }
            )
        answer = ray.get(tell(said))
        if end is not None:
            is_lost = end.returncode and not was_asked and not has_failed
            return describe_end(end.returncode) if is_lost else None
        if (answer["stop"] or answer["end"]) and not was_asked:
            was_asked = True
            child.terminate()
            kill_at = time.monotonic() + (STOP_SECONDS if answer["stop"] else FAILED_SECONDS)
        if time.monotonic() > kill_at:
            child.kill()


def _said(news: "queue.SimpleQueue[News]", rank: int) -> tuple[list[Json], Exited | None]:
    """What a process said within a moment, of ranks but the first only failures; and how it ended, if it did."""
    said: list[Json] = []
    deadline = time.monotonic() + TELL_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        try:
            each = news.get(timeout=left)
        except queue.Empty:
            break
        if isinstance(each, Exited):
            return said, each
        if isinstance(each, Printed):
            sys.stderr.write(each.line)  # into the logs of the machine
            each = {"event": "printed", "line": each.line}
        if rank == 0 or each["event"] == "failed":
            said.append(each)
    return said, None


def _end_processes_of(attempts: list[str]) -> None:
    """End processes of earlier attempts on this machine, whose worker was killed and which end only by and by."""
    for pid in _processes_of(attempts):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    while any(_processes_of(attempts)):
        time.sleep(TELL_SECONDS / 10)


def _processes_of(attempts: list[str]) -> Iterator[int]:
    """Processes of this machine that run a rank of these attempts, zombies left out."""
    wanted = {attempt.encode() for attempt in attempts}
    for folder in Path("/proc").iterdir() if wanted else ():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_bytes().split(b"\0")
                if MODULE.encode() in words and wanted & set(words):
                    yield int(folder.name)


def _last_line(error: BaseException) -> str:
    return next(reversed(str(error).strip().splitlines()), type(error).__name__)[:300]
