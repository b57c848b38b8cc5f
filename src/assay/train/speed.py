"""How fast a training goes: its arithmetic, what the device could do at most, and rates of late.

MFU is the model's arithmetic over the time it took and over what a plain product of two large matrices
reaches on the same devices (`engine.measure.matmul_ceiling`), measured before the first step. Padding
earns nothing, and what is computed twice (gradient checkpointing) counts once.
"""

from collections import deque
from dataclasses import dataclass, replace
from typing import Any

import torch

from assay.engine import measure
from assay.train.batches import IndexArray
from assay.train.history import TrainProgress
from assay.train.settings import TrainSettings

WINDOW_SECONDS = 30.0
"""Rates are those of the newest steps that took so long together."""
LOSS_STEPS = 50
"""The loss shown is the mean of so many steps."""
_SHORTEST_SECONDS = 1e-6
_PEAK_READINGS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """Figures of the newest steps; validations left out."""

    loss: float
    """Mean over the newest steps, `LOSS_STEPS` at the most."""
    samples_per_second: float | None
    """Training rows a second, over all devices; None while there are no two readings."""
    tokens_per_second: float | None
    """Tokens a second, padding left out."""
    mfu: float | None
    """Share of the devices' peak; None where that was not measured."""
    seconds_left: float | None
    """To the last step, validations included as far as there has been one."""


class RateWindow:
    """Rates over the newest steps, so that a slow start or another load does not blur them."""

    def __init__(self) -> None:
        """Begin without a reading."""
        self._readings: deque[tuple[float, TrainProgress]] = deque()
        """Seconds in steps, and what was told then; one for each time of reading."""
        self._losses: deque[float] = deque(maxlen=LOSS_STEPS)
        self._validating_seconds = 0.0
        self._first_step = 0
        self.validation: TrainProgress | None = None
        """The newest one."""

    def add(self, progress: TrainProgress) -> Rates:
        """Take in what the loop told, and say how fast it goes."""
        if not self._readings:
            self._first_step = progress.step
        elif progress.validation is not None:
            self._validating_seconds += progress.seconds - self._readings[-1][1].seconds
        now = progress.seconds - self._validating_seconds
        if progress.validation is not None:
            self.validation = progress
        else:
            self._losses.append(progress.loss)
        if self._readings and self._readings[-1][0] >= now:
            self._readings.pop()  # a GPU is read for many steps at once: they have one time
        self._readings.append((now, progress))
        while len(self._readings) > 2 and now - self._readings[1][0] >= WINDOW_SECONDS:
            self._readings.popleft()
        return self._rates(now, progress)

    def _rates(self, now: float, newest: TrainProgress) -> Rates:
        losses = self._losses or [newest.loss]
        since, oldest = self._readings[0]
        seconds = now - since
        steps = newest.step - oldest.step
        loss = sum(losses) / len(losses)
        if seconds < _SHORTEST_SECONDS or steps < 1:
            return Rates(
                loss=loss, samples_per_second=None, tokens_per_second=None, mfu=None, seconds_left=None
            )
        validating = self._validating_seconds / max(1, newest.step - self._first_step)
        return Rates(
            loss=loss,
            samples_per_second=(newest.num_rows - oldest.num_rows) / seconds,
            tokens_per_second=(newest.num_tokens - oldest.num_tokens) / seconds,
            mfu=(newest.flops - oldest.flops) / seconds / newest.peak_flops if newest.peak_flops else None,
            seconds_left=(newest.num_steps - newest.step) * (seconds / steps + validating),
        )


def flops_per_token(lengths: IndexArray, config: Any, settings: TrainSettings) -> float:  # noqa: ANN401
    """Operations of a training on rows of these lengths, by token: the mean, as attention is not linear.

    Forward is `engine.measure.flops`. A trained layer takes twice that again for the gradients of its
    activations and its matrices (Kaplan et al. 2020, section 2.1), one with LoRA only the former, a
    frozen one below the trained ones neither.
    """
    shape = measure.model_shape(config, windows=True)
    if settings.freeze_encoder:
        passes = 1.0
    elif settings.lora_rank is not None:
        passes = 2.0
    else:
        frozen = min(settings.num_frozen_layers, shape.num_layers) / max(1, shape.num_layers)
        passes = 3.0 - 2.0 * frozen
    return passes * measure.flops(lengths, shape) / max(1, int(lengths.sum()))


def peak_flops(device: torch.device, dtype: torch.dtype, *, num_devices: int) -> float | None:
    """Operations a second of a matrix product on this device, times their number; None without a GPU.

    It draws from the device's global generator, so seed that afterwards.
    """
    if device.type != "cuda":
        return None
    found = measure.matmul_ceiling(device, dtype, readings=_PEAK_READINGS)
    return None if found is None else found * measure.TERA * num_devices


@dataclass(frozen=True, kw_only=True, slots=True)
class Effort:
    """What the MFU of a training is computed from."""

    flops_per_token: float
    """Operations of a training on a token."""
    peak_flops: float | None
    """Operations a second that all devices reach in a matrix product; None where it was not measured."""

    def added_to(self, progress: TrainProgress) -> TrainProgress:
        """The progress with its operations."""
        return replace(progress, flops=progress.num_tokens * self.flops_per_token, peak_flops=self.peak_flops)
