"""Kernels that go over rows once: embeddings, norms, activations, rotary positions, fp8 rows.

All are bound by memory: each input is read once, each output written once, arithmetic in float32.
"""

import torch
import triton
import triton.language as tl

from assay.engine.kernels.ahead import launch
from assay.engine.kernels.kernels import EmbeddingTables, Quantized
from assay.engine.kernels.layout import BLOCK, DeviceBatch
from assay.model.parts import Activation, Norm

_EMBED_ROWS = 4
_FP8_MAX = tl.constexpr(448.0)


@triton.jit
def _row_norm(x, weight_ptr, bias_ptr, offsets, inside, eps, hidden, HAS_BIAS: tl.constexpr):
    """Layer norm of the rows of x [R, BH], of which `hidden` columns are real and the others 0."""
    mean = tl.sum(x, 1) / hidden
    centred = tl.where(inside[None, :], x - mean[:, None], 0.0)
    variance = tl.sum(centred * centred, 1) / hidden
    weight = tl.load(weight_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    y = centred * tl.rsqrt(variance + eps)[:, None] * weight[None, :]
    if HAS_BIAS:
        y += tl.load(bias_ptr + offsets, mask=inside, other=0.0).to(tl.float32)[None, :]
    return y


@triton.jit
def _embed_kernel(
    ids_ptr, types_ptr, positions_ptr, blocks_ptr,
    words_ptr, places_ptr, type_table_ptr, weight_ptr, bias_ptr, out_ptr, hidden, eps,
    HAS_PLACES: tl.constexpr, HAS_POSITIONS: tl.constexpr, HAS_TYPES: tl.constexpr,
    HAS_BIAS: tl.constexpr, ROWS: tl.constexpr, BH: tl.constexpr,
):  # fmt: skip
    first = tl.load(blocks_ptr + 4 * tl.program_id(0) + 2)
    length = tl.load(blocks_ptr + 4 * tl.program_id(0) + 3)
    place = tl.load(blocks_ptr + 4 * tl.program_id(0) + 1) + tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    here = place < length
    token = first + place
    offsets = tl.arange(0, BH)
    inside = offsets < hidden
    both = here[:, None] & inside[None, :]
    word = tl.load(ids_ptr + token, mask=here, other=0).to(tl.int64)
    x = tl.load(words_ptr + word[:, None] * hidden + offsets[None, :], mask=both, other=0.0).to(tl.float32)
    if HAS_PLACES:
        if HAS_POSITIONS:
            place = tl.load(positions_ptr + token, mask=here, other=0)
        x += tl.load(places_ptr + place[:, None] * hidden + offsets[None, :], mask=both, other=0.0).to(
            tl.float32
        )
    if HAS_TYPES:
        kind = tl.load(types_ptr + token, mask=here, other=0)
        x += tl.load(type_table_ptr + kind[:, None] * hidden + offsets[None, :], mask=both, other=0.0).to(
            tl.float32
        )
    y = _row_norm(x, weight_ptr, bias_ptr, offsets, inside, eps, hidden, HAS_BIAS)
    out_ptrs = out_ptr + token.to(tl.int64)[:, None] * hidden + offsets[None, :]
    tl.store(out_ptrs, y.to(out_ptr.dtype.element_ty), mask=both)


@triton.jit
def _norm_kernel(
    x_ptr, residual_ptr, added_ptr, weight_ptr, bias_ptr, out_ptr, fp8_ptr, scale_ptr, num_rows, hidden, eps,
    HAS_RESIDUAL: tl.constexpr, HAS_ADDED: tl.constexpr, HAS_BIAS: tl.constexpr, QUANTIZE: tl.constexpr,
    ROWS: tl.constexpr, BH: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    offsets = tl.arange(0, BH)
    inside = offsets < hidden
    both = (row < num_rows)[:, None] & inside[None, :]
    where = row[:, None] * hidden + offsets[None, :]
    x = tl.load(x_ptr + where, mask=both, other=0.0).to(tl.float32)
    if HAS_RESIDUAL:
        x += tl.load(residual_ptr + where, mask=both, other=0.0).to(tl.float32)
    if HAS_ADDED:
        x += tl.load(added_ptr + offsets, mask=inside, other=0.0).to(tl.float32)[None, :]
    y = _row_norm(x, weight_ptr, bias_ptr, offsets, inside, eps, hidden, HAS_BIAS)
    tl.store(out_ptr + where, y.to(out_ptr.dtype.element_ty), mask=both)
    if QUANTIZE:
        scale = tl.maximum(tl.max(tl.abs(y), 1), 1e-12) / _FP8_MAX
        tl.store(fp8_ptr + where, (y / scale[:, None]).to(tl.float8e4nv), mask=both)
        tl.store(scale_ptr + row, scale, mask=row < num_rows)


@triton.jit
def tanh_of(x, FAST: tl.constexpr):
    """Hyperbolic tangent, `FAST` by the device's own instruction (relative error 2^-11)."""
    if FAST:
        y = tl.inline_asm_elementwise(
            "tanh.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        y = 1.0 - 2.0 / (1.0 + tl.exp2(x * 2.8853900817779268))
    return y


@triton.jit
def activated(x, KIND: tl.constexpr, FAST: tl.constexpr):
    """The activation of float32 x."""
    if KIND == "gelu":
        y = 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    elif KIND == "gelu_tanh":
        y = 0.5 * x * (1.0 + tanh_of(x * (0.7978845608028654 + 0.035677408136300125 * x * x), FAST))
    elif KIND == "relu":
        y = tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)
    elif KIND == "none":
        y = x
    elif KIND == "silu":
        y = x / (1.0 + tl.exp2(-x * 1.4426950408889634))
    else:
        y = tanh_of(x, FAST)
    return y


@triton.jit
def _activate_kernel(
    x_ptr, out_ptr, num_rows, width, stride, KIND: tl.constexpr, GATED: tl.constexpr, BLOCK_ROWS: tl.constexpr,
    BW: tl.constexpr, FAST: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    offsets = tl.program_id(1) * BW + tl.arange(0, BW)
    both = (row < num_rows)[:, None] & (offsets < width)[None, :]
    places = x_ptr + row[:, None] * stride + offsets[None, :]
    y = activated(tl.load(places, mask=both, other=0.0).to(tl.float32), KIND, FAST)
    if GATED:
        y *= tl.load(places + width, mask=both, other=0.0).to(tl.float32)
    tl.store(out_ptr + row[:, None] * width + offsets[None, :], y.to(out_ptr.dtype.element_ty), mask=both)


@triton.jit
def _activate_quantize_kernel(
    x_ptr, fp8_ptr, scale_ptr, width, KIND: tl.constexpr, FAST: tl.constexpr, BW: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    offsets = tl.arange(0, BW)
    inside = offsets < width
    x = tl.load(x_ptr + row * width + offsets, mask=inside, other=0.0).to(tl.float32)
    y = tl.where(inside, activated(x, KIND, FAST), 0.0)
    scale = tl.maximum(tl.max(tl.abs(y), 0), 1e-12) / _FP8_MAX
    tl.store(fp8_ptr + row * width + offsets, (y / scale).to(tl.float8e4nv), mask=inside)
    tl.store(scale_ptr + row, scale)


@triton.jit
def _rotate_kernel(
    x_ptr, angles_ptr, blocks_ptr, width, num_positions,
    HALF: tl.constexpr, BHALF: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    first = tl.load(blocks_ptr + 4 * tl.program_id(0) + 2)
    length = tl.load(blocks_ptr + 4 * tl.program_id(0) + 3)
    place = tl.load(blocks_ptr + 4 * tl.program_id(0) + 1) + tl.arange(0, BM)
    offsets = tl.arange(0, BHALF)
    both = (place < length)[:, None] & (offsets < HALF)[None, :]
    angle_ptrs = angles_ptr + place[:, None] * HALF + offsets[None, :]
    cos = tl.load(angle_ptrs, mask=both, other=0.0)
    sin = tl.load(angle_ptrs + num_positions * HALF, mask=both, other=0.0)
    token = (first + place).to(tl.int64)
    left_ptrs = x_ptr + token[:, None] * width + tl.program_id(1) * 2 * HALF + offsets[None, :]
    left = tl.load(left_ptrs, mask=both, other=0.0).to(tl.float32)
    right = tl.load(left_ptrs + HALF, mask=both, other=0.0).to(tl.float32)
    tl.store(left_ptrs, (left * cos - right * sin).to(x_ptr.dtype.element_ty), mask=both)
    tl.store(left_ptrs + HALF, (right * cos + left * sin).to(x_ptr.dtype.element_ty), mask=both)


@triton.jit
def _mean_kernel(x_ptr, bounds_ptr, out_ptr, hidden, ROWS: tl.constexpr, BW: tl.constexpr):
    sequence = tl.program_id(0)
    first = tl.load(bounds_ptr + sequence)
    length = tl.load(bounds_ptr + sequence + 1) - first
    offsets = tl.program_id(1) * BW + tl.arange(0, BW)
    inside = offsets < hidden
    total = tl.zeros([BW], tl.float32)
    for start in range(0, length, ROWS):
        row = start + tl.arange(0, ROWS)
        places = x_ptr + (first + row).to(tl.int64)[:, None] * hidden + offsets[None, :]
        x = tl.load(places, mask=(row < length)[:, None] & inside[None, :], other=0.0)
        total += tl.sum(x.to(tl.float32), 0)
    tl.store(out_ptr + sequence.to(tl.int64) * hidden + offsets, total / length, mask=inside)


def embed(batch: DeviceBatch, tables: EmbeddingTables) -> torch.Tensor:
    """Return the normalised embeddings [T, H]; see `Kernels.embed`."""
    hidden = tables.words.shape[1]
    out = tables.words.new_empty((batch.num_rows, hidden))
    types = batch.token_types_T if tables.types is not None else None
    grid = (batch.blocks_B4.shape[0], BLOCK // _EMBED_ROWS)
    launch(_embed_kernel, grid)(
        batch.input_ids_T, types, batch.positions_T, batch.blocks_B4,
        tables.words, tables.positions, tables.types, tables.norm.weight, tables.norm.bias, out,
        hidden, tables.norm.eps,
        HAS_PLACES=tables.positions is not None, HAS_POSITIONS=batch.positions_T is not None,
        HAS_TYPES=types is not None, HAS_BIAS=tables.norm.bias is not None,
        ROWS=_EMBED_ROWS, BH=triton.next_power_of_2(hidden), num_warps=4,
    )  # fmt: skip
    return out


def norm_rows(
    x_RH: torch.Tensor,
    norm: Norm,
    *,
    out: torch.Tensor,
    residual: torch.Tensor | None = None,
    added: torch.Tensor | None = None,
    quantized: Quantized | None = None,
    tile: tuple[int, int] | None = None,
) -> None:
    """Write the layer norm of x + residual + added to `out`, and in fp8 to `quantized`.

    x, residual and out are [R, H], added [H]; out may be x. `tile` is (rows a program, warps).
    """
    num_rows, hidden = x_RH.shape
    padded = triton.next_power_of_2(hidden)
    rows, warps = tile or (max(1, 4096 // padded), 4)
    launch(_norm_kernel, (triton.cdiv(num_rows, rows),))(
        x_RH, residual, added, norm.weight, norm.bias, out,
        quantized.values if quantized else None, quantized.scales if quantized else None,
        num_rows, hidden, norm.eps,
        HAS_RESIDUAL=residual is not None, HAS_ADDED=added is not None, HAS_BIAS=norm.bias is not None,
        QUANTIZE=quantized is not None, ROWS=rows, BH=padded, num_warps=warps,
    )  # fmt: skip


def activate_rows(x_RI: torch.Tensor, activation: Activation, *, gated: bool, out: torch.Tensor) -> None:
    """Write activation(x) to `out`, or, gated, activation(first half of the columns) * second half."""
    num_rows, width = out.shape
    # the largest power of two in the width: no lane of a block is idle
    block_width = max(64, min(1024, width & -width))
    block_rows = max(1, 4096 // block_width)
    grid = (triton.cdiv(num_rows, block_rows), triton.cdiv(width, block_width))
    launch(_activate_kernel, grid)(
        x_RI, out, num_rows, width, x_RI.shape[1], KIND=activation, GATED=gated,
        BLOCK_ROWS=block_rows, BW=block_width, FAST=is_fast(x_RI), num_warps=4,
    )  # fmt: skip


def activate_quantize(x_RI: torch.Tensor, activation: Activation | None) -> Quantized:
    """Return activation(x), or x, in fp8, scaled by row."""
    num_rows, width = x_RI.shape
    quantized = empty_quantized(x_RI)
    padded = triton.next_power_of_2(width)
    launch(_activate_quantize_kernel, (num_rows,))(
        x_RI, quantized.values, quantized.scales, width, KIND=activation or "none", FAST=is_fast(x_RI), BW=padded,
        num_warps=max(1, min(8, padded // 512)),
    )  # fmt: skip
    return quantized


def is_fast(x: torch.Tensor) -> bool:
    """Return whether instructions that keep 11 bits are exact enough for x, and there."""
    return x.is_cuda and x.dtype != torch.float32


def empty_quantized(like: torch.Tensor) -> Quantized:
    """Return unwritten fp8 rows of the shape of `like`."""
    return Quantized(
        values=torch.empty_like(like, dtype=torch.float8_e4m3fn),
        scales=like.new_empty((like.shape[0], 1), dtype=torch.float32),
    )


def mean(hidden_TH: torch.Tensor, batch: DeviceBatch) -> torch.Tensor:
    """Return the mean of each sequence's rows, float32 [N, H]; of a sequence of no token anything."""
    hidden = hidden_TH.shape[1]
    out = hidden_TH.new_empty((batch.num_sequences, hidden), dtype=torch.float32)
    launch(_mean_kernel, (batch.num_sequences, triton.cdiv(hidden, 128)))(
        hidden_TH, batch.cu_seqlens, out, hidden, ROWS=32, BW=128, num_warps=4
    )
    return out


def rotate(x_TH: torch.Tensor, batch: DeviceBatch, angles: torch.Tensor, num_heads: int) -> None:
    """Turn the first heads of each row in place by its position; see `Kernels.rotate`."""
    half = angles.shape[2]
    launch(_rotate_kernel, (batch.blocks_B4.shape[0], num_heads))(
        x_TH, angles, batch.blocks_B4, x_TH.shape[1], angles.shape[1],
        HALF=half, BHALF=triton.next_power_of_2(half), BM=BLOCK, num_warps=4,
    )  # fmt: skip
