"""AdamW over a model's parameters: which decay, and how fast each layer learns."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from assay.errors import UsageError
from assay.train.settings import TrainSettings

BETAS = (0.9, 0.999)
EPS = 1e-8


def freeze(model: PreTrainedModel, settings: TrainSettings) -> None:
    """Stop the gradients of what the settings leave as it is; raises `UsageError` for too many layers."""
    stack, embeddings = layer_stack(model)
    if settings.freeze_encoder:
        model.base_model.requires_grad_(requires_grad=False)
        return
    if settings.num_frozen_layers == 0:
        return
    if settings.num_frozen_layers > len(stack):
        depth = len(stack) or "no known"
        raise UsageError(
            f"num_frozen_layers={settings.num_frozen_layers}; this {model.config.model_type} has {depth} layers;"
            " lower it"
        )
    for frozen in (embeddings, *stack[: settings.num_frozen_layers]):
        frozen.requires_grad_(requires_grad=False)


def layer_stack(model: PreTrainedModel) -> tuple[list[nn.Module], nn.Module]:
    """The encoder's layers, lowest first ([] where they are not found), and its embeddings."""
    depth = getattr(model.config, "num_hidden_layers", None)
    encoder = model.base_model
    stacks = [each for each in encoder.modules() if isinstance(each, nn.ModuleList) and len(each) == depth]
    embeddings: nn.Module = getattr(encoder, "embeddings", model.get_input_embeddings())
    return (list(stacks[0]) if stacks else []), embeddings


def add_lora(model: PreTrainedModel, *, rank: int, alpha: int) -> None:
    """Put LoRA updates (Hu et al. 2021) beside the linear layers of the encoder; train these and the head."""
    from peft import LoraConfig, inject_adapter_in_model

    encoder = model.base_model
    encoder.requires_grad_(requires_grad=False)
    stack, _ = layer_stack(model)
    names = {
        name.rpartition(".")[2]
        for layer in stack
        for name, module in layer.named_modules()
        if isinstance(module, nn.Linear)
    }
    inject_adapter_in_model(
        LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=sorted(names)), encoder
    )


def parameter_groups(model: PreTrainedModel, settings: TrainSettings) -> list[dict[str, Any]]:
    """Groups for AdamW: matrices decay, vectors (biases, norms) do not; lower layers learn slower.

    Each has `lr_share`, its share of the learning rate: layer_decay to the number of layers above
    (Howard and Ruder 2018, "discriminative fine-tuning").
    """
    stack, embeddings = layer_stack(model)
    depth_of: dict[int, int] = {id(each): len(stack) + 1 for each in embeddings.parameters()}
    for number, layer in enumerate(stack):
        depth_of.update({id(each): len(stack) - number for each in layer.parameters()})
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for each in model.parameters():
        if each.requires_grad:
            depth = depth_of.get(id(each), 0) if settings.layer_decay < 1 else 0
            groups.setdefault((depth, each.ndim > 1), []).append(each)
    return [
        {
            "params": parameters,
            "weight_decay": settings.weight_decay if decays else 0.0,
            "lr_share": settings.layer_decay**depth,
        }
        for (depth, decays), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def make_optimizer(
    groups: Sequence[dict[str, Any]],
    own: Callable[[nn.Parameter], nn.Parameter],
    device: torch.device,
    *,
    can_record: bool,
) -> torch.optim.AdamW:
    """Fused AdamW of what this rank updates of the `parameter_groups`: `own` of each.

    Where its step may be recorded, learning rates are tensors, so that it sees them change.
    """
    for group in groups:
        group["params"] = [own(each) for each in group["params"]]
        group["lr"] = torch.zeros((), device=device) if can_record else 0.0
    return torch.optim.AdamW(groups, betas=BETAS, eps=EPS, fused=True, capturable=can_record)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Give every group its share of the learning rate."""
    for group in optimizer.param_groups:
        value = learning_rate * group["lr_share"]
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(value)
        else:
            group["lr"] = value


def load_state(
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, torch.Tensor],
    owns: Mapping[str, nn.Parameter],
    part: Callable[[str, torch.Tensor], torch.Tensor],
) -> None:
    """Have the optimizer go on from a whole state by `<parameter>.<kind>`.

    `owns`: what it updates of each parameter, by name; `part` cuts this out of a tensor of the parameter's shape.
    """
    in_order = [each for group in optimizer.param_groups for each in group["params"]]
    numbers = {id(each): number for number, each in enumerate(in_order)}
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, kind = key.rpartition(".")
        held = tensor.clone() if kind == "step" else part(name, tensor)
        state.setdefault(numbers[id(owns[name])], {})[kind] = held
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
