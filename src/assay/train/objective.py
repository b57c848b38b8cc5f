"""What training makes small where nothing else is asked for: the loss of the task, a mean over documents.

Axes: S documents, C outputs.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from numpy.typing import NDArray

from assay.labelled.labels import Targets
from assay.tasks import Task


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskLoss:
    """The loss of a task, as transformers' classifiers have it: a sum over documents, each by its weight.

    A document's loss depends on no other one, so that how a step is cut into passes and ranks changes nothing.
    """

    task: Task
    label_smoothing: float = 0.0
    """Single-label: share of the target that is spread over all labels."""
    positive_weights: tuple[float, ...] | None = None
    """Multi-label: how much a label that holds counts against one that does not, one a label."""

    @property
    def needs_whole_step(self) -> bool:
        """No: it is a sum over documents."""
        return False

    def __call__(
        self, logits_SC: torch.Tensor, targets: torch.Tensor, weights_S: torch.Tensor
    ) -> torch.Tensor:
        """Return the loss of the documents together, a scalar."""
        return torch.dot(self.of_documents(logits_SC, targets), weights_S)

    def of_documents(self, logits_SC: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the loss of each document, float32 [S]: cross entropy, its mean over labels, or squared error."""
        if self.task is Task.SINGLE_LABEL:
            return F.cross_entropy(
                logits_SC, targets.long(), reduction="none", label_smoothing=self.label_smoothing
            )
        if self.task is Task.REGRESSION:
            return (logits_SC[:, 0] - targets).square()
        weights = None
        if self.positive_weights is not None:
            # filled, not copied from the host: a copy cannot be recorded
            weights = torch.stack([logits_SC.new_full((), weight) for weight in self.positive_weights])
        return F.binary_cross_entropy_with_logits(
            logits_SC, targets, reduction="none", pos_weight=weights
        ).mean(dim=1)


def balanced_weights(targets: Targets, num_labels: int) -> NDArray[np.float32]:
    """The weight of each row, [N]: rows / (labels that occur * rows of its label), so that the mean is 1."""
    counts = np.bincount(targets, minlength=num_labels)
    weight_of_label = targets.size / ((counts > 0).sum() * np.maximum(counts, 1))
    weights: NDArray[np.float32] = weight_of_label[targets].astype(np.float32)
    return weights


def positive_weights(targets_NC: Targets) -> tuple[float, ...]:
    """Multi-label: rows without a label over rows with it, one a label; 1 for a label that never holds."""
    held_C = targets_NC.sum(axis=0)
    found = np.where(held_C > 0, (len(targets_NC) - held_C) / np.maximum(held_C, 1), 1.0)
    return tuple(float(each) for each in found)
