"""A matrix product in Triton whose epilogue applies scales, bias and activation and may write fp8.

Persistent programs take output tiles in turn; operands come through the bulk tensor copy engine
(Hopper and newer). Axes: T rows, I inputs, O outputs.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from assay.engine.kernels.ahead import launch
from assay.engine.kernels.triton_rows import activated, is_fast
from assay.model.parts import Activation


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """How the product is cut."""

    rows: int = 128
    columns: int = 256
    depth: int = 128
    group: int = 8
    """Tiles of rows that follow each other before the next columns: their weights stay in the cache."""
    warps: int = 8
    stages: int = 3
    split: bool = False
    """Whether the epilogue goes over half the columns at a time, which needs less shared memory."""


@triton.jit
def _finish(
    x, m, n, out_desc, scale_a_ptr, scale_b_ptr, bias_ptr, num_rows, inverse_scale,
    SCALED: tl.constexpr, KIND: tl.constexpr, FAST: tl.constexpr, FP8_OUT: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, OUT_TYPE: tl.constexpr,
):  # fmt: skip
    """The epilogue: scales, bias, activation, range."""
    row = m + tl.arange(0, BM)
    column = n + tl.arange(0, BN)
    if SCALED:
        x *= tl.load(scale_a_ptr + row, mask=row < num_rows, other=0.0)[:, None]
        x *= tl.load(scale_b_ptr + column)[None, :]
    x += tl.load(bias_ptr + column).to(tl.float32)[None, :]
    x = activated(x, KIND, FAST)
    if FP8_OUT:
        x = tl.clamp(x * inverse_scale, -448.0, 448.0, propagate_nan=tl.PropagateNan.ALL)
    out_desc.store([m, n], x.to(OUT_TYPE))


@triton.jit
def _linear_kernel(
    a_desc, b_desc, out_desc, scale_a_ptr, scale_b_ptr, bias_ptr,
    num_rows, num_columns, num_inputs, inverse_scale, num_programs,
    SCALED: tl.constexpr, KIND: tl.constexpr, FAST: tl.constexpr, FP8_OUT: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
    SPLIT: tl.constexpr, OUT_TYPE: tl.constexpr,
):  # fmt: skip
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
            acc = tl.dot(a, b.T, acc)
        if SPLIT:
            left, right = tl.split(tl.permute(tl.reshape(acc, (BM, 2, BN // 2)), (0, 2, 1)))
            _finish(left, m, n, out_desc, scale_a_ptr, scale_b_ptr, bias_ptr, num_rows, inverse_scale,
                    SCALED, KIND, FAST, FP8_OUT, BM, BN // 2, OUT_TYPE)  # fmt: skip
            _finish(right, m, n + BN // 2, out_desc, scale_a_ptr, scale_b_ptr, bias_ptr, num_rows, inverse_scale,
                    SCALED, KIND, FAST, FP8_OUT, BM, BN // 2, OUT_TYPE)  # fmt: skip
        else:
            _finish(acc, m, n, out_desc, scale_a_ptr, scale_b_ptr, bias_ptr, num_rows, inverse_scale,
                    SCALED, KIND, FAST, FP8_OUT, BM, BN, OUT_TYPE)  # fmt: skip


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


def linear(
    x_TI: torch.Tensor,
    weight_OI: torch.Tensor,
    bias_O: torch.Tensor,
    activation: Activation,
    *,
    out: torch.Tensor,
    scales: tuple[torch.Tensor, torch.Tensor] | None = None,
    inverse_scale: float = 1.0,
    tile: Tile | None = None,
) -> torch.Tensor:
    """Write activation(x @ weight.T + bias) to `out` [T, O] and return it.

    `scales` are those of the rows of x [T, 1] and of weight [O]; `out` float8_e4m3fn takes the result
    times `inverse_scale`. O must be a multiple of the tile's columns.
    """
    tile = tile or Tile()
    num_rows, num_inputs = x_TI.shape
    num_columns = weight_OI.shape[0]
    assert num_columns % tile.columns == 0, "the epilogue's loads have no mask on columns"
    tiles = triton.cdiv(num_rows, tile.rows) * (num_columns // tile.columns)
    processors = torch.cuda.get_device_properties(x_TI.device).multi_processor_count if x_TI.is_cuda else 4
    programs = min(processors, tiles)
    out_columns = tile.columns // 2 if tile.split else tile.columns
    launch(_linear_kernel, (programs,))(
        TensorDescriptor.from_tensor(x_TI, [tile.rows, tile.depth]),
        TensorDescriptor.from_tensor(weight_OI, [tile.columns, tile.depth]),
        TensorDescriptor.from_tensor(out, [tile.rows, out_columns]),
        scales[0] if scales else None, scales[1] if scales else None, bias_O,
        num_rows, num_columns, num_inputs, inverse_scale, programs,
        SCALED=scales is not None, KIND=activation, FAST=is_fast(out), FP8_OUT=out.dtype == torch.float8_e4m3fn,
        BM=tile.rows, BN=tile.columns, BK=tile.depth, GROUP=tile.group,
        SPLIT=tile.split, OUT_TYPE=_TYPES[out.dtype], num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    return out
