"""Positions of packed tokens, and RoBERTa's way to count them. numpy and torch, any device.

Axes: T tokens, N sequences.
"""

import numpy as np
import numpy.typing as npt

Ints32 = npt.NDArray[np.int32]


def token_positions(bounds: Ints32) -> Ints32:
    """[pure] Return the position of each token in its sequence, int32 [T], for bounds [N + 1]."""
    return np.arange(bounds[-1], dtype=np.int32) - np.repeat(bounds[:-1], np.diff(bounds))


def positions_without_pads(ids: Ints32, bounds: Ints32, pad_token_id: int, pad_row: int) -> Ints32 | None:
    """[pure] Return the position rows, int32 [T], where a text itself holds pad ids; None where none does.

    RoBERTa numbers only what is not a pad id; a pad id takes `pad_row`.
    """
    is_pad_T = ids == pad_token_id
    if not is_pad_T.any():
        return None
    pads_before_T = np.cumsum(is_pad_T, dtype=np.int32) - is_pad_T
    at_start_T = np.repeat(pads_before_T[bounds[:-1]], np.diff(bounds))
    counted_T = token_positions(bounds) - (pads_before_T - at_start_T)
    return np.where(is_pad_T, np.int32(pad_row), counted_T).astype(np.int32)
