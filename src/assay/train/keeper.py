"""What a training needs to go on: written as it goes, found again when the same command is run again."""

import hashlib
import json
import logging
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch

from assay.errors import InputError, RefusedError
from assay.model.checkpoint import read_checkpoint
from assay.train import checkpoints, distributed
from assay.train.checkpoints import BestWeights, TrainCheckpoint
from assay.train.history import History
from assay.train.inputs import EncodedSplit
from assay.train.learner import Learner
from assay.train.loop import Best, Interrupted, Snapshot, is_sharded
from assay.train.model import trained_parameters
from assay.train.parts import Parts
from assay.train.settings import STEP_OF, TrainSettings, rows_of_step, step_of
from assay.train.sharded import load_tensors, spread_like, wholes
from assay.train.world import World

_log = logging.getLogger(__name__)
_CHANGES_NO_NUMBER = frozenset(
    {
        "out",
        "overwrite",
        "dry_run",
        "resume",
        "num_threads",
        "checkpoint_minutes",
        "log_to",
        "max_batch_tokens",
        "devices",
        "report_texts",
        "executor",
        "ray_address",
    }
)
"""Settings that may be changed when an interrupted training is resumed."""


class Keeper:
    """Writes what a training needs to go on, while it goes on; and finds it again.

    One checkpoint is on its way at a time, copied beforehand. A context: its end waits for the last one.
    """

    def __init__(
        self,
        settings: TrainSettings,
        names: tuple[str, ...],
        rows: EncodedSplit,
        learner: Learner,
        *,
        parts: Parts,
        world: World,
    ) -> None:
        self._folder = checkpoints.training_folder(settings.out)
        self._settings = settings
        self._learner = learner
        self._world = world
        self._fingerprint = _fingerprint(settings, parts, names, rows, world)
        self._best_step: int | None = None
        """Of the best weights that were copied last."""
        self._best_name: str | None = None
        """Folder of the best weights that were written last; the writer's own."""
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def __enter__(self) -> Self:
        """Nothing to do yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the checkpoint on its way. A failure matters where the training was interrupted."""
        try:
            self.finish()
        except Exception as failed:  # whatever it is, it must not hide why the training ended
            if isinstance(error, Interrupted):
                raise
            _log.warning("the last checkpoint was not written: %s", failed)
        finally:
            self._writer.shutdown()

    def save(self, snapshot: Snapshot) -> None:
        """Begin to write a checkpoint, on rank 0; the others help to put tensors together.

        Waits for the one before, and raises StorageError where that could not be written.
        """
        self.finish()
        learner = self._learner
        model = wholes(trained_parameters(learner.classifier))
        optimizer = learner.gradients.state_of(learner.optimizer)
        best = self._new_best(snapshot.best)
        if self._world.rank:
            return
        checkpoint = TrainCheckpoint(
            step=snapshot.step,
            fingerprint=self._fingerprint,
            best=None,
            values={
                "history": snapshot.history.to_json(),
                "patience_used": snapshot.patience_used,
                "settings": decisive(self._settings),
                "step_of": step_of(self._settings, self._world.world_size),
            },
            model=self._kept(model),
            optimizer=optimizer,
        )
        held = None if best is None else replace(best, model=self._kept(best.model))
        self._writing = self._writer.submit(self._write, checkpoint, held)

    def is_saving(self) -> bool:
        """Whether a checkpoint is on its way. Raises StorageError where the last one could not be written."""
        if self._writing is not None and self._writing.done():
            self.finish()
        return self._writing is not None

    def finish(self) -> None:
        """Wait until the last checkpoint is written. Raises StorageError where it could not be."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, checkpoint: TrainCheckpoint, best: BestWeights | None) -> None:
        if best is not None:
            self._best_name = checkpoints.save_best(self._folder, best).name
        checkpoints.save(self._folder, replace(checkpoint, best=self._best_name))

    def found(self) -> Snapshot | None:
        """Load the last checkpoint into model and optimizer, and say where it was; None where none is wanted.

        Raises UsageError for an interrupted training that `resume` or `overwrite` should speak of, or whose
        checkpoints are all damaged, RefusedError where something that decides numbers has changed since.
        """
        path = checkpoints.latest(self._folder) if self._settings.resume else None
        # asked before rank 0 may clear the folder
        if not distributed.all_equal(self._world, [self._fingerprint, path and path.name]):
            raise InputError(
                "the ranks found different rows, bases or checkpoints; they must train on the same;"
                " put data, base and out where every host sees them"
            )
        if not self._settings.resume:
            if not self._settings.overwrite:
                checkpoints.refuse_interrupted(self._folder)
            if self._world.rank == 0:
                checkpoints.clear(self._folder)
            return None
        if path is None:
            checkpoints.refuse_damaged(self._folder)
            _log.warning("%s: no checkpoint to resume from; starting at step 1", self._folder)
            return None
        learner, checkpoint = self._learner, checkpoints.load(path)
        if checkpoint.fingerprint != self._fingerprint:
            raise RefusedError(
                f"{path}: settings, rows, base or documents a step are not those of that training; "
                "use them again, or start again with --overwrite"
            )
        trained = trained_parameters(learner.classifier)
        assert set(trained) == set(checkpoint.model), "the fingerprint holds one architecture"
        load_tensors(learner.classifier, checkpoint.model)
        learner.gradients.load_state(learner.optimizer, checkpoint.optimizer)
        values: Any = checkpoint.values
        history = History.from_json(values["history"])
        best = None
        if checkpoint.best is not None:
            held = checkpoints.load_best(self._folder / checkpoint.best)
            validation = next(each for each in history.validations if each.step == held.step)
            weights = {name: spread_like(each, trained[name]) for name, each in held.model.items()}
            best = Best(validation=validation, weights=weights)
            self._best_step, self._best_name = held.step, checkpoint.best
        return Snapshot(
            step=checkpoint.step, history=history, best=best, patience_used=values["patience_used"]
        )

    def _kept(self, tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """Tensors that nothing changes any more; those of a sharded model were put together for this."""
        return tensors if is_sharded(self._settings, self._world) else checkpoints.copied(tensors)

    def _new_best(self, best: Best | None) -> BestWeights | None:
        """The best weights where they are not written yet; every rank must ask."""
        if best is None or best.validation.step == self._best_step:
            return None
        self._best_step = best.validation.step
        return BestWeights(step=best.validation.step, model=wholes(best.weights))


def decisive(settings: TrainSettings) -> dict[str, object]:
    """The settings that decide the numbers of a training, but for those that make a step of so many rows."""
    apart = _CHANGES_NO_NUMBER.union(STEP_OF)
    return {name: value for name, value in asdict(settings).items() if name not in apart}


def _fingerprint(
    settings: TrainSettings, parts: Parts, names: tuple[str, ...], rows: EncodedSplit, world: World
) -> str:
    """Hash of all that decides the numbers of a training."""
    rows_per_step = rows_of_step(step_of(settings, world.world_size))
    digest = hashlib.blake2b(digest_size=16)
    for part in (decisive(settings), rows_per_step, parts.names, names, world.device.type):
        digest.update(json.dumps(part, sort_keys=True, default=str).encode())
    for side in (rows.train, rows.validation):
        for array in (side.offsets, side.flat_ids, side.second_starts, side.targets, side.style, side.keys):
            digest.update(b"none" if array is None else np.ascontiguousarray(array).tobytes())
    # of a teacher the files: its logits need not have the same bits on another device
    models = [settings.base] + ([] if settings.teacher is None else [settings.teacher])
    for file in (file for model in models for file in read_checkpoint(model).files):
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "blake2b").digest())
    return digest.hexdigest()
