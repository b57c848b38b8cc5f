"""The kernels in plain torch: on any device, for any shape; what the Triton ones are tested against.

Axes: see kernels.py; n sequences of a group, L the longest of them.
"""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling

from assay.engine.kernels.kernels import EmbeddingTables, Fp8Weights, Quantized
from assay.engine.kernels.layout import DeviceBatch
from assay.engine.positions import token_positions
from assay.model.parts import Activation, Linear, Norm, activate

FP8_MAX = 448.0
"""Largest finite value of float8_e4m3fn."""
_GROUP = 64
"""Sequences of like length that one call of attention takes."""


class PlainKernels:
    """Plain torch throughout."""

    name = "plain torch"

    def compiled_ahead(self, device: torch.device) -> AbstractContextManager[None]:
        """See `Kernels.compiled_ahead`; there is nothing to compile."""
        del device
        return nullcontext()

    def embed(self, batch: DeviceBatch, tables: EmbeddingTables) -> torch.Tensor:
        """See `Kernels.embed`."""
        hidden_TH = F.embedding(batch.input_ids_T, tables.words)
        if tables.positions is not None:
            hidden_TH += F.embedding(_positions(batch), tables.positions)
        if tables.types is not None and batch.token_types_T is not None:
            hidden_TH += F.embedding(batch.token_types_T, tables.types)
        return self.norm(hidden_TH, tables.norm)

    def norm(
        self, x_RH: torch.Tensor, norm: Norm, *, bias: torch.Tensor | None = None, in_place: bool = False
    ) -> torch.Tensor:
        """See `Kernels.norm`."""
        del in_place
        if bias is not None:
            x_RH = x_RH + bias
        return F.layer_norm(x_RH, x_RH.shape[-1:], norm.weight, norm.bias, norm.eps)

    def add_norm_quantize(
        self, x_RH: torch.Tensor, residual_RH: torch.Tensor | None, norm: Norm
    ) -> tuple[torch.Tensor, Quantized]:
        """See `Kernels.add_norm_quantize`."""
        normed_RH = self.norm(x_RH if residual_RH is None else x_RH + residual_RH, norm)
        return normed_RH, quantize_rows(normed_RH)

    def activate_quantize(self, x_RI: torch.Tensor, activation: Activation | None) -> Quantized:
        """See `Kernels.activate_quantize`."""
        return quantize_rows(x_RI if activation is None else activate(x_RI.float(), activation))

    def activate(self, x_RI: torch.Tensor, activation: Activation) -> torch.Tensor:
        """See `Kernels.activate`."""
        return activate(x_RI, activation)

    def linear_activate(self, x_RH: torch.Tensor, linear: Linear, activation: Activation) -> torch.Tensor:
        """See `Kernels.linear_activate`."""
        return activate(F.linear(x_RH, linear.weight, linear.bias), activation)

    def activate_gated(self, x_RI: torch.Tensor, activation: Activation) -> torch.Tensor:
        """See `Kernels.activate_gated`."""
        inner_RI, gate_RI = x_RI.chunk(2, dim=1)
        return activate(inner_RI, activation) * gate_RI

    def rotate(self, x_TH: torch.Tensor, batch: DeviceBatch, angles: torch.Tensor, num_heads: int) -> None:
        """See `Kernels.rotate`."""
        cos_TD, sin_TD = angles[:, _positions(batch), None, :]
        x_TAD = x_TH[:, : num_heads * 2 * angles.shape[2]].unflatten(1, (num_heads, -1))
        left, right = (half.float() for half in x_TAD.chunk(2, dim=-1))
        x_TAD.copy_(torch.cat([left * cos_TD - right * sin_TD, right * cos_TD + left * sin_TD], dim=-1))

    def linear_activate_quantize(
        self, x: Quantized, linear: Fp8Weights, activation: Activation, scale: float
    ) -> torch.Tensor:
        """See `Kernels.linear_activate_quantize`."""
        weight_OI = linear.weight_OI.float() * linear.scales_O[:, None]
        inner_RO = F.linear(x.values.float() * x.scales, weight_OI, linear.bias_O.float())
        return to_fp8(activate(inner_RO, activation) / scale)

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
        queries_TH, keys_TH, values_TH = qkv_TH.chunk(3, dim=1)
        out_TH = torch.zeros_like(queries_TH)
        for rows_nL, mask_nL, _ in groups(batch):
            queries, keys, values = (
                x[rows_nL].unflatten(2, (num_heads, -1)).transpose(1, 2)
                for x in (queries_TH, keys_TH, values_TH)
            )
            length = rows_nL.shape[1]
            allowed = mask_nL[:, None, None, :]
            if window is not None:
                places = torch.arange(length, device=qkv_TH.device)
                allowed = allowed & ((places[:, None] - places[None]).abs() <= window)
            attended = F.scaled_dot_product_attention(
                queries, keys, values, attn_mask=allowed, scale=math.log(2)
            )
            out_TH[rows_nL[mask_nL]] = attended.transpose(1, 2).flatten(2)[mask_nL]
        return out_TH if fp8_scale is None else to_fp8(out_TH.float() / fp8_scale)

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
        keys_TH, values_TH = keys_values_TH.chunk(2, dim=1)
        out_NH = torch.empty_like(queries_NH)
        for rows_nL, mask_nL, sequences_n in groups(batch):
            queries = queries_NH[sequences_n].unflatten(1, (num_heads, 1, -1))
            keys, values = (
                x[rows_nL].unflatten(2, (num_heads, -1)).transpose(1, 2) for x in (keys_TH, values_TH)
            )
            allowed = mask_nL[:, None, None, :]
            if window is not None:
                allowed = allowed & (torch.arange(rows_nL.shape[1], device=queries.device) <= window)
            attended = F.scaled_dot_product_attention(
                queries, keys, values, attn_mask=allowed, scale=math.log(2)
            )
            out_NH[sequences_n] = attended.flatten(1)
        return out_NH

    def mean(self, hidden_TH: torch.Tensor, batch: DeviceBatch) -> torch.Tensor:
        """See `Kernels.mean`."""
        bounds = batch.cu_seqlens.long()
        sums_NH = torch.segment_reduce(hidden_TH[: int(bounds[-1])].float(), "sum", offsets=bounds, axis=0)
        return sums_NH / bounds.diff()[:, None]

    def first_mixture(
        self, queries_NAH: torch.Tensor, hidden_TH: torch.Tensor, batch: DeviceBatch, *, num_heads: int
    ) -> torch.Tensor:
        """See `Kernels.first_mixture`."""
        out_NAH = torch.empty_like(queries_NAH)
        for rows_nL, mask_nL, sequences_n in groups(batch):
            states_nLH = hidden_TH[rows_nL][:, None]
            mixed = F.scaled_dot_product_attention(
                queries_NAH[sequences_n].unflatten(1, (num_heads, 1, -1)),
                states_nLH.expand(-1, num_heads, -1, -1),
                states_nLH.expand(-1, num_heads, -1, -1),
                attn_mask=mask_nL[:, None, None, :],
                scale=math.log(2),
            )
            out_NAH[sequences_n] = mixed.flatten(1)
        return out_NAH


def quantize_rows(x_RH: torch.Tensor) -> Quantized:
    """Return each row of x in fp8, scaled so that its largest value is fp8's largest."""
    scales_R = x_RH.float().abs().amax(dim=-1, keepdim=True).clamp_min_(1e-12) / FP8_MAX
    return Quantized(values=(x_RH.float() / scales_R).to(torch.float8_e4m3fn), scales=scales_R)


def to_fp8(x: torch.Tensor) -> torch.Tensor:
    """Return x in fp8; beyond its range its ends."""
    return x.clamp(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn)


def _positions(batch: DeviceBatch) -> torch.Tensor:
    """Row of the position table for each row of the batch; 0 for rows of no token."""
    if batch.positions_T is not None:
        return batch.positions_T
    bounds = batch.cu_seqlens.cpu().numpy()
    positions_T = torch.from_numpy(np.pad(token_positions(bounds), (0, batch.num_rows - int(bounds[-1]))))
    return positions_T.to(batch.input_ids_T.device)


def groups(
    batch: DeviceBatch, *, size: int = _GROUP
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield rows [n, L] of up to `size` sequences of like length, which of them are tokens, and the sequences [n]."""
    device = batch.input_ids_T.device
    bounds = batch.cu_seqlens.cpu().long()
    lengths = bounds.diff()
    for some in lengths.argsort(descending=True, stable=True).split(size):
        within_L = torch.arange(int(lengths[some[0]]))
        mask_nL = within_L < lengths[some, None]
        # a sequence's last token stands in for what it lacks: another's may be NaN, which 0 does not undo
        rows_nL = bounds[some, None] + within_L.minimum(lengths[some, None] - 1)
        yield rows_nL.to(device), mask_nL.to(device), some.to(device)
