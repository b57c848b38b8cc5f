"""What HRM and TRM need between their products, each in one pass over the rows; and one product with its gate.

Results are rounded where plain torch rounds them, so that what differs is the order of sums inside products alone.
Axes: T rows (positions of all puzzles), D hidden, I inner.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from assay.engine.kernels.ahead import launch
from assay.engine.kernels.triton_linear import Tile

MAX_POSITIONS = 128
"""Of a puzzle, for attention in one block."""
MIN_HEAD = 32
ATTEND_TILE = (64, 4)
"""Queries at a time, and warps."""
_NORM_ROWS = 4
GATE_TILE = Tile(rows=128, columns=256, depth=64, group=8, warps=8, stages=3)
"""How the gated product is cut; half of a tile's columns are gates."""
_MIN_ROWS = 4096
_TYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


@triton.jit
def _turned(left, right, cosines, sines):
    """Both halves of heads, turned in float32."""
    kind = left.dtype
    left, right = left.to(tl.float32), right.to(tl.float32)
    return (left * cosines - right * sines).to(kind), (right * cosines + left * sines).to(kind)


@triton.jit
def _attend_kernel(
    qkv_ptr, cosines_ptr, sines_ptr, out_ptr, positions, scale,
    NUM_HEADS: tl.constexpr, HALF: tl.constexpr, BQ: tl.constexpr, BP: tl.constexpr, ROTATES: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """A head of a puzzle: rotation, scores, softmax and sums without leaving the chip."""
    width = NUM_HEADS * 2 * HALF
    place = tl.arange(0, BP)
    half = tl.arange(0, HALF)[None, :]
    full = tl.arange(0, 2 * HALF)[None, :]
    here = (place < positions)[:, None]
    first_row = tl.program_id(0).to(tl.int64) * positions
    head = tl.program_id(1) * 2 * HALF
    keys_ptr = qkv_ptr + (first_row + place)[:, None] * (3 * width) + width + head
    k_left = tl.load(keys_ptr + half, mask=here, other=0.0)
    k_right = tl.load(keys_ptr + HALF + half, mask=here, other=0.0)
    v = tl.load(keys_ptr + width + full, mask=here, other=0.0)
    if ROTATES:
        angles = place[:, None] * HALF + half
        cosines = tl.load(cosines_ptr + angles, mask=here, other=0.0)
        sines = tl.load(sines_ptr + angles, mask=here, other=0.0)
        k_left, k_right = _turned(k_left, k_right, cosines, sines)
    for start in range(0, positions, BQ):
        query = start + tl.arange(0, BQ)
        asked = (query < positions)[:, None]
        queries_ptr = qkv_ptr + (first_row + query)[:, None] * (3 * width) + head
        q_left = tl.load(queries_ptr + half, mask=asked, other=0.0)
        q_right = tl.load(queries_ptr + HALF + half, mask=asked, other=0.0)
        if ROTATES:
            q_angles = query[:, None] * HALF + half
            q_cosines = tl.load(cosines_ptr + q_angles, mask=asked, other=0.0)
            q_sines = tl.load(sines_ptr + q_angles, mask=asked, other=0.0)
            q_left, q_right = _turned(q_left, q_right, q_cosines, q_sines)
        scores = tl.dot(q_left, tl.trans(k_left), input_precision=PRECISION)
        scores = tl.dot(q_right, tl.trans(k_right), scores, input_precision=PRECISION) * scale
        scores = tl.where((place < positions)[None, :], scores, float("-inf"))
        shares = tl.exp2(scores - tl.max(scores, 1)[:, None])
        total = tl.sum(shares, 1)
        out = tl.dot(shares.to(v.dtype), v, input_precision=PRECISION) / total[:, None]
        out_ptrs = out_ptr + (first_row + query)[:, None] * width + head + full
        tl.store(out_ptrs, out.to(out_ptr.dtype.element_ty), mask=asked)


@triton.jit
def _add_norm_kernel(
    x_ptr, added_ptr, out_ptr, num_rows, hidden, eps, ROWS: tl.constexpr, BH: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    offsets = tl.arange(0, BH)
    both = (row < num_rows)[:, None] & (offsets < hidden)[None, :]
    where = row[:, None] * hidden + offsets[None, :]
    kind = out_ptr.dtype.element_ty
    x = tl.load(x_ptr + where, mask=both, other=0.0).to(tl.float32)
    x += tl.load(added_ptr + where, mask=both, other=0.0).to(tl.float32)
    x = x.to(kind).to(tl.float32)
    x *= tl.rsqrt(tl.sum(x * x, 1) / hidden + eps)[:, None]
    tl.store(out_ptr + where, x.to(kind), mask=both)


@triton.jit
def _inject_kernel(z_ptr, first_ptr, second_ptr, out_ptr, size, TWO: tl.constexpr, BLOCK: tl.constexpr):
    where = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = where < size
    kind = out_ptr.dtype.element_ty
    added = tl.load(first_ptr + where, mask=inside, other=0.0).to(tl.float32)
    if TWO:
        added += tl.load(second_ptr + where, mask=inside, other=0.0).to(tl.float32)
        added = added.to(kind).to(tl.float32)
    z = tl.load(z_ptr + where, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + where, (z + added).to(kind), mask=inside)


@triton.jit
def _gated_kernel(
    a_desc, b_desc, out_desc, num_rows, num_columns, num_inputs, num_programs,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr, OUT_TYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """silu(gate) * up, where BN/2 rows of gates and BN/2 of ups follow each other in the weight."""
    tiles_m = tl.cdiv(num_rows, BM)
    tiles_n = tl.cdiv(num_columns, BN)
    steps = tl.cdiv(num_inputs, BK)
    # flattened: the next tile's copies start while this tile's epilogue runs
    for tile in tl.range(tl.program_id(0), tiles_m * tiles_n, num_programs, flatten=True):
        group = tile // (GROUP * tiles_n)
        first = group * GROUP
        in_group = tl.minimum(tiles_m - first, GROUP)
        m = (first + (tile % (GROUP * tiles_n)) % in_group) * BM
        n = ((tile % (GROUP * tiles_n)) // in_group) * BN
        acc = tl.zeros([BM, BN], tl.float32)
        for k in range(steps):
            a = a_desc.load([m, k * BK])
            b = b_desc.load([n, k * BK])
            acc = tl.dot(a, b.T, acc, input_precision=PRECISION)
        gate, up = tl.split(tl.permute(tl.reshape(acc, (BM, 2, BN // 2)), (0, 2, 1)))
        gate = gate.to(OUT_TYPE).to(tl.float32)
        gate = (gate / (1.0 + tl.exp2(gate * -1.4426950408889634))).to(OUT_TYPE).to(tl.float32)
        out_desc.store([m, n // 2], (gate * up.to(OUT_TYPE).to(tl.float32)).to(OUT_TYPE))


def attend(
    qkv_TE: torch.Tensor,
    turns: tuple[torch.Tensor, torch.Tensor] | None,
    *,
    positions: int,
    num_heads: int,
    tile: tuple[int, int] = ATTEND_TILE,
) -> torch.Tensor:
    """Return every head's sums of values [T, D], of [queries | keys | values] [T, 3 D], heads side by side.

    `turns`: what `halves` gave; None where positions are not rotated. `tile`: queries at a time, and warps.
    """
    num_rows, width = qkv_TE.shape[0], qkv_TE.shape[1] // 3
    head = width // num_heads
    out_TD = qkv_TE.new_empty((num_rows, width))
    padded, (block, warps) = max(16, triton.next_power_of_2(positions)), tile
    cosines, sines = turns or (None, None)
    launch(_attend_kernel, (num_rows // positions, num_heads))(
        qkv_TE, cosines, sines, out_TD, positions, 1.4426950408889634 * head**-0.5,
        NUM_HEADS=num_heads, HALF=head // 2, BQ=min(block, padded), BP=padded, ROTATES=turns is not None,
        PRECISION=_precision(qkv_TE), num_warps=warps, num_stages=1,
    )  # fmt: skip
    return out_TD


def halves(
    turns: tuple[torch.Tensor, torch.Tensor] | None,
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return the first halves of cosines and sines [P, head], which the second ones repeat, for `attend`."""
    if turns is None:
        return None
    cosines, sines = (each[:, : each.shape[1] // 2].contiguous() for each in turns)
    return cosines, sines


def add_norm(x_TD: torch.Tensor, added_TD: torch.Tensor, eps: float) -> torch.Tensor:
    """Return (x + added) over the root of the mean of its squares, written over x."""
    num_rows, hidden = x_TD.shape
    launch(_add_norm_kernel, (triton.cdiv(num_rows, _NORM_ROWS),))(
        x_TD, added_TD, x_TD, num_rows, hidden, eps,
        ROWS=_NORM_ROWS, BH=triton.next_power_of_2(hidden), num_warps=4,
    )  # fmt: skip
    return x_TD


def inject(z: torch.Tensor, first: torch.Tensor, second: torch.Tensor | None) -> torch.Tensor:
    """Return z + (first + second), of one shape."""
    out = torch.empty_like(z)
    block = 2048
    launch(_inject_kernel, (triton.cdiv(z.numel(), block),))(
        z, first, second, out, z.numel(), TWO=second is not None, BLOCK=block, num_warps=4
    )
    return out


def can_gate(x_TD: torch.Tensor, inner: int, tile: Tile = GATE_TILE) -> bool:
    """Return whether the device has the copy engine, and the sizes fill tiles."""
    return (
        x_TD.is_cuda
        and torch.cuda.get_device_capability(x_TD.device) >= (9, 0)
        and x_TD.dtype != torch.float32
        and x_TD.shape[0] >= _MIN_ROWS
        and inner % (tile.columns // 2) == 0
        and x_TD.shape[1] % tile.depth == 0
    )


def interleaved(gate_up_ED: torch.Tensor, tile: Tile = GATE_TILE) -> torch.Tensor:
    """Return the weight of a gated product with gates and ups in turn, as `gated` wants it; E is 2 I."""
    half, hidden = tile.columns // 2, gate_up_ED.shape[1]
    pairs = gate_up_ED.view(2, -1, half, hidden).transpose(0, 1)
    return pairs.reshape(gate_up_ED.shape).contiguous()


def gated(x_TD: torch.Tensor, interleaved_ED: torch.Tensor, tile: Tile = GATE_TILE) -> torch.Tensor:
    """Return silu(x @ gates.T) * (x @ ups.T), [T, I], of the weight that `interleaved` gave for the same tile."""
    num_rows, num_inputs = x_TD.shape
    num_columns = interleaved_ED.shape[0]
    out_TI = x_TD.new_empty((num_rows, num_columns // 2))
    tiles = triton.cdiv(num_rows, tile.rows) * (num_columns // tile.columns)
    processors = torch.cuda.get_device_properties(x_TD.device).multi_processor_count if x_TD.is_cuda else 4
    programs = min(processors, tiles)
    types: dict[torch.dtype, Any] = _TYPES
    launch(_gated_kernel, (programs,))(
        TensorDescriptor.from_tensor(x_TD, [tile.rows, tile.depth]),
        TensorDescriptor.from_tensor(interleaved_ED, [tile.columns, tile.depth]),
        TensorDescriptor.from_tensor(out_TI, [tile.rows, tile.columns // 2]),
        num_rows, num_columns, num_inputs, programs,
        BM=tile.rows, BN=tile.columns, BK=tile.depth, GROUP=tile.group, OUT_TYPE=types[x_TD.dtype],
        PRECISION=_precision(x_TD), num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    return out_TI


def _precision(x: torch.Tensor) -> str | None:
    """How products of float32 are computed: in float32."""
    return "ieee" if x.dtype == torch.float32 else None
