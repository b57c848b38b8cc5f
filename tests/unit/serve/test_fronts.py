"""What processes of one server share and send each other; who is refused, and how many there are."""

import asyncio
import os
import socket
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from support.serving import FunctionEngine, until

from assay import machine
from assay.errors import UsageError
from assay.serve import document_frames, frames, front, placement
from assay.serve.board import Board, make_board
from assay.serve.deployment import Deployment
from assay.serve.document_frames import DocumentsFrame, ScoresFrame
from assay.serve.engine_pool import EnginePool
from assay.serve.frames import FrameKind
from assay.serve.front import Core
from assay.serve.fronts import FrontProcesses
from assay.serve.keys import Keys, RateLimit
from assay.serve.log import RequestLog
from assay.serve.metrics import Metrics
from assay.serve.placement import choose_num_fronts
from assay.serve.refusals import Refusal
from assay.serve.remote_pool import RemotePool
from assay.serve.settings import ServeSettings
from assay.serve.tickets import How, QueuedDocument, Ticket


def split(frame):
    """Head and payload."""
    head = frames.read_head(frame[: frames.HEAD.size])
    payload = frame[frames.HEAD.size :]
    assert head.num_bytes == len(payload)
    return head, payload


def test_documents_and_scores_come_as_they_were():
    """Documents of one view and of several, with whatever is known of them."""
    sent = DocumentsFrame(
        requests_N=np.array([7, 7, 1 << 40]),
        documents_N=np.array([1, 2, 3]),
        deadlines_N=np.array([0.5, 0.5, 1e9]),
        second_starts_N=np.array([0, 2, 0], np.int32),
        normalize_N=np.array([0, 0, 1], np.int32),
        num_views_N=np.array([1, 2, 1], np.int32),
        lengths=np.array([2, 1, 3, 1], np.int32),
        flat_ids=np.arange(7, dtype=np.int32),
    )
    head, payload = split(document_frames.pack_documents(5, sent))
    found = document_frames.unpack_documents(head, payload)
    assert head.number == 5
    for name in DocumentsFrame.__slots__:
        np.testing.assert_array_equal(getattr(found, name), getattr(sent, name), err_msg=name)

    scored = ScoresFrame(
        documents_N=np.array([3, 1]),
        num_views_N=np.array([2, 1], np.int32),
        started_N=np.array([1.5, 2.5]),
        outputs_SC=np.arange(6, dtype=np.float32).reshape(3, 2),
        seconds=0.25,
    )
    head, payload = split(document_frames.pack_scores(4, scored))
    back = document_frames.unpack_scores(head, payload)
    assert (head.number, back.seconds) == (4, 0.25)
    for name in ("documents_N", "num_views_N", "started_N", "outputs_SC"):
        np.testing.assert_array_equal(getattr(back, name), getattr(scored, name), err_msg=name)
    head, payload = split(document_frames.pack_cancel(4, [3, 1 << 40]))
    assert document_frames.unpack_cancel(payload) == [3, 1 << 40]


def test_a_rate_is_shared():
    """What one process lets in counts for the other; each key has its own."""
    descriptor = make_board(2)
    try:
        one, other = (RateLimit(60, Board(descriptor, 2)) for _ in range(2))
        assert one.seconds_to_wait("a", 40, 0.0) == 0
        assert other.seconds_to_wait("a", 20, 0.0) == 0
        assert one.seconds_to_wait("a", 1, 0.0) == pytest.approx(1)
        assert other.seconds_to_wait("b", 60, 0.0) == 0
        assert other.seconds_to_wait("a", 1, 1.0) == 0
    finally:
        os.close(descriptor)


def test_counts_of_several_processes_add_up():
    """What was taken from one and added to another is counted once, in counters and in histograms."""
    total, part, alone = Metrics(), Metrics(), Metrics()
    for metrics in (part, alone, total, alone):
        metrics.request("predict", is_batch=False, num_documents=1)
        metrics.times(total=0.003, tokenize=0.001, queue=100.0, forward=0.002)
    total.add(part.take())
    total.add(part.take())
    assert total.exposition() == alone.exposition()
    assert b'te_request_queue_duration_bucket{le="30.0"} 0.0' in total.exposition()
    assert b'te_request_duration_bucket{le="0.005"} 2.0' in total.exposition()


@pytest.mark.parametrize(
    ("cores", "has_gpu", "asked", "expected"),
    [(2, False, "auto", 1), (64, False, "auto", 1), (4, True, "auto", 1), (16, True, "auto", 8), (2, False, "3", 3)],
)  # fmt: skip
def test_how_many_there_are(monkeypatch, cores, has_gpu, asked, expected):
    """One process on small machines and without a GPU, unless asked."""
    monkeypatch.setattr(machine, "usable_cores", lambda: cores)
    monkeypatch.setattr(machine, "has_gpu_driver", lambda: has_gpu)
    assert choose_num_fronts(ServeSettings(bundle="b", front_processes=asked)) == expected


def test_too_many_are_refused(monkeypatch):
    """More than a few a core, or several where a port cannot be shared."""
    monkeypatch.setattr(machine, "usable_cores", lambda: 2)
    with pytest.raises(UsageError, match="set 8 or less"):
        choose_num_fronts(ServeSettings(bundle="b", front_processes="9"))
    monkeypatch.setattr(placement, "sys", SimpleNamespace(platform="darwin"))
    with pytest.raises(UsageError, match="on Linux alone; set 1"):
        choose_num_fronts(ServeSettings(bundle="b", front_processes="2"))


class Both:
    """A core with a function for an engine and the pools of two fronts, without processes: frames are handed over."""

    def __init__(self, *, seconds=0.05, **settings):
        chosen = ServeSettings(bundle="b", **settings)
        self.sockets = [socket.socket() for _ in range(2)]
        self.core = FrontProcesses(chosen, Keys(), Metrics(), self.sockets)
        self.engines = EnginePool(
            chosen, None, Metrics(), RequestLog(), deliver=self.core.deliver, on_stale=lambda: None
        )
        self.engine = FunctionEngine(self.engines.dispatcher, seconds=seconds, budget=64)
        self.engines.dispatcher.engines.append(self.engine)
        self.core.pools[2], self.core._current = self.engines, 1
        self.fronts = self.core._fronts
        self.pools = [self._pool(front) for front in self.fronts]
        self.delivered = []

    def close(self):
        for each in self.sockets:
            each.close()
        os.close(self.core.board_descriptor)

    def ask(self, pool, *, num_documents=1, num_views=1):
        """A request of so many documents of 4 tokens a view; its ticket."""
        loop = asyncio.get_running_loop()
        ticket = Ticket(
            request_id="id", num_documents=num_documents, deadline=loop.time() + 60, how=How(),
            done=loop.create_future(), arrived_at=time.perf_counter(),
        )  # fmt: skip
        ids = np.arange(4 * num_views, dtype=np.int32)
        pool.add(
            ticket, [QueuedDocument(ticket, index, ids, [4] * num_views, 0) for index in range(num_documents)]
        )
        return ticket

    def _pool(self, front):
        link = SimpleNamespace(write=lambda frame: front._take(*split(frame)))
        pool = RemotePool(link, self.core.board, front.index, 2, deliver=self._deliver)

        def hear(frame):
            head, payload = split(frame)
            if head.kind == FrameKind.SCORES:
                pool.take_scores(document_frames.unpack_scores(head, payload))
            else:
                said = frames.unpack_json(payload)
                pool.refuse(said["request"], Refusal(said["reason"], said["message"], said["headers"]))

        front.process.write = hear
        return pool

    def _deliver(self, documents, outputs_SC, seconds):
        assert len(outputs_SC) == sum(len(document.lengths) for document in documents)
        for document in documents:
            document.ticket.take(document.index, outputs_SC[0].tolist())


def with_both(conversation, **settings):
    """What a conversation with a core and two fronts comes to."""

    async def run():
        both = Both(**settings)
        try:
            return await asyncio.wait_for(conversation(both), 30)
        finally:
            both.close()

    return asyncio.run(run())


def test_requests_of_two_fronts_share_batches_and_each_gets_its_own():
    """Documents of one view and of several, of both fronts; one that is given up while it is computed harms none."""

    async def conversation(both):
        one, other = both.pools
        before = both.ask(one)
        await asyncio.sleep(0.01)
        first = [before, both.ask(other, num_documents=3, num_views=2), both.ask(one, num_views=2)]
        given_up = both.ask(one, num_documents=2)
        await asyncio.sleep(0.01)
        one.cancel(given_up)
        for ticket in first:
            assert len(await ticket.done) == ticket.num_documents
            assert ticket.started_at > 0
        assert len({document.ticket.owner for document in both.engine.batches[1]}) == 2
        await asyncio.sleep(0.1)
        assert not given_up.done.done()
        assert not any(front.tickets for front in both.fronts)
        assert (one.num_documents, one.num_tokens) == (0, 0)

    with_both(conversation)


def test_more_than_may_wait_is_refused_by_the_core():
    """Two fronts that let requests in at the same moment: what passes the bound gets 429, the rest is answered."""

    async def conversation(both):
        tickets = [both.ask(both.pools[number % 2], num_documents=10) for number in range(30)]
        found = await asyncio.gather(*(ticket.done for ticket in tickets), return_exceptions=True)
        refused = [each for each in found if isinstance(each, Refusal)]
        assert {each.reason for each in refused} == {"overloaded"}
        assert all(each.headers["Retry-After"] for each in refused)
        assert 0 < len(refused) < 30 - 10
        assert all(len(each) == 10 for each in found if not isinstance(each, Refusal))

    with_both(conversation, max_queue=100, max_client_batch_size=10)


def test_what_is_given_up_waits_no_longer():
    """Where every client goes away, the fronts soon read that nothing waits, and let requests in again."""

    async def conversation(both):
        telling = asyncio.ensure_future(both.core._tell_status())
        given_up = [both.ask(both.pools[number % 2], num_documents=20) for number in range(10)]
        await asyncio.sleep(0.01)
        assert all(pool.num_documents > 100 for pool in both.pools)
        for number, ticket in enumerate(given_up):
            both.pools[number % 2].cancel(ticket)
        await until(lambda: not any(pool.num_documents or pool.num_tokens for pool in both.pools))
        telling.cancel()

    with_both(conversation, seconds=0.3)


def test_a_front_takes_requests_for_what_it_has_loaded():
    """One that was started again during a reload hears of the switch once it has the model, and not before."""

    async def conversation(both):
        deployment = object.__new__(Deployment)
        deployment.pool, both.core._deployments = both.engines, {1: deployment}
        told = []
        for each in both.fronts:
            each.process.write = lambda frame, index=each.index: told.append(
                (index, frames.unpack_json(split(frame)[1])["event"])
            )
        both.core.hear(both.fronts[0], {"event": "opened", "generation": 1})
        told.clear()
        await both.core.switch(deployment)
        assert told == [(1, "status"), (1, "switch")]
        both.core.hear(both.fronts[1], {"event": "opened", "generation": 1})
        assert told[2:] == [(2, "status"), (2, "switch")]

    with_both(conversation)


def test_a_model_given_up_while_a_front_loads_it_is_closed(monkeypatch):
    """Another process could not load it: the front lets go of it too, once it has it."""
    is_read, told, ended = threading.Event(), [], []

    async def end(limit_seconds):
        ended.append(limit_seconds)

    async def run():
        core = Core(SimpleNamespace(num_fronts=2, index=1))
        core._link = SimpleNamespace(say=lambda event, **content: told.append((event, content["generation"])))
        core._started.set_result({})
        model = SimpleNamespace(fingerprint="f")
        core._service = SimpleNamespace(settings=None, deploy=lambda _: SimpleNamespace(model=model, end=end))
        monkeypatch.setattr(front, "open_here", lambda *_: is_read.wait(10))
        core._hear({"event": "open", "generation": 1, "folder": "model", "fingerprint": "f"})
        await asyncio.sleep(0)
        core._hear({"event": "close", "generation": 1, "limit_seconds": 0})
        await asyncio.sleep(0.01)
        is_read.set()
        await until(lambda: ("closed", 1) in told)
        assert told == [("opened", 1), ("closed", 1)]
        assert (ended, core._deployments) == ([0], {})

    asyncio.run(run())


def test_requests_of_a_front_that_ended_are_dropped():
    """They are not computed any more; those of the other front are answered."""

    async def conversation(both):
        lost = both.ask(both.pools[0], num_documents=200)
        kept = both.ask(both.pools[1], num_documents=200)
        await asyncio.sleep(0.01)
        both.fronts[0].ended()
        assert len(await kept.done) == 200
        assert not lost.done.done()
        of_lost = [each for batch in both.engine.batches for each in batch if each.ticket.owner.index == 1]
        assert len(of_lost) < 100

    with_both(conversation)
