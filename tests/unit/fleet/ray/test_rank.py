"""A rank of a training on a machine of the cluster, without one: the board, its process, and those of earlier tries."""

import asyncio
import subprocess
import sys

import pytest

pytest.importorskip("ray")

from assay.fleet.ray import rank as ranks
from assay.fleet.ray.rank import Board


def test_the_board():
    """The ranks of an attempt get one answer; where one ends badly the others hear it, and all hear of a stop."""

    async def talk():
        board = Board()
        asking = [asyncio.ensure_future(board.begin("one")) for _ in range(2)]
        await asyncio.sleep(0)
        assert await board.news(1.0) == [(0, {"event": "begin", "attempt": "one"})]
        await board.answer("one", {"job": None})
        assert await asyncio.gather(*asking) == [{"job": None}] * 2
        assert await board.tell("one", 1, [{"event": "printed"}]) == {"stop": False, "end": False}
        assert await board.tell("one", 0, [{"event": "ended", "returncode": 0}]) == {
            "stop": False,
            "end": False,
        }
        assert (await board.tell("one", 1, [{"event": "ended", "returncode": 3}]))["end"]
        assert not (await board.tell("two", 0, []))["end"]
        await board.lose({1: "gone"})
        assert [rank for rank, _ in await board.news(1.0)] == [1, 0, 1, 1]
        assert await board.news(0.0) == []
        await board.stop()
        assert await board.tell("two", 0, []) == {"stop": True, "end": False}

    asyncio.run(talk())


def test_processes_of_earlier_attempts_are_ended():
    """Those of an attempt that is named, and no other."""
    sleep = [sys.executable, "-c", "import time; time.sleep(60)", ranks.MODULE]
    old, other = (subprocess.Popen([*sleep, attempt]) for attempt in ("old", "other"))
    try:
        ranks._end_processes_of(["old", "older"])
        assert old.wait(10) == -9
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
