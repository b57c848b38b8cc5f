"""What Siamese training makes small: the cross entropy of pairs, and a contrastive loss of their vectors.

Axes: R rows of a step, T texts (2R, first texts and then second ones), C outputs, D dimensions of a vector.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling

from assay.siamese.settings import Contrastive

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
    teacher_RC: torch.Tensor
    """Logits of a teacher; zeros where there is none."""

    @classmethod
    def of(cls, outputs: torch.Tensor, dimension: int) -> "PairOutputs":
        """Return the columns by name."""
        num_labels = (outputs.shape[1] - 2 * dimension - 1) // 2
        logits, first, second, temperature, teacher = outputs.split(
            [num_labels, dimension, dimension, 1, num_labels], dim=1
        )
        return cls(
            logits_RC=logits,
            first_RD=first,
            second_RD=second,
            temperature_R=temperature[:, 0],
            teacher_RC=teacher,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class PairTargets:
    """What is known of rows, as columns of one tensor of whole numbers, -1 for what is not known."""

    label_R: torch.Tensor
    """Index of the label."""
    text_R2: torch.Tensor
    """A number of each text; texts of one number are the same."""
    book_R2: torch.Tensor
    author_R2: torch.Tensor

    @classmethod
    def of(cls, targets: torch.Tensor) -> "PairTargets":
        """Return the columns by name."""
        return cls(
            label_R=targets[:, 0].long(),
            text_R2=targets[:, 1:3],
            book_R2=targets[:, 3:5],
            author_R2=targets[:, 5:7],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparisons:
    """Which texts of a step are compared as what, [T, T], an anchor a row."""

    positive_TT: torch.Tensor
    """Weight of each positive; 0 where it is not one."""
    negative_TT: torch.Tensor
    """Whether a text is held against the anchor."""

    @property
    def anchors_T(self) -> torch.Tensor:  # noqa: N802 - it carries its axis
        """Return which texts have a positive, and so a loss."""
        return (self.positive_TT > 0).any(dim=1)

    @property
    def mean_negatives(self) -> torch.Tensor:
        """Return the mean number of negatives of an anchor, float32 []; 0 without anchors."""
        counted = torch.where(self.anchors_T, self.negative_TT.sum(dim=1), 0).sum()
        return counted.float() / self.anchors_T.sum().clamp(min=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class PairObjective:
    """Cross entropy of the head, `weight` times a contrastive loss of the vectors, and the distance to a teacher.

    infonce: the first text of each positive row is to be nearer to its second than to the second texts of other
    rows, those of negative rows (hard ones) among them; and the other way round (van den Oord et al. 2018).
    supcon: each text is to be nearer to those of its book, and with `author_weight` to those of its author, than to
    all others of the step (Khosla et al. 2020, their L_out).

    A text without a positive has no such loss. The same text as the anchor or as its own positive, and a text of
    the anchor's book (by choice: of its author), is not held against it. The mean over anchors.

    An angular head has its margin here alone: the right label's angle counts as wider (Deng et al. 2019). The
    distance to a teacher is Hinton et al.'s (2015): T^2 KL(teacher || student), logits of both divided by T.
    """

    dimension: int
    """D, of a vector."""
    contrastive: Contrastive
    weight: float
    """Of the contrastive loss; 0: there is none."""
    label_smoothing: float = 0.0
    keeps_authors_apart: bool = True
    """Whether texts of one author and other books are held against each other."""
    author_weight: float = 0.0
    """supcon: weight of a positive of the anchor's author and another book."""
    angular: tuple[float, float] | None = None
    """Scale of the logits and margin in radians, where the head is angular."""
    distillation: tuple[float, float] | None = None
    """Weight and temperature, where there is a teacher."""

    @property
    def needs_whole_step(self) -> bool:
        """Whether rows are compared with each other."""
        return self.contrastive != "none" and self.weight > 0

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor, weights_R: torch.Tensor) -> torch.Tensor:
        """Return the loss of the rows together, a scalar."""
        found, known = PairOutputs.of(outputs, self.dimension), PairTargets.of(targets)
        of_rows = F.cross_entropy(
            self._with_margin(found.logits_RC, known.label_R),
            known.label_R,
            reduction="none",
            label_smoothing=self.label_smoothing,
        )
        if self.distillation is not None:
            weight, temperature = self.distillation
            ours_RC, theirs_RC = (
                (each / temperature).log_softmax(dim=1) for each in (found.logits_RC, found.teacher_RC)
            )
            apart_R = F.kl_div(ours_RC, theirs_RC, reduction="none", log_target=True).sum(dim=1)
            of_rows = of_rows + weight * temperature**2 * apart_R
        loss = torch.dot(of_rows, weights_R)
        if not self.needs_whole_step:
            return loss
        compared = self.compare(targets, weights_R)
        vectors_TD = torch.cat([found.first_RD, found.second_RD])
        similarity_TT = vectors_TD @ vectors_TD.T / found.temperature_R.repeat(2)[:, None]
        seen_TT = compared.negative_TT | (compared.positive_TT > 0)
        similarity_TT = torch.where(seen_TT, similarity_TT, _FAR)
        log_share_TT = similarity_TT - similarity_TT.logsumexp(dim=1, keepdim=True)
        share_TT = compared.positive_TT / compared.positive_TT.sum(dim=1, keepdim=True).clamp(min=1e-9)
        # a step without anchors: a sum of nothing, with gradients of 0
        contrastive = -(share_TT * log_share_TT).sum() / compared.anchors_T.sum().clamp(min=1)
        return loss + self.weight * weights_R.sum() * contrastive

    def _with_margin(self, logits_RC: torch.Tensor, label_R: torch.Tensor) -> torch.Tensor:
        """Return the logits of an angular head with the margin, others as they are."""
        if self.angular is None:
            return logits_RC
        scale, margin = self.angular
        cosine_R1 = (logits_RC / scale).gather(1, label_R[:, None]).clamp(-1 + 1e-6, 1 - 1e-6)
        angle_R1 = cosine_R1.acos()
        # beyond half a turn the cosine rises again: from there on it goes on falling in a line
        within_R1 = torch.where(
            angle_R1 + margin < math.pi, (angle_R1 + margin).cos(), cosine_R1 - margin * math.sin(margin)
        )
        return logits_RC.scatter(1, label_R[:, None], scale * within_R1)

    def num_negatives(self, targets: torch.Tensor, weights_R: torch.Tensor) -> torch.Tensor:
        """Return how many texts are held against an anchor, on average; float32 []."""
        return self.compare(targets, weights_R).mean_negatives

    def compare(self, targets: torch.Tensor, weights_R: torch.Tensor) -> Comparisons:
        """Return which texts are positives and negatives of which, from what is known of the rows alone."""
        known = PairTargets.of(targets)
        num_rows = len(targets)
        text_T, book_T, author_T = (
            each.T.reshape(-1) for each in (known.text_R2, known.book_R2, known.author_R2)
        )
        is_real_T = (weights_R > 0).repeat(2)
        is_other_TT = ~torch.eye(2 * num_rows, dtype=torch.bool, device=targets.device)
        both_real_TT = is_real_T[:, None] & is_real_T & is_other_TT
        partner_T = torch.arange(2 * num_rows, device=targets.device).roll(num_rows)
        is_partner_TT = F.one_hot(partner_T, 2 * num_rows).bool()
        of_row_TT = both_real_TT & is_partner_TT & (known.label_R == POSITIVE).repeat(2)[:, None]
        same_book_TT = _same(book_T)
        same_author_TT = _same(author_T)
        same_text_TT = text_T[:, None] == text_T
        if self.contrastive == "supcon":
            apart_TT = both_real_TT & ~same_text_TT
            positive_TT = torch.where(apart_TT & same_author_TT, self.author_weight, 0.0)
            positive_TT = torch.where((apart_TT & same_book_TT) | of_row_TT, 1.0, positive_TT)
            candidate_TT = apart_TT
        else:
            positive_TT = of_row_TT.float()
            # the other side's texts alone, without the anchor's own positive where it occurs once more
            side_T = torch.arange(2 * num_rows, device=targets.device) >= num_rows
            is_again_TT = text_T[partner_T][:, None] == text_T
            candidate_TT = both_real_TT & (side_T[:, None] != side_T) & ~same_text_TT & ~is_again_TT
        spared_TT = same_book_TT if self.keeps_authors_apart else same_book_TT | same_author_TT
        return Comparisons(
            positive_TT=positive_TT, negative_TT=candidate_TT & ~spared_TT & (positive_TT == 0)
        )


def _same(key_T: torch.Tensor) -> torch.Tensor:
    """Return which texts have the same key, where it is known; [T, T]."""
    return (key_T[:, None] == key_T) & (key_T >= 0)
