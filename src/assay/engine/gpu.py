"""The packed engine for CUDA devices: BERT, RoBERTa and kin, DistilBERT, ELECTRA, ModernBERT.

Tokens of all documents lie end to end and nothing is padded but the end of the batch, which brings
batches to few shapes. Matrix products are the libraries'; the rest is `engine/kernels`. Nothing waits
for the device within `forward`: ids go through pinned buffers on a stream of their own, logits stay
on the device. In the last layer of a first-token classifier only keys and values see every token.

Axes: T rows of the batch (tokens, and rows that fill it up), N sequences, R rows, H hidden, I
intermediate, D of a head, C outputs.
"""

import importlib.util
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling

from assay.engine.engine import Engine
from assay.engine.gpu_layers import (
    FirstTokenLayer,
    Fp8PostNormLayer,
    Hidden,
    Layer,
    PostNormLayer,
    PreNormLayer,
    in_blocks,
)
from assay.engine.graphs import Graphs
from assay.engine.kernels.kernels import EmbeddingTables, Kernels
from assay.engine.kernels.layout import DeviceBatch, rounded
from assay.engine.kernels.plain import PlainKernels
from assay.engine.staging import PadPositions, Staging
from assay.garbage import not_collecting
from assay.model.families import EncoderWeights, LayerWeights, moved
from assay.model.heads import attention_of
from assay.model.packing import PackedBatch, pack
from assay.model.parts import Linear

KernelChoice = Literal["auto", "triton", "plain"]

ROWS_PER_PROCESSOR = 2048
"""Rows of a batch for each multiprocessor: the tiles of every product then fill the device evenly, and fewer kernels
wait for the last tiles of the one before."""
PRE_NORM_ROWS_PER_PROCESSOR = 1024
"""The same for pre-norm families, which were measured with it."""
DETERMINISTIC_ROWS = 16_384
"""Rows of every batch of a deterministic engine."""
_FIRST_ROWS = 1024
"""First tokens of one product of a deterministic engine."""
_PROBE_ROWS = 8192
FP8_COLUMNS = 256
"""Columns of a tile of the fp8 product that applies the activation."""
_MEMORY_SHARE = 0.4
"""Of the free memory that a batch may take; its graph takes as much again."""


class GpuPackedEngine:
    """Packed forward passes on a CUDA device, from the plain weights of a known family."""

    name = "gpu-packed"
    packed = True
    wants_sorted = False
    fp32: Callable[[], Engine] | None = None

    def __init__(
        self,
        weights: EncoderWeights,
        *,
        device: torch.device,
        dtype: torch.dtype,
        fp8: bool = False,
        deterministic: bool = False,
        kernels: KernelChoice = "auto",
    ) -> None:
        """Lay out `weights` (float32, anywhere) on `device` in `dtype`; products in fp8 with `fp8`.

        A `deterministic` engine gives a document the same bits whatever it is batched with, in batches of one shape.
        """
        self.output_shape = weights.head.output_shape
        self.max_length = weights.max_length
        self.vocab_size = weights.word_embeddings.shape[0]
        self.num_padded_tokens = 0
        self._family = weights.family
        self._device = device
        self._dtype = dtype
        self._fp8 = fp8
        self.deterministic = deterministic
        self._kernels = choose_kernels(device, kernels)
        self._head = moved(weights.head, device, torch.float32)
        self._angles = _angles(weights, device)
        weights = moved(_with_scaled_queries(weights), device, dtype)
        self._tables, pads = embedding_tables(weights)
        self._staging = Staging(device, pads)
        self._projection = weights.projection
        self._layers = [self._make_layer(layer, weights) for layer in weights.layers]
        if weights.head.pooling == "first":
            self._layers[-1] = FirstTokenLayer(
                weights.layers[-1],
                weights,
                self._kernels,
                rows_at_once=_FIRST_ROWS if deterministic else None,
            )
        self._pooling = weights.head.pooling
        self._attention = attention_of(self._head)
        self._final_norm = weights.final_norm
        self._compute: Callable[[DeviceBatch], torch.Tensor] = self._logits
        # plain kernels look at the batch, so nothing of it may be made up
        self._in_few_shapes = not isinstance(self._kernels, PlainKernels)
        self.default_batch_tokens = DETERMINISTIC_ROWS if deterministic else _PROBE_ROWS
        each = self._probe()
        if device.type == "cuda" and not deterministic:
            rows = PRE_NORM_ROWS_PER_PROCESSOR if weights.is_pre_norm else ROWS_PER_PROCESSOR
            self.default_batch_tokens = _budget(device, each, rows_per_processor=rows)
        if device.type == "cuda" and self._in_few_shapes:
            self._compute = Graphs(self._logits, device)
        self.num_padded_tokens = 0

    @property
    def device_seconds(self) -> float:
        """Seconds that the device worked on batches; waits until it is done."""
        return self._staging.device_seconds()

    @torch.inference_mode()
    def forward(self, batch: PackedBatch) -> torch.Tensor:
        """Return the outputs, float32 [N, *output_shape] on the device, perhaps still being computed."""
        if batch.num_sequences == 0:
            return torch.empty((0, *self.output_shape))
        if self.deterministic:
            # kernels choose their steps by it
            batch = replace(batch, max_seqlen=self.max_length)
        with self._staging.put(
            batch, self._num_rows(batch.num_tokens), in_few_shapes=self._in_few_shapes
        ) as placed:
            self.num_padded_tokens += placed.num_rows - batch.num_tokens
            return self._compute(placed)[: batch.num_sequences]

    def description(self) -> str:
        """Return one line: the family, the device, the precision and the kernels."""
        dtype = str(self._dtype).removeprefix("torch.")
        precision = f"fp8 products, {dtype} else" if self._fp8 else dtype
        exact = ", deterministic" if self.deterministic else ""
        where = torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else "CPU"
        return (
            f"packed {self._family} on {self._device} ({where}), {precision}, {self._kernels.name}, "
            f"batches of {self.default_batch_tokens:,} tokens{exact}"
        )

    def _make_layer(self, layer: LayerWeights, weights: EncoderWeights) -> Layer:
        if weights.is_pre_norm:
            return PreNormLayer(layer, weights, self._kernels)
        kind = Fp8PostNormLayer if self._fp8 else PostNormLayer
        return kind(layer, weights, self._kernels)

    def _num_rows(self, num_tokens: int) -> int:
        """Rows of the batch: few distinct numbers, so that shapes recur."""
        if self.deterministic and num_tokens <= DETERMINISTIC_ROWS:
            return DETERMINISTIC_ROWS
        budget = self.default_batch_tokens
        if 0.97 * budget < num_tokens <= budget:
            return budget
        return rounded(max(num_tokens, 64)) if num_tokens <= _PROBE_ROWS else -(-num_tokens // 1024) * 1024

    def _logits(self, batch: DeviceBatch) -> torch.Tensor:
        """The logits [N, C]; neither waits for the device nor looks at what is on it."""
        hidden_TH = self._kernels.embed(batch, self._tables)
        if self._projection is not None:
            hidden_TH = F.linear(hidden_TH, self._projection.weight, self._projection.bias)
        hidden = Hidden(values_TH=hidden_TH)
        for layer, angles in zip(self._layers, self._angles, strict=True):
            hidden = layer(hidden, batch, angles)
        pooled_NH = self._pooled(hidden.values_TH, batch).float()
        return in_blocks(self._head, pooled_NH, rows=_FIRST_ROWS if self.deterministic else None)

    def _pooled(self, hidden_RH: torch.Tensor, batch: DeviceBatch) -> torch.Tensor:
        """The pooled hidden states [N, H]; after a first-token layer they are there already."""
        if self._final_norm is not None:
            hidden_RH = self._kernels.norm(hidden_RH, self._final_norm)
        if self._pooling == "first":
            return hidden_RH
        if self._attention is None:
            return self._kernels.mean(hidden_RH, batch)
        weights_T1 = softmax_terms(self._attention(hidden_RH), batch)[:, None]
        sums_NH = self._kernels.mean(hidden_RH.float() * weights_T1, batch)
        # as wide as the states, so that it is the kernel that is there already
        return sums_NH / self._kernels.mean(weights_T1.expand_as(hidden_RH).contiguous(), batch)

    def _probe(self) -> float:
        """Run a made-up batch, which loads the kernels and settles fp8's scales; bytes that a row took."""
        generator = torch.Generator().manual_seed(0)
        length = min(128, self.max_length)
        num_rows = _PROBE_ROWS if self._device.type == "cuda" else length
        ids = torch.randint(0, self.vocab_size, (num_rows // length, length), generator=generator)
        if self._device.type != "cuda":
            self.forward(pack(ids.tolist()))
            return 0.0
        with not_collecting():  # another engine that ended meanwhile would hide what this one takes
            torch.cuda.reset_peak_memory_stats(self._device)
            before = torch.cuda.memory_allocated(self._device)
            made_up = pack(ids.tolist())
            if not self._fp8:  # which takes its scales from the first results
                with self._kernels.compiled_ahead(self._device):
                    self.forward(made_up)
            self.forward(made_up)
            torch.cuda.synchronize(self._device)
            return (torch.cuda.max_memory_allocated(self._device) - before) / num_rows


def _budget(device: torch.device, bytes_a_row: float, *, rows_per_processor: int) -> int:
    """Rows of a batch that suit the device and fit into its memory, by what the probe's took.

    Other threads allocate and free on the device too, so that the probe may have found nothing.
    """
    processors = torch.cuda.get_device_properties(device).multi_processor_count
    free, _ = torch.cuda.mem_get_info(device)
    fitting = int(free * _MEMORY_SHARE / max(bytes_a_row, 1.0)) // _PROBE_ROWS * _PROBE_ROWS
    return min(processors * rows_per_processor, max(_PROBE_ROWS, fitting))


def softmax_terms(scores_T: torch.Tensor, batch: DeviceBatch) -> torch.Tensor:
    """Return exp(score - the largest score of the token's sequence), float32 [T]; 0 for rows of no token.

    Neither waits for the device nor looks at what is on it.
    """
    # bounds behind the last sequence are 0
    bounds = batch.cu_seqlens.cummax(0).values
    places_T = torch.arange(batch.num_rows, dtype=bounds.dtype, device=bounds.device)
    sequence_T = torch.searchsorted(bounds, places_T, right=True) - 1
    is_token_T = places_T < bounds[-1]
    # rows of no token hold anything, NaN too
    scores_T = torch.where(is_token_T, scores_T, 0.0)
    largest = torch.full((bounds.shape[0],), -torch.inf, device=scores_T.device)
    largest = largest.scatter_reduce(0, sequence_T, scores_T, "amax")
    return torch.where(is_token_T, (scores_T - largest[sequence_T]).exp(), 0.0)


def choose_kernels(device: torch.device, choice: KernelChoice) -> Kernels:
    """Return Triton's kernels where they are asked for or can run, else the plain ones."""
    can = device.type == "cuda" and importlib.util.find_spec("triton") is not None
    if choice == "plain" or (choice == "auto" and not can):
        return PlainKernels()
    from assay.engine.kernels.triton_kernels import TritonKernels

    return TritonKernels()


def why_not_fp8(weights: EncoderWeights) -> str | None:
    """Return why these weights do not run in fp8, in a few words; None where they do."""
    if weights.is_pre_norm:
        return f"{weights.family} has no fp8 path"
    sizes = (*weights.layers[0].up.weight.shape, *weights.layers[0].qkv.weight.shape)
    if any(size % 16 for size in sizes):
        return "fp8 products need sizes that are multiples of 16"
    if weights.layers[0].up.weight.shape[0] % FP8_COLUMNS:
        return f"the fp8 feed-forward needs an intermediate size that is a multiple of {FP8_COLUMNS}"
    return None


def embedding_tables(weights: EncoderWeights) -> tuple[EmbeddingTables, PadPositions | None]:
    """Return the tables that the embedding kernel sums, and how pad ids inside a text are numbered."""
    positions, types, pads = weights.position_embeddings, weights.token_type_embeddings, None
    if positions is not None:
        if weights.pad_position is not None and weights.pad_token_id is not None:
            pads = PadPositions(pad_token_id=weights.pad_token_id, pad_row=positions.shape[0])
            positions = torch.cat([positions, weights.pad_position[None]])
        if types is not None:
            # type 0 is in every position's row, so that only second segments pay for types
            positions = positions + types[0]
            types = types - types[0] if types.shape[0] > 1 else None
    tables = EmbeddingTables(
        words=weights.word_embeddings, positions=positions, types=types, norm=weights.embedding_norm
    )
    return tables, pads


def _with_scaled_queries(weights: EncoderWeights) -> EncoderWeights:
    """The weights with log2(e) / sqrt(D) in the queries, before they are rounded to half precision."""

    def scaled(linear: Linear) -> Linear:
        width = linear.weight.shape[0] // 3
        factors = torch.ones(3 * width, device=linear.weight.device)
        factors[:width] = math.log2(math.e) / math.sqrt(width / weights.num_heads)
        return Linear(
            weight=linear.weight.float() * factors[:, None],
            bias=None if linear.bias is None else linear.bias.float() * factors,
        )

    return replace(weights, layers=tuple(replace(layer, qkv=scaled(layer.qkv)) for layer in weights.layers))


def _angles(weights: EncoderWeights, device: torch.device) -> list[torch.Tensor | None]:
    """For each layer cosines and sines of its rotary positions, float32 [2, positions, D / 2]."""
    made: dict[int, torch.Tensor] = {}
    found: list[torch.Tensor | None] = []
    for layer in weights.layers:
        if layer.rotary is None:
            found.append(None)
            continue
        key = id(layer.rotary)
        if key not in made:
            places = torch.arange(weights.max_length, dtype=torch.float32)
            angles = places[:, None] * layer.rotary.inv_freq.float().cpu()
            made[key] = torch.stack([angles.cos(), angles.sin()]).to(device)
        found.append(made[key])
    return found
