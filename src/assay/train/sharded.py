"""A model that is spread over the ranks (FSDP2), for models that outgrow one device.

Each layer's weights, gradients and optimizer state lie in parts on all ranks; a layer is put together
while it runs. Zhao et al. 2023, "PyTorch FSDP"; torch's `fully_shard`. Nothing here is recorded.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from assay.train.optimizer import load_state
from assay.train.world import World


def shard(classifier: nn.Module, layers: Sequence[nn.Module], *, world: World, dtype: torch.dtype) -> None:
    """Spread the classifier over the ranks, layer by layer; layers run in `dtype`, sums in float32.

    Gradients become means over the ranks, as FSDP has them (gloo cannot but sum and divide).
    Between passes every parameter is in parts: what stayed whole would be read and written in vain.
    """
    mesh = init_device_mesh(world.device.type, (world.world_size,))
    # embeddings are summed, and the head runs, in float32 whatever the layers run in
    within = dict.fromkeys(layers, None if dtype == torch.float32 else dtype)
    for module in (*layers, classifier):
        policy = MixedPrecisionPolicy(param_dtype=within.get(module), reduce_dtype=torch.float32)
        fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=True)


class ShardedGradients:
    """The gradients of a sharded model, with what `gradients.Gradients` offers."""

    can_record = False
    has_others = True
    wants_token_ids = False

    def __init__(self, classifier: nn.Module, parameters: Mapping[str, nn.Parameter]) -> None:
        """Take over the gradients of `parameters`, by name, which `shard` has spread."""
        self._classifier: Any = classifier
        self._parameters = parameters

    def own(self, parameter: nn.Parameter) -> nn.Parameter:
        """The parameter, of which this rank holds a part."""
        return parameter

    def begin_pass(self, *, is_last: bool) -> None:
        """Sum over ranks after the last pass of a step alone."""
        self._classifier.set_requires_gradient_sync(is_last)

    def finish_pass(self) -> None:
        """FSDP waits by itself."""

    def sum_table(self, token_ids: torch.Tensor | None) -> None:
        """FSDP has summed by itself."""

    def update(self, optimizer: torch.optim.AdamW) -> None:
        """Update this rank's parts, and begin a new step."""
        optimizer.step()
        for parameter in self._parameters.values():
            parameter.grad = None

    def state_of(self, optimizer: torch.optim.AdamW) -> dict[str, torch.Tensor]:
        """As `Gradients.state_of`, but on every rank."""
        return {
            f"{name}.{kind}": whole(part).to("cpu", copy=True)
            for name, parameter in self._parameters.items()
            for kind, part in optimizer.state[parameter].items()
        }

    def load_state(self, optimizer: torch.optim.AdamW, tensors: Mapping[str, torch.Tensor]) -> None:
        """As `Gradients.load_state`."""

        def part(name: str, tensor: torch.Tensor) -> torch.Tensor:
            return spread_like(tensor, self._parameters[name])

        load_state(optimizer, tensors, self._parameters, part)

    def clip(self, max_norm: float, optimizer: torch.optim.AdamW) -> torch.Tensor:
        """Scale gradients of a larger norm down to `max_norm`; the norm before, float32 []."""
        del optimizer
        gradients = [each.grad for each in self._parameters.values() if each.grad is not None]
        norm = whole(nn.utils.get_total_norm(gradients))
        torch._foreach_mul_(gradients, float((max_norm / norm).clamp(max=1.0)))
        return norm


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor put together from the ranks' parts; every rank must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def wholes(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Each tensor put together, on the CPU where it was in parts; every rank must ask."""
    return {
        name: each.full_tensor().cpu() if isinstance(each, DTensor) else each
        for name, each in tensors.items()
    }


def spread_like(tensor: torch.Tensor, model: torch.Tensor) -> torch.Tensor:
    """A whole tensor as `model` lies: in the same parts, or on its device."""
    moved = tensor.to(model.device)
    if isinstance(model, DTensor) and moved.shape == model.shape:
        return distribute_tensor(moved, model.device_mesh, model.placements)
    return moved


@torch.no_grad()
def load_tensors(module: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Copy whole tensors, or parts as they lie, into the parameters of these names."""
    parameters = dict(module.named_parameters())
    for name, tensor in tensors.items():
        own = parameters[name]
        own.copy_(tensor if isinstance(tensor, DTensor) else spread_like(tensor, own))
