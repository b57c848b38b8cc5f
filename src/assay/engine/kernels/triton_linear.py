"""A matrix product in Triton whose epilogue applies scales, bias and activation and may write fp8.

It may also take its input, or a residual, as sums that are still to be normed, and gather of the rows
it writes what their norm will ask: so no pass over the rows is left between products. Persistent
programs take output tiles in turn; operands come through the bulk tensor copy engine (Hopper and
newer). Axes: T rows, I inputs, O outputs.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from assay.engine.kernels.triton_rows import activated, is_fast
from assay.model.families import Activation


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """How the product is cut."""

    rows: int = 128
    columns: int = 256
    depth: int = 128
    group: int = 8
    warps: int = 8
    stages: int = 3
    split: int = 0
    """How often the epilogue halves the columns that it takes at a time: 0, 1 or 2 times."""
    flatten: bool = True
    """Whether the next tile's copies start while this tile's epilogue runs."""
    programs: int = 1
    """Programs a multiprocessor."""
    prefetch: bool = False
    """Whether the residual is on its way to the L2 cache while the tile's product is made."""


@triton.jit
def _row_statistics(sums_ptr, row, num_rows, width, eps, PARTS: tl.constexpr):
    """Mean and 1 / deviation of rows, from the sums and sums of squares of their parts."""
    inside = row < num_rows
    total = tl.load(sums_ptr + 2 * row, mask=inside, other=0.0)
    squares = tl.load(sums_ptr + 2 * row + 1, mask=inside, other=0.0)
    for part in tl.static_range(1, PARTS):
        at = sums_ptr + 2 * (part * num_rows + row)
        total += tl.load(at, mask=inside, other=0.0)
        squares += tl.load(at + 1, mask=inside, other=0.0)
    mean = total / width
    variance = tl.maximum(squares / width - mean * mean, 0.0)
    return mean, tl.rsqrt(variance + eps)


@triton.jit
def _prefetch(ptr, m, n, num_rows, num_columns, BM: tl.constexpr, BN: tl.constexpr):
    """Have a tile of half precision on its way to the L2 cache: each line of 128 bytes is asked for."""
    row = tl.minimum(m + tl.arange(0, BM), num_rows - 1).to(tl.int64)
    column = n + 64 * tl.arange(0, BN // 64)
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;",
        "=r,l",
        [ptr + row[:, None] * num_columns + column[None, :]],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )


@triton.jit
def _finish(
    x, m, n, mean, deviation, total, squares, residual_desc, out_desc, scale_a_ptr, scale_b_ptr, bias_ptr,
    weight_sums_ptr, norm_weight_ptr, num_rows, inverse_scale,
    SCALED: tl.constexpr, KIND: tl.constexpr, FAST: tl.constexpr, FP8_OUT: tl.constexpr,
    NORMED: tl.constexpr, RESIDUAL: tl.constexpr, STATISTICS: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, OUT_TYPE: tl.constexpr,
):  # fmt: skip
    """The epilogue: scales, norm of the input, bias, activation, residual, range; `deviation` is 1 / it."""
    row = m + tl.arange(0, BM)
    column = n + tl.arange(0, BN)
    if RESIDUAL != "none":
        residual = residual_desc.load([m, n]).to(tl.float32)
    if SCALED:
        x *= tl.load(scale_a_ptr + row, mask=row < num_rows, other=0.0)[:, None]
        x *= tl.load(scale_b_ptr + column)[None, :]
    if NORMED:
        x = (x - mean[:, None] * tl.load(weight_sums_ptr + column)[None, :]) * deviation[:, None]
    x += tl.load(bias_ptr + column).to(tl.float32)[None, :]
    x = activated(x, KIND, FAST)
    if RESIDUAL == "normed":
        weight = tl.load(norm_weight_ptr + column)
        x += (residual - mean[:, None]) * deviation[:, None] * weight[None, :]
    elif RESIDUAL == "plain":
        x += residual
    if FP8_OUT:
        x = tl.clamp(x * inverse_scale, -448.0, 448.0)
    rounded = x.to(OUT_TYPE)
    out_desc.store([m, n], rounded)
    if STATISTICS:
        kept = rounded.to(tl.float32)
        total += tl.sum(kept, 1)
        squares += tl.sum(kept * kept, 1)
    return total, squares


@triton.jit
def _halves(x, BM: tl.constexpr, BN: tl.constexpr):
    return tl.split(tl.permute(tl.reshape(x, (BM, 2, BN // 2)), (0, 2, 1)))


@triton.jit
def _finish_halves(
    x, m, n, mean, deviation, total, squares, residual_desc, out_desc, scale_a_ptr, scale_b_ptr, bias_ptr,
    weight_sums_ptr, norm_weight_ptr, num_rows, inverse_scale,
    SCALED: tl.constexpr, KIND: tl.constexpr, FAST: tl.constexpr, FP8_OUT: tl.constexpr,
    NORMED: tl.constexpr, RESIDUAL: tl.constexpr, STATISTICS: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, OUT_TYPE: tl.constexpr,
):  # fmt: skip
    left, right = _halves(x, BM, BN)
    total, squares = _finish(
        left, m, n, mean, deviation, total, squares, residual_desc, out_desc, scale_a_ptr, scale_b_ptr,
        bias_ptr, weight_sums_ptr, norm_weight_ptr, num_rows, inverse_scale,
        SCALED, KIND, FAST, FP8_OUT, NORMED, RESIDUAL, STATISTICS, BM, BN // 2, OUT_TYPE,
    )  # fmt: skip
    return _finish(
        right, m, n + BN // 2, mean, deviation, total, squares, residual_desc, out_desc, scale_a_ptr,
        scale_b_ptr, bias_ptr, weight_sums_ptr, norm_weight_ptr, num_rows, inverse_scale,
        SCALED, KIND, FAST, FP8_OUT, NORMED, RESIDUAL, STATISTICS, BM, BN // 2, OUT_TYPE,
    )  # fmt: skip


@triton.jit
def _linear_kernel(
    a_desc, b_desc, residual_desc, out_desc, scale_a_ptr, scale_b_ptr, bias_ptr,
    in_sums_ptr, weight_sums_ptr, norm_weight_ptr, residual_ptr, out_sums_ptr,
    num_rows, num_columns, num_inputs, inverse_scale, norm_width, eps, num_programs,
    SCALED: tl.constexpr, KIND: tl.constexpr, FAST: tl.constexpr, FP8_OUT: tl.constexpr,
    NORMED: tl.constexpr, RESIDUAL: tl.constexpr, PARTS: tl.constexpr, STATISTICS: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
    SPLIT: tl.constexpr, FLATTEN: tl.constexpr, PREFETCH: tl.constexpr, OUT_TYPE: tl.constexpr,
):  # fmt: skip
    tiles_m = tl.cdiv(num_rows, BM)
    tiles_n = tl.cdiv(num_columns, BN)
    steps = tl.cdiv(num_inputs, BK)
    for tile in tl.range(tl.program_id(0), tiles_m * tiles_n, num_programs, flatten=FLATTEN):
        group = tile // (GROUP * tiles_n)
        first = group * GROUP
        in_group = tl.minimum(tiles_m - first, GROUP)
        m = (first + (tile % (GROUP * tiles_n)) % in_group) * BM
        n = ((tile % (GROUP * tiles_n)) // in_group) * BN
        if PREFETCH:
            _prefetch(residual_ptr, m, n, num_rows, num_columns, BM, BN)
        acc = tl.zeros([BM, BN], tl.float32)
        for k in range(steps):
            a = a_desc.load([m, k * BK])
            b = b_desc.load([n, k * BK])
            acc = tl.dot(a, b.T, acc)
        row = m + tl.arange(0, BM)
        mean = 0.0
        deviation = 1.0
        if PARTS:
            mean, deviation = _row_statistics(in_sums_ptr, row, num_rows, norm_width, eps, PARTS)
        total = tl.zeros([BM], tl.float32)
        squares = tl.zeros([BM], tl.float32)
        if SPLIT == 0:
            total, squares = _finish(
                acc, m, n, mean, deviation, total, squares, residual_desc, out_desc, scale_a_ptr, scale_b_ptr,
                bias_ptr, weight_sums_ptr, norm_weight_ptr, num_rows, inverse_scale,
                SCALED, KIND, FAST, FP8_OUT, NORMED, RESIDUAL, STATISTICS, BM, BN, OUT_TYPE,
            )  # fmt: skip
        elif SPLIT == 1:
            total, squares = _finish_halves(
                acc, m, n, mean, deviation, total, squares, residual_desc, out_desc, scale_a_ptr, scale_b_ptr,
                bias_ptr, weight_sums_ptr, norm_weight_ptr, num_rows, inverse_scale,
                SCALED, KIND, FAST, FP8_OUT, NORMED, RESIDUAL, STATISTICS, BM, BN, OUT_TYPE,
            )  # fmt: skip
        else:
            left, right = _halves(acc, BM, BN)
            total, squares = _finish_halves(
                left, m, n, mean, deviation, total, squares, residual_desc, out_desc, scale_a_ptr, scale_b_ptr,
                bias_ptr, weight_sums_ptr, norm_weight_ptr, num_rows, inverse_scale,
                SCALED, KIND, FAST, FP8_OUT, NORMED, RESIDUAL, STATISTICS, BM, BN // 2, OUT_TYPE,
            )  # fmt: skip
            total, squares = _finish_halves(
                right, m, n + BN // 2, mean, deviation, total, squares, residual_desc, out_desc, scale_a_ptr,
                scale_b_ptr, bias_ptr, weight_sums_ptr, norm_weight_ptr, num_rows, inverse_scale,
                SCALED, KIND, FAST, FP8_OUT, NORMED, RESIDUAL, STATISTICS, BM, BN // 2, OUT_TYPE,
            )  # fmt: skip
        if STATISTICS:
            at = out_sums_ptr + 2 * (n // BN * num_rows + row)
            tl.store(at, total, mask=row < num_rows)
            tl.store(at + 1, squares, mask=row < num_rows)


_MIN_ROWS = 4096
"""Rows from which tiles of 128 rows keep a device busy."""


def can_run(x_TI: torch.Tensor, weight_OI: torch.Tensor) -> bool:
    """Return whether the device has the copy engine, and the sizes fill tiles."""
    return (
        x_TI.is_cuda
        and torch.cuda.get_device_capability(x_TI.device) >= (9, 0)
        and x_TI.shape[0] >= _MIN_ROWS
        and weight_OI.shape[0] % Tile().columns == 0
        and weight_OI.shape[1] % 64 == 0
    )


_TYPES = {
    torch.float32: tl.float32,
    torch.bfloat16: tl.bfloat16,
    torch.float16: tl.float16,
    torch.float8_e4m3fn: tl.float8e4nv,
}


_FOLDED_WIDE = Tile(depth=64, stages=4, split=1)
_FOLDED_WIDE_ADDED = Tile(depth=64, stages=4, split=2)
_FOLDED_NARROW = Tile(columns=128, depth=64, warps=4, stages=5)
_FOLDED_NARROW_ADDED = Tile(columns=128, depth=64, warps=4, stages=5, split=1)


def folded_tile(num_columns: int, *, has_residual: bool) -> Tile:
    """Return the tile of a half precision product in a folded layer; columns a multiple of 128."""
    if num_columns % 256 == 0:
        return _FOLDED_WIDE_ADDED if has_residual else _FOLDED_WIDE
    return _FOLDED_NARROW_ADDED if has_residual else _FOLDED_NARROW


@dataclass(frozen=True, kw_only=True, slots=True)
class InputNorm:
    """The norm of a product's input; its weight and bias are in the product's own."""

    sums_PT2: torch.Tensor
    """Sum and sum of squares of each row of the input, by groups of columns, float32 [groups, T, 2]."""
    weight_sums_O: torch.Tensor
    """Sums of the product's weight over the inputs, float32 [O]."""
    eps: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ResidualNorm:
    """The norm of a residual; its bias is in the product's own."""

    sums_PT2: torch.Tensor
    """As `InputNorm.sums_PT2`, of the residual."""
    weight_O: torch.Tensor
    """float32 [O]"""
    eps: float


def empty_sums(out_TO: torch.Tensor, tile: Tile) -> torch.Tensor:
    """Return unwritten sums of the rows that a product in such tiles writes, float32 [groups, T, 2]."""
    num_rows, num_columns = out_TO.shape
    return out_TO.new_empty((num_columns // tile.columns, num_rows, 2), dtype=torch.float32)


def linear(
    x_TI: torch.Tensor,
    weight_OI: torch.Tensor,
    bias_O: torch.Tensor,
    activation: Activation | Literal["none"],
    *,
    out: torch.Tensor,
    scales: tuple[torch.Tensor, torch.Tensor] | None = None,
    inverse_scale: float = 1.0,
    input_norm: InputNorm | None = None,
    residual: torch.Tensor | None = None,
    residual_norm: ResidualNorm | None = None,
    out_sums: torch.Tensor | None = None,
    tile: Tile | None = None,
) -> torch.Tensor:
    """Write activation(x @ weight.T + bias) + residual to `out` [T, O] and return it.

    `scales` are those of the rows of x [T, 1] and of weight [O]; `out` float8_e4m3fn takes the result
    times `inverse_scale`. x counts as normed by `input_norm`, the residual [T, O] by `residual_norm`;
    a product takes one of them at most, the second with no activation. `out_sums` (see `empty_sums`)
    takes sums and sums of squares of the rows of `out` as rounded. `out` may be the residual's memory,
    `out_sums` no sums that are read.
    O must be a multiple of the tile's columns.
    """
    tile = tile or Tile()
    assert input_norm is None or residual_norm is None, "sums of one tensor's rows are read, not of two"
    if residual_norm is not None:
        assert residual is not None, "a norm of a residual wants the residual"
        assert activation == "none", "the norm's bias is in the product's: nothing may come between"
    num_rows, num_inputs = x_TI.shape
    num_columns = weight_OI.shape[0]
    norm = input_norm or residual_norm
    kind = "none" if residual is None else "plain" if residual_norm is None else "normed"
    out_block = [tile.rows, tile.columns >> tile.split]
    processors = torch.cuda.get_device_properties(x_TI.device).multi_processor_count if x_TI.is_cuda else 4
    programs = min(
        processors * tile.programs, triton.cdiv(num_rows, tile.rows) * triton.cdiv(num_columns, tile.columns)
    )
    _linear_kernel[(programs,)](
        TensorDescriptor.from_tensor(x_TI, [tile.rows, tile.depth]),
        TensorDescriptor.from_tensor(weight_OI, [tile.columns, tile.depth]),
        None if residual is None else TensorDescriptor.from_tensor(residual, out_block),
        TensorDescriptor.from_tensor(out, out_block),
        scales[0] if scales else None, scales[1] if scales else None, bias_O,
        norm.sums_PT2 if norm else None, input_norm.weight_sums_O if input_norm else None,
        residual_norm.weight_O if residual_norm else None, residual, out_sums,
        num_rows, num_columns, num_inputs, inverse_scale,
        float(num_inputs if input_norm else num_columns), norm.eps if norm else 0.0, programs,
        SCALED=scales is not None, KIND=activation, FAST=is_fast(out), FP8_OUT=out.dtype == torch.float8_e4m3fn,
        NORMED=input_norm is not None, RESIDUAL=kind, PARTS=norm.sums_PT2.shape[0] if norm else 0,
        STATISTICS=out_sums is not None,
        BM=tile.rows, BN=tile.columns, BK=tile.depth, GROUP=tile.group,
        SPLIT=int(tile.split), FLATTEN=tile.flatten,
        # an instruction of the device, which the interpreter has not
        PREFETCH=tile.prefetch and residual is not None and is_fast(residual), OUT_TYPE=_TYPES[out.dtype],
        num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    return out
