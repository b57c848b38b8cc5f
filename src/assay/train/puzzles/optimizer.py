"""Updates of a puzzle model: all weights as one tensor, puzzle embeddings by the sign of their gradient."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn

_ALIGNED = 128
"""Weights begin at multiples of so many numbers, as kernels like it."""
_ADAMW_EPS = 1e-8


class Updates:
    """Adam over every parameter of a module, which become views of one tensor; likewise their gradients.

    adam_atan2 (Everett et al. 2024, without their factors): p = p (1 - lr decay) - lr / (1 - b1^t) *
    atan2(m, sqrt(v / (1 - b2^t))). adamw: decoupled decay, epsilon 1e-8. Every parameter decays.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        kind: Literal["adam_atan2", "adamw"],
        betas: tuple[float, float],
        weight_decay: float,
        ema: float | None = None,
    ) -> None:
        """`ema`: also keep a running mean of the weights, of which so much stays at each step."""
        self._kind, self._betas, self._weight_decay, self._ema = kind, betas, weight_decay, ema
        self._step = 0
        named = dict(module.named_parameters())
        first = next(iter(named.values()))
        sizes = [-(-each.numel() // _ALIGNED) * _ALIGNED for each in named.values()]
        self._weights = torch.zeros(sum(sizes), device=first.device)
        self._gradients = torch.zeros_like(self._weights)
        self._mean = torch.zeros_like(self._weights)
        self._square = torch.zeros_like(self._weights)
        self._places: dict[str, tuple[int, torch.Size]] = {}
        start = 0
        for (name, each), size in zip(named.items(), sizes, strict=True):
            self._places[name] = (start, each.shape)
            view = self._view(self._weights, name)
            view.copy_(each.detach())
            each.data = view
            each.grad = self._view(self._gradients, name)
            start += size
        self._average = self._weights.clone() if ema is not None else None

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Update the weights by their gradients, and set these to 0."""
        self._step += 1
        (beta1, beta2), gradients = self._betas, self._gradients
        self._mean.lerp_(gradients, 1 - beta1)
        self._square.mul_(beta2).addcmul_(gradients, gradients, value=1 - beta2)
        self._weights.mul_(1 - learning_rate * self._weight_decay)
        root = self._square.sqrt().div_(math.sqrt(1 - beta2**self._step))
        size = -learning_rate / (1 - beta1**self._step)
        if self._kind == "adam_atan2":
            self._weights.add_(torch.atan2(self._mean, root), alpha=size)
        else:
            self._weights.addcdiv_(self._mean, root.add_(_ADAMW_EPS), value=size)
        gradients.zero_()
        if self._average is not None and self._ema is not None:
            self._average.lerp_(self._weights, 1 - self._ema)

    def gradient_norm(self) -> torch.Tensor:
        """Of all gradients together, on the device."""
        norm: torch.Tensor = torch.linalg.vector_norm(self._gradients)
        return norm

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within, the parameters are their running mean, where one is kept."""
        if self._average is None:
            yield
            return
        kept = self._weights.clone()
        self._weights.copy_(self._average)
        try:
            yield
        finally:
            self._weights.copy_(kept)

    def state(self) -> dict[str, torch.Tensor]:
        """All that the next update needs beside the weights."""
        found = {"mean": self._mean, "square": self._square, "step": torch.tensor(self._step)}
        return found if self._average is None else {**found, "average": self._average}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take over what `state` gave."""
        self._step = int(state["step"])
        self._mean.copy_(state["mean"])
        self._square.copy_(state["square"])
        if self._average is not None:
            self._average.copy_(state["average"])

    def _view(self, flat: torch.Tensor, name: str) -> torch.Tensor:
        start, shape = self._places[name]
        return flat[start : start + math.prod(shape)].view(shape)


@torch.no_grad()
def sign_step(
    table: torch.Tensor,
    rows_B: torch.Tensor,
    gradients_BW: torch.Tensor,
    *,
    learning_rate: float,
    weight_decay: float,
) -> None:
    """SignSGD with decoupled decay of the rows of a table that a batch used.

    Gradients of the same row are summed first; a row without any is left alone. Errors: none; waits for the
    device once, to learn which rows there are.
    """
    if len(table) == 1:
        table.mul_(1 - learning_rate * weight_decay)
        table.sub_(gradients_BW.sum(0, keepdim=True).sign_(), alpha=learning_rate)
        return
    distinct, places = rows_B.long().unique(return_inverse=True)
    total = torch.zeros((len(distinct), table.shape[1]), device=table.device, dtype=gradients_BW.dtype)
    total.index_add_(0, places, gradients_BW)
    kept = table[distinct] * (1 - learning_rate * weight_decay)
    table[distinct] = kept - learning_rate * total.sign_()


def rate_share(step: int, *, warmup_steps: int, num_steps: int, min_ratio: float) -> float:
    """The share of the largest learning rate at a step, counted from 1.

    A rise from 0, then a half cosine to `min_ratio`.
    """
    if step < warmup_steps:
        return step / max(1, warmup_steps)
    gone = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return min_ratio + (1 - min_ratio) * 0.5 * (1 + math.cos(math.pi * gone))
