"""The order in which rows are trained on. Pure: lengths and a generator in, indices out."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

IndexArray = NDArray[np.int64]

_BATCHES_A_BUCKET = 8
"""Rows are sorted by length within a bucket of this many batches: little padding, still random."""


def epoch_batches(lengths: ArrayLike, *, batch_size: int, rng: np.random.Generator) -> list[IndexArray]:
    """Batches of row indices, each row once, of similar length within a batch, in random order.

    One batch at most is smaller than `batch_size`.
    """
    length_of_row = np.asarray(lengths)
    shuffled = rng.permutation(length_of_row.size).astype(np.int64)
    bucket_size = batch_size * _BATCHES_A_BUCKET
    batches: list[IndexArray] = []
    for start in range(0, shuffled.size, bucket_size):
        bucket = shuffled[start : start + bucket_size]
        by_length = bucket[np.argsort(length_of_row[bucket], kind="stable")]
        batches += [by_length[first : first + batch_size] for first in range(0, by_length.size, batch_size)]
    return [batches[index] for index in rng.permutation(len(batches))]


def learning_rate_factor(step: int, *, num_steps: int, num_warmup_steps: int) -> float:
    """Share of the largest learning rate at a step counted from 0: up in a line, then down to 0."""
    if step < num_warmup_steps:
        return (step + 1) / num_warmup_steps
    return max(0.0, (num_steps - step) / max(1, num_steps - num_warmup_steps))
