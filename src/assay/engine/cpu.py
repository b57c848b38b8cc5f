"""The exact fp32 engine for CPUs: no padding anywhere, one first token's work in the last layer.

Matrix products run over all tokens of a batch at once. Attention runs once for each distinct length:
sequences of one length lie side by side, so that they are a plain [n, L] view and need no mask. In
the last layer of a first-token classifier only keys and values need every token; the query, the
attention's output and the feed-forward are those of N first tokens.

Axes: T tokens, N sequences, n sequences of one length L, A heads, D of a head, H hidden, I
intermediate, R rows of a product, C outputs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling

from assay.engine.batching import token_indices
from assay.engine.engine import Engine
from assay.engine.positions import positions_without_pads, token_positions
from assay.model.families import EncoderWeights, LayerWeights, Rotary
from assay.model.heads import attention_of
from assay.model.packing import PackedBatch
from assay.model.parts import Activation, Linear, Norm, activate

_ONEDNN_ACTIVATIONS: dict[Activation | None, tuple[str, str]] = {
    None: ("none", ""),
    "gelu": ("gelu", "none"),
    "gelu_tanh": ("gelu", "tanh"),
    "relu": ("relu", ""),
    "silu": ("swish", ""),
    "tanh": ("tanh", ""),
}
_WINDOW_BLOCK = 256
"""Queries of one product in a windowed layer: long texts cost window + block, not their length."""
_ROW_STEPS = ((1024, 64), (0, 16))
"""(from T on, T is rounded up to a multiple of). oneDNN makes and keeps a kernel of about half a
megabyte for each new number of rows, so there must be few: at most 3% more rows, most often 1%."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Group:
    """Neighbouring sequences of one length."""

    first_sequence: int
    num_sequences: int
    first_token: int
    length: int

    @property
    def sequences(self) -> slice:
        return slice(self.first_sequence, self.first_sequence + self.num_sequences)

    @property
    def tokens(self) -> slice:
        return slice(self.first_token, self.first_token + self.num_sequences * self.length)


class _Product(Protocol):
    """A linear layer whose weight lies as the kernel wants it."""

    def __call__(self, x_RI: torch.Tensor, activation: Activation | None = None) -> torch.Tensor:
        """Return activation(x @ weight.T + bias)."""
        ...

    def add(self, x_RI: torch.Tensor, residual_RH: torch.Tensor) -> torch.Tensor:
        """Return x @ weight.T + bias + residual."""
        ...


class _PlainProduct:
    """torch's own linear layer."""

    def __init__(self, linear: Linear) -> None:
        self._weight = linear.weight
        self._bias = linear.bias

    def __call__(self, x_RI: torch.Tensor, activation: Activation | None = None) -> torch.Tensor:
        out = F.linear(x_RI, self._weight, self._bias)
        return out if activation is None else activate(out, activation)

    def add(self, x_RI: torch.Tensor, residual_RH: torch.Tensor) -> torch.Tensor:
        return F.linear(x_RI, self._weight, self._bias).add_(residual_RH)


class _OneDnnProduct:
    """oneDNN's product on a reordered weight, bias, activation and residual in its epilogue.

    The operators are those that torch.compile's CPU backend emits for frozen models.
    """

    def __init__(self, linear: Linear) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.contiguous())  # noqa: SLF001
        self._bias = linear.bias

    def __call__(self, x_RI: torch.Tensor, activation: Activation | None = None) -> torch.Tensor:
        attribute, algorithm = _ONEDNN_ACTIVATIONS[activation]
        product = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001
        return cast("torch.Tensor", product.default(x_RI, self._weight, self._bias, attribute, [], algorithm))

    def add(self, x_RI: torch.Tensor, residual_RH: torch.Tensor) -> torch.Tensor:
        product = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001
        return cast("torch.Tensor", product.binary(x_RI, residual_RH, self._weight, self._bias, "add"))


@torch.inference_mode()
def has_onednn() -> bool:
    """Return whether torch's fused oneDNN products exist here and agree with the plain ones."""
    if not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(shape, generator=generator) for shape in ((3, 8), (5, 8), (5,)))
    linear = Linear(weight=weight, bias=bias)
    try:
        fused = _OneDnnProduct(linear)(x, "gelu")
    except (AttributeError, RuntimeError):
        # another build or another release of torch: these operators are not public
        return False
    return torch.allclose(fused, _PlainProduct(linear)(x, "gelu"), atol=1e-5)


class CpuPackedEngine:
    """Packed forward passes in fp32 on the CPU, from the plain weights of a known family."""

    name = "cpu-packed"
    packed = True
    wants_sorted = True
    default_batch_tokens = 2048
    device_seconds = None
    deterministic = False
    fp32: Callable[[], Engine] | None = None

    def __init__(self, weights: EncoderWeights, *, use_onednn: bool | None = None) -> None:
        """Lay out the weights for this CPU; `use_onednn` None takes oneDNN's products where they work."""
        self.output_shape = weights.head.output_shape
        self.max_length = weights.max_length
        self.vocab_size = weights.word_embeddings.shape[0]
        self.family = weights.family
        self.num_padded_tokens = 0
        self._uses_onednn = has_onednn() if use_onednn is None else use_onednn
        self._embedding = _Embedding(weights, self._product)
        self._layers = [
            _Layer(layer, weights, self._product, first_only=weights.head.pooling == "first" and k == 0)
            for k, layer in enumerate(reversed(weights.layers))
        ][::-1]
        self._final_norm = weights.final_norm
        self._pooling = weights.head.pooling
        self._attention = attention_of(weights.head)
        self._head = weights.head

    @torch.inference_mode()
    def forward(self, batch: PackedBatch) -> torch.Tensor:
        """Return the outputs, float32 [N, *output_shape]; fastest where sequences come sorted by length."""
        if batch.num_sequences == 0:
            return torch.empty((0, *self.output_shape))
        batch, order_N = _side_by_side(batch)
        groups = _groups(batch)
        positions_T = torch.from_numpy(token_positions(batch.cu_seqlens.numpy()))
        hidden_TH = self._round_up(self._embedding(batch, positions_T))
        tables: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        firsts_N = batch.cu_seqlens[:-1]
        for layer in self._layers:
            table = None
            if layer.rotary is not None:
                table = tables.get(id(layer.rotary)) or _rotary_table(
                    layer.rotary, positions_T, hidden_TH.shape[0]
                )
                tables[id(layer.rotary)] = table
            hidden_TH = layer(hidden_TH, groups, firsts_N, table)
        logits_NC = self._head(self._pool(hidden_TH, groups))
        if order_N is None:
            return logits_NC
        restored_NC = torch.empty_like(logits_NC)
        restored_NC[order_N] = logits_NC
        return restored_NC

    def description(self) -> str:
        """Return one line: the family and the kernels."""
        kernels = "oneDNN products with fused activation" if self._uses_onednn else "plain torch products"
        return f"packed {self.family} on CPU, fp32, {kernels}, {torch.get_num_threads()} threads"

    def _product(self, linear: Linear) -> _Product:
        return _OneDnnProduct(linear) if self._uses_onednn else _PlainProduct(linear)

    def _round_up(self, hidden_TH: torch.Tensor) -> torch.Tensor:
        """The hidden states with rows of zeros after them, so that few kernels are made."""
        if not self._uses_onednn:
            return hidden_TH
        num_rows = hidden_TH.shape[0]
        step = next(step for start, step in _ROW_STEPS if num_rows >= start)
        missing = -num_rows % step
        self.num_padded_tokens += missing
        return F.pad(hidden_TH, (0, 0, 0, missing)) if missing else hidden_TH

    def _pool(self, hidden_TH: torch.Tensor, groups: list[_Group]) -> torch.Tensor:
        """The pooled hidden states [N, H]; after a first-token layer they are there already."""
        normed_TH = hidden_TH if self._final_norm is None else _normed(hidden_TH, self._final_norm)
        if self._pooling == "first":
            return normed_TH
        states = [normed_TH[group.tokens].view(group.num_sequences, group.length, -1) for group in groups]
        if self._attention is None:
            return torch.cat([states_nLH.mean(dim=1) for states_nLH in states])
        scores_T = self._attention(normed_TH)
        weights = [
            scores_T[group.tokens].view(group.num_sequences, 1, group.length).softmax(dim=2)
            for group in groups
        ]
        return torch.cat(
            [
                (weights_n1L @ states_nLH)[:, 0]
                for weights_n1L, states_nLH in zip(weights, states, strict=True)
            ]
        )


class _ProductOf(Protocol):
    def __call__(self, linear: Linear) -> _Product: ...


class _Embedding:
    """Token ids to the first layer's input."""

    def __init__(self, weights: EncoderWeights, product: _ProductOf) -> None:
        self._words = weights.word_embeddings
        self._norm = weights.embedding_norm
        self._projection = None if weights.projection is None else product(weights.projection)
        self._pad_token_id = weights.pad_token_id
        self._positions = weights.position_embeddings
        self._types = None
        if self._positions is not None:
            self._pad_row = self._positions.shape[0]
            if weights.pad_position is not None:
                self._positions = torch.cat([self._positions, weights.pad_position[None]])
            if weights.token_type_embeddings is not None:
                # type 0 is in every position's row, so that only second segments pay for types
                self._positions = self._positions + weights.token_type_embeddings[0]
                self._types = weights.token_type_embeddings - weights.token_type_embeddings[0]

    def __call__(self, batch: PackedBatch, positions_T: torch.Tensor) -> torch.Tensor:
        ids_T = batch.input_ids_T
        hidden_TH = F.embedding(ids_T, self._words)
        if self._positions is not None:
            if self._pad_token_id is not None:
                rows_T = positions_without_pads(
                    ids_T.numpy(), batch.cu_seqlens.numpy(), self._pad_token_id, self._pad_row
                )
                positions_T = positions_T if rows_T is None else torch.from_numpy(rows_T)
            hidden_TH.add_(F.embedding(positions_T, self._positions))
        if self._types is not None and self._types.shape[0] > 1 and batch.token_type_ids_T is not None:
            hidden_TH.add_(F.embedding(batch.token_type_ids_T, self._types))
        hidden_TH = _normed(hidden_TH, self._norm)
        return hidden_TH if self._projection is None else self._projection(hidden_TH)


class _Layer:
    """One encoder layer over packed tokens."""

    def __init__(
        self, layer: LayerWeights, weights: EncoderWeights, product: _ProductOf, *, first_only: bool
    ) -> None:
        self.rotary = layer.rotary
        self._num_heads = weights.num_heads
        self._activation = weights.activation
        self._gated = weights.gated
        self._is_pre_norm = weights.is_pre_norm
        self._window = layer.window
        self._attention_norm = layer.attention_norm
        self._ffn_norm = layer.ffn_norm
        self._first_only = first_only
        width = layer.qkv.weight.shape[0] // 3
        self._qkv = product(layer.qkv.rows(slice(width, None)) if first_only else layer.qkv)
        # N first tokens are few rows, and their number always changes: no kernel of their own
        few_rows = _PlainProduct if first_only else product
        self._query = _PlainProduct(layer.qkv.rows(slice(0, width)))
        self._attention_out = few_rows(layer.attention_out)
        self._up = few_rows(layer.up)
        self._down = few_rows(layer.down)

    def __call__(
        self,
        hidden_TH: torch.Tensor,
        groups: list[_Group],
        firsts_N: torch.Tensor,
        table: tuple[torch.Tensor, torch.Tensor] | None,
    ) -> torch.Tensor:
        """The layer's output, [T, H]; of the first tokens alone, [N, H], in a first-token last layer."""
        residual_RH = hidden_TH
        if self._is_pre_norm and self._attention_norm is not None:
            hidden_TH = _normed(hidden_TH, self._attention_norm)
        heads = (-1, self._num_heads, self._head_size(hidden_TH))
        if self._first_only:
            residual_RH = residual_RH[firsts_N]
            first_NH = residual_RH if residual_RH is hidden_TH else hidden_TH[firsts_N]
            keys_TAD, values_TAD = (x.view(heads) for x in self._qkv(hidden_TH).chunk(2, dim=1))
            queries_RAD = self._query(first_NH).view(heads)
        else:
            queries_RAD, keys_TAD, values_TAD = (x.view(heads) for x in self._qkv(hidden_TH).chunk(3, dim=1))
        if table is not None:
            cos_TD, sin_TD = table
            keys_TAD = _rotated(keys_TAD, cos_TD, sin_TD)
            if self._first_only:
                cos_TD, sin_TD = cos_TD[firsts_N], sin_TD[firsts_N]
            queries_RAD = _rotated(queries_RAD, cos_TD, sin_TD)
        attended_RH = self._attend(queries_RAD, keys_TAD, values_TAD, groups)
        hidden_RH = self._attention_out.add(attended_RH, residual_RH)
        if self._is_pre_norm:
            return self._down.add(self._feed(_normed(hidden_RH, self._ffn_norm)), hidden_RH)
        if self._attention_norm is not None:
            hidden_RH = _normed(hidden_RH, self._attention_norm)
        return _normed(self._down.add(self._feed(hidden_RH), hidden_RH), self._ffn_norm)

    def _head_size(self, hidden_TH: torch.Tensor) -> int:
        return hidden_TH.shape[1] // self._num_heads

    def _feed(self, hidden_RH: torch.Tensor) -> torch.Tensor:
        """The inner half of the feed-forward, [R, I]."""
        if not self._gated:
            return self._up(hidden_RH, self._activation)
        inner_RI, gate_RI = self._up(hidden_RH).chunk(2, dim=1)
        return activate(inner_RI, self._activation).mul_(gate_RI)

    def _attend(
        self,
        queries_RAD: torch.Tensor,
        keys_TAD: torch.Tensor,
        values_TAD: torch.Tensor,
        groups: list[_Group],
    ) -> torch.Tensor:
        """Attention within each sequence, [R, H]; all queries, or those of the first tokens."""
        num_rows, num_heads, head_size = queries_RAD.shape
        out_RH = queries_RAD.new_empty((num_rows, num_heads * head_size))
        for group in groups:
            rows = group.sequences if self._first_only else group.tokens
            shape = (group.num_sequences, -1, num_heads, head_size)
            queries, keys, values = (
                x.view(shape).transpose(1, 2)
                for x in (queries_RAD[rows], keys_TAD[group.tokens], values_TAD[group.tokens])
            )
            attended = _attention(queries, keys, values, self._window)
            out_RH[rows] = attended.transpose(1, 2).reshape(-1, num_heads * head_size)
        if not self._first_only:
            # rows of no token: anything finite
            out_RH[groups[-1].tokens.stop :] = 0.0
        return out_RH


def _attention(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, window: int | None
) -> torch.Tensor:
    """Softmax attention of [n, A, L, D]; with a window, of tokens at most that far apart."""
    length = keys.shape[2]
    if window is None or length <= window + 1:
        return F.scaled_dot_product_attention(queries, keys, values)
    blocks = []
    for start in range(0, queries.shape[2], _WINDOW_BLOCK):
        stop = min(start + _WINDOW_BLOCK, queries.shape[2])
        low, high = max(0, start - window), min(length, stop + window)
        distance = torch.arange(start, stop)[:, None] - torch.arange(low, high)[None]
        blocks.append(
            F.scaled_dot_product_attention(
                queries[:, :, start:stop],
                keys[:, :, low:high],
                values[:, :, low:high],
                attn_mask=distance.abs() <= window,
            )
        )
    return torch.cat(blocks, dim=2)


def _side_by_side(batch: PackedBatch) -> tuple[PackedBatch, torch.Tensor | None]:
    """The batch with equal lengths side by side, and the order it was put in; None where it was so."""
    bounds = batch.cu_seqlens.numpy()
    lengths = np.diff(bounds)
    steps = np.diff(lengths)
    if bool((steps <= 0).all() or (steps >= 0).all()):
        return batch, None
    order = np.argsort(-lengths, kind="stable")
    where = torch.from_numpy(
        token_indices(bounds[:-1][order].astype(np.int64), lengths[order].astype(np.int64))
    )
    types = batch.token_type_ids_T
    sorted_batch = PackedBatch(
        input_ids_T=batch.input_ids_T[where],
        cu_seqlens=torch.from_numpy(np.concatenate([[0], np.cumsum(lengths[order])]).astype(np.int32)),
        max_seqlen=batch.max_seqlen,
        token_type_ids_T=None if types is None else types[where],
    )
    return sorted_batch, torch.from_numpy(order)


def _groups(batch: PackedBatch) -> list[_Group]:
    """The runs of equal lengths."""
    bounds = batch.cu_seqlens.numpy()
    lengths = np.diff(bounds)
    firsts = np.flatnonzero(np.diff(lengths, prepend=-1)).tolist()
    return [
        _Group(
            first_sequence=first,
            num_sequences=last - first,
            first_token=int(bounds[first]),
            length=int(lengths[first]),
        )
        for first, last in zip(firsts, [*firsts[1:], len(lengths)], strict=True)
    ]


def _rotary_table(
    rotary: Rotary,
    positions_T: torch.Tensor,
    num_rows: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine of each token's angles, [num_rows, 1, D]; rows of no token at position 0."""
    positions_T = F.pad(positions_T, (0, num_rows - positions_T.shape[0]))
    angles = positions_T[:, None].float() * rotary.inv_freq
    angles_TD = torch.cat([angles, angles], dim=1)[:, None]
    return angles_TD.cos(), angles_TD.sin()


def _rotated(x_RAD: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """X with each pair of its two halves turned by the token's angle."""
    left, right = x_RAD.chunk(2, dim=-1)
    return torch.cat([-right, left], dim=-1).mul_(sin).addcmul_(x_RAD, cos)


def _normed(x: torch.Tensor, norm: Norm) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps)
