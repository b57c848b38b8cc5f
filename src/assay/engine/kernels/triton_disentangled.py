"""Disentangled attention over packed sequences in Triton: a program takes one block of queries of one head.

What each token meets at each distance are two matrix products before the kernel, [A, T, X]. With a row
of memory for each token t and a column for each distance d, the place of (t, t + d) is t * X + d: over
t and t + d that is a matrix again, of X - 1 columns, whose tiles the kernel reads like any other. The
keys' is read as [keys, queries] and turned. Softmax is kept online in float32.

Axes: T rows of the batch, N sequences, H hidden, A heads, D of a head, X distances.
"""

import math

import torch
import triton
import triton.language as tl

from assay.engine.kernels.ahead import launch
from assay.engine.kernels.disentangled import Distances
from assay.engine.kernels.layout import BLOCK, DeviceBatch

_LOWEST = tl.constexpr(-1.0e30)


@triton.jit
def _attention_kernel(
    qkv_ptr, c2p_ptr, p2c_ptr, out_ptr, blocks_ptr,
    num_rows, hidden, reach, scale,
    C2P: tl.constexpr, P2C: tl.constexpr,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    block_ptr = blocks_ptr + 4 * tl.program_id(0)
    start = tl.load(block_ptr + 1)
    first = tl.load(block_ptr + 2)
    length = tl.load(block_ptr + 3)
    head = tl.program_id(1)
    stride = 3 * hidden
    base = qkv_ptr + first.to(tl.int64) * stride + head * D
    # token t of the sequence and distance d to another: at [head, first + t, reach + d]
    met = (head.to(tl.int64) * num_rows + first) * (2 * reach) + reach
    query = start + tl.arange(0, BM)
    offsets_d = tl.arange(0, D)
    is_query = query < length
    q = tl.load(base + query[:, None] * stride + offsets_d[None, :], mask=is_query[:, None], other=0.0)
    m = tl.full([BM], _LOWEST, tl.float32)
    total = tl.zeros([BM], tl.float32)
    acc = tl.zeros([BM, D], tl.float32)
    for begin in range(0, length, BN):
        key = begin + tl.arange(0, BN)
        is_key = key < length
        k = tl.load(
            base + hidden + key[None, :] * stride + offsets_d[:, None], mask=is_key[None, :], other=0.0
        )
        v = tl.load(
            base + 2 * hidden + key[:, None] * stride + offsets_d[None, :], mask=is_key[:, None], other=0.0
        )
        # the positions' terms first, so that the product adds to them and all that follows keeps its layout
        scores = tl.zeros([BM, BN], tl.float32)
        if C2P:
            places = query[:, None] * (2 * reach - 1) + key[None, :]
            by_query = tl.load(c2p_ptr + met + places, mask=is_query[:, None] & is_key[None, :], other=0.0)
            scores += by_query.to(tl.float32)
        if P2C:
            places = key[:, None] * (2 * reach - 1) + query[None, :]
            by_key = tl.load(p2c_ptr + met + places, mask=is_key[:, None] & is_query[None, :], other=0.0)
            scores += tl.trans(by_key).to(tl.float32)
        scores = tl.dot(q, k, scores, input_precision=PRECISION)
        scores = tl.where(is_key[None, :], scores * scale, _LOWEST)
        larger = tl.maximum(m, tl.max(scores, 1))
        p = tl.exp2(scores - larger[:, None])
        shrink = tl.exp2(m - larger)
        total = total * shrink + tl.sum(p, 1)
        acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision=PRECISION)
        m = larger
    out_ptrs = out_ptr + (first + query).to(tl.int64)[:, None] * hidden + head * D + offsets_d[None, :]
    out = acc / total[:, None]
    tl.store(out_ptrs, out.to(out_ptr.dtype.element_ty), mask=is_query[:, None])


@triton.jit
def _first_attention_kernel(
    q_ptr, kv_ptr, keys_ptr, queries_ptr, out_ptr, bounds_ptr, hidden, reach, head_stride, scale,
    C2P: tl.constexpr, P2C: tl.constexpr, D: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    sequence = tl.program_id(0)
    head = tl.program_id(1)
    first = tl.load(bounds_ptr + sequence)
    length = tl.load(bounds_ptr + sequence + 1) - first
    offsets_d = tl.arange(0, D)
    place = sequence.to(tl.int64) * hidden + head * D + offsets_d
    q = tl.load(q_ptr + place).to(tl.float32)
    k_ptr = kv_ptr + first.to(tl.int64) * 2 * hidden + head * D
    m = -1.0e30
    total = 0.0
    acc = tl.zeros([D], tl.float32)
    for begin in range(0, length, BN):
        key = begin + tl.arange(0, BN)
        is_key = key[:, None] < length
        places = key[:, None] * 2 * hidden + offsets_d[None, :]
        k = tl.load(k_ptr + places, mask=is_key, other=0.0).to(tl.float32)
        v = tl.load(k_ptr + hidden + places, mask=is_key, other=0.0).to(tl.float32)
        products = k * q[None, :]
        if C2P:
            rows = head * head_stride + (reach + key[:, None]) * D + offsets_d[None, :]
            products += q[None, :] * tl.load(keys_ptr + rows, mask=is_key, other=0.0).to(tl.float32)
        if P2C:
            rows = head * head_stride + (reach - key[:, None]) * D + offsets_d[None, :]
            products += k * tl.load(queries_ptr + rows, mask=is_key, other=0.0).to(tl.float32)
        scores = tl.where(key < length, tl.sum(products, 1) * scale, -1.0e30)
        larger = tl.maximum(m, tl.max(scores, 0))
        p = tl.exp2(scores - larger)
        shrink = tl.exp2(m - larger)
        total = total * shrink + tl.sum(p, 0)
        acc = acc * shrink + tl.sum(p[:, None] * v, 0)
        m = larger
    tl.store(out_ptr + place, (acc / total).to(out_ptr.dtype.element_ty))


def attention(
    qkv_TH: torch.Tensor,
    distances: Distances,
    batch: DeviceBatch,
    *,
    num_heads: int,
    scale: float,
    tile: tuple[int, int, int] | None = None,
) -> torch.Tensor:
    """Return disentangled attention within each sequence, [T, H]; rows of no token are not written.

    qkv is [T, 3H]. A term that the model does not have is left out. `tile` is (keys a step, warps,
    stages). Holds 2 A T X numbers on the way, X at most twice the longest sequence and some.
    """
    num_rows = qkv_TH.shape[0]
    hidden = qkv_TH.shape[1] // 3
    queries_TH, keys_TH, _ = qkv_TH.chunk(3, dim=1)
    distances = distances.within(batch.max_seqlen)
    out_TH = qkv_TH.new_empty((num_rows, hidden))
    exact = qkv_TH.dtype == torch.float32
    # float32 products are made of registers: more keys or fewer warps, and they spill
    keys_per_step, warps, stages = tile or ((16, 8, 2) if exact else (32, 4, 3))
    launch(_attention_kernel, (batch.blocks_B4.shape[0], num_heads))(
        qkv_TH, _met(queries_TH, distances.keys_AXD), _met(keys_TH, distances.queries_AXD), out_TH,
        batch.blocks_B4, num_rows, hidden, distances.reach, scale * math.log2(math.e),
        C2P=distances.keys_AXD is not None, P2C=distances.queries_AXD is not None,
        D=hidden // num_heads, BM=BLOCK, BN=keys_per_step,
        PRECISION="ieee" if exact else "tf32",
        num_warps=warps, num_stages=stages,
    )  # fmt: skip
    return out_TH


def first_attention(
    queries_NH: torch.Tensor,
    keys_values_TH: torch.Tensor,
    distances: Distances,
    batch: DeviceBatch,
    *,
    num_heads: int,
    scale: float,
) -> torch.Tensor:
    """Return the attention of first tokens alone, [N, H]; keys and values are [T, 2H]."""
    hidden = queries_NH.shape[1]
    head_size = hidden // num_heads
    out_NH = torch.empty_like(queries_NH)
    launch(_first_attention_kernel, (batch.num_sequences, num_heads))(
        queries_NH, keys_values_TH, distances.keys_AXD, distances.queries_AXD, out_NH,
        batch.cu_seqlens, hidden, distances.reach, 2 * distances.reach * head_size,
        scale * math.log2(math.e),
        C2P=distances.keys_AXD is not None, P2C=distances.queries_AXD is not None,
        D=head_size, BN=64, num_warps=4,
    )  # fmt: skip
    return out_NH


def _met(x_TH: torch.Tensor, table_AXD: torch.Tensor | None) -> torch.Tensor | None:
    """What each token meets at each distance, [A, T, X]."""
    if table_AXD is None:
        return None
    x_ATD = x_TH.unflatten(1, (table_AXD.shape[0], -1)).transpose(0, 1)
    return torch.bmm(x_ATD, table_AXD.mT)
