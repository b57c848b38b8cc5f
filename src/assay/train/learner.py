"""What a training changes: a classifier on its device, and what its updates need."""

from dataclasses import dataclass

import torch

from assay.train.gradients import Gradients
from assay.train.model import PackedClassifier, PaddedClassifier
from assay.train.sharded import ShardedGradients


@dataclass(frozen=True, kw_only=True, slots=True)
class Learner:
    """A classifier in training, on this rank."""

    classifier: PackedClassifier | PaddedClassifier
    optimizer: torch.optim.AdamW
    """Of what `gradients` have this rank update."""
    gradients: Gradients | ShardedGradients
