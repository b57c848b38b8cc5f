"""Figures on their way from a device, and the time by its own clock, so that no step waits for the host."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray


class StepFigures:
    """Losses, norms and what else was counted of some steps, on their way from the device."""

    def __init__(self, of_steps: Sequence[tuple[torch.Tensor, ...]]) -> None:
        figures = torch.stack([figure for all_of in of_steps for figure in all_of]).view(len(of_steps), -1)
        self._here = figures
        if figures.device.type == "cuda":
            self._here = torch.empty(figures.shape, dtype=figures.dtype, pin_memory=True)
            self._here.copy_(figures, non_blocking=True)
        self.end = DeviceMark.now(figures.device)

    def wait(self) -> NDArray[np.float64]:
        """The figures, once they have arrived: each step's loss on this rank, norm and what else; [steps, 2 or 3]."""
        self.end.wait()
        figures: NDArray[np.float64] = self._here.double().numpy()
        return figures


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceMark:
    """The end of what a device has been given so far."""

    host_seconds: float
    """When it was given, by the host's clock."""
    event: torch.cuda.Event | None
    """On a GPU, which gets there later."""

    @classmethod
    def now(cls, device: torch.device) -> "DeviceMark":
        """Behind all that the current stream of the device has been given."""
        event = None
        if device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
        return cls(host_seconds=time.monotonic(), event=event)

    def wait(self) -> None:
        """Wait until the device has got there."""
        if self.event is not None:
            self.event.synchronize()

    def seconds_since(self, earlier: "DeviceMark") -> float:
        """By the device's own clock, once it has got here."""
        if self.event is None or earlier.event is None:
            return self.host_seconds - earlier.host_seconds
        return float(earlier.event.elapsed_time(self.event)) / 1000.0
