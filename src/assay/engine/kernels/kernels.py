"""What an engine asks of its kernels; `TritonKernels` and `PlainKernels` both give it.

Axes: T rows of the batch, N sequences, R rows of a tensor, H hidden, I intermediate, A heads, D of a
head, V vocabulary, P positions.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch

from assay.engine.kernels.layout import DeviceBatch
from assay.model.parts import Activation, Linear, Norm


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddingTables:
    """The tables that are summed for each token, and the norm over the sum."""

    words: torch.Tensor
    """[V, H]"""
    positions: torch.Tensor | None
    """[P, H]; type 0 is in it where there are types. None where positions are rotary."""
    types: torch.Tensor | None
    """What each type adds to type 0, [types, H]; None where there is one."""
    norm: Norm


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantized:
    """Rows in fp8 (e4m3) with the factor that gives each row back."""

    values: torch.Tensor
    """float8_e4m3fn [R, H]"""
    scales: torch.Tensor
    """float32 [R, 1]"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fp8Weights:
    """A linear layer whose weight is in fp8, scaled by output."""

    weight_OI: torch.Tensor
    """float8_e4m3fn [O, I]"""
    scales_O: torch.Tensor
    """float32 [O]"""
    bias_O: torch.Tensor
    """[O], of the dtype of results"""


class Kernels(Protocol):
    """Everything but the matrix products."""

    name: str

    def compiled_ahead(self, device: torch.device) -> AbstractContextManager[None]:
        """Compile the kernels of what is called within beside each other; results within mean nothing."""
        ...

    def embed(self, batch: DeviceBatch, tables: EmbeddingTables) -> torch.Tensor:
        """Return the normalised embeddings [T, H]; rows of no token are anything."""
        ...

    def norm(
        self, x_RH: torch.Tensor, norm: Norm, *, bias: torch.Tensor | None = None, in_place: bool = False
    ) -> torch.Tensor:
        """Return the layer norm of x + bias, [R, H]; may overwrite x where `in_place`."""
        ...

    def add_norm_quantize(
        self, x_RH: torch.Tensor, residual_RH: torch.Tensor | None, norm: Norm
    ) -> tuple[torch.Tensor, Quantized]:
        """Return the layer norm of x + residual, [R, H], as it is and in fp8; may overwrite x."""
        ...

    def linear_activate_quantize(
        self, x: Quantized, linear: Fp8Weights, activation: Activation, scale: float
    ) -> torch.Tensor:
        """Return activation(x @ weight.T + bias) / scale in fp8, [R, O]; beyond fp8's range its ends."""
        ...

    def activate_quantize(self, x_RI: torch.Tensor, activation: Activation | None) -> Quantized:
        """Return activation(x), or x, in fp8, [R, I]."""
        ...

    def activate(self, x_RI: torch.Tensor, activation: Activation) -> torch.Tensor:
        """Return activation(x), [R, I]; may overwrite x."""
        ...

    def linear_activate(self, x_RH: torch.Tensor, linear: Linear, activation: Activation) -> torch.Tensor:
        """Return activation(x @ weight.T + bias), [R, I]."""
        ...

    def activate_gated(self, x_RI: torch.Tensor, activation: Activation) -> torch.Tensor:
        """Return activation(first half) * second half of the columns of x [R, 2I], [R, I]."""
        ...

    def rotate(self, x_TH: torch.Tensor, batch: DeviceBatch, angles: torch.Tensor, num_heads: int) -> None:
        """Turn the first `num_heads` heads of each row of x in place by its position.

        `angles` are cosines and sines, float32 [2, positions, D / 2].
        """
        ...

    def attention(
        self,
        qkv_TH: torch.Tensor,
        batch: DeviceBatch,
        *,
        num_heads: int,
        window: int | None,
        fp8_scale: float | None = None,
    ) -> torch.Tensor:
        """Return softmax attention within each sequence, [T, H]; queries come scaled by log2(e)/sqrt(D).

        qkv is [T, 3H]. With `window` a token sees those at most that far away. With `fp8_scale` the
        result is divided by it and in fp8.
        """
        ...

    def first_attention(
        self,
        queries_NH: torch.Tensor,
        keys_values_TH: torch.Tensor,
        batch: DeviceBatch,
        *,
        num_heads: int,
        window: int | None,
    ) -> torch.Tensor:
        """Return the attention of first tokens alone, [N, H]; keys and values are [T, 2H]."""
        ...

    def mean(self, hidden_TH: torch.Tensor, batch: DeviceBatch) -> torch.Tensor:
        """Return the mean of each sequence's rows, float32 [N, H]."""
        ...

    def first_mixture(
        self, queries_NAH: torch.Tensor, hidden_TH: torch.Tensor, batch: DeviceBatch, *, num_heads: int
    ) -> torch.Tensor:
        """Return for each head of each sequence the mean of its hidden states, weighted by attention.

        queries_NAH is [N, A * H]: queries of first tokens carried through the keys' weights, so that
        they meet hidden states themselves. So is what is returned.
        """
        ...
