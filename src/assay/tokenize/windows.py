"""[pure] Long documents as windows, and the windows' logits as documents again.

A window holds a slice of a document's content between the tokenizer's special tokens. Neighbours
share `stride` content tokens, which is `transformers`' meaning of the word; the last window of a
document may be shorter. A window never holds tokens of two documents.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from assay.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class Windows:
    """Model inputs: window i is `flat_ids[offsets[i]:offsets[i + 1]]`."""

    flat_ids: npt.NDArray[np.uint16] | npt.NDArray[np.int32]
    """Every window's ids, one after the other, special tokens included."""
    offsets: npt.NDArray[np.int64]
    """Window boundaries, one more than there are windows."""
    document_of_window: npt.NDArray[np.int64]
    """Document number of each window, never decreasing."""


def expand_windows(
    flat_ids: npt.NDArray[np.uint16] | npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    *,
    prefix: tuple[int, ...],
    suffix: tuple[int, ...],
    max_length: int,
    stride: int = 0,
) -> Windows:
    """The windows of whole documents, each of which stands between `prefix` and `suffix`.

    `max_length` counts a window's tokens, special ones included. A document without content gives
    one window; a row of length 0 (a null text, a row with an error) gives none. Time and memory
    are linear in the number of window tokens; no loop over documents.
    """
    num_special = len(prefix) + len(suffix)
    capacity = max_length - num_special
    if not 0 <= stride < capacity:
        raise UsageError(
            f"max_length {max_length} with stride {stride}; windows keep {capacity} tokens beside "
            f"{num_special} special ones and must overlap by fewer; use a smaller stride"
        )
    step = capacity - stride
    lengths = np.diff(offsets)
    num_content = np.maximum(lengths - num_special, 0)
    # Content of 10 tokens, capacity 4, step 3: windows start at 0, 3 and 6; the last one ends at 10.
    num_windows = 1 + np.maximum(-(-(num_content - capacity) // step), 0)
    num_windows[lengths == 0] = 0

    document_of_window = np.repeat(np.arange(len(lengths)), num_windows)
    window_in_document = _count_within(num_windows)
    starts = window_in_document * step
    window_content = np.minimum(num_content[document_of_window] - starts, capacity)
    window_offsets = np.zeros(len(document_of_window) + 1, dtype=np.int64)
    np.cumsum(window_content + num_special, out=window_offsets[1:])

    expanded = np.empty(window_offsets[-1], dtype=flat_ids.dtype)
    for place, token in enumerate(prefix):
        expanded[window_offsets[:-1] + place] = token
    for place, token in enumerate(reversed(suffix), start=1):
        expanded[window_offsets[1:] - place] = token
    # For each content token, the way from its place in the windows to its place in the documents.
    content_starts = window_offsets[:-1] + len(prefix)
    sources = offsets[:-1][document_of_window] + len(prefix) + starts
    targets = np.repeat(content_starts, window_content) + _count_within(window_content)
    expanded[targets] = flat_ids[targets + np.repeat(sources - content_starts, window_content)]
    return Windows(flat_ids=expanded, offsets=window_offsets, document_of_window=document_of_window)


def document_logits(
    logits: npt.NDArray[np.float32],
    document_of_window: npt.NDArray[np.int64],
    num_documents: int,
    *,
    how: Literal["mean", "max"] | None,
) -> npt.NDArray[np.float32]:
    """Logits [num_documents, num_outputs] of what the model gave for windows; NaN for a document without any.

    `how` None: a document has one window at most. A window with a logit that is not finite is NaN
    throughout, so that neither a maximum over windows nor a sigmoid hides an infinity.
    """
    is_finite = np.isfinite(logits)
    if not is_finite.all():
        logits = np.where(is_finite.all(axis=1, keepdims=True), logits, np.float32(np.nan))
    if how is not None:
        return reduce_windows(logits, document_of_window, num_documents, how=how)
    if len(document_of_window) == num_documents:
        return logits
    placed = np.full((num_documents, logits.shape[1]), np.nan, dtype=np.float32)
    placed[document_of_window] = logits
    return placed


def reduce_windows(
    logits: npt.NDArray[np.float32],
    document_of_window: npt.NDArray[np.int64],
    num_documents: int,
    *,
    how: Literal["mean", "max"],
) -> npt.NDArray[np.float32]:
    """Logits [num_documents, num_outputs]: the mean or maximum over each document's windows.

    Means are summed in float64, so a document of one window keeps its logits exactly. A document
    without windows gets NaN.
    """
    reduced = np.full((num_documents, logits.shape[1]), np.nan, dtype=np.float32)
    if len(document_of_window) == 0:
        return reduced
    starts = np.flatnonzero(np.diff(document_of_window, prepend=-1))
    if how == "max":
        per_document = np.maximum.reduceat(logits, starts, axis=0)
    else:
        counts = np.diff(starts, append=len(document_of_window))
        per_document = np.add.reduceat(logits.astype(np.float64), starts, axis=0) / counts[:, None]
    reduced[document_of_window[starts]] = per_document
    return reduced


def _count_within(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """For lengths [2, 0, 3]: [0, 1, 0, 1, 2]."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total, dtype=np.int64) - np.repeat(ends - lengths, lengths)
