"""What an engine process is started with, and how its server talks to it."""

import asyncio
import socket

import numpy as np
import pytest
import uvloop

from assay.serve import frames
from assay.serve.engines import Child, DeviceEngine, EngineSpec
from assay.serve.frames import BatchFrame, FrameKind
from assay.serve.links import FrameCutter

READY = {
    "description": "d",
    "fingerprint": "f",
    "num_outputs": 2,
    "is_padded": False,
    "default_batch_tokens": 100,
    "tokens_per_second": 1000.0,
    "dtype": "float32",
}
BATCH = BatchFrame(np.array([1, 2], np.int32), np.array([0, 2], np.int32), None)
LOGITS = np.array([[0.5, 1.5]], np.float32)


@pytest.mark.parametrize("sizes", [[1], [7, 50], [10_000]])
def test_frames_come_in_pieces_of_any_size(sizes):
    """Each frame is handed on once, whole, in order; half a frame at the end is not one."""
    sent = frames.pack_json(FrameKind.READY, READY) + frames.pack_outputs(3, LOGITS, 0.5) + b"\x05" * 20
    taken, begun = [], []

    async def talk():
        ended = asyncio.get_running_loop().create_future()
        link = FrameCutter(begun.append, lambda head, payload: taken.append((head, payload)), ended)
        link.connection_made("transport")
        start, turn = 0, 0
        while start < len(sent):
            size = sizes[turn % len(sizes)]
            link.data_received(sent[start : start + size])
            start, turn = start + size, turn + 1
        assert not ended.done()
        link.connection_lost(None)
        link.connection_lost(ConnectionResetError())
        assert ended.done()

    asyncio.run(talk())
    assert begun == ["transport"]
    assert [head.kind for head, _ in taken] == [FrameKind.READY, FrameKind.OUTPUTS]
    assert frames.unpack_json(taken[0][1]) == READY
    assert frames.unpack_outputs(*taken[1]).tolist() == LOGITS.tolist()


class Owner:
    """Sends a batch as soon as the engine is ready; fails of answers where told to."""

    def __init__(self, *, fails):
        self.fails = fails
        self.heard = []

    def engine_is_ready(self, engine):
        self.engine = engine
        self.heard.append(("ready", engine.reason))
        engine.send("batch", BATCH)

    def engine_answered(self, batch, logits_SC, seconds):
        self.heard.append(("answered", batch, logits_SC.tolist(), seconds))
        if self.fails:
            raise ValueError
        self.engine.stop()

    def engine_ended(self, engine, batches, reason):
        self.heard.append(("ended", batches))
        engine.stop()


class Process:
    """Stands in for one that was started."""

    def kill(self):
        pass

    def wait(self):
        return 0


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_what_an_engine_said_before_anyone_listened(loop_factory, fails):
    """It is answered at once; where taking in an answer fails, the batch is not lost but tried again."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.sendall(frames.pack_json(FrameKind.READY, READY) + frames.pack_outputs(1, LOGITS, 0.5))
    owner = Owner(fails=fails)
    spec = EngineSpec(
        bundle="b",
        device="cpu",
        engine="auto",
        precision="auto",
        deterministic=False,
        max_batch_tokens=None,
        num_threads=None,
    )
    engine = DeviceEngine(spec=spec, owner=owner, child=Child(process=Process(), connection=ours))

    async def live():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        await asyncio.wait_for(engine.run(), 10)

    with theirs, asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(live())
    expected = [("ready", ""), ("answered", "batch", LOGITS.tolist(), 0.5)]
    assert owner.heard == expected + ([("ended", ["batch"])] if fails else [])
