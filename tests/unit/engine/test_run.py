"""`run_sequences`: what it refuses, counts and stops."""

import numpy as np
import pytest

from assay.engine.fake import FakeEngine
from assay.engine.run import run_sequences
from assay.engine.sequences import Sequences, Stopped
from assay.errors import InputError


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
