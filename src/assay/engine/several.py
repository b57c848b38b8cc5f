"""Several engines as one: a batch is tokenized and packed once, and each of them runs it."""

from collections.abc import Callable, Sequence

import torch

from assay.engine.engine import Engine, in_fp32, loaded_once
from assay.model.packing import PackedBatch


class SeveralEngines:
    """Outputs of several engines side by side, [N, M * C], those of each in a common order."""

    def __init__(self, engines: Sequence[Engine], orders: Sequence[Sequence[int]]) -> None:
        """`orders` says of each engine which of its outputs is each of the C that all have."""
        self._engines = tuple(engines)
        is_as_it_is = [tuple(order) == tuple(range(len(order))) for order in orders]
        self._orders = [
            None if plain else torch.tensor(list(order))
            for plain, order in zip(is_as_it_is, orders, strict=True)
        ]
        names = dict.fromkeys(engine.name for engine in engines)
        self.name = f"{len(engines)} x {', '.join(names)}"
        self.num_padded_tokens = 0
        self.output_shape: tuple[int, ...] = (sum(len(order) for order in orders),)
        self.max_length = min(engine.max_length for engine in engines)
        self.vocab_size = min(engine.vocab_size for engine in engines)
        self.packed = all(engine.packed for engine in engines)
        self.wants_sorted = any(engine.wants_sorted for engine in engines)
        self.default_batch_tokens = min(engine.default_batch_tokens for engine in engines)
        self.deterministic = all(engine.deterministic for engine in engines)
        self.fp32: Callable[[], Engine] | None = None
        if any(engine.fp32 is not None for engine in engines):
            self.fp32 = loaded_once(lambda: SeveralEngines([in_fp32(engine) for engine in engines], orders))

    @property
    def device_seconds(self) -> float | None:
        """Seconds that the device worked for all of them; None where one does not count them."""
        seconds = [engine.device_seconds for engine in self._engines]
        known = [each for each in seconds if each is not None]
        return sum(known) if len(known) == len(seconds) else None

    def forward(self, batch: PackedBatch) -> torch.Tensor:
        """Return the outputs of all, float32 [N, M * C]."""
        found = []
        for engine, order in zip(self._engines, self._orders, strict=True):
            outputs_NC = engine.forward(batch)
            found.append(
                outputs_NC if order is None else outputs_NC.index_select(1, order.to(outputs_NC.device))
            )
        # padding counts once for all of them, as tokens do
        self.num_padded_tokens = sum(engine.num_padded_tokens for engine in self._engines) // len(
            self._engines
        )
        return torch.cat(found, dim=1)

    def description(self) -> str:
        """Return one line: how many, and what the first says of itself."""
        return f"{len(self._engines)} members, each: {self._engines[0].description()}"
