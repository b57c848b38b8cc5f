"""Properties of batching, deduplication and `run_sequences`."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from assay.engine.batching import cut, find_duplicates, plan_batches, token_indices
from assay.engine.fake import FakeEngine
from assay.engine.run import run_sequences
from assay.engine.sequences import Sequences

lengths_lists = st.lists(st.integers(1, 600), max_size=80)
documents = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), max_size=40)


def flatten(sequences):
    """Flat ids and offsets of lists."""
    offsets = np.concatenate([[0], np.cumsum([len(sequence) for sequence in sequences])]).astype(np.int64)
    return np.array([i for sequence in sequences for i in sequence], dtype=np.uint16), offsets


@given(lengths_lists, st.integers(1, 2000), st.none() | st.integers(1, 7))
def test_batches_partition_the_indices_under_the_budget(lengths, budget, most):
    """Every index is in exactly one batch; no batch is over budget unless it is one long sequence."""
    array = np.array(lengths, dtype=np.int64)
    batches = plan_batches(array, max_batch_tokens=budget, max_batch_sequences=most)
    assert sorted(i for batch in batches for i in batch.tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert array[batch].sum() <= budget or len(batch) == 1
        assert most is None or len(batch) <= most
    in_order = [length for batch in batches for length in array[batch].tolist()]
    assert in_order == sorted(lengths, reverse=True)


@given(lengths_lists, st.integers(1, 2000))
def test_cut_covers_the_order_without_gaps(lengths, budget):
    """The bounds ascend strictly from 0 to the number of sequences, and no batch could take one more."""
    array = np.array(lengths, dtype=np.int64)
    bounds = cut(array, max_batch_tokens=budget).tolist()
    assert bounds[0] == 0
    assert bounds[-1] == len(lengths)
    assert bounds == sorted(set(bounds))
    for start, stop in pairwise(bounds):
        assert array[start:stop].sum() <= budget or stop - start == 1
        assert stop == len(lengths) or array[start : stop + 1].sum() > budget


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), max_size=20))
def test_token_indices_lay_sequences_end_to_end(spans):
    """The positions are those of each span in turn."""
    starts = np.array([start for start, _ in spans], dtype=np.int64)
    lengths = np.array([length for _, length in spans], dtype=np.int64)
    expected = [start + k for start, length in spans for k in range(length)]
    assert token_indices(starts, lengths).tolist() == expected


@given(documents, st.booleans(), st.data())
def test_duplicates_are_exactly_the_equal_sequences(sequences, paired, data):
    """Two sequences share a result if and only if their tokens and segments are equal."""
    flat_ids, offsets = flatten(sequences)
    seconds = None
    if paired:
        drawn = data.draw(st.lists(st.integers(0, 2), min_size=len(sequences), max_size=len(sequences)))
        seconds = np.array(drawn, dtype=np.int32)
    unique, inverse = find_duplicates(flat_ids, offsets, seconds)
    keys = [(tuple(s), 0 if seconds is None else int(seconds[k])) for k, s in enumerate(sequences)]
    first = {}
    for k, key in enumerate(keys):
        first.setdefault(key, k)
    assert unique.tolist() == sorted(first.values())
    assert [int(unique[k]) for k in inverse] == [first[key] for key in keys]


@given(documents, st.integers(1, 40), st.booleans(), st.booleans())
def test_results_do_not_depend_on_order_batches_or_sorting(sequences, budget, is_sorted, deduplicate):
    """Order out equals order in, whatever the budget, the sorting and the duplicates."""
    flat_ids, offsets = flatten(sequences)
    engine = FakeEngine(output_shape=(2,))
    engine.wants_sorted = is_sorted
    logits, stats = run_sequences(
        engine,
        Sequences(flat_ids=flat_ids, offsets=offsets),
        max_batch_tokens=budget,
        deduplicate=deduplicate,
    )
    for k, sequence in enumerate(sequences):
        ids, bounds = flatten([sequence])
        single, _ = run_sequences(engine, Sequences(flat_ids=ids, offsets=bounds))
        assert logits[k].tolist() == single[0].tolist()
    distinct = {tuple(sequence) for sequence in sequences}
    assert stats.num_duplicates == (len(sequences) - len(distinct) if deduplicate else 0)
