"""Who has gone among several processes that train one model.

Each rank counts up a number in the store every second, beside the process group, so that the others can tell who has
gone: a group alone would say that "a peer" has, or wait for it.
"""

import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import torch.distributed as dist
from torch.distributed.distributed_c10d import Store

from assay.errors import AssayError
from assay.train.world import RankPlace

BEAT_SECONDS = 1.0
SILENT_BEATS = 4
"""A rank that is asked after is taken for gone once it has not counted up for so many beats."""
STORE_SECONDS = 30.0
"""A store that has not answered for so long is taken for gone, and rank 0 with it."""
LEAVE_SECONDS = 10.0
"""For a main thread to raise by itself."""
_INTERRUPTED = "interrupted"
_BROKEN = re.compile(
    r"gloo|nccl|connection (was |is )?(closed|reset|refused)|broken pipe|timed? ?out", re.IGNORECASE
)


class PeerWatch:
    """Counts up in the store for this rank and keeps an eye on the others' counts, in a thread of its own."""

    def __init__(
        self, store: Store, place: RankPlace, *, way_out: Callable[[], str], end_process: bool
    ) -> None:
        self._store = store  # it answers the others for as long as it is held
        self._asked = store.clone()  # type: ignore[attr-defined]  # the stub of Store lacks it
        self._asked.set_timeout(timedelta(seconds=STORE_SECONDS))
        self._place = place
        self._way_out = way_out
        self._end_process = end_process
        self._others = [rank for rank in range(place.world_size) if rank != place.rank]
        self._left: dict[int, str] = {}
        self._is_store_gone = False
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._counts: dict[int, bytes] = {}
        now = time.monotonic()
        self._heard = dict.fromkeys(self._others, now)
        self._count = 0
        self._asked.set(f"count/{place.rank}", "0")
        self._asked.set(f"left/{place.rank}", "")

    def start(self, *, silent_seconds: float) -> None:
        """Begin to beat; every rank has set its count by now. For a stuck GPU, `silent_seconds` is the limit."""
        self._silent_seconds = silent_seconds
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join(LEAVE_SECONDS)

    def leave(self, reason: str) -> None:
        """Tell the others that this rank leaves; "" for a good end."""
        with suppress(RuntimeError):
            self._asked.set(f"left/{self._place.rank}", json.dumps(reason))

    def wait_for_others(self, *, at_most_seconds: float) -> None:
        """Return once every other rank has left or has long been silent."""
        deadline = time.monotonic() + at_most_seconds
        while time.monotonic() < deadline and not self._is_store_gone:
            self._look()
            if all(rank in self._left or self._silence(rank) > self._silent_seconds for rank in self._others):
                return
            time.sleep(BEAT_SECONDS / 20)

    def explain(self, error: Exception) -> str:
        """Who is to blame for a collective that broke, and how to go on; takes a few beats."""
        deadline = time.monotonic() + 2 * SILENT_BEATS * BEAT_SECONDS
        while (gone := self._find_gone(SILENT_BEATS * BEAT_SECONDS)) is None and time.monotonic() < deadline:
            time.sleep(BEAT_SECONDS / 10)
            self._look()
        if gone is None:
            return (
                f"the {self._place.world_size} ranks no longer reach one another ({one_line(error)}) though all are "
                f"there; check the network between their hosts; {self._way_out()}"
            )
        return self._describe(*gone, one_line(error))

    def _describe(self, rank: int, reason: str, otherwise: str) -> str:
        return f"rank {rank} of {self._place.world_size} has gone ({reason or otherwise}); {self._way_out()}"

    def _find_gone(self, silent_seconds: float) -> tuple[int, str] | None:
        """A rank that left with an error, else the one that has been silent for longest."""
        with self._lock:
            failed = [(rank, reason) for rank, reason in self._left.items() if reason]
            if failed:
                # A rank that left because another had gone is not the first.
                return min(failed, key=lambda each: "has gone" in each[1])
            if self._is_store_gone and self._place.rank != 0:
                return 0, "it no longer answers"
            there = [rank for rank in self._others if rank not in self._left]
            silent = [rank for rank in there if self._silence(rank) > silent_seconds]
            if not silent:
                return None
            return max(silent, key=self._silence), ""

    def _silence(self, rank: int) -> float:
        return time.monotonic() - self._heard[rank]

    def _run(self) -> None:
        beat_seconds = max(BEAT_SECONDS, self._place.world_size / 32)
        while not self._stop.wait(beat_seconds):
            self._look()
            gone = self._find_gone(self._silent_seconds) if self._end_process else None
            # Ranks that were told to stop leave while rank 0 still writes their checkpoint.
            if gone is not None and gone[1] != _INTERRUPTED:
                self._end(gone)

    def _end(self, gone: tuple[int, str]) -> None:
        """Give the main thread time to raise by itself; end the process where it is stuck."""
        if not self._stop.wait(LEAVE_SECONDS):
            silence = f"nothing heard for {self._silent_seconds:.0f} s"
            sys.stderr.write(f"assay: error: {self._describe(*gone, silence)}\n")
            sys.stderr.flush()
            os._exit(1)

    def _look(self) -> None:
        """Count up, and note who else did and who left."""
        ranks = self._others
        with self._lock:
            self._count += 1
            try:
                self._asked.set(f"count/{self._place.rank}", str(self._count))
                answers = self._asked.multi_get(
                    [*(f"count/{rank}" for rank in ranks), *(f"left/{rank}" for rank in ranks)]
                )
            except RuntimeError:
                self._is_store_gone = True
                return
            now = time.monotonic()
            for rank, count, left in zip(ranks, answers[: len(ranks)], answers[len(ranks) :], strict=True):
                if self._counts.get(rank) != count:
                    self._counts[rank], self._heard[rank] = count, now
                if left:
                    self._left[rank] = str(json.loads(left))


def is_broken(error: RuntimeError) -> bool:
    """Whether a collective failed, as opposed to anything else that torch raises as a RuntimeError."""
    return isinstance(error, dist.DistError) or _BROKEN.search(str(error)) is not None


def reason_of(error: BaseException) -> str:
    """Why this rank leaves, as the others are told."""
    if isinstance(error, KeyboardInterrupt):
        return _INTERRUPTED
    return str(error) if isinstance(error, AssayError) else f"{type(error).__name__}: {one_line(error)}"


def one_line(error: BaseException) -> str:
    """The first line of an error, without the place in a C++ source that gloo puts first."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"^\[\S+?:\d+\] ", "", lines[0])[:200].rstrip(".")
