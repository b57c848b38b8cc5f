"""Attention over packed sequences in Triton: each program takes one block of queries of one head.

Scores are in units of log2: the caller scales queries by log2(e) / sqrt(D), so that exp2 needs no
product. Softmax is kept online (Milakov and Gimelshein 2018, Dao 2022) in float32.
"""

import torch
import triton
import triton.language as tl

from assay.engine.kernels.ahead import launch
from assay.engine.kernels.layout import BLOCK, DeviceBatch

_LOWEST = tl.constexpr(-1.0e30)


@triton.jit
def _scores_and_values(
    q, k_ptr, v_ptr, key, stride, m, total, acc,
    query, length, window: tl.constexpr, masked: tl.constexpr, whole: tl.constexpr,
    D: tl.constexpr, BN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Take one block of BN keys into the running softmax."""
    offsets_n = key + tl.arange(0, BN)
    offsets_d = tl.arange(0, q.shape[1])
    k_ptrs = k_ptr + offsets_n[None, :] * stride + offsets_d[:, None]
    v_ptrs = v_ptr + offsets_n[:, None] * stride + offsets_d[None, :]
    if masked or not whole:
        there_n = offsets_n < length
        if whole:
            k = tl.load(k_ptrs, mask=there_n[None, :], other=0.0)
            v = tl.load(v_ptrs, mask=there_n[:, None], other=0.0)
        else:
            k = tl.load(k_ptrs, mask=there_n[None, :] & (offsets_d[:, None] < D), other=0.0)
            v = tl.load(v_ptrs, mask=there_n[:, None] & (offsets_d[None, :] < D), other=0.0)
    else:
        k = tl.load(k_ptrs)
        v = tl.load(v_ptrs)
    scores = tl.dot(q, k, input_precision=PRECISION)
    if masked:
        seen = there_n[None, :]
        if window > 0:
            distance = query[:, None] - offsets_n[None, :]
            seen = seen & (distance <= window) & (distance >= -window)
        scores = tl.where(seen, scores, _LOWEST)
    larger = tl.maximum(m, tl.max(scores, 1))
    p = tl.exp2(scores - larger[:, None])
    if window > 0 and masked:
        # a row that sees none of these keys has scores - larger = 0
        p = tl.where(seen, p, 0.0)
    scale = tl.exp2(m - larger)
    total = total * scale + tl.sum(p, 1)
    acc = tl.dot(p.to(v.dtype), v, acc * scale[:, None], input_precision=PRECISION)
    return larger, total, acc


@triton.jit(do_not_specialize=["num_blocks"])
def _attention_kernel(
    qkv_ptr, out_ptr, blocks_ptr, hidden, inverse_scale, num_blocks, num_heads,
    D: tl.constexpr, BD: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, HEADS_FIRST: tl.constexpr,
    WINDOW: tl.constexpr, FP8_OUT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    if HEADS_FIRST:
        # the heads of a block run at about the same time, and read the same rows
        block = program // num_heads
        head = program % num_heads
    else:
        block = program % num_blocks
        head = program // num_blocks
    start = tl.load(blocks_ptr + 4 * block + 1)
    first = tl.load(blocks_ptr + 4 * block + 2)
    length = tl.load(blocks_ptr + 4 * block + 3)
    stride = 3 * hidden
    base = qkv_ptr + first.to(tl.int64) * stride + head * D
    k_ptr = base + hidden
    v_ptr = base + 2 * hidden
    query = start + tl.arange(0, BM)
    offsets_d = tl.arange(0, BD)
    whole: tl.constexpr = D == BD
    here = query[:, None] < length
    if not whole:
        here = here & (offsets_d[None, :] < D)
    q = tl.load(base + query[:, None] * stride + offsets_d[None, :], mask=here, other=0.0)
    m = tl.full([BM], _LOWEST, tl.float32)
    total = tl.zeros([BM], tl.float32)
    acc = tl.zeros([BM, BD], tl.float32)
    if WINDOW > 0:
        low = (tl.maximum(start - WINDOW, 0) // BN) * BN
        high = tl.minimum(length, start + BM + WINDOW)
        for key in range(low, high, BN):
            m, total, acc = _scores_and_values(
                q, k_ptr, v_ptr, key, stride, m, total, acc, query, length,
                WINDOW, True, whole, D, BN, PRECISION,
            )  # fmt: skip
    else:
        full = (length // BN) * BN
        for key in range(0, full, BN):
            m, total, acc = _scores_and_values(
                q, k_ptr, v_ptr, key, stride, m, total, acc, query, length,
                0, False, whole, D, BN, PRECISION,
            )  # fmt: skip
        # a wide step has less to rescale, a narrow one at the end less to waste
        if full + BN // 2 < length:
            m, total, acc = _scores_and_values(
                q, k_ptr, v_ptr, full, stride, m, total, acc, query, length,
                0, True, whole, D, BN, PRECISION,
            )  # fmt: skip
        elif full < length:
            m, total, acc = _scores_and_values(
                q, k_ptr, v_ptr, full, stride, m, total, acc, query, length,
                0, True, whole, D, BN // 2, PRECISION,
            )  # fmt: skip
    # rows of no query have seen keys all the same; in a window they may have seen none
    out = acc / tl.maximum(total, 1e-30)[:, None]
    if FP8_OUT:
        out = tl.clamp(out * inverse_scale, -448.0, 448.0, propagate_nan=tl.PropagateNan.ALL)
    out_ptrs = out_ptr + (first + query).to(tl.int64)[:, None] * hidden + head * D + offsets_d[None, :]
    tl.store(out_ptrs, out.to(out_ptr.dtype.element_ty), mask=here)


@triton.jit
def _first_attention_kernel(
    q_ptr, kv_ptr, out_ptr, bounds_ptr, hidden,
    D: tl.constexpr, BD: tl.constexpr, BN: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    sequence = tl.program_id(0)
    head = tl.program_id(1)
    first = tl.load(bounds_ptr + sequence)
    length = tl.load(bounds_ptr + sequence + 1) - first
    if WINDOW > 0:
        length = tl.minimum(length, WINDOW + 1)
    offsets_d = tl.arange(0, BD)
    in_head = offsets_d < D
    place = sequence.to(tl.int64) * hidden + head * D + offsets_d
    q = tl.load(q_ptr + place, mask=in_head, other=0.0).to(tl.float32)
    k_ptr = kv_ptr + first.to(tl.int64) * 2 * hidden + head * D
    m = -1.0e30
    total = 0.0
    acc = tl.zeros([BD], tl.float32)
    for key in range(0, length, BN):
        offsets_n = key + tl.arange(0, BN)
        there = (offsets_n < length)[:, None] & in_head[None, :]
        places = offsets_n[:, None] * 2 * hidden + offsets_d[None, :]
        k = tl.load(k_ptr + places, mask=there, other=0.0).to(tl.float32)
        v = tl.load(k_ptr + hidden + places, mask=there, other=0.0).to(tl.float32)
        scores = tl.where(offsets_n < length, tl.sum(k * q[None, :], 1), -1.0e30)
        larger = tl.maximum(m, tl.max(scores, 0))
        p = tl.exp2(scores - larger)
        scale = tl.exp2(m - larger)
        total = total * scale + tl.sum(p, 0)
        acc = acc * scale + tl.sum(p[:, None] * v, 0)
        m = larger
    tl.store(out_ptr + place, (acc / total).to(out_ptr.dtype.element_ty), mask=in_head)


@triton.jit
def _first_mixture_kernel(
    q_ptr, hidden_ptr, out_ptr, bounds_ptr, num_heads, hidden,
    BA: tl.constexpr, BH: tl.constexpr, BN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    sequence = tl.program_id(0)
    first = tl.load(bounds_ptr + sequence)
    length = tl.load(bounds_ptr + sequence + 1) - first
    offsets_a = tl.arange(0, BA)
    offsets_h = tl.arange(0, BH)
    inside = offsets_h < hidden
    both = (offsets_a < num_heads)[:, None] & inside[None, :]
    places = (sequence.to(tl.int64) * num_heads + offsets_a)[:, None] * hidden + offsets_h[None, :]
    q = tl.load(q_ptr + places, mask=both, other=0.0)
    m = tl.full([BA], _LOWEST, tl.float32)
    total = tl.zeros([BA], tl.float32)
    acc = tl.zeros([BA, BH], tl.float32)
    rows = hidden_ptr + first.to(tl.int64) * hidden
    for key in range(0, length, BN):
        offsets_n = key + tl.arange(0, BN)
        there = offsets_n < length
        x_ptrs = rows + offsets_n[:, None] * hidden + offsets_h[None, :]
        x = tl.load(x_ptrs, mask=there[:, None] & inside[None, :], other=0.0)
        scores = tl.where(there[None, :], tl.dot(q, tl.trans(x), input_precision=PRECISION), _LOWEST)
        larger = tl.maximum(m, tl.max(scores, 1))
        p = tl.exp2(scores - larger[:, None])
        scale = tl.exp2(m - larger)
        total = total * scale + tl.sum(p, 1)
        acc = tl.dot(p.to(x.dtype), x, acc * scale[:, None], input_precision=PRECISION)
        m = larger
    tl.store(out_ptr + places, (acc / total[:, None]).to(out_ptr.dtype.element_ty), mask=both)


def attention(
    qkv_TH: torch.Tensor,
    batch: DeviceBatch,
    *,
    num_heads: int,
    window: int | None = None,
    out: torch.Tensor | None = None,
    inverse_scale: float = 1.0,
    tile: tuple[int, int, int, bool] | None = None,
) -> torch.Tensor:
    """Return attention within each sequence, [T, H]; see `Kernels.attention`.

    `out` float8_e4m3fn takes the result times `inverse_scale`; `tile` is (keys a step, warps, stages,
    whether the heads of a block run one after the other, or the blocks of a head).
    """
    hidden = qkv_TH.shape[1] // 3
    head_size = hidden // num_heads
    padded = max(16, triton.next_power_of_2(head_size))
    if out is None:
        out = qkv_TH.new_empty((qkv_TH.shape[0], hidden))
    keys, warps, stages, heads_first = tile or _tile(padded, batch.max_seqlen, window, qkv_TH.dtype)
    num_blocks = batch.blocks_B4.shape[0]
    # in one dimension: a second one ends at 65,535
    launch(_attention_kernel, (num_blocks * num_heads,))(
        qkv_TH, out, batch.blocks_B4, hidden, inverse_scale, num_blocks, num_heads,
        D=head_size, BD=padded, BM=BLOCK, BN=keys, HEADS_FIRST=heads_first, WINDOW=window or 0,
        FP8_OUT=out.dtype == torch.float8_e4m3fn,
        PRECISION="ieee" if qkv_TH.dtype == torch.float32 else "tf32",
        num_warps=warps, num_stages=stages,
    )  # fmt: skip
    return out


def first_attention(
    queries_NH: torch.Tensor,
    keys_values_TH: torch.Tensor,
    batch: DeviceBatch,
    *,
    num_heads: int,
    window: int | None = None,
) -> torch.Tensor:
    """Return the attention of first tokens, [N, H]; see `Kernels.first_attention`."""
    hidden = queries_NH.shape[1]
    head_size = hidden // num_heads
    out = torch.empty_like(queries_NH)
    launch(_first_attention_kernel, (batch.num_sequences, num_heads))(
        queries_NH, keys_values_TH, out, batch.cu_seqlens, hidden,
        D=head_size, BD=max(16, triton.next_power_of_2(head_size)), BN=64, WINDOW=window or 0,
        num_warps=4,
    )  # fmt: skip
    return out


def first_mixture(
    queries_NAH: torch.Tensor, hidden_TH: torch.Tensor, batch: DeviceBatch, *, num_heads: int
) -> torch.Tensor:
    """Return each head's attention-weighted mean of hidden states, [N, A * H]; see `Kernels.first_mixture`."""
    hidden = hidden_TH.shape[1]
    out = torch.empty_like(queries_NAH)
    is_fp32 = hidden_TH.dtype == torch.float32  # twice the bytes in shared memory
    launch(_first_mixture_kernel, (batch.num_sequences,))(
        queries_NAH, hidden_TH, out, batch.cu_seqlens, num_heads, hidden,
        BA=max(16, triton.next_power_of_2(num_heads)), BH=max(16, triton.next_power_of_2(hidden)),
        BN=16 if is_fp32 else 32, PRECISION="ieee" if is_fp32 else "tf32",
        num_warps=8, num_stages=1 if is_fp32 else 2,
    )  # fmt: skip
    return out


def _tile(
    head_size: int, max_seqlen: int, window: int | None, dtype: torch.dtype
) -> tuple[int, int, int, bool]:
    """What `attention` takes as a tile: the fastest on an H100, for short sequences without a window on an H200."""
    if dtype == torch.float32:
        return 32, 8, 2, False  # fewer warps spill
    if head_size >= 128:
        return 32, 4, 3, False
    if max_seqlen > 1024:
        return 64, 4, 3, False
    return (64, 4, 3, True) if window is None else (32, 4, 4, False)
