"""The packed batch: one flat run of token ids and where each sequence begins and ends.

Axes: T tokens of the batch, N sequences.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedBatch:
    """Sequences laid end to end, without padding; what every engine takes."""

    input_ids_T: torch.Tensor
    """Token ids with special tokens, int32 [T], on the CPU."""

    cu_seqlens: torch.Tensor
    """Sequence k is input_ids_T[cu_seqlens[k]:cu_seqlens[k + 1]]; int32 [N + 1], on the CPU."""

    max_seqlen: int
    """Tokens of the longest sequence."""

    token_type_ids_T: torch.Tensor | None = None
    """0 for the first segment of a pair and 1 for the second, int32 [T]; None where all are 0."""

    @property
    def num_sequences(self) -> int:
        """N, the number of sequences."""
        return self.cu_seqlens.shape[0] - 1

    @property
    def num_tokens(self) -> int:
        """T, the number of tokens."""
        return self.input_ids_T.shape[0]


def pack(
    sequences: Sequence[Sequence[int]], token_types: Sequence[Sequence[int]] | None = None
) -> PackedBatch:
    """Return the batch of some short lists of ids; for self tests and small inputs, not for corpora."""
    lengths = [len(sequence) for sequence in sequences]
    types = None
    if token_types is not None:
        types = torch.tensor([kind for kinds in token_types for kind in kinds], dtype=torch.int32)
    return PackedBatch(
        input_ids_T=torch.tensor([i for sequence in sequences for i in sequence], dtype=torch.int32),
        cu_seqlens=torch.tensor([0, *lengths]).cumsum(0).to(torch.int32),
        max_seqlen=max(lengths, default=0),
        token_type_ids_T=types,
    )
