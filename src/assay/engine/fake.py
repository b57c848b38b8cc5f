"""An engine without weights: cheap logits that depend on the ids, so that a mix-up shows.

Ships in the package for tests and for measuring everything but the forward pass.
"""

import math
import time
from collections.abc import Callable

import numpy as np
import torch

from assay.engine.engine import Engine
from assay.model.packing import PackedBatch

_MIX = np.uint64(0x9E3779B97F4A7C15)


class FakeEngine:
    """Outputs in [-3, 3) from four token ids of a sequence, its length and its last token type.

    Equal sequences get equal outputs, whatever they are batched with. No model would give these outputs.
    """

    name = "fake"
    max_length = 1 << 20
    vocab_size = 1 << 31
    packed = True
    wants_sorted = False
    default_batch_tokens = 1 << 20
    num_padded_tokens = 0
    device_seconds = None
    deterministic = False
    fp32: Callable[[], Engine] | None = None

    def __init__(self, *, output_shape: tuple[int, ...] = (2,), seconds_per_token: float = 0.0) -> None:
        """Make an engine of outputs of this shape that sleeps `seconds_per_token` for each token."""
        if min(output_shape, default=1) < 1 or seconds_per_token < 0:
            raise ValueError(
                f"output_shape {output_shape} and seconds_per_token {seconds_per_token} must be positive"
            )
        self.output_shape = output_shape
        self.seconds_per_token = seconds_per_token
        numbers = np.arange(1, math.prod(output_shape) + 1, dtype=np.uint64)
        self._factors = (np.uint64(2) * numbers * _MIX + np.uint64(1)).reshape(output_shape)

    def forward(self, batch: PackedBatch) -> torch.Tensor:
        """Return made-up outputs, float32 [N, *output_shape]."""
        if self.seconds_per_token:
            time.sleep(self.seconds_per_token * batch.num_tokens)
        bounds = batch.cu_seqlens.numpy()
        ids = batch.input_ids_T.numpy()
        starts_N, last_N = bounds[:-1], bounds[1:] - 1
        lengths_N = last_N - starts_N
        mixed_N = lengths_N.astype(np.uint64)
        second_N = starts_N + np.minimum(lengths_N, 1)
        for sampled_N in (ids[starts_N], ids[second_N], ids[starts_N + lengths_N // 2], ids[last_N]):
            mixed_N += sampled_N.astype(np.uint64)
            mixed_N *= _MIX
        if batch.token_type_ids_T is not None:
            types_N = batch.token_type_ids_T.numpy()[last_N].astype(np.uint64)
            # a sequence of one segment is the same in the company of pairs
            mixed_N = np.where(types_N > 0, (mixed_N + types_N) * _MIX, mixed_N)
        mixed = np.multiply.outer(mixed_N, self._factors)
        outputs = (mixed >> np.uint64(40)).astype(np.float32) * np.float32(6.0 / (1 << 24)) - np.float32(3.0)
        return torch.from_numpy(outputs)

    def description(self) -> str:
        """Return one line: that no model ran."""
        return f"fake engine, outputs of shape {self.output_shape}: made-up numbers, no model"
