"""Heads: what becomes of the hidden states of a sequence. Values beside the families, of any output shape.

An engine pools as the head asks, calls it in float32 and passes on what it gives. A classifier's output is
[C] logits; a head that gives an embedding [D] or a grid [81, 11] is another dataclass with the same three
members, and nothing else changes.

Axes: N sequences, H hidden, P pooled hidden, C outputs.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling

from assay.model.parts import Activation, Linear, Norm, activate

Pooling = Literal["first", "mean"]
"""The hidden state of the first token, or the mean over all tokens."""


class Head(Protocol):
    """A frozen dataclass whose tensors `families.moved` can find."""

    @property
    def pooling(self) -> Pooling:
        """What the head sees of a sequence."""
        ...

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the output of one sequence."""
        ...

    def __call__(self, pooled_NH: torch.Tensor) -> torch.Tensor:
        """Return the outputs, [N, *output_shape], each row from its own row alone."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifierHead:
    """Dense, activation, norm where there is one, out: the head of every packed classifier."""

    pooling: Pooling
    dense: Linear
    activation: Activation
    norm: Norm | None
    out: Linear

    @property
    def output_shape(self) -> tuple[int, ...]:
        """(C,), the logits."""
        return (self.out.weight.shape[0],)

    def __call__(self, pooled_NH: torch.Tensor) -> torch.Tensor:
        """Return the logits [N, C]."""
        hidden_NP = activate(F.linear(pooled_NH, self.dense.weight, self.dense.bias), self.activation)
        if self.norm is not None:
            hidden_NP = F.layer_norm(
                hidden_NP, hidden_NP.shape[-1:], self.norm.weight, self.norm.bias, self.norm.eps
            )
        return F.linear(hidden_NP, self.out.weight, self.out.bias)
