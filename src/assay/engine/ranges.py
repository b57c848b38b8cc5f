"""How large the numbers of a model are, in fp32: its weights, and what its parts take in and give."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from assay.engine.made_up import made_up_sequences
from assay.model import pretrained
from assay.model.checkpoint import Checkpoint

LEAST = torch.finfo(torch.float32).min
"""What masks are made of; it is a number of no activation."""


class Watch:
    """The largest absolute value that passed through the parts of some models."""

    def __init__(self) -> None:
        """Watch nothing yet."""
        self._largest: dict[torch.device, torch.Tensor] = {}

    def add(self, model: nn.Module) -> None:
        """Watch a model from now on: its parts that have no parts, which see each sum that is kept between two."""
        for part in model.modules():
            if next(part.children(), None) is None:
                part.register_forward_hook(self._see)

    def largest(self) -> float:
        """The largest absolute value so far, 0 where there was none; NaN or infinity where one was that."""
        return max((float(value) for value in self._largest.values()), default=0.0, key=_not_finite_last)

    def _see(self, _part: nn.Module, given: tuple[Any, ...], made: object) -> None:
        for tensor in _tensors((given, made)):
            seen = tensor.detach().float()
            # waits for no device: the running maximum lies where the numbers do
            largest = torch.where(seen <= LEAST, 0.0, seen.abs()).amax()
            before = self._largest.get(tensor.device)
            self._largest[tensor.device] = largest if before is None else torch.maximum(before, largest)


@torch.inference_mode()
def measure_ranges(checkpoint: Checkpoint, *, headless: bool) -> dict[str, float | None]:
    """Return the largest weight and the largest activation of a checkpoint on made-up sequences, on the CPU in fp32.

    None for activations where the model does not take the sequences. Raises BundleError where it cannot be loaded.
    """
    load = pretrained.load_encoder if headless else pretrained.load_classifier
    model: Any = load(checkpoint.path, dtype=torch.float32)
    weights = max(
        (float(weight.abs().amax()) for weight in _weights(model)), default=0.0, key=_not_finite_last
    )
    watch = Watch()
    watch.add(model)
    vocab_size = int(model.get_input_embeddings().weight.shape[0])
    activations: float | None
    try:
        for sequence in made_up_sequences(max_length=checkpoint.max_length, vocab_size=vocab_size):
            model(input_ids=torch.tensor([sequence]))
        activations = watch.largest()
    except (ValueError, IndexError, RuntimeError):  # a model that wants an end-of-sequence id, for one
        activations = None
    return {"weights": weights, "activations": activations}


def _weights(model: nn.Module) -> Iterable[torch.Tensor]:
    return (weight for weight in model.parameters() if weight.is_floating_point() and weight.numel())


def _tensors(value: object) -> Iterator[torch.Tensor]:
    """All tensors of numbers in a value, at any depth."""
    if isinstance(value, torch.Tensor):
        if value.is_floating_point() and value.numel():
            yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _tensors(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)


def _not_finite_last(value: float) -> tuple[bool, float]:
    """A key by which NaN is larger than every number."""
    return (value != value, value)  # noqa: PLR0124 - NaN
