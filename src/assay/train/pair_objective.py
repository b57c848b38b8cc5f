"""What Siamese training makes small: the cross entropy of pairs, and a contrastive loss of their vectors.

Axes: R rows of a step, C outputs, D dimensions of a vector, K keys of a row.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling

POSITIVE = 1
"""Index of the label of pairs that belong together: the second of two, as everywhere."""
_FAR = -1e4
"""A similarity that has no share in a softmax."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairOutputs:
    """What the model gives for rows, as columns of one tensor, so that it goes between ranks at once."""

    logits_RC: torch.Tensor
    first_RD: torch.Tensor
    """Vectors of length 1."""
    second_RD: torch.Tensor
    temperature_R: torch.Tensor
    """The learned temperature, the same in each row."""

    @classmethod
    def of(cls, outputs: torch.Tensor, dimension: int) -> "PairOutputs":
        """Return the columns by name."""
        num_labels = outputs.shape[1] - 2 * dimension - 1
        logits, first, second, temperature = outputs.split([num_labels, dimension, dimension, 1], dim=1)
        return cls(logits_RC=logits, first_RD=first, second_RD=second, temperature_R=temperature[:, 0])


@dataclass(frozen=True, kw_only=True, slots=True)
class PairTargets:
    """What is known of rows, as columns of one tensor of whole numbers."""

    label_R: torch.Tensor
    """Index of the label."""
    text_R2: torch.Tensor
    """A number of each text; texts of one number are the same."""

    @classmethod
    def of(cls, targets: torch.Tensor) -> "PairTargets":
        """Return the columns by name."""
        return cls(label_R=targets[:, 0].long(), text_R2=targets[:, 1:3])


@dataclass(frozen=True, kw_only=True, slots=True)
class PairObjective:
    """Cross entropy of the head, and `weight` times InfoNCE of the vectors (van den Oord et al. 2018).

    InfoNCE: the first text of each positive row is to be nearer to its second than to the second texts of all
    other rows of the step, those of negative rows (hard ones) among them; and the other way round. A row
    that is not positive has no such loss, and a candidate that is the same text as the anchor or as its
    positive is not a negative. The mean over positive rows and both directions.
    """

    dimension: int
    """D, of a vector."""
    weight: float
    """Of the contrastive loss; 0: there is none."""
    label_smoothing: float = 0.0

    @property
    def needs_whole_step(self) -> bool:
        """Whether rows are compared with each other."""
        return self.weight > 0

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor, weights_R: torch.Tensor) -> torch.Tensor:
        """Return the loss of the rows together, a scalar."""
        found, known = PairOutputs.of(outputs, self.dimension), PairTargets.of(targets)
        of_rows = F.cross_entropy(
            found.logits_RC, known.label_R, reduction="none", label_smoothing=self.label_smoothing
        )
        loss = torch.dot(of_rows, weights_R)
        if not self.weight:
            return loss
        is_real_R = weights_R > 0
        is_anchor_R = is_real_R & (known.label_R == POSITIVE)
        anchors = 0.5 * (
            self._nce(found.first_RD, found.second_RD, found, known.text_R2, is_real_R)
            + self._nce(found.second_RD, found.first_RD, found, known.text_R2.flip(1), is_real_R)
        )
        # a step without a positive row: a sum of nothing, with gradients of 0
        contrastive = torch.where(is_anchor_R, anchors, 0.0).sum() / is_anchor_R.sum().clamp(min=1)
        return loss + self.weight * weights_R.sum() * contrastive

    def _nce(
        self,
        anchor_RD: torch.Tensor,
        candidate_RD: torch.Tensor,
        found: PairOutputs,
        text_R2: torch.Tensor,
        is_real_R: torch.Tensor,
    ) -> torch.Tensor:
        """Return the loss of each row as an anchor, [R]; `text_R2` are the texts of anchors and of candidates."""
        similarity_RR = anchor_RD @ candidate_RD.T / found.temperature_R[:, None]
        own_RR = torch.eye(len(anchor_RD), dtype=torch.bool, device=anchor_RD.device)
        anchor_R, candidate_R = text_R2.unbind(1)
        is_same_RR = (candidate_R[None, :] == anchor_R[:, None]) | (
            candidate_R[None, :] == candidate_R[:, None]
        )
        is_candidate_RR = own_RR | (is_real_R[None, :] & ~is_same_RR)
        similarity_RR = torch.where(is_candidate_RR, similarity_RR, _FAR)
        return similarity_RR.logsumexp(dim=1) - similarity_RR.diagonal()
