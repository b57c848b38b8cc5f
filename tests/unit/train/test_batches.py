"""Which rows a step trains on: each once, the same for any number of ranks, the same after a restart."""

import numpy as np
import pytest
import torch
import transformers

from assay.train.batches import MeetingSampler, ShuffledSampler, learning_rate_factor, passes, rank_rows

NAMES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


@pytest.mark.parametrize(("num_rows", "expected"), [(1, 1), (8, 1), (9, 2), (16, 2)])
def test_an_epoch_has_a_last_step_of_fewer_rows(num_rows, expected):
    """No row is left out to make steps even, and none is repeated."""
    sampler = ShuffledSampler(num_rows=num_rows, rows_per_step=8, seed=0)
    steps = sampler.epoch_steps(0)
    assert len(steps) == expected == sampler.num_epoch_steps
    assert np.array_equal(np.sort(np.concatenate(steps)), np.arange(num_rows))


def test_the_order_depends_on_seed_and_epoch_alone():
    """Epoch 3 is the same whether epochs 0 to 2 ran in this process or not; no two epochs are alike."""

    def order(seed, epoch, size=8):
        sampler = ShuffledSampler(num_rows=100, rows_per_step=size, seed=seed)
        return np.concatenate(sampler.epoch_steps(epoch)).tolist()

    assert order(0, 3) == order(0, 3) == order(0, 3, size=16)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_two_ranks_share_the_rows_of_one():
    """Shares are disjoint, of like size and like numbers of tokens."""
    lengths = np.array([100, 1, 90, 2, 80, 3, 70, 4, 60, 5])
    rows = np.arange(10)
    shares = [rank_rows(rows, lengths, rank=rank, world_size=2) for rank in range(2)]
    assert [lengths[share].tolist() for share in shares] == [[100, 70, 60, 3, 2], [90, 80, 5, 4, 1]]


def test_a_step_with_fewer_rows_than_ranks_leaves_ranks_without():
    """They get none, rather than one that another has too."""
    lengths = np.array([5, 9])
    shares = [rank_rows(np.arange(2), lengths, rank=rank, world_size=4).tolist() for rank in range(4)]
    assert shares == [[1], [0], [], []]


def test_passes_keep_to_rows_and_tokens():
    """A document longer than the budget has a pass of its own; no budget cuts by rows alone."""
    lengths = [50, 20, 10, 10, 5, 5]
    cut = [lengths[each] for each in passes(lengths, max_rows=3, max_tokens=30)]
    assert cut == [[50], [20, 10], [10, 5, 5]]
    assert passes(lengths, max_rows=4, max_tokens=None) == [slice(0, 4), slice(4, 6)]
    assert passes([], max_rows=4, max_tokens=30) == []


@pytest.mark.parametrize("schedule", NAMES)
@pytest.mark.parametrize("num_warmup_steps", [0, 4])
def test_learning_rates_are_those_of_transformers(schedule, num_warmup_steps):
    """From the end of the warm-up on step by step; the warm-up is a step ahead, so that none is done at 0."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = transformers.get_scheduler(
        NAMES[schedule], optimizer, num_warmup_steps=num_warmup_steps, num_training_steps=20
    )
    expected = []
    for _ in range(20):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    factors = [
        learning_rate_factor(step, num_steps=20, num_warmup_steps=num_warmup_steps, schedule=schedule)
        for step in range(20)
    ]
    assert factors[num_warmup_steps:] == pytest.approx(expected[num_warmup_steps:])
    assert factors[:num_warmup_steps] == pytest.approx([0.25, 0.5, 0.75, 1.0][:num_warmup_steps])


def meeting(**changes):
    """Six books of ten rows by three authors, and two rows of no known book."""
    books = np.concatenate([np.repeat(np.arange(6), 10), [-1, -1]])
    authors = np.concatenate([np.repeat(np.arange(3), 20), [-1, -1]])
    values = {"rows_per_step": 8, "rows_per_book": 4, "books_per_author": 2, "seed": 1}
    return MeetingSampler(books=books, authors=authors, **{**values, **changes})


def test_rows_of_a_book_and_books_of_an_author_meet():
    """Most steps have two books of one author, four rows each; each row is in one step of an epoch."""
    sampler = meeting()
    for epoch in range(3):
        steps = sampler.epoch_steps(epoch)
        assert len(steps) == sampler.num_epoch_steps
        assert sorted(np.concatenate(steps).tolist()) == list(range(62))
        sizes = [np.unique(sampler.books[step], return_counts=True)[1] for step in steps]
        assert np.mean([np.max(counts) for counts in sizes]) >= 3
        few_authors = [len(set(sampler.authors[step].tolist())) <= 2 for step in steps]
        assert np.mean(few_authors) > 0.6


def test_meeting_depends_on_seed_and_epoch_alone():
    """The same again for the same; another order for another epoch."""
    chosen = ((1, 0), (1, 0), (1, 1), (2, 0))
    orders = [np.concatenate(meeting(seed=seed).epoch_steps(epoch)).tolist() for seed, epoch in chosen]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert orders[0] != orders[3]
