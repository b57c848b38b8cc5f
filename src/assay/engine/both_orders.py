"""An engine that reads pairs again with their texts swapped, where the first order does not decide."""

from collections.abc import Callable

import numpy as np
import torch

from assay.engine.engine import Engine, in_fp32, loaded_once
from assay.metrics import BoolArray, FloatArray
from assay.model.packing import PackedBatch
from assay.outcome.orders import SecondOrder

Needed = Callable[[FloatArray], BoolArray]
"""Which sequences need the second order, by the outputs of the first."""


class BothOrders:
    """Outputs of both orders side by side, [N, 2 C]; the first order's twice for a sequence that needs no second.

    Waits for the first order's outputs: which pairs are read again depends on them.
    """

    def __init__(self, engine: Engine, orders: SecondOrder, needed: Needed) -> None:
        """Take `engine` for both orders."""
        self._engine, self._orders, self._needed = engine, orders, needed
        (num_outputs,) = engine.output_shape
        self.name = engine.name
        self.output_shape: tuple[int, ...] = (2 * num_outputs,)
        self.max_length, self.vocab_size = engine.max_length, engine.vocab_size
        self.packed, self.wants_sorted = engine.packed, engine.wants_sorted
        self.default_batch_tokens, self.deterministic = engine.default_batch_tokens, engine.deterministic
        self.num_padded_tokens = 0
        self.fp32: Callable[[], Engine] | None = None
        if engine.fp32 is not None:
            self.fp32 = loaded_once(lambda: BothOrders(in_fp32(engine), orders, needed))

    @property
    def device_seconds(self) -> float | None:
        """Of both orders."""
        return self._engine.device_seconds

    def forward(self, batch: PackedBatch) -> torch.Tensor:
        """Return the outputs of both orders, float32 [N, 2 C]."""
        first_NC = self._engine.forward(batch)
        rows = np.flatnonzero(self._needed(first_NC.cpu().double().numpy()))
        rows, swapped = _swapped(batch, rows, self._orders)
        second_NC = first_NC
        if len(rows):
            second_NC = first_NC.clone()
            second_NC[torch.from_numpy(rows).to(first_NC.device)] = self._engine.forward(swapped)
        self.num_padded_tokens = self._engine.num_padded_tokens
        return torch.cat((first_NC, second_NC), dim=1)

    def description(self) -> str:
        """Return one line: what the engine says of itself, and when pairs are read twice."""
        margin = self._orders.margin
        when = "" if margin is None else f" where labels are within {margin:.4g}"
        return f"{self._engine.description()}; pairs in both orders{when}"


def _swapped(batch: PackedBatch, rows: np.ndarray, orders: SecondOrder) -> tuple[np.ndarray, PackedBatch]:
    """Those of the rows that are two texts, and their sequences with the texts swapped, in order."""
    ends = batch.cu_seqlens.numpy()
    ids_T = batch.input_ids_T.numpy()
    types_T = None if batch.token_type_ids_T is None else batch.token_type_ids_T.numpy()
    kept, ids, types = [], [], []
    for row in rows.tolist():
        piece = slice(ends[row], ends[row + 1])
        found = orders.swap(ids_T[piece], None if types_T is None else types_T[piece])
        if found is not None:
            kept.append(row)
            ids.append(found[0])
            types.append(found[1])
    lengths = [len(each) for each in ids]
    known = [each for each in types if each is not None]
    return np.array(kept, dtype=np.int64), PackedBatch(
        input_ids_T=torch.from_numpy(np.concatenate([np.empty(0, np.int32), *ids]).astype(np.int32)),
        cu_seqlens=torch.tensor([0, *lengths]).cumsum(0).to(torch.int32),
        max_seqlen=max(lengths, default=0),
        token_type_ids_T=torch.from_numpy(np.concatenate(known).astype(np.int32)) if known else None,
    )
