"""Formulas written out once more, for tests to compare kernels with."""

import math

import torch


def activated(x, activation):
    """The activation in float64, by its formula; x itself for None."""
    x = x.double()
    match activation:
        case "gelu":
            return 0.5 * x * (1.0 + torch.erf(x / math.sqrt(2.0)))
        case "gelu_tanh":
            return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))
        case "relu":
            return x.clamp_min(0.0)
        case "silu":
            return x / (1.0 + torch.exp(-x))
        case "tanh":
            return torch.tanh(x)
        case None:
            return x
    raise AssertionError(activation)
