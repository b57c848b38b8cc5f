"""BERT's layer without a pass for its norms: they are folded into the products around them.

A product's output is the un-normed sum y of the residual and what is added to it. Its epilogue
gathers the sums and sums of squares of y's rows, and what follows reads y with them:

    norm(y) @ W.T + b = (y @ V.T - mean * rowsums(V)) / deviation + c

with V = W * gamma, rounded once, rowsums(V) those of V as rounded, so that the mean drops out
exactly, and c = W @ beta + b. The residual of the next sum is norm(y), made tile by tile in that
product's epilogue.

Axes: T rows of the batch, H hidden, I inputs or intermediate, O outputs.
"""

import importlib.util
from dataclasses import dataclass, replace
from typing import Literal

import torch

from assay.engine.gpu_layers import Hidden, PendingNorm
from assay.engine.kernels.kernels import Kernels
from assay.engine.kernels.layout import DeviceBatch
from assay.model.families import Activation, EncoderWeights, LayerWeights, Linear, Norm

_COLUMNS, _DEPTH = 128, 64
"""Outputs and inputs that each tile of a product takes a multiple of."""


def can_fold(
    weights: EncoderWeights, device: torch.device, dtype: torch.dtype, *, interpreted: bool = False
) -> bool:
    """Return whether the layers of these weights run folded there.

    `interpreted` asks about weights and sizes alone: Triton's interpreter runs on any device in any
    precision.
    """
    if not interpreted and not (
        dtype in {torch.bfloat16, torch.float16}
        and device.type == "cuda"
        and importlib.util.find_spec("triton") is not None
        and torch.cuda.get_device_capability(device) >= (9, 0)
    ):
        return False
    if weights.is_pre_norm or weights.gated or weights.activation not in {"gelu", "gelu_tanh", "relu"}:
        return False
    return all(_fills_tiles(layer) for layer in weights.layers)


def _fills_tiles(layer: LayerWeights) -> bool:
    shapes = [x.weight.shape for x in (layer.qkv, layer.attention_out, layer.up, layer.down)]
    return all(outputs % _COLUMNS == 0 and inputs % _DEPTH == 0 for outputs, inputs in shapes)


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldedLinear:
    """A product of normed rows that takes them un-normed; all it needs of the norm is in it."""

    weight_OI: torch.Tensor
    bias_O: torch.Tensor
    """float32"""
    weight_sums_O: torch.Tensor
    """Sums of the weight, as rounded, over its inputs, float32."""


def fold(linear: Linear, norm: Norm | None, device: torch.device, dtype: torch.dtype) -> FoldedLinear:
    """Return `linear`, given in float32, with the weight and bias of the norm before it within."""
    weight_OI = linear.weight.to(device, torch.float32)
    bias_O = _bias_of(linear, device)
    if norm is not None:
        if norm.bias is not None:
            bias_O = bias_O + (weight_OI.double() @ norm.bias.to(device, torch.float64)).float()
        weight_OI = weight_OI * norm.weight.to(device, torch.float32)
    weight_OI = weight_OI.to(dtype).contiguous()
    return FoldedLinear(
        weight_OI=weight_OI, bias_O=bias_O, weight_sums_O=weight_OI.sum(dim=1, dtype=torch.float64).float()
    )


def _bias_of(linear: Linear, device: torch.device) -> torch.Tensor:
    """The bias in float32, zeros where there is none, [O]."""
    if linear.bias is None:
        return torch.zeros(linear.weight.shape[0], device=device)
    return linear.bias.to(device, torch.float32).contiguous()


class FoldedPostNormLayer:
    """BERT's layer: attention, feed-forward, each added to its input; the norms after them are pending."""

    def __init__(
        self,
        layer: LayerWeights,
        weights: EncoderWeights,
        kernels: Kernels,
        *,
        previous_norm: Norm | None,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """Lay out `layer`, float32 with queries scaled, on `device` in `dtype`.

        `previous_norm` is the one that this layer's input still lacks: the `ffn_norm` of the layer
        before, None for the first layer.
        """
        # Triton may be missing where `can_fold` says no
        from assay.engine.kernels import triton_linear

        assert layer.attention_norm is not None, "a post-norm layer norms after attention"
        self._triton = triton_linear
        self._qkv = fold(layer.qkv, previous_norm, device, dtype)
        self._attention_out = _with_norm_bias(fold(layer.attention_out, None, device, dtype), previous_norm)
        self._up = fold(layer.up, layer.attention_norm, device, dtype)
        self._down = _with_norm_bias(fold(layer.down, None, device, dtype), layer.attention_norm)
        self._has_pending = previous_norm is not None
        self._attention_norm = _laid_out(layer.attention_norm, device)
        self._ffn_norm = _laid_out(layer.ffn_norm, device)
        # GELU runs in its tanh form: off by up to 5e-4, less than half precision keeps
        is_gelu = weights.activation == "gelu" and dtype != torch.float32
        self._activation: Activation = "gelu_tanh" if is_gelu else weights.activation
        self._num_heads = weights.num_heads
        self._window = layer.window
        self._kernels = kernels

    def __call__(self, hidden: Hidden, batch: DeviceBatch, angles: torch.Tensor | None) -> Hidden:
        """Return the layer's output, whose norm is pending; the input's memory is used again."""
        del angles  # positions are in the embeddings
        assert (hidden.pending is not None) == self._has_pending, "the norm folded in is the one that is due"
        qkv_TH = self._product(hidden, self._qkv, "none")
        attended_TH = self._kernels.attention(qkv_TH, batch, num_heads=self._num_heads, window=self._window)
        hidden = self._sum(attended_TH, self._attention_out, hidden, self._attention_norm)
        inner_TI = self._product(hidden, self._up, self._activation)
        return self._sum(inner_TI, self._down, hidden, self._ffn_norm)

    def _product(
        self, hidden: Hidden, linear: FoldedLinear, activation: Activation | Literal["none"]
    ) -> torch.Tensor:
        """activation(linear(hidden states)), [T, O]."""
        triton, pending = self._triton, hidden.pending
        out_TO = hidden.values_TH.new_empty((hidden.values_TH.shape[0], linear.weight_OI.shape[0]))
        input_norm = pending and triton.InputNorm(
            sums_PT2=pending.sums_PT2, weight_sums_O=linear.weight_sums_O, eps=pending.norm.eps
        )
        triton.linear(
            hidden.values_TH,
            linear.weight_OI,
            linear.bias_O,
            activation,
            out=out_TO,
            input_norm=input_norm,
            tile=triton.folded_tile(out_TO.shape[1], has_residual=False),
        )
        return out_TO

    def _sum(self, x_TI: torch.Tensor, linear: FoldedLinear, residual: Hidden, norm: Norm) -> Hidden:
        """linear(x) + residual, in the residual's memory; `norm` is pending."""
        triton, pending = self._triton, residual.pending
        out_TH = residual.values_TH
        tile = triton.folded_tile(out_TH.shape[1], has_residual=True)
        sums_PT2 = triton.empty_sums(out_TH, tile)
        residual_norm = pending and triton.ResidualNorm(
            sums_PT2=pending.sums_PT2, weight_O=pending.norm.weight, eps=pending.norm.eps
        )
        triton.linear(
            x_TI,
            linear.weight_OI,
            linear.bias_O,
            "none",
            out=out_TH,
            residual=out_TH,
            residual_norm=residual_norm,
            out_sums=sums_PT2,
            tile=tile,
        )
        return Hidden(values_TH=out_TH, pending=PendingNorm(norm=norm, sums_PT2=sums_PT2))


def _with_norm_bias(linear: FoldedLinear, norm: Norm | None) -> FoldedLinear:
    """`linear` with the bias of the norm of what is added to it."""
    if norm is None or norm.bias is None:
        return linear
    return replace(linear, bias_O=linear.bias_O + norm.bias.to(linear.bias_O.device, torch.float32))


def _laid_out(norm: Norm, device: torch.device) -> Norm:
    """The norm on the device, in float32."""
    bias = None if norm.bias is None else norm.bias.to(device, torch.float32)
    return Norm(weight=norm.weight.to(device, torch.float32), bias=bias, eps=norm.eps)
