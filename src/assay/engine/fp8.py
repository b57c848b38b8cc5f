"""Matrix products in fp8 (e4m3): weights scaled by output, activations by row, sums in float32.

Axes: R rows, I inputs, O outputs.
"""

import math

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling

from assay.engine.kernels.kernels import Fp8Weights, Quantized
from assay.engine.kernels.plain import FP8_MAX, quantize_rows
from assay.errors import UsageError
from assay.model.parts import Linear

MARGIN = 4.0
"""How far beyond what was seen on the calibration batch a fixed scale reaches. fp8 keeps 3 bits from
2^-6 to 448: the margin costs range at the small end, not precision."""


def fp8_weights(linear: Linear, dtype: torch.dtype) -> Fp8Weights:
    """Return `linear` with its weight in fp8; results are of `dtype`."""
    quantized = quantize_rows(linear.weight)
    bias = linear.weight.new_zeros(linear.weight.shape[0]) if linear.bias is None else linear.bias
    return Fp8Weights(
        weight_OI=quantized.values, scales_O=quantized.scales[:, 0].contiguous(), bias_O=bias.to(dtype)
    )


def fp8_linear(x: Quantized, linear: Fp8Weights) -> torch.Tensor:
    """Return x @ weight.T + bias, [R, O], of the dtype of the bias."""
    if not x.values.is_cuda:
        weight_OI = linear.weight_OI.float() * linear.scales_O[:, None]
        return F.linear(x.values.float() * x.scales, weight_OI, linear.bias_O.float()).to(linear.bias_O.dtype)
    return torch._scaled_mm(  # noqa: SLF001 - torch has no public name for it yet
        x.values,
        linear.weight_OI.t(),
        scale_a=x.scales,
        scale_b=linear.scales_O[None],
        bias=linear.bias_O,
        out_dtype=linear.bias_O.dtype,
        use_fast_accum=True,
    )


def with_scale(values: torch.Tensor, scale: float) -> Quantized:
    """Return fp8 rows that share one scale."""
    return Quantized(values=values, scales=torch.full((values.shape[0], 1), scale, device=values.device))


def scale_for(x: torch.Tensor) -> float:
    """Return the fixed scale for values like x: a power of two, so that rounding of the maximum rarely shows."""
    # what is not finite stays so through fp8, and the gate sees it
    largest = max(float(x.abs().nan_to_num(0.0, 0.0, 0.0).amax()), 1e-6)
    return 2.0 ** math.ceil(math.log2(largest * MARGIN / FP8_MAX))


def check_fp8(device: torch.device) -> None:
    """Raise UsageError where the device has no fp8 products."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 9):
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "this CPU"
        raise UsageError(f"precision 'fp8' needs a GPU of capability 8.9 or newer, not {name}; use bf16")
