"""A packed batch as it lies on the device, and how its tokens are cut into blocks of queries.

Axes: T tokens with those that fill the batch up, N sequences, B blocks.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

BLOCK = 64
"""Tokens of a block: the queries that one program of the attention kernel takes."""
_ALIGN = 4
"""Ints of 16 bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceBatch:
    """One batch on the device; what the kernels take."""

    input_ids_T: torch.Tensor
    """int32 [T]; those behind the last sequence are any valid id."""
    cu_seqlens: torch.Tensor
    """Sequence k is rows cu_seqlens[k] to cu_seqlens[k + 1]; int32 [N + 1]."""
    blocks_B4: torch.Tensor
    """The blocks of queries, see `plan_blocks`; int32 [B, 4]."""
    max_seqlen: int
    """Tokens of the longest sequence, or more."""
    num_sequences: int
    """N"""
    token_types_T: torch.Tensor | None = None
    """int32 [T]; None where all are 0."""
    positions_T: torch.Tensor | None = None
    """Row of the position table for each token, int32 [T]; None where they count from 0 in each sequence."""
    flat: torch.Tensor | None = None
    """The int32 buffer that the others are views of, laid out as `shape` says."""
    shape: "BatchShape | None" = None

    @property
    def num_rows(self) -> int:
        """T, the rows of every activation."""
        return self.input_ids_T.shape[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchShape:
    """The sizes of a batch, and how its parts lie in one int32 buffer. Equal shapes run the same kernels."""

    num_rows: int
    num_sequences: int
    """Sequences, those of no token behind the real ones counted."""
    num_blocks: int
    """Blocks, likewise."""
    max_seqlen: int
    has_types: bool
    has_positions: bool

    def sizes(self) -> dict[str, int]:
        """Return the ints of each part; each part begins at 16 bytes, so that kernels meet one alignment."""
        sizes = {"ids": self.num_rows, "bounds": self.num_sequences + 1, "blocks": 4 * self.num_blocks}
        if self.has_types:
            sizes["types"] = self.num_rows
        if self.has_positions:
            sizes["positions"] = self.num_rows
        return {name: size + -size % _ALIGN for name, size in sizes.items()}

    def fill(self, parts: dict[str, npt.NDArray[np.int32]], out: npt.NDArray[np.int32]) -> None:
        """Lay the parts into `out`, zeros behind each: a bound, a block and a token of 0 stand for none."""
        start = 0
        for name, size in self.sizes().items():
            part = parts[name]
            out[start : start + len(part)] = part
            out[start + len(part) : start + size] = 0
            start += size

    def split(self, flat: torch.Tensor) -> DeviceBatch:
        """Return the batch whose parts are views of `flat`."""
        sizes = self.sizes()
        pieces = dict(zip(sizes, flat.split(list(sizes.values())), strict=True))
        rows = slice(0, self.num_rows)
        return DeviceBatch(
            input_ids_T=pieces["ids"][rows],
            cu_seqlens=pieces["bounds"][: self.num_sequences + 1],
            blocks_B4=pieces["blocks"][: 4 * self.num_blocks].view(-1, 4),
            max_seqlen=self.max_seqlen,
            num_sequences=self.num_sequences,
            token_types_T=pieces["types"][rows] if self.has_types else None,
            positions_T=pieces["positions"][rows] if self.has_positions else None,
            flat=flat,
            shape=self,
        )


def rounded(number: int) -> int:
    """[pure] Return `number` rounded up, to eight steps an octave: few distinct numbers, at most an eighth more."""
    step = max(8, 1 << max(0, number.bit_length() - 4))
    return -(-number // step) * step


def plan_blocks(bounds: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """[pure] Return the blocks of sequences with these bounds [N + 1], int32 [B, 4].

    Of each: the sequence, the block's first token within it, the sequence's first row, its length:
    all that a program needs, in one load. Blocks of long sequences come first: they take longest,
    and what starts last should be short.
    """
    lengths = np.diff(bounds)
    order = np.argsort(-lengths, kind="stable").astype(np.int32)
    counts = -(-lengths[order] // BLOCK)
    ends = np.cumsum(counts)
    blocks = np.empty((int(ends[-1]) if len(ends) else 0, 4), dtype=np.int32)
    blocks[:, 0] = np.repeat(order, counts)
    blocks[:, 1] = (np.arange(len(blocks)) - np.repeat(ends - counts, counts)) * BLOCK
    blocks[:, 2] = bounds[blocks[:, 0]]
    blocks[:, 3] = lengths[blocks[:, 0]]
    return blocks
