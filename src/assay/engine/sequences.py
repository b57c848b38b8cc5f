"""What goes into an engine and what comes back, as numpy arrays. Imports no torch: it loads in milliseconds."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from assay.engine.batching import Ids, Ints, token_indices


class Stopped(Exception):  # noqa: N818 - it reports an order obeyed, not an error
    """The caller asked to stop; nothing of the sequences at hand is returned."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sequences:
    """Token sequences as an Arrow list array holds them: one flat buffer and offsets."""

    flat_ids: Ids
    """Token ids with special tokens, uint16 or int32 [T]."""
    offsets: Ints
    """Sequence k is flat_ids[offsets[k]:offsets[k + 1]]; int64 [N + 1]; need not begin at 0."""
    second_starts: npt.NDArray[np.int32] | None = None
    """Pairs: position within the sequence where the second segment begins, 0 for none; [N]."""

    @property
    def num_sequences(self) -> int:
        """N, the number of sequences."""
        return len(self.offsets) - 1

    def take(self, rows: Ints) -> "Sequences":
        """Some of the sequences, laid end to end."""
        if len(rows) == self.num_sequences and bool((rows == np.arange(len(rows))).all()):
            return self
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        return Sequences(
            flat_ids=self.flat_ids[token_indices(starts, lengths)],
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            second_starts=None if self.second_starts is None else self.second_starts[rows],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ForwardStats:
    """What a call of `run_sequences` cost."""

    num_forward_tokens: int
    """Real tokens that went through the engine, each duplicate counted once."""
    num_padded_tokens: int
    """Tokens of padding computed on top."""
    num_duplicates: int
    """Sequences that took another's result."""
    num_batches: int
    """Forward passes."""
    seconds: float
    """Wall time of the whole call."""
    forward_seconds: float
    """Wall time inside the engine."""
    num_cached: int = 0
    """Sequences whose result was known before."""
    fp32_sequences: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64), compare=False)
    """Which sequences the engine gave no finite outputs for, and its model in fp32 did: what they have is of that."""
