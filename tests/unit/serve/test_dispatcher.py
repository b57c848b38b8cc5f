"""When a batch is sent, and how much of what waits goes into it."""

from types import SimpleNamespace

import numpy as np
import pytest

from assay.serve import dispatcher as module
from assay.serve import engines
from assay.serve.dispatcher import AHEAD_SECONDS, AHEAD_SHARE, LEAST_SHARE_TOKENS, Dispatcher
from assay.serve.engines import DeviceEngine, EngineSpec, InFlight, Ready
from assay.serve.fronts import FrontTicket
from assay.serve.tickets import QueuedDocument

BUDGET = 100_000
RATE = 1e6
TOKENS = 200
"""Of a document."""


class Loop:
    """A clock that stands, and what is to be called."""

    def __init__(self):
        self.now, self.called = 100.0, []

    def time(self):
        return self.now

    def call_at(self, when, _):
        self.called.append(when)
        return SimpleNamespace(cancel=lambda: None)


class Line:
    """A dispatcher before engines of one rate, each with batches in flight of so many tokens, sent just now."""

    def __init__(self, monkeypatch, *in_flight):
        self.loop = Loop()
        for each in (module, engines):
            monkeypatch.setattr(each, "asyncio", SimpleNamespace(get_running_loop=lambda: self.loop))
        self.dispatcher = Dispatcher(
            lambda *_: None, SimpleNamespace(batch=lambda *_: None), max_batch_tokens=None,
            on_ready=lambda _: None, on_hello=lambda _: None,
        )  # fmt: skip
        spec = EngineSpec(
            bundle="b", device="cpu", engine="auto", precision="auto", deterministic=False, max_batch_tokens=None,
            num_threads=None,
        )  # fmt: skip
        for tokens in in_flight:
            engine = DeviceEngine(spec=spec, owner=self.dispatcher)
            engine.ready = Ready(
                description="", fingerprint="", num_outputs=1, is_padded=False, default_batch_tokens=BUDGET,
                tokens_per_second=RATE, dtype="float32",
            )  # fmt: skip
            engine.tokens_per_second = RATE
            engine.in_flight = [
                InFlight(number, [], each, self.loop.now) for number, each in enumerate(tokens)
            ]
            engine._writer = SimpleNamespace(write=lambda _: None)
            self.dispatcher.engines.append(engine)

    def add(self, num_documents):
        """So many documents of as many requests come; the tokens that each engine got."""
        before = [len(engine.in_flight) for engine in self.dispatcher.engines]
        tickets = [FrontTicket(None, 2, number, 1e9, normalize=False) for number in range(num_documents)]
        ids = np.zeros(TOKENS, np.int32)
        self.dispatcher.add_all([(each, [QueuedDocument(each, 0, ids, [TOKENS], 0)]) for each in tickets])
        return [
            sum(each.num_tokens for each in engine.in_flight[number:])
            for engine, number in zip(self.dispatcher.engines, before, strict=True)
        ]


# 200 documents are 40,000 tokens, 40 ms of one engine
@pytest.mark.parametrize(
    ("in_flight", "expected"),
    [
        ([[], []], [20_000, 20_000]),  # both are free
        ([[], [10_000]], [25_000, 0]),  # one is soon
        ([[], [60_000]], [40_000, 0]),  # the other one will not be before all is done
        ([[30_000, 30_000], []], [0, 40_000]),
    ],
)
def test_engines_are_to_be_done_together(monkeypatch, in_flight, expected):
    """An engine that is free leaves as much to one that is busy as that can do in the same time."""
    assert Line(monkeypatch, *in_flight).add(200) == expected


def test_little_is_not_shared(monkeypatch):
    """What takes no time goes to one engine."""
    line = Line(monkeypatch, [], [])
    assert line.add(LEAST_SHARE_TOKENS // TOKENS) == [LEAST_SHARE_TOKENS // TOKENS * TOKENS, 0]


@pytest.mark.parametrize("tokens", [8_000, 80_000])
def test_the_next_batch_comes_before_the_last_is_done(monkeypatch, tokens):
    """The earlier, the longer that one takes; at once where it is nearly done."""
    line = Line(monkeypatch, [tokens])
    assert line.add(1) == [0]
    seconds = tokens / RATE
    ahead = max(AHEAD_SECONDS, AHEAD_SHARE * seconds)
    assert line.loop.called == [pytest.approx(line.loop.now + seconds - ahead)]
    line.loop.now = line.loop.called[0]
    assert line.add(1) == [2 * TOKENS]
    assert Line(monkeypatch, [2_000]).add(1) == [TOKENS]
