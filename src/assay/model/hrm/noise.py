"""Gaussian noise on the latent state that belongs to a puzzle, not to a batch.

Noise at each step lets a model leave a wrong basin; several seeds make several attempts (Sghaier et al. 2026,
"Probabilistic Tiny Recursive Model"). A number depends on the puzzle's seed, the step and the place in the
state alone, so results do not change with batching, with what else runs, or with the device but for rounding.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray

_GOLDEN = 0x9E3779B97F4A7C15
_LOW_32 = 0xFFFFFFFF
_ELEMENTS_AT_ONCE = 1 << 26


@dataclass(frozen=True, kw_only=True, slots=True)
class Noise:
    """How strong, and a seed for each puzzle."""

    scale: float
    """Deviation; the latent state's own is 1."""
    seeds_N: NDArray[Any]
    """int64, of (item, member)."""


def noise_of(seeds_B: torch.Tensor, step: int, shape: Sequence[int]) -> torch.Tensor:
    """Standard normal numbers [B, *shape] of each seed (int64) at a step, float32."""
    width = math.prod(shape)
    rows = max(_ELEMENTS_AT_ONCE // max(width, 1), 1)
    places = torch.arange(width, device=seeds_B.device) * _signed(_GOLDEN)
    parts = []
    for start in range(0, len(seeds_B), rows):
        keys = _mixed(_mixed(seeds_B[start : start + rows]) + _signed(step * _GOLDEN))
        bits = _mixed(keys[:, None] + places[None, :])
        first = (((bits >> 32) & _LOW_32).double() + 0.5).div_(1 << 32).float()
        second = (bits & _LOW_32).double().div_(1 << 32).float()
        parts.append(torch.sqrt(-2 * torch.log(first)) * torch.cos(2 * math.pi * second))
    drawn = torch.cat(parts) if parts else torch.empty((0, width), device=seeds_B.device)
    return drawn.view(len(seeds_B), *shape)


def _mixed(keys: torch.Tensor) -> torch.Tensor:
    """SplitMix64's finalizer (Steele et al. 2014); int64 wraps around as unsigned numbers do."""
    keys = (keys ^ _shifted(keys, 30)) * _signed(0xBF58476D1CE4E5B9)
    keys = (keys ^ _shifted(keys, 27)) * _signed(0x94D049BB133111EB)
    return keys ^ _shifted(keys, 31)


def _shifted(keys: torch.Tensor, places: int) -> torch.Tensor:
    """A shift to the right that brings zeros in."""
    return (keys >> places) & ((1 << (64 - places)) - 1)


def _signed(number: int) -> int:
    """The int64 that has the lowest 64 bits of a number."""
    number &= (1 << 64) - 1
    return number - (1 << 64) if number >> 63 else number
