"""The training loop: steps in the order of the seed, validations, the best weights, checkpoints.

    rows of a step -> this rank's share -> passes -> gradients, summed over ranks -> update

It reads aloud in `Loop.run`. Axes: N rows, C outputs.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import torch

from assay import metrics
from assay.data.ahead import ahead
from assay.errors import UsageError, WorkError
from assay.outcome.maps import apply_link
from assay.train import distributed
from assay.train.batches import (
    IndexArray,
    learning_rate_factor,
    most_tokens,
    num_warmup_steps,
    passes,
    rank_rows,
)
from assay.train.history import History, Listener, TrainProgress, Validation, cost
from assay.train.inputs import EncodedSplit, TrainBatch, filled_shape, host_batch, pinned
from assay.train.model import TrainableClassifier, trained_parameters
from assay.train.predict import predict, too_large
from assay.train.readings import DeviceMark, StepFigures
from assay.train.settings import TrainSettings
from assay.train.world import World

_STEPS_BETWEEN_READINGS = {"cpu": 1, "cuda": 25}
"""Steps whose losses are read together. On a GPU they are read that many steps later, so that it never waits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Best:
    """The weights that the validation metric chose so far."""

    validation: Validation
    weights: Mapping[str, torch.Tensor]
    """Trained tensors by name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """Where a training stands between two steps, for a checkpoint."""

    step: int
    history: History
    best: Best | None
    patience_used: int


class Interrupted(KeyboardInterrupt):
    """The training was asked to stop, and has begun to write a checkpoint."""


class BatchSampler(Protocol):
    """Which rows meet in a step: the same on every rank, and the same after a restart."""

    @property
    def num_epoch_steps(self) -> int:
        """Steps of an epoch, the same in each."""
        ...

    def epoch_steps(self, epoch: int) -> Sequence[IndexArray]:
        """The rows of each step of an epoch, counted from 0; a step's rows are those of all ranks."""
        ...


class Stepper(Protocol):
    """What trains: adds up the gradients of a step's passes, and updates."""

    can_cut: bool
    """Whether a rank's rows of a step may be run in several passes."""
    records: bool
    """Whether passes want one of few shapes."""
    wants_token_ids: bool
    """Whether an update is told the ids of all tokens of the step."""

    def stream(self) -> AbstractContextManager[None]:
        """What passes and updates are to run within."""
        ...

    def set_learning_rate(self, learning_rate: float) -> None:
        """Have the next updates take steps of this size."""
        ...

    def run_pass(self, batch: TrainBatch, *, seed: int, is_last: bool) -> None:
        """Add the gradients and the loss of a batch on the host; `seed` decides on its dropout."""
        ...

    def update(self, token_ids: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        """Update the weights; this rank's share of the step's loss, and the gradient norm, on the device.

        A third figure is the mean number of negatives.
        """
        ...

    def end(self) -> None:
        """Release what outlives a step."""
        ...


class Saver(Protocol):
    """What writes checkpoints while the training goes on."""

    def save(self, snapshot: Snapshot) -> None:
        """Begin to write a checkpoint; every rank calls, and rank 0 writes."""
        ...

    def is_saving(self) -> bool:
        """Whether, on rank 0, a checkpoint is on its way."""
        ...


class Loop:
    """A training of one classifier on one rank, from any step on."""

    def __init__(
        self,
        settings: TrainSettings,
        classifier: TrainableClassifier,
        stepper: Stepper,
        sampler: BatchSampler,
        rows: EncodedSplit,
        *,
        world: World,
        listener: Listener,
        saver: Saver,
        should_stop: Callable[[], bool],
    ) -> None:
        """`should_stop` is asked now and then. While a checkpoint is on its way, a validation begins no other.

        Raises UsageError for settings that cut a step which the stepper needs whole.
        """
        if not stepper.can_cut and (
            settings.gradient_accumulation > 1 or settings.max_batch_tokens is not None
        ):
            raise UsageError(
                f"gradient_accumulation={settings.gradient_accumulation}, max_batch_tokens={settings.max_batch_tokens};"
                " the objective compares the rows of a step with each other, so a step cannot be cut into passes;"
                " leave both out and set a smaller batch_size"
            )
        self._settings = settings
        self._classifier = classifier
        self._stepper = stepper
        self._sampler = sampler
        self._rows = rows
        self._lengths = rows.train.lengths
        self._longest = int(self._lengths.max())
        self._world = world
        self._listener = listener
        self._saver = saver
        self._should_stop = should_stop
        self._is_sharded = is_sharded(settings, world)
        self._loss_scale = world.world_size if self._is_sharded else 1
        """A sharded model takes the mean of the ranks' gradients where others take the sum."""
        self._steps_per_epoch = sampler.num_epoch_steps
        self.num_steps = settings.epochs * self._steps_per_epoch
        """Optimizer steps in all."""
        self._between_readings = _STEPS_BETWEEN_READINGS[world.device.type]
        self.history = History()
        self.best: Best | None = None
        self._patience_used = 0
        self._step = 0
        self._unread: list[tuple[torch.Tensor, ...]] = []
        self._on_their_way: deque[StepFigures] = deque()
        self._began = DeviceMark.now(world.device)
        self._saved_at = time.monotonic()
        self._seconds_before = 0.0

    def go_on_from(self, snapshot: Snapshot) -> None:
        """Take up where the snapshot was taken; weights and the optimizer's state are the caller's to load."""
        self._step = snapshot.step
        self.history = snapshot.history
        self.best = snapshot.best
        self._patience_used = snapshot.patience_used
        self._seconds_before = snapshot.history.seconds

    def run(self) -> Best:
        """Train to the end, or until patience is used up; the best weights.

        Raises WorkError where the loss stops being a number or the device has no room for a pass,
        Interrupted where it was asked to stop.
        """
        self._saved_at = time.monotonic()
        cast("torch.nn.Module", self._classifier).train()
        try:
            with self._stepper.stream():
                self._began = DeviceMark.now(self._world.device)
                for step_passes in ahead(self._prepared, self._steps_left()):
                    self._train_step(step_passes)
                    if self._is_due():
                        self._read()
                        self._validate()
                        self._look_up()
                    elif len(self._unread) == self._between_readings:
                        self._read(but_newest=self._between_readings > 1)
                        self._look_up()
                    if self._is_out_of_patience():
                        break
        finally:
            self._stepper.end()
        assert self.best is not None, "the last step is followed by a validation"
        return self.best

    # ------------------------------------------------------------ steps

    def _steps_left(self) -> Iterator[tuple[int, IndexArray]]:
        """The number and rows of each step to come; none where the last validation used patience up."""
        if self._is_out_of_patience():
            return
        first_epoch, done = divmod(self._step, self._steps_per_epoch)
        for epoch in range(first_epoch, self._settings.epochs):
            steps = self._sampler.epoch_steps(epoch)
            for number in range(done, len(steps)):
                yield epoch * self._steps_per_epoch + number, steps[number]
            done = 0

    def _prepared(self, numbered: tuple[int, IndexArray]) -> "_Step":
        """This rank's passes of a step, on the host."""
        number, rows = numbered
        train = self._rows.train

        def cut(rank: int) -> list[IndexArray]:
            share = rank_rows(rows, self._lengths, rank=rank, world_size=self._world.world_size)
            cuts = passes(
                self._lengths[share],
                max_rows=self._settings.batch_size if self._stepper.can_cut else max(1, len(share)),
                max_tokens=self._settings.max_batch_tokens,
            )
            return [share[each] for each in cuts]

        mine = cut(self._world.rank)
        most = self._most_tokens(rows) if len(mine) == 1 else None
        # ranks put a sharded model together in each pass, and so need as many; others need one, for the sum
        num_passes = max(len(cut(rank)) for rank in range(self._world.world_size)) if self._is_sharded else 1
        shortest = rows[[self._lengths[rows].argmin()]]
        num_idle = num_passes - len(mine)
        idle = [self._batch(shortest, math.inf)] * num_idle if num_idle > 0 else []  # without weight
        total_weight = float(train.weights[rows].sum()) / self._loss_scale
        return _Step(
            number=number,
            passes=[self._batch(each, total_weight, most) for each in mine] + idle,
            num_rows=len(rows),
            num_tokens=int(self._lengths[rows].sum()),
            token_ids=self._token_ids(rows),
        )

    def _most_tokens(self, rows: IndexArray) -> int | None:
        """Tokens of the largest pass of any rank in a step, where each has one and they are recorded; else None."""
        if not self._stepper.records:
            return None
        most = most_tokens(rows, self._lengths, world_size=self._world.world_size)
        budget = self._settings.max_batch_tokens
        return most if budget is None or most <= budget else None

    def _token_ids(self, rows: IndexArray) -> torch.Tensor | None:
        """Ids of all tokens of the rows, each once; None where nobody asks."""
        if not self._stepper.wants_token_ids:
            return None
        train = self._rows.train
        ids = np.concatenate([train.flat_ids[train.offsets[row] : train.offsets[row + 1]] for row in rows])
        token_ids = torch.from_numpy(np.flatnonzero(np.bincount(ids)))
        return token_ids.pin_memory() if self._world.device.type == "cuda" else token_ids

    def _batch(self, rows: IndexArray, total_weight: float, most: int | None = None) -> TrainBatch:
        """The rows as a pass; `most`: see `_most_tokens`."""
        train = self._rows.train
        if not self._stepper.records:
            batch = host_batch(train, rows, self._classifier.layout, total_weight=total_weight)
            # else each copy to the device would wait for the step before
            return pinned(batch) if self._world.device.type == "cuda" else batch
        shape = filled_shape(
            int(self._lengths[rows].sum()),
            num_documents=self._settings.batch_size,
            max_seqlen=self._longest,
            most_tokens=most,
        )
        return pinned(
            host_batch(train, rows, self._classifier.layout, total_weight=total_weight, shape=shape)
        )

    def _train_step(self, step: "_Step") -> None:
        settings = self._settings
        factor = learning_rate_factor(
            step.number,
            num_steps=self.num_steps,
            num_warmup_steps=num_warmup_steps(settings, self.num_steps),
            schedule=settings.schedule,
        )
        self._stepper.set_learning_rate(settings.learning_rate * factor)
        for number, batch in enumerate(step.passes):
            seed = _pass_seed(settings.seed, step.number, self._world.rank, number)
            try:
                self._stepper.run_pass(batch, seed=seed, is_last=number == len(step.passes) - 1)
            except torch.OutOfMemoryError as error:
                raise too_large(batch) from error
        try:
            self._unread.append(self._stepper.update(step.token_ids))
        except torch.OutOfMemoryError as error:
            raise WorkError(
                "the optimizer's state does not fit into the device's memory beside the model and its gradients;"
                " set num_frozen_layers or lora_rank, or on several devices parallel=fsdp"
            ) from error
        self._step = step.number + 1
        self.history.num_rows += step.num_rows
        self.history.num_tokens += step.num_tokens
        self.history.learning_rates.append(settings.learning_rate * factor)

    def _read(self, *, but_newest: bool = False) -> None:
        """Tell of the steps done, once their figures are there; `but_newest`: those since the last time come later."""
        if self._unread:
            self._on_their_way.append(StepFigures(self._unread))
            self._unread.clear()
        while len(self._on_their_way) > but_newest:
            self._note(self._on_their_way.popleft())

    def _note(self, of_steps: StepFigures) -> None:
        """Write down and tell of the next steps, with the time at which the last of them ended."""
        figures = of_steps.wait()
        # losses are shares of each step's, so that ranks add up; norms are the same on each
        losses = distributed.sum_over_ranks(self._world, figures[:, 0]) / self._loss_scale
        self.history.seconds = self._seconds_before + of_steps.end.seconds_since(self._began)
        first = len(self.history.losses)
        self.history.num_negatives += figures[:, 2:].ravel().tolist()
        for offset, (loss, norm) in enumerate(zip(losses.tolist(), figures[:, 1].tolist(), strict=True)):
            number = first + offset
            if not np.isfinite(loss) or not np.isfinite(norm):
                raise WorkError(
                    f"loss {loss} and gradient norm {norm} at step {number + 1} of {self.num_steps}; they must stay"
                    f" numbers; lower learning_rate={self._settings.learning_rate}"
                )
            self.history.losses.append(loss)
            self.history.gradient_norms.append(norm)
            self._tell(number)

    def _look_up(self) -> None:
        """Stop where that was asked for; save where it is time, or after a validation. All ranks decide alike."""
        is_over = self._step == self.num_steps or self._is_out_of_patience()  # the bundle is written next
        is_saving = not is_over and self._saver.is_saving()
        stop = distributed.any_rank(self._world, flag=self._should_stop())
        is_time = time.monotonic() - self._saved_at >= 60 * self._settings.checkpoint_minutes
        is_wanted = (is_time or (self._is_due() and not is_saving)) and not is_over
        if stop or distributed.broadcast_flag(self._world, flag=is_wanted):
            self._read()
            try:
                self._saver.save(self._snapshot())
            except torch.OutOfMemoryError as error:
                raise WorkError(
                    "the device has no room left to put a checkpoint together; set a lower max_batch_tokens (the"
                    " steps stay the same), or gradient_checkpointing"
                ) from error
            self._saved_at = time.monotonic()
        if stop:
            raise Interrupted

    def _tell(self, number: int, validation: Mapping[str, float] | None = None) -> None:
        """Report step `number`, counted from 0."""
        history, total = self.history, self.num_steps
        is_newest = number + 1 == self._step
        share = 1.0 if is_newest else (number + 1) / self._step
        self._listener.on_progress(
            TrainProgress(
                epoch=number // self._steps_per_epoch + 1,
                num_epochs=self._settings.epochs,
                step=number + 1,
                num_steps=total,
                loss=history.losses[number],
                learning_rate=history.learning_rates[number],
                gradient_norm=history.gradient_norms[number],
                num_negatives=history.num_negatives[number] if history.num_negatives else None,
                num_rows=round(history.num_rows * share),
                num_tokens=round(history.num_tokens * share),
                seconds=history.seconds,
                validation=validation,
            )
        )

    # ------------------------------------------------------------ validations

    def _is_due(self) -> bool:
        """Whether a validation follows the step that was just done."""
        every = self._settings.evaluate_every or self._steps_per_epoch
        return self._step % every == 0 or self._step == self.num_steps

    def _validate(self) -> None:
        """Look at the validation rows; keep the weights where they are the best so far."""
        settings, history = self._settings, self.history
        rows = self._rows.validation
        self._listener.on_phase(f"validating after step {self._step:,}")
        logits_NC = predict(
            self._classifier, rows, world=self._world, max_batch_tokens=settings.max_batch_tokens
        )
        task = settings.predicts
        found = metrics.validation_metrics(
            task, apply_link(logits_NC, task), rows.targets, settings.int_score
        )
        since = history.validations[-1].step if history.validations else 0
        history.seconds = self._seconds()
        validation = Validation(
            step=self._step,
            epoch=self._step / self._steps_per_epoch,
            train_loss=float(np.mean(history.losses[since:] or [np.nan])),
            metrics=found,
            seconds=history.seconds,
        )
        history.validations.append(validation)
        if self.best is None or cost(validation, settings.chosen_by) < cost(
            self.best.validation, settings.chosen_by
        ):
            self.best = Best(validation=validation, weights=self._trained_tensors())
            self._patience_used = 0
        else:
            self._patience_used += 1
        if self._step:
            self._tell(self._step - 1, found)

    def _is_out_of_patience(self) -> bool:
        patience = self._settings.patience
        return patience is not None and self._patience_used >= patience

    def _trained_tensors(self) -> dict[str, torch.Tensor]:
        trained = trained_parameters(cast("torch.nn.Module", self._classifier))
        return {name: each.detach().clone() for name, each in trained.items()}

    # ------------------------------------------------------------ the rest

    def _snapshot(self) -> Snapshot:
        return Snapshot(
            step=self._step, history=self.history, best=self.best, patience_used=self._patience_used
        )

    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._began.host_seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class _Step:
    """What a rank does in one optimizer step."""

    number: int
    """Counted from 0."""
    passes: list[TrainBatch]
    num_rows: int
    """Of all ranks."""
    num_tokens: int
    """Of all ranks."""
    token_ids: torch.Tensor | None
    """Of all ranks, each once, int64; None where nobody asks."""


def is_sharded(settings: TrainSettings, world: World) -> bool:
    """Whether each rank holds a part of the model."""
    return settings.parallel == "fsdp" and world.world_size > 1


def _pass_seed(seed: int, step: int, rank: int, number: int) -> int:
    """What decides on the dropout of a pass: another number for each, the same after a restart."""
    return int(np.random.SeedSequence([seed, step, rank, number]).generate_state(1, np.uint64)[0] >> 2)
