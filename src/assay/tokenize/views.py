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
    def step(self) -> int:
        """Content tokens from the beginning of one window to that of the next."""
        return self._capacity - self.stride

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
        content_N = self._content(rows)
        # Content of 10 tokens, capacity 4, step 3: windows start at 0, 3 and 6; the last one ends at 10.
        windows_N = 1 + self._num_more(content_N, self.step)
        windows_N[np.diff(rows.offsets) == 0] = 0
        view_S = number_views(windows_N)
        return self._cut(rows, np.repeat(np.arange(len(windows_N)), windows_N), view_S, view_S * self.step)

    def _content(self, rows: Sequences) -> Ints:
        """Content tokens of each row."""
        content_N: Ints = np.maximum(np.diff(rows.offsets) - self._num_special, 0)
        return content_N

    def _num_more(self, content_N: Ints, second: int) -> Ints:
        """Windows of each document beside the first, where the second begins at that token of the content."""
        more_N: Ints = np.maximum(-(-(content_N - second - self.stride) // self.step), 0)
        return more_N

    def _cut(self, rows: Sequences, row_S: Ints, view_S: Ints, start_S: Ints) -> Expanded:
        """The windows of those rows that begin at those tokens of their content."""
        flat_ids, offsets, num_special = rows.flat_ids, rows.offsets, self._num_special
        content_S = np.minimum(self._content(rows)[row_S] - start_S, self._capacity)
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
        return reduce_windows(self.how, outputs_SC, row_S, view_S, num_rows)


def reduce_windows(
    how: Literal["mean", "max"], outputs_SC: Floats, row_S: Ints, view_S: Ints, num_rows: int
) -> Floats:
    """What `Windows.reduce` gives, by how it does it."""
    finite_SC = _finite_or_nan(outputs_SC)
    if len(row_S) == 0:
        return _placed(finite_SC, row_S, num_rows)
    first = np.flatnonzero(view_S == 0)
    if how == "max":
        reduced = np.maximum.reduceat(finite_SC, first, axis=0)
    else:
        counts = np.diff(first, append=len(row_S))
        reduced = np.add.reduceat(finite_SC.astype(np.float64), first, axis=0) / counts[:, None]
    return _placed(reduced, row_S[first], num_rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class OffsetWindows:
    """Long documents in several series of windows, the outputs of each series side by side, [N, K * C].

    All K series of a document begin with the same window, which is computed once. The others begin `step` apart: in
    the first series, which is that of `Windows`, from `step` on, in the next ones from 1/K, 2/K, ... of it on. A
    document that fits into one window has that view alone, and equal outputs in all series.
    """

    windows: Windows
    """Of the first series, and how each becomes one output."""
    num_offsets: int
    """K."""

    def __post_init__(self) -> None:
        """Raise `UsageError` where windows of two series would be the same."""
        step = self.windows.step
        if not 1 <= self.num_offsets <= step:
            raise UsageError(
                f"offsets {self.num_offsets}; windows begin {step} tokens apart, so at most {step} offsets differ; use"
                " fewer, or a smaller stride"
            )

    def expand(self, rows: Sequences) -> Expanded:
        """The first window of each document, then the others by where their series' second begins, the least first."""
        windows, step = self.windows, self.windows.step
        second_K = [step * k // self.num_offsets for k in range(1, self.num_offsets + 1)]
        content_N = windows._content(rows)  # noqa: SLF001  a class of this file
        more_NK = np.stack([windows._num_more(content_N, second) for second in second_K], axis=1)  # noqa: SLF001
        more_NK[content_N <= second_K[-1] + windows.stride] = 0
        has_ids_N = np.diff(rows.offsets) > 0
        pieces_NP = np.concatenate([has_ids_N[:, None].astype(np.int64), more_NK], axis=1)
        piece_S = np.repeat(np.tile(np.arange(pieces_NP.shape[1]), len(pieces_NP)), pieces_NP.ravel())
        start_S = np.array([0, *second_K])[piece_S] + number_views(pieces_NP.ravel()) * step
        views_N = pieces_NP.sum(axis=1)
        row_S = np.repeat(np.arange(len(views_N)), views_N)
        return windows._cut(rows, row_S, number_views(views_N), start_S)  # noqa: SLF001

    def reduce(self, outputs_SC: Floats, row_S: Ints, view_S: Ints, num_rows: int) -> Floats:
        """The mean or maximum over the windows of each series, [num_rows, K * C].

        How many views a document has says how they are shared out: evenly, and one more for the first series in their
        order, whose second windows begin earlier.
        """
        finite_SC, num_offsets = _finite_or_nan(outputs_SC), self.num_offsets
        num_outputs = finite_SC.shape[1]
        first_D = np.flatnonzero(view_S == 0)
        shared_DC = finite_SC[first_D].astype(np.float64)
        found_DKC = np.repeat(shared_DC[:, None], num_offsets, axis=1)
        more_D = np.diff(first_D, append=len(row_S)) - 1
        is_long_D = more_D > 0
        if is_long_D.any():
            whole_D1, rest_D1 = (each[:, None] for each in np.divmod(more_D[is_long_D], num_offsets))
            sizes_DK = whole_D1 + (np.arange(num_offsets) < rest_D1)
            starts = np.cumsum(sizes_DK.ravel()) - sizes_DK.ravel()
            others_SC = finite_SC[view_S > 0].astype(np.float64)
            how = np.maximum if self.windows.how == "max" else np.add
            joined_DKC = how.reduceat(others_SC, starts, axis=0).reshape(-1, num_offsets, num_outputs)
            joined_DKC = how(joined_DKC, found_DKC[is_long_D])
            if self.windows.how == "mean":
                joined_DKC /= 1 + sizes_DK[:, :, None]
            # the series of `Windows`, whose second window is the last to begin, comes first
            found_DKC[is_long_D] = np.roll(joined_DKC, 1, axis=1)
        return _placed(found_DKC.reshape(len(first_D), num_offsets * num_outputs), row_S[first_D], num_rows)


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
