"""One front process from the core's side: start it, talk to it, notice its end."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable

from assay import machine
from assay.processes import describe_end, spawn
from assay.serve.frames import FrameHead
from assay.serve.links import FrameCutter
from assay.serve.placement import choose_front_threads

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 10.0


class FrontProcess:
    """One process after another on one listening socket, which outlives them."""

    def __init__(
        self,
        index: int,
        listener: socket.socket,
        board: int,
        num_fronts: int,
        *,
        begin: Callable[[], None],
        take: Callable[[FrameHead, bytes], None],
    ) -> None:
        """`begin` hears of each process that runs, `take` gets its frames; `board` is a file descriptor."""
        self.is_stopping = False
        """Whether one that ends is not replaced."""
        self.num_failed = 0
        """Processes in a row that ended before they had loaded the model."""
        self._index = index
        self._listener = listener
        self._board = board
        self._num_fronts = num_fronts
        self._begin = begin
        self._take = take
        self._process: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.WriteTransport | None = None

    @property
    def is_there(self) -> bool:
        """Whether a process runs."""
        return self._process is not None

    def write(self, frame: bytes) -> None:
        """Send a frame; nothing where no process runs."""
        if self._writer is not None:
            self._writer.write(frame)

    def kill(self) -> None:
        """End the process at once."""
        if self._process is not None:
            self._process.kill()

    def pause_seconds(self) -> float:
        """How long to wait before the next one."""
        self.num_failed += 1
        pause: float = FIRST_PAUSE_SECONDS * 2 ** (self.num_failed - 1)
        return min(LONGEST_PAUSE_SECONDS, pause)

    async def live(self) -> str:
        """One process from start to end; why it ended."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        try:
            process, ours = self._start()
        except OSError as error:
            return f"no process can be started: {error.strerror or error}"
        self._process = process

        def begin(transport: asyncio.WriteTransport) -> None:
            self._writer = transport
            self._begin()

        transport, _ = await loop.create_connection(lambda: FrameCutter(begin, self._take, ended), sock=ours)
        try:
            await ended
        finally:
            self._writer = None
            transport.close()
            process.kill()
            status = await loop.run_in_executor(None, process.wait)
            self._process = None
        return f"it {describe_end(status)}"

    def _start(self) -> tuple["subprocess.Popen[bytes]", socket.socket]:
        ours, theirs = socket.socketpair()
        descriptors = {
            "--socket": theirs.fileno(),
            "--listener": self._listener.fileno(),
            "--board": self._board,
        }
        command = [sys.executable, "-m", "assay.serve.front", "--index", str(self._index)]
        command += ["--num-fronts", str(self._num_fronts)]
        for flag, descriptor in descriptors.items():
            command += [flag, str(descriptor)]
        with theirs:
            process = spawn(
                command,
                environment=machine.child_environment(
                    os.environ, num_threads=choose_front_threads(self._num_fronts)
                ),
                stdin=subprocess.DEVNULL,
                pass_fds=list(descriptors.values()),
            )
        ours.settimeout(0.0)
        return process, ours
