"""A training step's forward on a GPU: what has no gradient by the engine's kernels, what has one compiled.

Of the default HRM's 64 layer passes a step (two forward passes, one of them for the target of going on, and the way
back through two levels) 40 have no gradient.
"""

from typing import Any

import torch

from assay.engine.hrm_step import FusedStep
from assay.model.hrm.network import Carry, Network, Outputs


class FusedTraining:
    """`Network.forward` of the same weights, faster; `refresh` after each update of the weights."""

    def __init__(self, network: Network, dtype: torch.dtype) -> None:
        self._network = network
        self._fused = FusedStep(network, dtype)
        self._embed: Any = torch.compile(network.embed, dynamic=False)
        self._finish: Any = torch.compile(self._last_updates, dynamic=False)
        self._read: Any = torch.compile(self._heads, dynamic=False)

    def refresh(self) -> None:
        """Take over the network's weights as they are now."""
        self._fused.refresh()

    def __call__(
        self, carry: Carry, inputs_BS: torch.Tensor, puzzle_vectors_BW: torch.Tensor | None
    ) -> tuple[Carry, Outputs]:
        """See `Network.forward`."""
        x_BPD = self._embed(inputs_BS, puzzle_vectors_BW, carry.z_H.dtype)
        if torch.is_grad_enabled():
            before, _ = self._network.config.updates
            carry = self._fused.update(carry, x_BPD.detach(), before)
            z_H, z_L, logits_BSV, q_halt_B, q_continue_B = self._finish(carry.z_H, carry.z_L, x_BPD)
        else:
            carry = self._fused(carry, x_BPD)
            z_H, z_L = carry.z_H, carry.z_L
            logits_BSV, q_halt_B, q_continue_B = self._read(z_H)
        return Carry(z_H=z_H.detach(), z_L=z_L.detach()), Outputs(
            logits_BSV=logits_BSV, q_halt_B=q_halt_B, q_continue_B=q_continue_B
        )

    def _last_updates(
        self, z_H: torch.Tensor, z_L: torch.Tensor, x_BPD: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        network = self._network
        rotation = network.rotation(x_BPD.shape[1], x_BPD.device)
        _, after = network.config.updates
        carry = network.update(Carry(z_H=z_H, z_L=z_L), x_BPD, rotation, after)
        return carry.z_H, carry.z_L, *self._heads(carry.z_H)

    def _heads(self, z_H: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs = self._network.read(Carry(z_H=z_H, z_L=z_H))
        return outputs.logits_BSV, outputs.q_halt_B, outputs.q_continue_B
