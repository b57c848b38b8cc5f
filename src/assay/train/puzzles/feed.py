"""Which puzzles a step is offered: of the seed and the number of the step alone, so nothing is to be saved.

As in the official code an epoch goes over the groups in a random order, with one puzzle of each; what does not
fill a batch at an epoch's end is left out. A step is offered a whole batch, and only places that are free take
theirs.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from assay.errors import UsageError
from assay.model.hrm.halting import Puzzles
from assay.model.hrm.losses import IGNORED
from assay.sudoku.augment import random_forms
from assay.sudoku.puzzles import PuzzleSplit


class Feed:
    """The batches of a training, by the number of the step."""

    def __init__(self, split: PuzzleSplit, *, batch_size: int, seed: int, augment: bool = False) -> None:
        """Raises `UsageError` where the split has fewer groups than a batch has places."""
        if split.num_groups < batch_size:
            raise UsageError(
                f"batch_size={batch_size}; the split train has {split.num_groups} puzzles before augmentation; "
                "lower it"
            )
        self._split = split
        self._batch_size = batch_size
        self._seed = seed
        self._augment = augment
        self._epoch: tuple[int, NDArray[np.int64]] | None = None
        self.steps_per_epoch = split.num_groups // batch_size

    def batch(self, step: int) -> Puzzles:
        """What step `step`, counted from 0, is offered; on the CPU."""
        epoch, place = divmod(step, self.steps_per_epoch)
        groups = self._order(epoch)[place * self._batch_size : (place + 1) * self._batch_size]
        rng = np.random.default_rng([self._seed, 1, step])
        split = self._split
        chosen = _one_of(rng, split.group_indices, groups)
        rows = _one_of(rng, split.puzzle_indices, chosen)
        inputs, labels = split.inputs[rows], split.labels[rows]
        if self._augment:
            inputs, labels = random_forms(rng, inputs, labels)
        return puzzles_of(split, inputs, labels, chosen)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if self._epoch is None or self._epoch[0] != epoch:
            rng = np.random.default_rng([self._seed, 0, epoch])
            self._epoch = (epoch, rng.permutation(self._split.num_groups))
        return self._epoch[1]


class Ahead:
    """A feed whose next batch is made while a step runs. A context: its end waits for the batch under way."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="puzzles")
        self._next: tuple[int, Future[Puzzles]] | None = None

    def __enter__(self) -> Self:
        """Nothing to do yet."""
        return self

    def __exit__(self, *error: object) -> None:
        """Let the worker go."""
        self._worker.shutdown()

    def batch(self, step: int) -> Puzzles:
        """As `Feed.batch`."""
        if self._next is None or self._next[0] != step:
            self._next = (step, self._worker.submit(self._feed.batch, step))
        found = self._next[1].result()
        self._next = (step + 1, self._worker.submit(self._feed.batch, step + 1))
        return found


def puzzles_of(
    split: PuzzleSplit, inputs: NDArray[np.integer], labels: NDArray[np.integer], puzzles: NDArray[np.integer]
) -> Puzzles:
    """Rows of a split as the model takes them."""
    wanted = labels.astype(np.int32)
    if split.description.ignore_label_id is not None:
        wanted[labels == split.description.ignore_label_id] = IGNORED
    return Puzzles(
        inputs_BS=torch.from_numpy(inputs.astype(np.int32)),
        labels_BS=torch.from_numpy(wanted),
        identifiers_B=torch.from_numpy(split.puzzle_identifiers[puzzles].astype(np.int32)),
    )


def _one_of(
    rng: np.random.Generator, starts: NDArray[np.int32], which: NDArray[np.integer]
) -> NDArray[np.int64]:
    """A member of each of the ranges that `starts` has the beginnings of."""
    first = starts[which].astype(np.int64)
    sizes = starts[which + 1] - first
    members: NDArray[np.int64] = first + (rng.random(len(which)) * sizes).astype(np.int64)
    return members
