"""Steps, shares and passes of any rows: each row in exactly one, budgets held."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from assay.train.batches import ShuffledSampler, learning_rate_factor, passes, rank_rows
from assay.train.inputs import filled_shape

LENGTHS = st.lists(st.integers(1, 600), min_size=1, max_size=200)


@given(
    lengths=LENGTHS, rows_per_step=st.integers(1, 64), world_size=st.integers(1, 9), seed=st.integers(0, 9)
)
def test_each_row_is_on_one_rank_in_one_step(lengths, rows_per_step, world_size, seed):
    """However many ranks there are, an epoch has each row once, and ranks differ by a row at most."""
    lengths = np.array(lengths)
    sampler = ShuffledSampler(num_rows=len(lengths), rows_per_step=rows_per_step, seed=seed)
    steps = sampler.epoch_steps(seed)
    assert len(steps) == sampler.num_epoch_steps
    seen = []
    for rows in steps:
        shares = [rank_rows(rows, lengths, rank=rank, world_size=world_size) for rank in range(world_size)]
        sizes = [share.size for share in shares]
        assert max(sizes) - min(sizes) <= 1
        assert sorted(np.concatenate(shares)) == sorted(rows)
        for share in shares:
            assert (np.diff(lengths[share]) <= 0).all()
            seen += share.tolist()
    assert sorted(seen) == list(range(len(lengths)))


@given(lengths=LENGTHS, max_rows=st.integers(1, 64), max_tokens=st.none() | st.integers(1, 2_000))
def test_passes_hold_each_row_once_and_keep_the_budget(lengths, max_rows, max_tokens):
    """Only a document that is too long by itself goes beyond the budget, and then alone."""
    cuts = passes(lengths, max_rows=max_rows, max_tokens=max_tokens)
    assert [row for cut in cuts for row in range(len(lengths))[cut]] == list(range(len(lengths)))
    for cut in cuts:
        pieces = lengths[cut]
        assert 1 <= len(pieces) <= max_rows
        assert max_tokens is None or sum(pieces) <= max_tokens or len(pieces) == 1


@given(
    lengths=st.lists(st.integers(1, 512), max_size=64),
    spare=st.integers(0, 8),
    longer=st.integers(0, 300),
    others=st.lists(st.integers(-200, 2_000), max_size=3),
)
def test_a_filled_shape_has_room_for_its_documents_and_what_fills_it(lengths, spare, longer, others):
    """What fills fits into documents and is an eighth at most from 1,024 tokens on; ranks with like tokens agree."""
    max_seqlen = max(lengths, default=1) + longer
    own = sum(lengths)
    tokens = [own, *(max(0, own + other) for other in others)]
    shapes = [
        filled_shape(
            each,
            num_documents=len(lengths) + spare,
            max_seqlen=max_seqlen,
            most_tokens=max(tokens) if others else None,
        )
        for each in tokens
    ]
    room = shapes[0].num_tokens - own
    assert 0 <= room <= (shapes[0].num_documents - len(lengths)) * max_seqlen
    assert own < 1_024 or room * (5 if others else 8) <= own
    if max(tokens) - min(tokens) <= 32:
        assert len(set(shapes)) == 1


@given(
    num_steps=st.integers(1, 50),
    warmup=st.integers(0, 50),
    schedule=st.sampled_from(["linear", "cosine", "constant"]),
)
def test_the_learning_rate_rises_and_then_never_rises_again(num_steps, warmup, schedule):
    """Above 0 at the first step, 1 at most; down after the warm-up."""
    warmup = min(warmup, num_steps)
    factors = [
        learning_rate_factor(step, num_steps=num_steps, num_warmup_steps=warmup, schedule=schedule)
        for step in range(num_steps)
    ]
    assert all(0 < factor <= 1 for factor in factors)
    assert (np.diff(factors[:warmup]) > 0).all()
    assert (np.diff(factors[warmup:]) <= 0).all()
