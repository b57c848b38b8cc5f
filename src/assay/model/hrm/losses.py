"""What training of HRM and TRM makes small. Sums over puzzles; the caller divides by the batch.

Axes: B puzzles, S cells, V values of a cell.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling

IGNORED = -100
"""Label of a cell that nobody asks for."""
_TINY = 1e-30


@dataclass(frozen=True, kw_only=True, slots=True)
class Losses:
    """A step's losses and how many cells and grids were right."""

    total: torch.Tensor
    """cells + (halt + go_on) / 2, a scalar with gradient."""
    cells: torch.Tensor
    """Cross entropy of each puzzle's cells, their mean; summed over puzzles; no gradient, as all below."""
    halt: torch.Tensor
    go_on: torch.Tensor
    """0 where there is no such head."""
    right_cells_B: torch.Tensor
    """Share of each puzzle's labelled cells that are right."""
    is_right_B: torch.Tensor
    """Whether the whole grid is."""
    counts_B: torch.Tensor
    """Whether the puzzle has labels at all."""


def log_stablemax(logits: torch.Tensor) -> torch.Tensor:
    """Return log(s(x) / sum s(x)), s(x) = x + 1 from 0 up and 1 / (1 - x) below (Prieto et al. 2025)."""
    scaled = torch.where(logits < 0, 1 / (1 - logits + _TINY), logits + 1)
    return torch.log(scaled / scaled.sum(-1, keepdim=True))


def cell_losses(logits_BSV: torch.Tensor, labels_BS: torch.Tensor, *, loss_type: str) -> torch.Tensor:
    """Return the cross entropy of each cell [B, S], 0 where the label is ignored.

    Stablemax is computed in float64, softmax in float32.
    """
    asked = labels_BS != IGNORED
    labels = torch.where(asked, labels_BS, 0).long().unsqueeze(-1)
    if loss_type == "stablemax_cross_entropy":
        logs = log_stablemax(logits_BSV.double())
    else:
        logs = F.log_softmax(logits_BSV.float(), dim=-1)
    return -torch.where(asked, logs.gather(-1, labels).squeeze(-1), 0)


def losses_of(
    logits_BSV: torch.Tensor,
    q_halt_B: torch.Tensor,
    q_continue_B: torch.Tensor,
    labels_BS: torch.Tensor,
    *,
    target_q_continue_B: torch.Tensor | None,
    loss_type: str,
) -> Losses:
    """Return a step's losses; the halting head's target is whether this step's grid is right."""
    asked = labels_BS != IGNORED
    counts = asked.sum(-1)
    with torch.no_grad():
        right = asked & (logits_BSV.argmax(-1) == labels_BS)
        is_right = right.sum(-1) == counts
        share = right.sum(-1) / counts.clamp_min(1)
    each = cell_losses(logits_BSV, labels_BS, loss_type=loss_type)
    cells = (each / counts.clamp_min(1).unsqueeze(-1)).sum()
    halt = F.binary_cross_entropy_with_logits(q_halt_B, is_right.to(q_halt_B.dtype), reduction="sum")
    go_on = torch.zeros_like(halt)
    if target_q_continue_B is not None:
        go_on = F.binary_cross_entropy_with_logits(q_continue_B, target_q_continue_B, reduction="sum")
    return Losses(
        total=cells + 0.5 * (halt + go_on),
        cells=cells.detach(),
        halt=halt.detach(),
        go_on=go_on.detach(),
        right_cells_B=share,
        is_right_B=is_right,
        counts_B=counts > 0,
    )
