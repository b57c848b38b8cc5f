"""What a training is made of: how rows meet in steps, what is made small, what updates. The defaults are here.

Another part is a function of the same form, handed to `fit`; ranks call it alike and must get the same.
"""

from collections.abc import Callable
from dataclasses import dataclass

from assay.tasks import Task
from assay.train.batches import MeetingSampler, ShuffledSampler
from assay.train.inputs import EncodedRows
from assay.train.learner import Learner
from assay.train.loop import BatchSampler, Stepper
from assay.train.objective import TaskLoss, positive_weights
from assay.train.pair_objective import PairObjective
from assay.train.settings import TrainSettings, rows_of_step, step_of
from assay.train.step import Objective, PassStepper
from assay.train.world import World


def shuffled(settings: TrainSettings, rows: EncodedRows, num_ranks: int) -> BatchSampler:
    """Each row once an epoch, shuffled by the seed; of pairs so that books and authors meet as the settings say."""
    rows_per_step = rows_of_step(step_of(settings, num_ranks))
    if settings.is_siamese and max(settings.rows_per_book, settings.books_per_author) > 1:
        assert rows.keys is not None, "rows of pairs have keys"
        return MeetingSampler(
            books=rows.keys[:, 2],
            authors=rows.keys[:, 4],
            rows_per_step=rows_per_step,
            rows_per_book=settings.rows_per_book,
            books_per_author=settings.books_per_author,
            seed=settings.seed,
        )
    return ShuffledSampler(num_rows=rows.num_rows, rows_per_step=rows_per_step, seed=settings.seed)


def task_loss(settings: TrainSettings, rows: EncodedRows) -> Objective:
    """The loss of the task, with the settings' smoothing and weights of labels; of pairs that of the vectors too."""
    if settings.is_siamese:
        return PairObjective(
            dimension=settings.vector_size,
            contrastive=settings.contrastive,
            weight=settings.contrastive_weight,
            keeps_authors_apart=settings.not_negatives == "same_book",
            author_weight=settings.author_weight,
            angular=(settings.arcface_scale, settings.arcface_margin)
            if settings.pair_head == "arcface"
            else None,
            distillation=(settings.distillation_weight, settings.distillation_temperature)
            if settings.teacher is not None
            else None,
            label_smoothing=settings.label_smoothing,
        )
    balanced = settings.class_weights == "balanced" and settings.predicts is Task.MULTI_LABEL
    return TaskLoss(
        task=settings.predicts,
        label_smoothing=settings.label_smoothing,
        positive_weights=positive_weights(rows.targets) if balanced else None,
    )


def pass_stepper(settings: TrainSettings, learner: Learner, objective: Objective, world: World) -> Stepper:
    """AdamW with clipped gradients, pass by pass; on a GPU replayed from graphs where passes can be."""
    return PassStepper(
        learner,
        objective,
        world=world,
        max_gradient_norm=settings.max_gradient_norm,
        records=not settings.gradient_checkpointing,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """Makers of what the settings do not choose."""

    sampler: Callable[[TrainSettings, EncodedRows, int], BatchSampler] = shuffled
    """From the training rows and the number of ranks."""
    objective: Callable[[TrainSettings, EncodedRows], Objective] = task_loss
    """From the training rows."""
    stepper: Callable[[TrainSettings, Learner, Objective, World], Stepper] = pass_stepper
    """From the classifier on its device with its optimizer and gradients, and the objective."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the makers: a training goes on with those that it began with."""
        made = (self.sampler, self.objective, self.stepper)
        return tuple(f"{each.__module__}.{each.__qualname__}" for each in made)
