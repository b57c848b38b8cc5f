"""The encoder layers of the packed CUDA engine: one class for each way that a layer runs.

Axes: T rows of the batch, N sequences, R rows, H hidden, I intermediate.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling

from assay.engine.fp8 import fp8_linear, fp8_weights, scale_for, with_scale
from assay.engine.kernels.kernels import Kernels, Quantized
from assay.engine.kernels.layout import DeviceBatch
from assay.model.families import EncoderWeights, LayerWeights
from assay.model.parts import Activation, Linear


@dataclass(frozen=True, kw_only=True, slots=True)
class Hidden:
    """Hidden states between layers."""

    values_TH: torch.Tensor
    fp8: Quantized | None = None
    """The same in fp8, where the next product wants it so."""


Layer = Callable[[Hidden, DeviceBatch, torch.Tensor | None], Hidden]


class PostNormLayer:
    """BERT's layer: attention, feed-forward, each added to its input and normed after."""

    def __init__(self, layer: LayerWeights, weights: EncoderWeights, kernels: Kernels) -> None:
        assert layer.attention_norm is not None, "a post-norm layer norms after attention"
        self._layer = layer
        self._attention_norm = layer.attention_norm
        self._num_heads = weights.num_heads
        self._feed = FeedForward(layer, weights, kernels)
        self._kernels = kernels

    def __call__(self, hidden: Hidden, batch: DeviceBatch, angles: torch.Tensor | None) -> Hidden:
        """Return the layer's output; the input's memory is used again."""
        del angles  # positions are in the embeddings
        layer, kernels = self._layer, self._kernels
        hidden_TH = hidden.values_TH
        qkv_TH = F.linear(hidden_TH, layer.qkv.weight, layer.qkv.bias)
        attended_TH = kernels.attention(qkv_TH, batch, num_heads=self._num_heads, window=layer.window)
        # a bias is added where the norm reads the sum: one pass less
        hidden_TH.addmm_(attended_TH, layer.attention_out.weight.t())
        hidden_TH = kernels.norm(
            hidden_TH, self._attention_norm, bias=layer.attention_out.bias, in_place=True
        )
        inner_TI = self._feed.inner(hidden_TH)
        hidden_TH.addmm_(inner_TI, layer.down.weight.t())
        return Hidden(values_TH=kernels.norm(hidden_TH, layer.ffn_norm, bias=layer.down.bias, in_place=True))


class Fp8PostNormLayer:
    """BERT's layer with all products in fp8.

    Hidden states are scaled by row, where the norm has the whole row at hand. What comes out of the
    attention and of the activation is scaled by one number a layer, found on the first batch, which
    the engine makes up: so a score depends on no other document.
    """

    def __init__(self, layer: LayerWeights, weights: EncoderWeights, kernels: Kernels) -> None:
        assert layer.attention_norm is not None, "a post-norm layer norms after attention"
        dtype = layer.attention_out.weight.dtype
        self._attention_norm = layer.attention_norm
        self._ffn_norm = layer.ffn_norm
        self._window = layer.window
        self._activation = weights.activation
        self._num_heads = weights.num_heads
        self._qkv = fp8_weights(layer.qkv, dtype)
        self._attention_out = fp8_weights(layer.attention_out, dtype)
        self._up = fp8_weights(layer.up, dtype)
        self._down = fp8_weights(layer.down, dtype)
        self._kernels = kernels
        self._attended_scale: float | None = None
        self._inner_scale: float | None = None

    def __call__(self, hidden: Hidden, batch: DeviceBatch, angles: torch.Tensor | None) -> Hidden:
        """Return the layer's output; the input's memory is used again."""
        del angles  # positions are in the embeddings
        kernels = self._kernels
        qkv_TH = fp8_linear(hidden.fp8 or kernels.activate_quantize(hidden.values_TH, None), self._qkv)
        out_TH = fp8_linear(self._attend(qkv_TH, batch), self._attention_out)
        residual_TH, fp8 = kernels.add_norm_quantize(out_TH, hidden.values_TH, self._attention_norm)
        down_TH = fp8_linear(self._inner(fp8, batch), self._down)
        hidden_TH, fp8 = kernels.add_norm_quantize(down_TH, residual_TH, self._ffn_norm)
        return Hidden(values_TH=hidden_TH, fp8=fp8)

    def _attend(self, qkv_TH: torch.Tensor, batch: DeviceBatch) -> Quantized:
        """The attention, [T, H]."""
        attend = partial(
            self._kernels.attention, qkv_TH, batch, num_heads=self._num_heads, window=self._window
        )
        if self._attended_scale is None:
            num_tokens = int(batch.cu_seqlens.max())
            self._attended_scale = scale_for(attend()[:num_tokens])
        return with_scale(attend(fp8_scale=self._attended_scale), self._attended_scale)

    def _inner(self, fp8: Quantized, batch: DeviceBatch) -> Quantized:
        """The intermediate states, [T, I]."""
        if self._inner_scale is None:
            num_tokens = int(batch.cu_seqlens.max())
            inner_TI = self._kernels.activate(fp8_linear(fp8, self._up), self._activation)
            self._inner_scale = scale_for(inner_TI[:num_tokens])
        inner = self._kernels.linear_activate_quantize(fp8, self._up, self._activation, self._inner_scale)
        return with_scale(inner, self._inner_scale)


class PreNormLayer:
    """ModernBERT's layer: attention and feed-forward on normed input, added to it as it was."""

    def __init__(self, layer: LayerWeights, weights: EncoderWeights, kernels: Kernels) -> None:
        self._layer = layer
        self._num_heads = weights.num_heads
        self._feed = FeedForward(layer, weights, kernels)
        self._kernels = kernels

    def __call__(self, hidden: Hidden, batch: DeviceBatch, angles: torch.Tensor | None) -> Hidden:
        """Return the layer's output; the input's memory is used again."""
        layer, kernels = self._layer, self._kernels
        hidden_TH = hidden.values_TH
        normed_TH = (
            hidden_TH if layer.attention_norm is None else kernels.norm(hidden_TH, layer.attention_norm)
        )
        qkv_TH = F.linear(normed_TH, layer.qkv.weight, layer.qkv.bias)
        if angles is not None:
            kernels.rotate(qkv_TH, batch, angles, 2 * self._num_heads)
        attended_TH = kernels.attention(qkv_TH, batch, num_heads=self._num_heads, window=layer.window)
        _add_product(hidden_TH, attended_TH, layer.attention_out)
        inner_TI = self._feed.inner(kernels.norm(hidden_TH, layer.ffn_norm))
        _add_product(hidden_TH, inner_TI, layer.down)
        return Hidden(values_TH=hidden_TH)


class FirstTokenLayer:
    """The last layer of a first-token classifier: of all tokens only N first ones ask and go on.

    Their queries are carried through the keys' weights to the hidden states, and what they find there
    through the values' weights: q (W x) = (q W) x. So no key or value of any token is made. Rotary
    positions stand in between; with them keys and values are made, of all tokens.
    """

    def __init__(
        self, layer: LayerWeights, weights: EncoderWeights, kernels: Kernels, *, rows_at_once: int | None
    ) -> None:
        """With `rows_at_once` products of first tokens take that many rows, whatever N is."""
        width = layer.attention_out.weight.shape[1]
        heads = (weights.num_heads, width // weights.num_heads)
        self._layer = layer
        self._query = layer.qkv.rows(slice(0, width))
        self._keys_values = layer.qkv.rows(slice(width, None))
        self._values_bias = None if layer.qkv.bias is None else layer.qkv.bias[2 * width :]
        # a bias of the keys moves all scores of a query alike: softmax does not see it
        self._keys_ADH = layer.qkv.weight[width : 2 * width].unflatten(0, heads)
        self._values_AHD = layer.qkv.weight[2 * width :].unflatten(0, heads).transpose(1, 2)
        self._num_heads = weights.num_heads
        self._is_pre_norm = weights.is_pre_norm
        self._feed = FeedForward(layer, weights, kernels)
        self._kernels = kernels
        self._rows_at_once = rows_at_once

    def __call__(self, hidden: Hidden, batch: DeviceBatch, angles: torch.Tensor | None) -> Hidden:
        """Return the layer's output of the first tokens, [N, H]."""
        hidden_TH = input_TH = hidden.values_TH
        if self._is_pre_norm and self._layer.attention_norm is not None:
            input_TH = self._kernels.norm(input_TH, self._layer.attention_norm)
        # where a sequence of no token would begin there may be no row
        firsts_N = batch.cu_seqlens[:-1].long().clamp_max(batch.num_rows - 1)
        attend = self._attend if angles is None else partial(self._attend_rotated, angles=angles)
        attended_NH = attend(input_TH, input_TH[firsts_N], batch)
        return Hidden(values_TH=self._by_rows(self._rest, attended_NH, hidden_TH[firsts_N]))

    def _attend(self, input_TH: torch.Tensor, first_NH: torch.Tensor, batch: DeviceBatch) -> torch.Tensor:
        """The attention of the first tokens, [N, H]."""
        queries_NAH = self._by_rows(self._carried_queries, first_NH)
        mixed_NAH = self._kernels.first_mixture(queries_NAH, input_TH, batch, num_heads=self._num_heads)
        return self._by_rows(self._values, mixed_NAH)

    def _attend_rotated(
        self, input_TH: torch.Tensor, first_NH: torch.Tensor, batch: DeviceBatch, *, angles: torch.Tensor
    ) -> torch.Tensor:
        """The same with rotary positions."""
        keys_values_TH = F.linear(input_TH, self._keys_values.weight, self._keys_values.bias)
        # a first token stands at position 0: its query is not turned
        self._kernels.rotate(keys_values_TH, batch, angles, self._num_heads)
        queries_NH = self._by_rows(self._queries, first_NH)
        return self._kernels.first_attention(
            queries_NH, keys_values_TH, batch, num_heads=self._num_heads, window=self._layer.window
        )

    def _queries(self, first_NH: torch.Tensor) -> torch.Tensor:
        return F.linear(first_NH, self._query.weight, self._query.bias)

    def _carried_queries(self, first_NH: torch.Tensor) -> torch.Tensor:
        """For each head the query times the keys' weights, [N, A * H]."""
        queries_AND = self._queries(first_NH).unflatten(1, (self._num_heads, -1)).transpose(0, 1)
        return torch.bmm(queries_AND, self._keys_ADH).transpose(0, 1).flatten(1)

    def _values(self, mixed_NAH: torch.Tensor) -> torch.Tensor:
        """The values of mixed hidden states, [N, H]."""
        mixed_ANH = mixed_NAH.unflatten(1, (self._num_heads, -1)).transpose(0, 1)
        values_NH = torch.bmm(mixed_ANH, self._values_AHD).transpose(0, 1).flatten(1)
        return values_NH if self._values_bias is None else values_NH + self._values_bias

    def _rest(self, attended_NH: torch.Tensor, residual_NH: torch.Tensor) -> torch.Tensor:
        """What follows the attention."""
        layer, kernels = self._layer, self._kernels
        out_NH = F.linear(attended_NH, layer.attention_out.weight, layer.attention_out.bias).add_(residual_NH)
        if self._is_pre_norm:
            inner_NI = self._feed.inner(kernels.norm(out_NH, layer.ffn_norm))
            return F.linear(inner_NI, layer.down.weight, layer.down.bias).add_(out_NH)
        assert layer.attention_norm is not None, "a post-norm layer norms after attention"
        hidden_NH = kernels.norm(out_NH, layer.attention_norm, in_place=True)
        inner_NI = self._feed.inner(hidden_NH)
        out_NH = F.linear(inner_NI, layer.down.weight, layer.down.bias).add_(hidden_NH)
        return kernels.norm(out_NH, layer.ffn_norm, in_place=True)

    def _by_rows(self, function: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> torch.Tensor:
        return in_blocks(function, *inputs, rows=self._rows_at_once)


class FeedForward:
    """The inner half of the feed-forward: product, bias, activation, gate."""

    def __init__(self, layer: LayerWeights, weights: EncoderWeights, kernels: Kernels) -> None:
        self._up = layer.up
        self._activation: Activation = weights.activation
        self._gated = weights.gated
        self._kernels = kernels

    def inner(self, hidden_RH: torch.Tensor) -> torch.Tensor:
        """Return the intermediate states, [R, I]."""
        if self._gated:
            inner_RI = F.linear(hidden_RH, self._up.weight, self._up.bias)
            return self._kernels.activate_gated(inner_RI, self._activation)
        return self._kernels.linear_activate(hidden_RH, self._up, self._activation)


def in_blocks(function: Callable[..., torch.Tensor], *inputs: torch.Tensor, rows: int | None) -> torch.Tensor:
    """Return function(*inputs) of inputs [N, ...]; with `rows` always of that many rows at a time."""
    if rows is None:
        return function(*inputs)
    num_rows = inputs[0].shape[0]
    padded = [F.pad(x, (0, 0, 0, -num_rows % rows)) for x in inputs]
    done = [function(*pieces) for pieces in zip(*(x.split(rows) for x in padded), strict=True)]
    return torch.cat(done)[:num_rows]


def _add_product(out_RH: torch.Tensor, x_RI: torch.Tensor, linear: Linear) -> None:
    """Add x @ weight.T + bias to `out` in place."""
    out_RH.addmm_(x_RI, linear.weight.t())
    if linear.bias is not None:
        out_RH.add_(linear.bias)
