"""The kernels of `Kernels` in Triton, for CUDA devices. Import it only where Triton is installed."""

from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling

from assay.engine.kernels import ahead, triton_attention, triton_linear, triton_rows
from assay.engine.kernels.kernels import EmbeddingTables, Fp8Weights, Quantized
from assay.engine.kernels.layout import DeviceBatch
from assay.engine.kernels.triton_rows import is_fast
from assay.model.parts import Activation, Linear, Norm

_SHALLOW = 768
"""Inputs up to which our product with GELU in its epilogue was faster than the library's (by a tenth)."""
_SHALLOW_TILE = triton_linear.Tile(depth=64, stages=4, split=True)


class TritonKernels:
    """Triton throughout."""

    name = "Triton kernels"

    def compiled_ahead(self, device: torch.device) -> AbstractContextManager[None]:
        """See `Kernels.compiled_ahead`."""
        return ahead.compiled_ahead(device)

    def embed(self, batch: DeviceBatch, tables: EmbeddingTables) -> torch.Tensor:
        """See `Kernels.embed`."""
        return triton_rows.embed(batch, tables)

    def norm(
        self, x_RH: torch.Tensor, norm: Norm, *, bias: torch.Tensor | None = None, in_place: bool = False
    ) -> torch.Tensor:
        """See `Kernels.norm`."""
        out = x_RH if in_place else torch.empty_like(x_RH)
        triton_rows.norm_rows(x_RH, norm, added=bias, out=out)
        return out

    def add_norm_quantize(
        self, x_RH: torch.Tensor, residual_RH: torch.Tensor | None, norm: Norm
    ) -> tuple[torch.Tensor, Quantized]:
        """See `Kernels.add_norm_quantize`."""
        quantized = triton_rows.empty_quantized(x_RH)
        triton_rows.norm_rows(x_RH, norm, residual=residual_RH, out=x_RH, quantized=quantized)
        return x_RH, quantized

    def activate_quantize(self, x_RI: torch.Tensor, activation: Activation | None) -> Quantized:
        """See `Kernels.activate_quantize`."""
        return triton_rows.activate_quantize(x_RI, activation)

    def activate(self, x_RI: torch.Tensor, activation: Activation) -> torch.Tensor:
        """See `Kernels.activate`."""
        triton_rows.activate_rows(x_RI, activation, gated=False, out=x_RI)
        return x_RI

    def linear_activate(self, x_RH: torch.Tensor, linear: Linear, activation: Activation) -> torch.Tensor:
        """See `Kernels.linear_activate`.

        In half precision GELU runs in its tanh form: off by up to 5e-4, less than half precision keeps.
        """
        weight, bias = linear.weight, linear.bias
        is_gelu = activation in {"gelu", "gelu_tanh"}
        if bias is None or not is_fast(x_RH) or not (is_gelu or activation == "relu"):
            return self.activate(F.linear(x_RH, weight, bias), activation)
        if is_gelu and weight.shape[1] <= _SHALLOW and triton_linear.can_run(x_RH, weight):
            out = x_RH.new_empty((x_RH.shape[0], weight.shape[0]))
            return triton_linear.linear(x_RH, weight, bias, "gelu_tanh", out=out, tile=_SHALLOW_TILE)
        return torch._addmm_activation(bias, x_RH, weight.t(), use_gelu=is_gelu)  # noqa: SLF001 - the one way to it

    def activate_gated(self, x_RI: torch.Tensor, activation: Activation) -> torch.Tensor:
        """See `Kernels.activate_gated`."""
        out = x_RI.new_empty((x_RI.shape[0], x_RI.shape[1] // 2))
        triton_rows.activate_rows(x_RI, activation, gated=True, out=out)
        return out

    def rotate(self, x_TH: torch.Tensor, batch: DeviceBatch, angles: torch.Tensor, num_heads: int) -> None:
        """See `Kernels.rotate`."""
        triton_rows.rotate(x_TH, batch, angles, num_heads)

    def linear_activate_quantize(
        self, x: Quantized, linear: Fp8Weights, activation: Activation, scale: float
    ) -> torch.Tensor:
        """See `Kernels.linear_activate_quantize`; GELU in its tanh form, well within fp8's rounding."""
        out = x.values.new_empty((x.values.shape[0], linear.weight_OI.shape[0]))
        return triton_linear.linear(
            x.values,
            linear.weight_OI,
            linear.bias_O,
            "gelu_tanh" if activation == "gelu" else activation,
            out=out,
            scales=(x.scales, linear.scales_O),
            inverse_scale=1.0 / scale,
        )

    def attention(
        self,
        qkv_TH: torch.Tensor,
        batch: DeviceBatch,
        *,
        num_heads: int,
        window: int | None,
        fp8_scale: float | None = None,
    ) -> torch.Tensor:
        """See `Kernels.attention`."""
        if fp8_scale is None:
            return triton_attention.attention(qkv_TH, batch, num_heads=num_heads, window=window)
        out = qkv_TH.new_empty((qkv_TH.shape[0], qkv_TH.shape[1] // 3), dtype=torch.float8_e4m3fn)
        return triton_attention.attention(
            qkv_TH, batch, num_heads=num_heads, window=window, out=out, inverse_scale=1.0 / fp8_scale
        )

    def first_attention(
        self,
        queries_NH: torch.Tensor,
        keys_values_TH: torch.Tensor,
        batch: DeviceBatch,
        *,
        num_heads: int,
        window: int | None,
    ) -> torch.Tensor:
        """See `Kernels.first_attention`."""
        return triton_attention.first_attention(
            queries_NH, keys_values_TH, batch, num_heads=num_heads, window=window
        )

    def mean(self, hidden_TH: torch.Tensor, batch: DeviceBatch) -> torch.Tensor:
        """See `Kernels.mean`."""
        return triton_rows.mean(hidden_TH, batch)

    def first_mixture(
        self, queries_NAH: torch.Tensor, hidden_TH: torch.Tensor, batch: DeviceBatch, *, num_heads: int
    ) -> torch.Tensor:
        """See `Kernels.first_mixture`."""
        return triton_attention.first_mixture(queries_NAH, hidden_TH, batch, num_heads=num_heads)
