"""`run_sequences`: what it refuses, counts and stops."""

import logging

import numpy as np
import pytest
import torch

from assay.engine.fake import FakeEngine
from assay.engine.run import run_sequences
from assay.engine.sequences import Sequences, Stopped
from assay.errors import InputError, WorkError


def sequences_of(*lists, seconds=None):
    """Sequences from lists of ids."""
    offsets = np.concatenate([[0], np.cumsum([len(x) for x in lists])]).astype(np.int64)
    flat = np.array([i for x in lists for i in x], dtype=np.int32)
    return Sequences(flat_ids=flat, offsets=offsets, second_starts=seconds)


def test_stop_is_asked_before_each_batch():
    """The batch at hand is finished, the next is not begun, and Stopped is raised."""
    asked = []
    engine = FakeEngine()

    def should_stop():
        asked.append(len(asked))
        return len(asked) == 3

    with pytest.raises(Stopped):
        run_sequences(engine, sequences_of([1], [2], [3], [4]), max_batch_tokens=1, should_stop=should_stop)
    assert asked == [0, 1, 2]


def test_stats_count_tokens_once_for_duplicates():
    """Duplicates add no forward tokens; batches and padding are counted."""
    logits, stats = run_sequences(FakeEngine(), sequences_of([1, 2], [3], [1, 2], [1, 2]))
    assert stats.num_forward_tokens == 3
    assert stats.num_duplicates == 2
    assert stats.num_padded_tokens == 0
    assert stats.num_batches == 1
    assert stats.seconds >= stats.forward_seconds >= 0
    assert logits[0].tolist() == logits[2].tolist() == logits[3].tolist() != logits[1].tolist()


def test_same_ids_with_another_second_segment_are_no_duplicates():
    """The start of the second segment is part of what makes sequences equal."""
    seconds = np.array([1, 2, 1], dtype=np.int32)
    logits, stats = run_sequences(FakeEngine(), sequences_of([1, 2], [1, 2], [1, 2], seconds=seconds))
    assert stats.num_duplicates == 1
    assert logits[0].tolist() != logits[1].tolist()


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
@pytest.mark.parametrize("is_sorted", [False, True])
def test_read_only_buffers_and_offsets_that_begin_late(dtype, is_sorted):
    """A slice of a read-only Arrow buffer runs as it lies, and is not written to."""
    flat = np.array([9, 9, 1, 2, 3, 4, 9], dtype=dtype)
    flat.setflags(write=False)
    offsets = np.array([2, 3, 6], dtype=np.int64)
    offsets.setflags(write=False)
    engine = FakeEngine()
    engine.wants_sorted = is_sorted
    logits, _ = run_sequences(engine, Sequences(flat_ids=flat, offsets=offsets))
    expected, _ = run_sequences(engine, sequences_of([1], [2, 3, 4]))
    assert logits.tolist() == expected.tolist()


def test_what_an_engine_cannot_take_is_refused_with_a_way_out():
    """Empty, too long, and out of vocabulary: InputError in one line."""
    engine = FakeEngine()
    engine.max_length = 3
    engine.vocab_size = 10
    with pytest.raises(InputError, match=r"sequence 1 has 0 tokens.*error code"):
        run_sequences(engine, sequences_of([1], []))
    with pytest.raises(InputError, match=r"sequence 0 has 4 tokens.*windows"):
        run_sequences(engine, sequences_of([1, 2, 3, 4]))
    for bad in (10, -1):
        with pytest.raises(InputError, match=f"token id {bad} .*tokenizer"):
            run_sequences(engine, sequences_of([1, bad]))


class CrampedEngine(FakeEngine):
    """A device with room for `room` tokens."""

    default_batch_tokens = 64

    def __init__(self, room):
        super().__init__()
        self.room = room
        self.tried = []

    def forward(self, batch):
        self.tried.append(batch.num_tokens)
        if batch.num_tokens > self.room:
            raise torch.OutOfMemoryError("no room")
        return super().forward(batch)


@pytest.fixture
def many():
    """40 sequences of 1 to 9 tokens, some of them equal."""
    generator = np.random.default_rng(0)
    return sequences_of(*(generator.integers(1, 4, 1 + k % 9).tolist() for k in range(40)))


@pytest.mark.parametrize("is_sorted", [False, True])
@pytest.mark.parametrize("room", [9, 11, 30])
def test_batches_are_halved_where_the_device_has_no_room(many, room, is_sorted, caplog):
    """Every sequence gets its logits, in order; the smaller batches stay, for this call and the next."""
    engine = CrampedEngine(room)
    engine.wants_sorted = is_sorted
    with caplog.at_level(logging.WARNING):
        logits, stats = run_sequences(engine, many)
    expected, _ = run_sequences(FakeEngine(), many)
    assert logits.tolist() == expected.tolist()
    assert stats.num_batches == sum(tokens <= room for tokens in engine.tried)
    assert stats.num_forward_tokens == sum(tokens for tokens in engine.tried if tokens <= room)
    assert len(caplog.records) == sum(tokens > room for tokens in engine.tried)
    assert "no room" in caplog.text
    budget = engine.default_batch_tokens
    assert budget < 64
    last_failure = max(k for k, tokens in enumerate(engine.tried) if tokens > room)
    # what is longer than the budget runs alone
    assert all(tokens <= max(budget, 9) for tokens in engine.tried[last_failure + 1 :])
    engine.tried.clear()
    again, _ = run_sequences(engine, many)
    assert again.tolist() == expected.tolist()
    assert all(tokens <= max(budget, 9) for tokens in engine.tried)


def test_a_budget_that_was_asked_for_is_halved_too(many):
    """`max_batch_tokens` beyond what fits costs tries, not rows."""
    engine = CrampedEngine(20)
    logits, _ = run_sequences(engine, many, max_batch_tokens=100_000)
    expected, _ = run_sequences(FakeEngine(), many)
    assert logits.tolist() == expected.tolist()
    assert engine.default_batch_tokens <= 64


def test_second_segments_stay_with_their_sequences():
    """Pairs keep their boundary where batches are halved."""
    pairs = sequences_of(*([1 + k % 3] * (2 + k % 9) for k in range(40)), seconds=1 + np.arange(40) % 3 // 2)
    logits, _ = run_sequences(CrampedEngine(12), pairs)
    expected, _ = run_sequences(FakeEngine(), pairs)
    assert logits.tolist() == expected.tolist()


def test_a_sequence_too_large_by_itself_is_an_error():
    """WorkError in one line, with a way out: halving ends."""
    engine = CrampedEngine(5)
    with pytest.raises(WorkError, match=r"one sequence of 7 tokens.*smaller max_length") as caught:
        run_sequences(engine, sequences_of([1], [2, 3], [1, 2, 3, 4, 5, 6, 7], [4]))
    assert "\n" not in str(caught.value)


def test_stop_is_asked_before_each_try(many):
    """A run that is told to stop stops among tries that do not fit, too."""
    engine = CrampedEngine(9)
    with pytest.raises(Stopped):
        run_sequences(engine, many, should_stop=lambda: len(engine.tried) == 2)
    assert len(engine.tried) == 2


def test_a_deterministic_engine_takes_its_own_batches(many):
    """`max_batch_tokens` does not reach it: batches of another size could change bits."""

    class Settled(CrampedEngine):
        deterministic = True
        default_batch_tokens = 16

    engine = Settled(1000)
    run_sequences(engine, many, max_batch_tokens=1000)
    assert len(engine.tried) > 1
    assert max(engine.tried) <= 16


class LateEngine(FakeEngine):
    """Logits that are there only when somebody waits for them, as on a device."""

    def __init__(self):
        super().__init__()
        self.promised = []
        self.num_waits = 0
        self.worked = 0.0

    @property
    def device_seconds(self):
        return self.worked

    def forward(self, batch):
        self.worked += 0.5
        self.promised.append(
            (torch.full((batch.num_sequences, *self.output_shape), -99.0), super().forward(batch))
        )
        return self.promised[-1][0]

    def arrive(self):
        self.num_waits += 1
        for late, logits in self.promised:
            late.copy_(logits)


def test_late_logits_are_collected_once(many, monkeypatch):
    """Nothing looks at logits before the last batch is under way; then all are waited for at once."""
    engine = LateEngine()
    cat = torch.cat

    def waiting(tensors, *given, **named):
        engine.arrive()
        return cat(tensors, *given, **named)

    monkeypatch.setattr(torch, "cat", waiting)
    logits, stats = run_sequences(engine, many, max_batch_tokens=20)
    assert engine.num_waits == 1
    assert stats.num_batches == len(engine.promised) > 3
    assert stats.forward_seconds == 0.5 * stats.num_batches
    expected, _ = run_sequences(FakeEngine(), many)
    assert logits.tolist() == expected.tolist()
