"""What layers and heads are made of: products, norms and activations, as plain tensors.

Axes: H of the last axis.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling

Activation = Literal["gelu", "gelu_tanh", "relu", "silu", "tanh"]

ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}
"""transformers' names of the activations (`transformers.activations.ACT2FN`) that engines know."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Linear:
    """x @ weight.T + bias."""

    weight: torch.Tensor
    """[out, in]"""
    bias: torch.Tensor | None
    """[out]"""

    def rows(self, rows: slice) -> "Linear":
        """Return the part that gives these outputs; tensors are shared."""
        return Linear(weight=self.weight[rows], bias=None if self.bias is None else self.bias[rows])


@dataclass(frozen=True, kw_only=True, slots=True)
class Norm:
    """Layer normalisation over the last axis."""

    weight: torch.Tensor
    """[H]"""
    bias: torch.Tensor | None
    """[H]"""
    eps: float


def activate(x: torch.Tensor, activation: Activation) -> torch.Tensor:
    """Return the activation of x, elementwise."""
    match activation:
        case "gelu":
            return F.gelu(x)
        case "gelu_tanh":
            return F.gelu(x, approximate="tanh")
        case "relu":
            return F.relu(x)
        case "silu":
            return F.silu(x)
        case "tanh":
            return torch.tanh(x)
