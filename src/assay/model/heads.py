"""Heads: what becomes of the hidden states of a sequence. Values beside the families, of any output shape.

An engine pools as the head asks, calls it in float32 and passes on what it gives. A classifier's output is
[C] logits, a sentence encoder's a vector [D]; a head that gives a grid [81, 11] is another dataclass with the
same three members, and nothing else changes.

Axes: N sequences, T tokens, H hidden, P pooled hidden, C outputs, D dimensions of an embedding.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling

from assay.model.parts import Activation, Linear, Norm, activate

Pooling = Literal["first", "mean", "attention"]
"""The hidden state of the first token, the mean over all tokens, or a mean that the model weighs itself."""


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


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionScores:
    """How much each token counts under attention pooling: softmax(score(tanh(dense(h)))) over a sequence.

    Additive attention as Yang et al. (2016, section 2.2) have it; the bias of the score moves all tokens alike.
    """

    dense: Linear
    score: Linear
    """To one number, [1, in]."""

    def __call__(self, hidden_TH: torch.Tensor) -> torch.Tensor:
        """Return each token's score before the softmax, float32 [T]."""
        inner_TP = torch.tanh(F.linear(hidden_TH.float(), self.dense.weight, self.dense.bias))
        return F.linear(inner_TP, self.score.weight, self.score.bias)[:, 0]


@dataclass(frozen=True, kw_only=True, slots=True)
class Projection:
    """A dense layer after the pooling."""

    linear: Linear
    activation: Activation | None
    """None for none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddingHead:
    """What makes a vector of a sequence: pooled, projected where the model has projections, normalised."""

    pooling: Pooling
    hidden_size: int
    """H, what is pooled."""
    attention: AttentionScores | None = None
    """Where `pooling` is attention."""
    projections: tuple[Projection, ...] = ()
    normalized: bool = True
    """Whether vectors have length 1."""

    @property
    def output_shape(self) -> tuple[int, ...]:
        """(D,)."""
        if self.projections:
            return (self.projections[-1].linear.weight.shape[0],)
        return (self.hidden_size,)

    def __call__(self, pooled_NH: torch.Tensor) -> torch.Tensor:
        """Return the vectors [N, D]; a pooled vector of zeros stays one."""
        vectors_ND = pooled_NH
        for projection in self.projections:
            vectors_ND = F.linear(vectors_ND, projection.linear.weight, projection.linear.bias)
            if projection.activation is not None:
                vectors_ND = activate(vectors_ND, projection.activation)
        return F.normalize(vectors_ND, dim=1) if self.normalized else vectors_ND


def attention_of(head: Head) -> AttentionScores | None:
    """Return how tokens are weighed under a head that pools by attention; None for any other head."""
    if head.pooling != "attention":
        return None
    assert isinstance(head, EmbeddingHead), "attention pooling belongs to embeddings"
    assert head.attention is not None, "attention pooling has weights"
    return head.attention
