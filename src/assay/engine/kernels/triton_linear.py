"""A matrix product in Triton whose epilogue applies scales, bias and activation and may write fp8.

It may also take its input, or a residual, as sums that are still to be normed, and gather of its
own rows what their norm will ask: so between products no pass over the rows is left. Persistent programs take output tiles in turn; operands come through the bulk tensor copy engine
(Hopper and newer). Axes: T rows, I inputs, O outputs.
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
    split: bool = False
    """Whether the epilogue goes over half the columns at a time."""
    flatten: bool = True
    """Whether the next tile's copies start while this tile's epilogue runs."""
    programs: int = 1
    """Programs a multiprocessor."""

    @property
    def out_columns(self) -> int:
        """Columns that the epilogue takes at a time."""
        return self.columns // 2 if self.split else self.columns


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
def _finish(
    x, m, n, mean, deviation, residual_desc, out_desc, scale_a_ptr, scale_b_ptr, bias_ptr,
    weight_sums_ptr, norm_weight_ptr, out_sums_ptr, num_rows, inverse_scale,
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
        at = out_sums_ptr + 2 * (n // BN * num_rows + row)
        tl.store(at, tl.sum(kept, 1), mask=row < num_rows)
        tl.store(at + 1, tl.sum(kept * kept, 1), mask=row < num_rows)


@triton.jit
def _linear_kernel(
    a_desc, b_desc, residual_desc, out_desc, scale_a_ptr, scale_b_ptr, bias_ptr,
    in_sums_ptr, weight_sums_ptr, norm_weight_ptr, out_sums_ptr,
    num_rows, num_columns, num_inputs, inverse_scale, norm_width, eps, num_programs,
    SCALED: tl.constexpr, KIND: tl.constexpr, FAST: tl.constexpr, FP8_OUT: tl.constexpr,
    NORMED: tl.constexpr, RESIDUAL: tl.constexpr, PARTS: tl.constexpr, STATISTICS: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
    SPLIT: tl.constexpr, FLATTEN: tl.constexpr, OUT_TYPE: tl.constexpr,
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
        acc = tl.zeros([BM, BN], tl.float32)
        for k in range(steps):
            a = a_desc.load([m, k * BK])
            b = b_desc.load([n, k * BK])
            acc = tl.dot(a, b.T, acc)
        mean = 0.0
        deviation = 1.0
        if PARTS:
            row = m + tl.arange(0, BM)
            mean, deviation = _row_statistics(in_sums_ptr, row, num_rows, norm_width, eps, PARTS)
        if SPLIT:
            halves = tl.permute(tl.reshape(acc, (BM, 2, BN // 2)), (0, 2, 1))
            left, right = tl.split(halves)
            _finish(left, m, n, mean, deviation, residual_desc, out_desc, scale_a_ptr, scale_b_ptr, bias_ptr,
                    weight_sums_ptr, norm_weight_ptr, out_sums_ptr, num_rows, inverse_scale,
                    SCALED, KIND, FAST, FP8_OUT, NORMED, RESIDUAL, STATISTICS, BM, BN // 2, OUT_TYPE)  # fmt: skip
            _finish(right, m, n + BN // 2, mean, deviation, residual_desc, out_desc, scale_a_ptr, scale_b_ptr,
                    bias_ptr, weight_sums_ptr, norm_weight_ptr, out_sums_ptr, num_rows, inverse_scale,
                    SCALED, KIND, FAST, FP8_OUT, NORMED, RESIDUAL, STATISTICS, BM, BN // 2, OUT_TYPE)  # fmt: skip
        else:
            _finish(acc, m, n, mean, deviation, residual_desc, out_desc, scale_a_ptr, scale_b_ptr, bias_ptr,
                    weight_sums_ptr, norm_weight_ptr, out_sums_ptr, num_rows, inverse_scale,
                    SCALED, KIND, FAST, FP8_OUT, NORMED, RESIDUAL, STATISTICS, BM, BN, OUT_TYPE)  # fmt: skip


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


@dataclass(frozen=True, kw_only=True, slots=True)
class RowSums:
    """Sum and sum of squares of each row of a tensor, by groups of its columns: what a norm asks of it."""

    parts_PT2: torch.Tensor
    """float32 [groups, T, 2]"""
    width: int
    """Columns of the tensor."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InputNorm:
    """The norm of the product's input, its weight and bias being in the product's own."""

    sums: RowSums
    weight_sums_O: torch.Tensor
    """Sums of the product's weight over the inputs, float32 [O]."""
    eps: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Residual:
    """What is added to the product; where `sums` are given its norm is, but for the norm's bias."""

    values_TO: torch.Tensor
    sums: RowSums | None = None
    norm_weight_O: torch.Tensor | None = None
    """float32 [O]"""
    eps: float = 0.0


def empty_sums(out_TO: torch.Tensor, tile: Tile) -> RowSums:
    """Return unwritten sums of the rows that a product cut like this writes."""
    num_rows, num_columns = out_TO.shape
    parts = num_columns // tile.out_columns
    return RowSums(
        parts_PT2=out_TO.new_empty((parts, num_rows, 2), dtype=torch.float32), width=num_columns
    )


def linear(
    x_TI: torch.Tensor,
    weight_OI: torch.Tensor,
    bias_O: torch.Tensor,
    activation: Activation | Literal["none"],
    *,
    out: torch.Tensor,
    scales: tuple[torch.Tensor, torch.Tensor] | None = None,
    inverse_scale: float = 1.0,
    normed: InputNorm | None = None,
    residual: Residual | None = None,
    out_sums: RowSums | None = None,
    tile: Tile | None = None,
) -> torch.Tensor:
    """Write activation(x @ weight.T + bias) + residual to `out` [T, O] and return it.

    `scales` are those of the rows of x [T, 1] and of weight [O]; `out` float8_e4m3fn takes the result
    times `inverse_scale`. With `normed` x counts as normed, with `out_sums` the sums of the rows of
    `out`, as rounded, are written too. `out` may be the residual's memory. O must be a multiple of the
    tile's columns.
    """
    tile = tile or Tile()
    num_rows, num_inputs = x_TI.shape
    num_columns = weight_OI.shape[0]
    sums, eps = None, 0.0
    if normed is not None:
        sums, eps = normed.sums, normed.eps
    if residual is not None and residual.sums is not None:
        assert normed is None, "one norm a product: of its input or of its residual"
        sums, eps = residual.sums, residual.eps
    processors = torch.cuda.get_device_properties(x_TI.device).multi_processor_count if x_TI.is_cuda else 4
    programs = min(
        processors * tile.programs, triton.cdiv(num_rows, tile.rows) * triton.cdiv(num_columns, tile.columns)
    )
    out_block = [tile.rows, tile.out_columns]
    kind = "none" if residual is None else "plain" if residual.sums is None else "normed"
    _linear_kernel[(programs,)](
        TensorDescriptor.from_tensor(x_TI, [tile.rows, tile.depth]),
        TensorDescriptor.from_tensor(weight_OI, [tile.columns, tile.depth]),
        TensorDescriptor.from_tensor(residual.values_TO, out_block) if residual else None,
        TensorDescriptor.from_tensor(out, out_block),
        scales[0] if scales else None, scales[1] if scales else None, bias_O,
        sums.parts_PT2 if sums else None, normed.weight_sums_O if normed else None,
        residual.norm_weight_O if residual else None, out_sums.parts_PT2 if out_sums else None,
        num_rows, num_columns, num_inputs, inverse_scale, float(sums.width) if sums else 1.0, eps, programs,
        SCALED=scales is not None, KIND=activation, FAST=is_fast(out), FP8_OUT=out.dtype == torch.float8_e4m3fn,
        NORMED=normed is not None, RESIDUAL=kind, PARTS=sums.parts_PT2.shape[0] if sums else 0,
        STATISTICS=out_sums is not None,
        BM=tile.rows, BN=tile.columns, BK=tile.depth, GROUP=tile.group,
        SPLIT=tile.split, FLATTEN=tile.flatten, OUT_TYPE=_TYPES[out.dtype],
        num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    return out
