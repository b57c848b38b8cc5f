"""The packed engine for DeBERTa-v2 and v3: disentangled attention over tokens laid end to end.

Everything but embeddings and attention is BERT's, see gpu_layers.py. What each token meets at each
distance is worked out for all tokens at once, as far as the batch's longest sequence reaches, so that
batches of like lengths are faster.

Axes: T rows of the batch (tokens, and rows that fill it up), N sequences, H hidden, C outputs.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling

from assay.engine.engine import Engine
from assay.engine.gpu import KernelChoice, choose_kernels
from assay.engine.gpu_layers import FeedForward
from assay.engine.kernels import disentangled
from assay.engine.kernels.disentangled import Distances
from assay.engine.kernels.kernels import Kernels
from assay.engine.kernels.layout import DeviceBatch
from assay.engine.kernels.plain import PlainKernels
from assay.engine.staging import Staging
from assay.model.deberta import DebertaWeights, PositionWeights
from assay.model.families import EncoderWeights, LayerWeights, moved
from assay.model.packing import PackedBatch

ROWS_PER_PROCESSOR = 256
"""Rows of a batch for each multiprocessor: a quarter of BERT's, for what tokens meet takes much memory."""
_CPU_ROWS = 2048
_STEP = 1024
"""Rows of a large batch are a multiple of it."""
_MEMORY_SHARE = 0.25
"""Of the free memory that what the tokens of a batch meet may take."""

Attention = Callable[..., torch.Tensor]


class GpuDebertaEngine:
    """Packed forward passes of a DeBERTa-v2 or v3 classifier on a CUDA device."""

    name = "gpu-deberta"
    packed = True
    wants_sorted = True
    deterministic = False
    fp32: Callable[[], Engine] | None = None

    def __init__(
        self,
        weights: DebertaWeights,
        *,
        device: torch.device,
        dtype: torch.dtype,
        kernels: KernelChoice = "auto",
    ) -> None:
        """Lay out `weights` on `device` in `dtype`; "plain" kernels run on any device."""
        encoder = weights.encoder
        self.output_shape = encoder.head.output_shape
        self.max_length = encoder.max_length
        self.vocab_size = encoder.word_embeddings.shape[0]
        self.num_padded_tokens = 0
        self._family = encoder.family
        self._device = device
        self._dtype = dtype
        self._kernels = choose_kernels(device, kernels)
        self._staging = Staging(device)
        self._head = moved(encoder.head, device, torch.float32)
        self._encoder = moved(encoder, device, dtype)
        projection = weights.embedding_projection
        self._projection = None if projection is None else moved(projection, device, dtype)
        *middle, last = [
            self._attention(moved(positions, device, dtype), weights) for positions in weights.positions
        ]
        self._layers = [
            _DisentangledLayer(layer, self._encoder, self._kernels, attention)
            for layer, attention in zip(self._encoder.layers[:-1], middle, strict=True)
        ]
        self._last = _LastLayer(self._encoder.layers[-1], self._encoder, self._kernels, last)
        self.default_batch_tokens = self._budget(last.distances)

    @property
    def device_seconds(self) -> float:
        """Seconds that the device worked on batches; waits until it is done."""
        return self._staging.device_seconds()

    @torch.inference_mode()
    def forward(self, batch: PackedBatch) -> torch.Tensor:
        """Return the outputs, float32 [N, *output_shape] on the device, perhaps still being computed."""
        if batch.num_sequences == 0:
            return torch.empty((0, *self.output_shape))
        with self._staging.put(batch, self._num_rows(batch.num_tokens)) as placed:
            self.num_padded_tokens += placed.num_rows - batch.num_tokens
            hidden_TH = self._embed(placed)
            for layer in self._layers:
                hidden_TH = layer(hidden_TH, placed)
            logits_NC: torch.Tensor = self._head(self._last(hidden_TH, placed).float())
            return logits_NC

    def description(self) -> str:
        """Return one line: the family, the device, the precision and the kernels."""
        dtype = str(self._dtype).removeprefix("torch.")
        where = torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else "CPU"
        return (
            f"packed {self._family} on {self._device} ({where}), {dtype}, {self._kernels.name}, "
            f"batches of {self.default_batch_tokens:,} tokens"
        )

    def _num_rows(self, num_tokens: int) -> int:
        """Rows of the batch: on a GPU few distinct numbers, so that memory is used again."""
        if self._device.type == "cpu":
            return num_tokens
        step = _STEP if num_tokens > 8 * _STEP else _STEP // 8
        return -(-num_tokens // step) * step

    def _attention(self, positions: PositionWeights, weights: DebertaWeights) -> "_Attention":
        num_heads = weights.encoder.num_heads
        head_size = weights.encoder.layers[0].attention_out.weight.shape[1] // num_heads
        return _Attention(
            Distances.of(positions.keys_APD, positions.queries_APD, weights.relative_rows),
            num_heads=num_heads,
            scale=weights.score_scale,
            in_triton=not isinstance(self._kernels, PlainKernels) and head_size in disentangled.HEAD_SIZES,
        )

    def _embed(self, batch: DeviceBatch) -> torch.Tensor:
        """The first layer's input [T, H]; rows of no token are anything."""
        encoder = self._encoder
        hidden_TH = F.embedding(batch.input_ids_T, encoder.word_embeddings)
        if encoder.position_embeddings is not None:
            hidden_TH += F.embedding(_positions(batch, self.max_length), encoder.position_embeddings)
        types = encoder.token_type_embeddings
        if types is not None:
            kinds_T = batch.token_types_T
            hidden_TH += types[0] if kinds_T is None else F.embedding(kinds_T, types)
        if self._projection is not None:
            hidden_TH = F.linear(hidden_TH, self._projection.weight, self._projection.bias)
        return self._kernels.norm(hidden_TH, encoder.embedding_norm, in_place=True)

    def _budget(self, distances: Distances) -> int:
        """Rows of a batch that suit the device; what they meet, at its largest, fits into its memory."""
        if self._device.type != "cuda":
            return _CPU_ROWS
        free, _ = torch.cuda.mem_get_info(self._device)
        tables = [x for x in (distances.keys_AXD, distances.queries_AXD) if x is not None]
        row_bytes = sum(x.shape[0] * x.shape[1] * x.element_size() for x in tables)
        fitting = int(free * _MEMORY_SHARE / row_bytes) if row_bytes else 1 << 30
        processors = torch.cuda.get_device_properties(self._device).multi_processor_count
        return max(self.max_length, min(processors * ROWS_PER_PROCESSOR, fitting))


class _Attention:
    """Disentangled attention with the positions of one layer."""

    def __init__(self, distances: Distances, *, num_heads: int, scale: float, in_triton: bool) -> None:
        self.distances = distances
        self._num_heads = num_heads
        self._scale = scale
        self._attend: Attention = disentangled.attention
        self._attend_first: Attention = disentangled.first_attention
        if in_triton:
            from assay.engine.kernels import triton_disentangled

            self._attend = triton_disentangled.attention
            self._attend_first = triton_disentangled.first_attention

    def of_all(self, qkv_TH: torch.Tensor, batch: DeviceBatch) -> torch.Tensor:
        """Attention of every token, [T, H]."""
        return self._attend(qkv_TH, self.distances, batch, num_heads=self._num_heads, scale=self._scale)

    def of_first(
        self, queries_NH: torch.Tensor, keys_values_TH: torch.Tensor, batch: DeviceBatch
    ) -> torch.Tensor:
        """Attention of first tokens alone, [N, H]."""
        return self._attend_first(
            queries_NH, keys_values_TH, self.distances, batch, num_heads=self._num_heads, scale=self._scale
        )


class _DisentangledLayer:
    """One encoder layer; each half is normed after its input is added."""

    def __init__(
        self, layer: LayerWeights, encoder: EncoderWeights, kernels: Kernels, attention: _Attention
    ) -> None:
        self._qkv = layer.qkv
        self._attention = attention
        self._rest = _Rest(layer, encoder, kernels)

    def __call__(self, hidden_TH: torch.Tensor, batch: DeviceBatch) -> torch.Tensor:
        """Return the layer's output [T, H]; the input's memory is used again."""
        qkv_TH = F.linear(hidden_TH, self._qkv.weight, self._qkv.bias)
        return self._rest(self._attention.of_all(qkv_TH, batch), hidden_TH)


class _LastLayer:
    """The last layer: keys and values of all tokens, the rest of N first ones."""

    def __init__(
        self, layer: LayerWeights, encoder: EncoderWeights, kernels: Kernels, attention: _Attention
    ) -> None:
        width = layer.attention_out.weight.shape[1]
        self._query = layer.qkv.rows(slice(0, width))
        self._keys_values = layer.qkv.rows(slice(width, None))
        self._attention = attention
        self._rest = _Rest(layer, encoder, kernels)

    def __call__(self, hidden_TH: torch.Tensor, batch: DeviceBatch) -> torch.Tensor:
        """Return the layer's output of the first tokens, [N, H]."""
        keys_values_TH = F.linear(hidden_TH, self._keys_values.weight, self._keys_values.bias)
        first_NH = hidden_TH[batch.cu_seqlens[:-1].long()]
        queries_NH = F.linear(first_NH, self._query.weight, self._query.bias)
        return self._rest(self._attention.of_first(queries_NH, keys_values_TH, batch), first_NH)


class _Rest:
    """What follows the attention in a layer."""

    def __init__(self, layer: LayerWeights, encoder: EncoderWeights, kernels: Kernels) -> None:
        self._layer = layer
        self._feed = FeedForward(layer, encoder, kernels)
        self._kernels = kernels

    def __call__(self, attended_RH: torch.Tensor, residual_RH: torch.Tensor) -> torch.Tensor:
        """Return the layer's output; the residual's memory is used again."""
        layer, kernels = self._layer, self._kernels
        assert layer.attention_norm is not None, "DeBERTa norms after attention"
        # a bias is added where the norm reads the sum: one pass less
        residual_RH.addmm_(attended_RH, layer.attention_out.weight.t())
        hidden_RH = kernels.norm(
            residual_RH, layer.attention_norm, bias=layer.attention_out.bias, in_place=True
        )
        inner_RI = self._feed.inner(hidden_RH)
        hidden_RH.addmm_(inner_RI, layer.down.weight.t())
        return kernels.norm(hidden_RH, layer.ffn_norm, bias=layer.down.bias, in_place=True)


def _positions(batch: DeviceBatch, max_length: int) -> torch.Tensor:
    """Position of each token in its sequence, [T]; rows of no token have some position."""
    places_T = torch.arange(batch.num_rows, dtype=torch.int32, device=batch.cu_seqlens.device)
    sequence_T = torch.searchsorted(batch.cu_seqlens, places_T, right=True) - 1
    return (places_T - batch.cu_seqlens[sequence_T]).clamp_max(max_length - 1)
