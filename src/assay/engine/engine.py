"""What an engine is. Imports torch alone: a process on the fake engine starts without transformers."""

import threading
from collections.abc import Callable
from typing import Protocol

import torch

from assay.model.packing import PackedBatch


class Engine(Protocol):
    """Turns packed batches into outputs, logits most often. One thread at a time."""

    name: str
    """Short name for reports: "cpu-packed", "padded", "fake"."""
    output_shape: tuple[int, ...]
    """Shape of the output of a sequence: (C,) for the logits of a classifier."""
    max_length: int
    """The most tokens one sequence may have, special tokens counted."""
    vocab_size: int
    """Token ids must be below this."""
    packed: bool
    """Whether sequences run without padding."""
    wants_sorted: bool
    """Whether batches of like lengths are faster than batches in input order."""
    default_batch_tokens: int
    """A budget of tokens a batch that suits the device."""
    deterministic: bool
    """Whether a sequence gets the same bits in any batch; batches are then of the engine's own budget."""
    num_padded_tokens: int
    """Tokens of padding computed since the engine was loaded."""
    fp32: "Callable[[], Engine] | None"
    """Gives the engine of the same model in fp32 on the same device, which is loaded when first asked for.

    None where this one computes in fp32 itself, or has no model.
    """

    @property
    def device_seconds(self) -> float | None:
        """Seconds that the device worked since the engine was loaded; asking waits until it is done.

        None where `forward` itself waits, so that its wall time is the device's.
        """
        ...

    def forward(self, batch: PackedBatch) -> torch.Tensor:
        """Return the outputs, float32 [N, *output_shape], row k for sequence k.

        They may lie on a device and still be on their way: `.cpu()` waits for them.
        """
        ...

    def description(self) -> str:
        """Return one line for `doctor` and reports: what runs where, and why not faster."""
        ...


def loaded_once(load: Callable[[], Engine]) -> Callable[[], Engine]:
    """Return what calls `load` once, when first asked, and gives its engine to whoever asks, in any thread."""
    lock = threading.Lock()
    loaded: list[Engine] = []

    def get() -> Engine:
        with lock:
            if not loaded:
                loaded.append(load())
            return loaded[0]

    return get


def in_fp32(engine: Engine) -> Engine:
    """Return the engine of the same model in fp32 on the same device; the engine itself where that is in fp32.

    The first call loads it, which takes seconds; later calls give the same one. It has its own weights on the
    device. Raises what `load_engine` raises, and torch.OutOfMemoryError where the device has no room for it.
    """
    return engine if engine.fp32 is None else engine.fp32()
