"""[pure] What the model is given for a row: one sequence, or several views of it, and one output from them again.

    expand   rows of token ids -> sequences, and of each the row and the number of the view within it
    reduce   outputs of sequences -> outputs of rows

Windows of long documents are views: each holds a slice of a document's content between the tokenizer's special
tokens. Neighbours share `stride` content tokens, which is `transformers`' meaning of the word; the last window of a
document may be shorter. A window never holds tokens of two documents.

Axes: N rows, S sequences, C outputs.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from assay.engine.sequences import Sequences
from assay.errors import UsageError

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Expanded:
    """The sequences of rows."""

    sequences: Sequences
    """What the engine is to run."""
    row_S: Ints
    """Which row each sequence is a view of, never falling."""
    view_S: Ints
    """Number of the view within its row, from 0."""


class Views(Protocol):
    """How rows become sequences and back. A row without ids has no view, any other at least one."""

    def expand(self, rows: Sequences) -> Expanded:
        """The views of the rows, in their order."""
        ...

    def reduce(self, outputs_SC: Floats, row_S: Ints, view_S: Ints, num_rows: int) -> Floats:
        """Outputs [num_rows, C]; NaN for a row without views, and throughout where one view is not finite."""
        ...


@dataclass(frozen=True, slots=True)
class WholeRows:
    """One view a row: the row itself."""

    def expand(self, rows: Sequences) -> Expanded:
        """The rows that have ids."""
        row_S = np.flatnonzero(np.diff(rows.offsets))
        sequences = rows
        if len(row_S) < rows.num_sequences:
            # Empty rows take no ids, so dropping their start leaves the others where they are.
            starts = rows.second_starts
            sequences = Sequences(
                flat_ids=rows.flat_ids,
                offsets=np.append(rows.offsets[row_S], rows.offsets[-1]),
                second_starts=None if starts is None else starts[row_S],
            )
        return Expanded(sequences=sequences, row_S=row_S, view_S=np.zeros_like(row_S))

    def reduce(self, outputs_SC: Floats, row_S: Ints, view_S: Ints, num_rows: int) -> Floats:
        """Each row's own outputs."""
        assert not view_S.any(), "a whole row has one view"
        finite_SC = _finite_or_nan(outputs_SC)
        return finite_SC if len(row_S) == num_rows else _placed(finite_SC, row_S, num_rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class Windows:
    """Long documents in windows, their outputs the mean or maximum over these.

    A document without content is one window of special tokens.
    """

    prefix: tuple[int, ...]
    """Special tokens that open a document."""
    suffix: tuple[int, ...]
    """Special tokens that close one."""
    max_length: int
    """Most tokens of a window, special ones included."""
    stride: int
    """Content tokens that neighbours share."""
    how: Literal["mean", "max"]
    """How outputs of windows become those of a document."""

    def __post_init__(self) -> None:
        """Raise `UsageError` where windows would make no progress."""
        if not 0 <= self.stride < self._capacity:
            raise UsageError(
                f"max_length {self.max_length} with stride {self.stride}; windows keep {self._capacity} tokens beside "
                f"{self._num_special} special ones and must overlap by fewer; use a smaller stride"
            )

    @property
    def _num_special(self) -> int:
        return len(self.prefix) + len(self.suffix)

    @property
    def _capacity(self) -> int:
        return self.max_length - self._num_special

    def expand(self, rows: Sequences) -> Expanded:
        """The windows of whole documents, each of which stands between `prefix` and `suffix`.

        Time and memory are linear in the number of window tokens; no loop over documents.
        """
        flat_ids, offsets, num_special = rows.flat_ids, rows.offsets, self._num_special
        step = self._capacity - self.stride
        length_N = np.diff(offsets)
        content_N = np.maximum(length_N - num_special, 0)
        # Content of 10 tokens, capacity 4, step 3: windows start at 0, 3 and 6; the last one ends at 10.
        windows_N = 1 + np.maximum(-(-(content_N - self._capacity) // step), 0)
        windows_N[length_N == 0] = 0

        row_S = np.repeat(np.arange(len(length_N)), windows_N)
        view_S = number_views(windows_N)
        start_S = view_S * step
        content_S = np.minimum(content_N[row_S] - start_S, self._capacity)
        window_offsets = np.zeros(len(row_S) + 1, dtype=np.int64)
        np.cumsum(content_S + num_special, out=window_offsets[1:])

        expanded = np.empty(window_offsets[-1], dtype=flat_ids.dtype)
        for place, token in enumerate(self.prefix):
            expanded[window_offsets[:-1] + place] = token
        for place, token in enumerate(reversed(self.suffix), start=1):
            expanded[window_offsets[1:] - place] = token
        # For each content token, the way from its place in the windows to its place in the documents.
        target_S = window_offsets[:-1] + len(self.prefix)
        source_S = offsets[:-1][row_S] + len(self.prefix) + start_S
        targets = np.repeat(target_S, content_S) + number_views(content_S)
        expanded[targets] = flat_ids[targets + np.repeat(source_S - target_S, content_S)]
        return Expanded(
            sequences=Sequences(flat_ids=expanded, offsets=window_offsets), row_S=row_S, view_S=view_S
        )

    def reduce(self, outputs_SC: Floats, row_S: Ints, view_S: Ints, num_rows: int) -> Floats:
        """The mean or maximum over each document's windows.

        Means are summed in float64, so a document of one window keeps its outputs exactly.
        """
        finite_SC = _finite_or_nan(outputs_SC)
        if len(row_S) == 0:
            return _placed(finite_SC, row_S, num_rows)
        first = np.flatnonzero(view_S == 0)
        if self.how == "max":
            reduced = np.maximum.reduceat(finite_SC, first, axis=0)
        else:
            counts = np.diff(first, append=len(row_S))
            reduced = np.add.reduceat(finite_SC.astype(np.float64), first, axis=0) / counts[:, None]
        return _placed(reduced, row_S[first], num_rows)


def number_views(views_N: Ints) -> Ints:
    """For rows of [2, 0, 3] views: [0, 1, 0, 1, 2]."""
    ends = np.cumsum(views_N, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    numbers: Ints = np.arange(total, dtype=np.int64) - np.repeat(ends - views_N, views_N)
    return numbers


def _finite_or_nan(outputs_SC: Floats) -> Floats:
    """The same, NaN throughout a sequence of which one output is not finite.

    Neither a maximum over views nor a sigmoid then hides an infinity.
    """
    is_finite = np.isfinite(outputs_SC)
    if is_finite.all():
        return outputs_SC
    return np.where(is_finite.all(axis=1, keepdims=True), outputs_SC, np.float32(np.nan))


def _placed(outputs: npt.NDArray[np.floating], rows: Ints, num_rows: int) -> Floats:
    """Outputs at their rows, NaN at all others."""
    placed_NC = np.full((num_rows, outputs.shape[1]), np.nan, dtype=np.float32)
    placed_NC[rows] = outputs
    return placed_NC
