"""The passes of fused.py in Triton, with their gradients. Import it only where Triton is installed.

All are bound by memory: each input is read once, each output written once, arithmetic in float32. What
is dropped is drawn from Philox (Salmon et al. 2011), 16 bits an element, 8 elements a draw, keyed by the
seed and counted by row, place in the row and call site, so that the way back draws it again. Gradients
of parameters are sums in a fixed order: each program's own rows, then the programs.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import triton
import triton.language as tl
from torch.autograd.function import once_differentiable

from assay.model.parts import Activation

_Context: TypeAlias = Any
"""What autograd keeps from one way for the other: it takes any attribute."""

_MULTIPROCESSORS = 132
"""Of an H100. Fixed, so that sums of parameters' gradients are in one order on every GPU."""
_ROWS_FORWARD = 4
_ROWS_BACKWARD = 2
_WARPS_ACTIVATION = 24
_WARPS_NORM = 16
"""Warps of a multiprocessor that share its rows in a backward pass: no more than run at once."""
_COLUMNS_OF_WARP = 256
"""8 for each of 32 threads: 16 bytes in half precision."""
_DRAW_VALUES = 1 << 16
_SUM_ROWS = 256
_SUM_COLUMNS = 16


# --- activations


@triton.jit
def _exp2(x, NATIVE: tl.constexpr):
    """2^x; `NATIVE` by the device's instruction as it is, to which results below 2^-126 are 0."""
    if NATIVE:
        y = tl.inline_asm_elementwise(
            "ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        y = tl.exp2(x)
    return y


@triton.jit
def _inverse(x, NATIVE: tl.constexpr):
    """1 / x; `NATIVE` as in `_exp2`."""
    if NATIVE:
        y = tl.inline_asm_elementwise(
            "rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        y = 1.0 / x
    return y


@triton.jit
def _normal_tail(size, NATIVE: tl.constexpr):
    """P(Z > size) of a standard normal Z, and exp(-size^2 / 2), for size >= 0.

    Abramowitz and Stegun 7.1.26; off by less than 1e-7, and by less yet in the tail.
    """
    t = _inverse(1.0 + 0.23164188 * size, NATIVE)
    bell = _exp2(size * size * -0.7213475204444817, NATIVE)
    tail = 0.5307027145 * t - 0.7265760135
    tail = tail * t + 0.7107068705
    tail = tail * t - 0.142248368
    tail = tail * t + 0.127414796
    return tail * t * bell, bell


@triton.jit
def _sigmoid(x, NATIVE: tl.constexpr):
    return _inverse(1.0 + _exp2(x * -1.4426950408889634, NATIVE), NATIVE)


@triton.jit
def _activated(x, KIND: tl.constexpr, NATIVE: tl.constexpr):
    """The activation of float32 x."""
    if KIND == "gelu":
        size = tl.abs(x)
        tail, _bell = _normal_tail(size, NATIVE)
        y = tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL) - size * tail
    elif KIND == "gelu_tanh":
        # x (1 + tanh(u)) / 2 is x sigmoid(2u)
        y = x * _sigmoid(x * (1.5957691216057308 + 0.07135481627260025 * x * x), NATIVE)
    elif KIND == "relu":
        y = tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)
    elif KIND == "silu":
        y = x * _sigmoid(x, NATIVE)
    else:
        y = 2.0 * _sigmoid(2.0 * x, NATIVE) - 1.0
    return y


@triton.jit
def _slope(x, KIND: tl.constexpr, NATIVE: tl.constexpr):
    """The derivative of the activation at float32 x."""
    if KIND == "gelu":
        tail, bell = _normal_tail(tl.abs(x), NATIVE)
        y = tl.where(x > 0.0, 1.0 - tail, tail) + x * (bell * 0.3989422804014327)
    elif KIND == "gelu_tanh":
        # beyond 15 the slope is 0 or 1, and what it is made of would overflow
        x = tl.clamp(x, -15.0, 15.0, propagate_nan=tl.PropagateNan.ALL)
        squared = x * x
        share = _sigmoid(x * (1.5957691216057308 + 0.07135481627260025 * squared), NATIVE)
        y = share + x * share * (1.0 - share) * (1.5957691216057308 + 0.21406444881780074 * squared)
    elif KIND == "relu":
        y = tl.where(x > 0.0, 1.0, 0.0)
    elif KIND == "silu":
        share = _sigmoid(x, NATIVE)
        y = share * (1.0 + x * (1.0 - share))
    else:
        share = _sigmoid(2.0 * x, NATIVE)
        y = 4.0 * share * (1.0 - share)
    return y


@triton.jit(do_not_specialize=["num_rows"])
def _activation_forward(
    x_ptr, added_ptr, out_ptr, num_rows, width,
    KIND: tl.constexpr, NATIVE: tl.constexpr, ROWS: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    offsets = tl.program_id(1) * BW + tl.arange(0, BW)
    inside = offsets < width
    both = (row < num_rows)[:, None] & inside[None, :]
    where = row[:, None] * width + offsets[None, :]
    x = tl.load(x_ptr + where, mask=both, other=0.0).to(tl.float32)
    if added_ptr is not None:
        x += tl.load(added_ptr + offsets, mask=inside, other=0.0).to(tl.float32)[None, :]
    tl.store(out_ptr + where, _activated(x, KIND, NATIVE).to(out_ptr.dtype.element_ty), mask=both)


@triton.jit(do_not_specialize=["num_rows"])
def _activation_backward(
    grad_ptr, x_ptr, added_ptr, grad_x_ptr, partials_ptr, num_rows, width,
    KIND: tl.constexpr, NATIVE: tl.constexpr, ROWS: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    offsets = tl.program_id(1) * BW + tl.arange(0, BW)
    inside = offsets < width
    if added_ptr is not None:
        added = tl.load(added_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    total = tl.zeros([BW], tl.float32)
    for start in range(tl.program_id(0) * ROWS, num_rows, tl.num_programs(0) * ROWS):
        row = start + tl.arange(0, ROWS)
        both = (row < num_rows)[:, None] & inside[None, :]
        where = row.to(tl.int64)[:, None] * width + offsets[None, :]
        x = tl.load(x_ptr + where, mask=both, other=0.0).to(tl.float32)
        grad = tl.load(grad_ptr + where, mask=both, other=0.0).to(tl.float32)
        if added_ptr is not None:
            x += added[None, :]
        grad *= _slope(x, KIND, NATIVE)
        tl.store(grad_x_ptr + where, grad.to(grad_x_ptr.dtype.element_ty), mask=both)
        if partials_ptr is not None:
            total += tl.sum(grad, 0)
    if partials_ptr is not None:
        tl.store(partials_ptr + tl.program_id(0).to(tl.int64) * width + offsets, total, mask=inside)


# --- dropout and norm


@triton.jit
def _kept(seed, salt, row, offsets, threshold):
    """Which elements [R, BH] stay: those whose 16 bits are `threshold` or more."""
    # the 8 draws that share a counter are one in the compiled code, as a thread holds them side by side
    group = (offsets // 8)[None, :] + tl.zeros_like(row)[:, None]
    rows = row[:, None] + tl.zeros_like(group)
    zeros = tl.zeros_like(group)
    first, second, third, fourth = tl.philox(seed, group, rows, zeros + salt, zeros)
    lane = (offsets % 8)[None, :]
    word = tl.where(lane < 4, tl.where(lane < 2, first, second), tl.where(lane < 6, third, fourth))
    bits = (word >> ((lane % 2) * 16).to(tl.uint32)) & 0xFFFF
    return bits.to(tl.int32) >= threshold


@triton.jit(do_not_specialize=["num_rows", "salt", "threshold"])
def _norm_forward(
    x_ptr, added_ptr, residual_ptr, weight_ptr, bias_ptr, seed_ptr, out_ptr, statistics_ptr,
    num_rows, hidden, eps, salt, threshold, scale, DROP: tl.constexpr, ROWS: tl.constexpr, BH: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    offsets = tl.arange(0, BH)
    here = row < num_rows
    inside = offsets < hidden
    both = here[:, None] & inside[None, :]
    where = row.to(tl.int64)[:, None] * hidden + offsets[None, :]
    x = tl.load(x_ptr + where, mask=both, other=0.0).to(tl.float32)
    if residual_ptr is not None:
        residual = tl.load(residual_ptr + where, mask=both, other=0.0).to(tl.float32)
    # on their way while the rows are summed
    weight = tl.load(weight_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    if bias_ptr is not None:
        bias = tl.load(bias_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    if added_ptr is not None:
        x += tl.load(added_ptr + offsets, mask=inside, other=0.0).to(tl.float32)[None, :]
    if DROP != "none":
        kept = _kept(tl.load(seed_ptr), salt, row, offsets, threshold)
    if DROP == "first":
        x = tl.where(kept, x * scale, 0.0)
    if residual_ptr is not None:
        x += residual
    mean = tl.sum(x, 1) / hidden
    centred = tl.where(inside[None, :], x - mean[:, None], 0.0)
    rstd = tl.rsqrt(tl.sum(centred * centred, 1) / hidden + eps)
    y = centred * rstd[:, None] * weight[None, :]
    if bias_ptr is not None:
        y += bias[None, :]
    if DROP == "last":
        y = tl.where(kept, y * scale, 0.0)
    tl.store(out_ptr + where, y.to(out_ptr.dtype.element_ty), mask=both)
    tl.store(statistics_ptr + row, mean, mask=here)
    tl.store(statistics_ptr + num_rows + row, rstd, mask=here)


@triton.jit(do_not_specialize=["num_rows", "salt", "threshold"])
def _norm_backward(  # noqa: C901, PLR0912, PLR0915 - its branches are on constants
    grad_ptr, other_grad_ptr, x_ptr, added_ptr, residual_ptr, weight_ptr, seed_ptr, statistics_ptr,
    grad_x_ptr, grad_residual_ptr, weight_partials_ptr, bias_partials_ptr, added_partials_ptr,
    num_rows, hidden, salt, threshold, scale, DROP: tl.constexpr, ROWS: tl.constexpr, BH: tl.constexpr,
):  # fmt: skip
    offsets = tl.arange(0, BH)
    inside = offsets < hidden
    weight = tl.load(weight_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    if added_ptr is not None:
        added = tl.load(added_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    if DROP != "none":
        seed = tl.load(seed_ptr)
    weight_total = tl.zeros([BH], tl.float32)
    bias_total = tl.zeros([BH], tl.float32)
    added_total = tl.zeros([BH], tl.float32)
    for start in range(tl.program_id(0) * ROWS, num_rows, tl.num_programs(0) * ROWS):
        row = start + tl.arange(0, ROWS)
        here = row < num_rows
        both = here[:, None] & inside[None, :]
        where = row.to(tl.int64)[:, None] * hidden + offsets[None, :]
        grad = tl.load(grad_ptr + where, mask=both, other=0.0).to(tl.float32)
        x = tl.load(x_ptr + where, mask=both, other=0.0).to(tl.float32)
        if residual_ptr is not None:
            residual = tl.load(residual_ptr + where, mask=both, other=0.0).to(tl.float32)
        if other_grad_ptr is not None:
            grad += tl.load(other_grad_ptr + where, mask=both, other=0.0).to(tl.float32)
        mean = tl.load(statistics_ptr + row, mask=here, other=0.0)
        # of a row beyond the last 0, which makes its gradients 0
        rstd = tl.load(statistics_ptr + num_rows + row, mask=here, other=0.0)
        if added_ptr is not None:
            x += added[None, :]
        if DROP != "none":
            kept = _kept(seed, salt, row, offsets, threshold)
        if DROP == "first":
            x = tl.where(kept, x * scale, 0.0)
        if DROP == "last":
            grad = tl.where(kept, grad * scale, 0.0)
        if residual_ptr is not None:
            x += residual
        x = (x - mean[:, None]) * rstd[:, None]
        if weight_partials_ptr is not None:
            weight_total += tl.sum(grad * x, 0)
        if bias_partials_ptr is not None:
            bias_total += tl.sum(grad, 0)
        grad *= weight[None, :]
        # both means in one reduction: warps meet once
        along_mean, along_x = tl.split(tl.sum(tl.join(grad, grad * x), 1) / hidden)
        grad = (grad - along_mean[:, None] - x * along_x[:, None]) * rstd[:, None]
        if grad_residual_ptr is not None:
            tl.store(grad_residual_ptr + where, grad.to(grad_residual_ptr.dtype.element_ty), mask=both)
        if DROP == "first":
            grad = tl.where(kept, grad * scale, 0.0)
        tl.store(grad_x_ptr + where, grad.to(grad_x_ptr.dtype.element_ty), mask=both)
        if added_partials_ptr is not None:
            added_total += tl.sum(grad, 0)
    places = tl.program_id(0).to(tl.int64) * hidden + offsets
    if weight_partials_ptr is not None:
        tl.store(weight_partials_ptr + places, weight_total, mask=inside)
    if bias_partials_ptr is not None:
        tl.store(bias_partials_ptr + places, bias_total, mask=inside)
    if added_partials_ptr is not None:
        tl.store(added_partials_ptr + places, added_total, mask=inside)


# --- sums over programs


@triton.jit(do_not_specialize=["num_partials"])
def _sum_partials(
    partials_ptr, first_ptr, second_ptr, third_ptr, num_partials, width, ROWS: tl.constexpr, BW: tl.constexpr
):  # fmt: skip
    """The sums over each of up to three partials [P, W]."""
    which = tl.program_id(1)
    offsets = tl.program_id(0) * BW + tl.arange(0, BW)
    inside = offsets < width
    places = partials_ptr + which.to(tl.int64) * num_partials * width + offsets
    total = tl.zeros([ROWS, BW], tl.float32)
    for start in range(0, num_partials, ROWS):
        row = start + tl.arange(0, ROWS)
        both = (row < num_partials)[:, None] & inside[None, :]
        total += tl.load(places[None, :] + row[:, None] * width, mask=both, other=0.0)
    y = tl.sum(total, 0)
    if which == 0:
        tl.store(first_ptr + offsets, y.to(first_ptr.dtype.element_ty), mask=inside)
    if second_ptr is not None:  # noqa: SIM102 - a constant; what follows is not
        if which == 1:
            tl.store(second_ptr + offsets, y.to(second_ptr.dtype.element_ty), mask=inside)
    if third_ptr is not None:  # noqa: SIM102 - likewise
        if which == 2:
            tl.store(third_ptr + offsets, y.to(third_ptr.dtype.element_ty), mask=inside)


# --- from torch


@dataclass(frozen=True, kw_only=True, slots=True)
class _Place:
    """What a norm and its dropout are at one place of a model."""

    eps: float
    p: float
    salt: int
    drops_last: bool
    """Whether dropout comes after the norm, not before the residual."""
    dtype: torch.dtype
    """Of what comes out."""

    @property
    def drop(self) -> str:
        """Which kernel to compile."""
        if self.p == 0.0:
            return "none"
        return "last" if self.drops_last else "first"

    @property
    def draw(self) -> tuple[int, int, float]:
        """The salt, the threshold below which 16 bits drop an element, and the factor of those that stay."""
        return self.salt, round(self.p * _DRAW_VALUES), 1.0 / (1.0 - self.p)


class _BiasActivation(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _Context, x_RI: torch.Tensor, bias_I: torch.Tensor | None, activation: Activation
    ) -> torch.Tensor:
        x_RI = x_RI.contiguous()
        num_rows, width = x_RI.shape
        block, warps = _columns_of(width)
        out_RI = torch.empty_like(x_RI)
        _activation_forward[(triton.cdiv(num_rows, _ROWS_FORWARD), triton.cdiv(width, block))](
            x_RI, bias_I, out_RI, num_rows, width,
            KIND=activation, NATIVE=x_RI.is_cuda, ROWS=_ROWS_FORWARD, BW=block, num_warps=warps,
        )  # fmt: skip
        ctx.save_for_backward(x_RI, bias_I)
        ctx.activation = activation
        return out_RI

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, grad_RI: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x_RI, bias_I = ctx.saved_tensors
        num_rows, width = x_RI.shape
        block, warps = _columns_of(width)
        columns = triton.cdiv(width, block)
        programs = _num_programs(num_rows, warps * columns, _WARPS_ACTIVATION)
        partials = _partials_of([bias_I if ctx.needs_input_grad[1] else None], programs)
        grad_x_RI = torch.empty_like(x_RI)
        _activation_backward[(programs, columns)](
            grad_RI.contiguous(), x_RI, bias_I, grad_x_RI, *partials, num_rows, width,
            KIND=ctx.activation, NATIVE=x_RI.is_cuda, ROWS=_ROWS_BACKWARD, BW=block, num_warps=warps,
        )  # fmt: skip
        return grad_x_RI, *_sums(partials, [bias_I]), None


class _DropoutNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _Context,
        x_RH: torch.Tensor,
        bias_H: torch.Tensor | None,
        residual_RH: torch.Tensor | None,
        weight_H: torch.Tensor,
        norm_bias_H: torch.Tensor | None,
        seed: torch.Tensor,
        place: _Place,
        twice: bool,  # noqa: FBT001 - autograd functions take no keywords
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        x_RH = x_RH.contiguous()
        residual_RH = None if residual_RH is None else residual_RH.contiguous()
        num_rows, hidden = x_RH.shape
        block, warps = _row_of(hidden)
        out_RH = torch.empty_like(x_RH, dtype=place.dtype)
        statistics_2R = torch.empty((2, num_rows), dtype=torch.float32, device=x_RH.device)
        _norm_forward[(triton.cdiv(num_rows, _ROWS_FORWARD),)](
            x_RH, bias_H, residual_RH, weight_H, norm_bias_H, seed, out_RH, statistics_2R,
            num_rows, hidden, place.eps, *place.draw,
            DROP=place.drop, ROWS=_ROWS_FORWARD, BH=block, num_warps=warps,
        )  # fmt: skip
        ctx.save_for_backward(x_RH, bias_H, residual_RH, weight_H, norm_bias_H, seed, statistics_2R)
        ctx.place = place
        ctx.set_materialize_grads(False)
        return (out_RH, out_RH.view_as(out_RH)) if twice else out_RH

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, *grads: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        x_RH, bias_H, residual_RH, weight_H, norm_bias_H, seed, statistics_2R = ctx.saved_tensors
        place = ctx.place
        given = [grad.contiguous() for grad in grads if grad is not None]
        if not given:
            return (None,) * 8
        num_rows, hidden = x_RH.shape
        block, warps = _row_of(hidden)
        programs = _num_programs(num_rows, warps, _WARPS_NORM)
        _, needs_bias, _, needs_weight, needs_norm_bias, *_ = ctx.needs_input_grad
        parameters = [
            weight_H if needs_weight else None,
            norm_bias_H if needs_norm_bias else None,
            bias_H if needs_bias else None,
        ]
        partials = _partials_of(parameters, programs)
        grad_x_RH = torch.empty_like(x_RH)
        is_one = residual_RH is not None and place.drop != "first" and residual_RH.dtype == x_RH.dtype
        grad_residual_RH = None if residual_RH is None or is_one else torch.empty_like(residual_RH)
        _norm_backward[(programs,)](
            given[0], given[1] if len(given) > 1 else None,
            x_RH, bias_H, residual_RH, weight_H, seed, statistics_2R,
            grad_x_RH, grad_residual_RH, *partials, num_rows, hidden, *place.draw,
            DROP=place.drop, ROWS=_ROWS_BACKWARD, BH=block, num_warps=warps,
        )  # fmt: skip
        grad_weight_H, grad_norm_bias_H, grad_bias_H = _sums(partials, parameters)
        return (
            grad_x_RH,
            grad_bias_H,
            grad_x_RH if is_one else grad_residual_RH,
            grad_weight_H,
            grad_norm_bias_H,
            None,
            None,
            None,
        )


def bias_activation(x_RI: torch.Tensor, bias_I: torch.Tensor | None, activation: Activation) -> torch.Tensor:
    """See `fused.bias_activation`."""
    result: torch.Tensor = _BiasActivation.apply(x_RI, bias_I, activation)
    return result


def dropout_add_norm(
    x_RH: torch.Tensor,
    bias_H: torch.Tensor | None,
    residual_RH: torch.Tensor | None,
    norm_weight_H: torch.Tensor,
    norm_bias_H: torch.Tensor | None,
    *,
    eps: float,
    p: float,
    seed: torch.Tensor,
    salt: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """See `fused.dropout_add_norm`."""
    place = _Place(eps=eps, p=p, salt=salt, drops_last=False, dtype=x_RH.dtype)
    first_RH, second_RH = _DropoutNorm.apply(
        x_RH, bias_H, residual_RH, norm_weight_H, norm_bias_H, seed, place, True
    )
    return first_RH, second_RH


def norm_dropout(
    x_RH: torch.Tensor,
    weight_H: torch.Tensor,
    bias_H: torch.Tensor | None,
    eps: float,
    p: float,
    seed: torch.Tensor,
    salt: int,
    *,
    dtype: torch.dtype,
) -> torch.Tensor:
    """See `fused.norm_dropout`."""
    place = _Place(eps=eps, p=p, salt=salt, drops_last=True, dtype=dtype)
    result: torch.Tensor = _DropoutNorm.apply(x_RH, None, None, weight_H, bias_H, seed, place, False)
    return result


def _columns_of(width: int) -> tuple[int, int]:
    """Columns of a block of an activation, and its warps: 8 columns a thread."""
    # the largest power of two in the width: no lane of a block is idle
    block = max(64, min(1024, width & -width))
    return block, max(1, block // _COLUMNS_OF_WARP)


def _row_of(hidden: int) -> tuple[int, int]:
    """Columns that a row is rounded up to, and warps: a warp holds columns of every row of its block."""
    block = triton.next_power_of_2(hidden)
    return block, max(1, min(16, block // _COLUMNS_OF_WARP))


def _num_programs(num_rows: int, warps: int, warps_at_once: int) -> int:
    """Programs that share the rows in a backward pass, each of so many warps."""
    most = max(1, _MULTIPROCESSORS * warps_at_once // warps)
    return min(max(1, -(-num_rows // _ROWS_BACKWARD)), most)


def _partials_of(parameters: list[torch.Tensor | None], num_programs: int) -> list[torch.Tensor | None]:
    """For each parameter there is a float32 [P, H] to be filled; they lie one behind the other."""
    found = [parameter for parameter in parameters if parameter is not None]
    if not found:
        return [None] * len(parameters)
    shape = (len(found), num_programs, found[0].shape[0])
    rest = iter(torch.empty(shape, dtype=torch.float32, device=found[0].device))
    return [None if parameter is None else next(rest) for parameter in parameters]


def _sums(
    partials: list[torch.Tensor | None], parameters: list[torch.Tensor | None]
) -> list[torch.Tensor | None]:
    """The sum of each parameter's partials, of its own dtype; None where it has none."""
    sums = [
        None if partial is None or parameter is None else torch.empty_like(parameter)
        for partial, parameter in zip(partials, parameters, strict=True)
    ]
    starts = [partial for partial in partials if partial is not None]
    if starts:
        num_partials, width = starts[0].shape
        outs = [out for out in sums if out is not None]
        _sum_partials[(triton.cdiv(width, _SUM_COLUMNS), len(outs))](
            starts[0], *outs, *[None] * (3 - len(outs)), num_partials, width,
            ROWS=_SUM_ROWS, BW=_SUM_COLUMNS, num_warps=8,
        )  # fmt: skip
    return sums
