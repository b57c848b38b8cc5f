"""Elementwise passes of training, each one kernel forward and one or two backward where Triton runs.

On CUDA tensors with Triton installed triton_fused.py runs them; else ordinary torch operations, in
float32 inside, whose dropout draws from torch's global generator.

Axes: R rows, H hidden, I intermediate.
"""

import importlib.util
from functools import cache
from types import ModuleType

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling

from assay.model.parts import Activation, activate


def bias_activation(x_RI: torch.Tensor, bias_I: torch.Tensor | None, activation: Activation) -> torch.Tensor:
    """Return activation(x + bias), [R, I], of x's dtype; x is what is kept for the way back."""
    triton = _triton_for(x_RI)
    if triton is not None:
        result: torch.Tensor = triton.bias_activation(x_RI, bias_I, activation)
        return result
    return activate(_added(x_RI, bias_I), activation).to(x_RI.dtype)


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
    """Return layer_norm(residual + dropout(x + bias)), [R, H], of x's dtype: for the next product, and as residual.

    The two are one tensor in memory. Their gradients meet in the kernel that reads them, which saves the
    pass over both that autograd would add. `p` is the share dropped. What is dropped depends on `seed`, int64
    [1] on the device and read there, and on `salt`, a number of the place in the model; it is drawn again,
    not stored, for the way back. Plain torch looks at neither.
    """
    triton = _triton_for(x_RH)
    if triton is not None:
        first_RH, second_RH = triton.dropout_add_norm(
            x_RH, bias_H, residual_RH, norm_weight_H, norm_bias_H, eps=eps, p=p, seed=seed, salt=salt
        )
        return first_RH, second_RH
    dropped_RH = F.dropout(_added(x_RH, bias_H), p)
    if residual_RH is not None:
        dropped_RH = dropped_RH + residual_RH.float()
    normed_RH = _norm(dropped_RH, norm_weight_H, norm_bias_H, eps).to(x_RH.dtype)
    return normed_RH, normed_RH


def norm_dropout(
    x_RH: torch.Tensor,
    weight_H: torch.Tensor,
    bias_H: torch.Tensor | None,
    eps: float,
    p: float,
    seed: torch.Tensor,
    salt: int,
    *,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Return dropout(layer_norm(x)), [R, H], in `dtype` or x's; see `dropout_add_norm`."""
    dtype = dtype or x_RH.dtype
    triton = _triton_for(x_RH)
    if triton is not None:
        result: torch.Tensor = triton.norm_dropout(
            x_RH, weight_H, bias_H, eps=eps, p=p, seed=seed, salt=salt, dtype=dtype
        )
        return result
    return F.dropout(_norm(x_RH.float(), weight_H, bias_H, eps), p).to(dtype)


def _triton_for(x: torch.Tensor) -> ModuleType | None:
    """The module of kernels where they can run on x."""
    if not x.is_cuda or not _has_triton():
        return None
    from assay.train.kernels import triton_fused

    return triton_fused


@cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def _added(x_RH: torch.Tensor, bias_H: torch.Tensor | None) -> torch.Tensor:
    return x_RH.float() if bias_H is None else x_RH.float() + bias_H.float()


def _norm(
    x_RH: torch.Tensor, weight_H: torch.Tensor, bias_H: torch.Tensor | None, eps: float
) -> torch.Tensor:
    bias = None if bias_H is None else bias_H.float()
    return F.layer_norm(x_RH, x_RH.shape[-1:], weight_H.float(), bias, eps)
