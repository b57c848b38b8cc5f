"""Made-up sequences that engines are put to the test with."""

import torch

LENGTHS = (9, 70)
"""The second crosses the border of a block of the attention kernels."""


def made_up_sequences(*, max_length: int, vocab_size: int) -> list[list[int]]:
    """Return two sequences of random ids, the same for every engine of a model."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randint(0, vocab_size, (min(length, max_length),), generator=generator).tolist()
        for length in LENGTHS
    ]
