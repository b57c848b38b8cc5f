"""Chunks of token ids through an engine: what scoring and embedding share.

    forward, the device's part:   token ids -> sequences (views of rows) -> outputs of sequences
    finish, the host's part:      outputs of rows -> what is made of them -> columns

The two may run in two threads, `finish` on one chunk beside `forward` on the next. A row with an
error keeps its place; the engine never sees it.

Axes: N rows of a chunk, S sequences (views of rows), C outputs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from assay.engine.engine import Engine
from assay.engine.run import run_sequences
from assay.engine.sequences import ForwardStats, Sequences
from assay.tokenize.chunks import EncodedChunk, max_row_tokens
from assay.tokenize.encode import Encoder

NOT_FINITE = "not_finite"
"""Error code of a row for which the model gave NaN or infinity."""

RunSequences = Callable[[Sequences], tuple[npt.NDArray[np.float32], ForwardStats]]
"""Sequences to their outputs, row k for sequence k, and what they cost."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ForwardedChunk:
    """A chunk and what the engine gave for it."""

    chunk: EncodedChunk
    outputs_SC: npt.NDArray[np.float32]
    """The engine's outputs, a row for each sequence."""
    row_S: npt.NDArray[np.int64]
    """Which row of the chunk each sequence is a view of."""
    view_S: npt.NDArray[np.int64]
    """Number of the view within its row."""
    stats: ForwardStats
    """What the forward passes cost."""
    fp32_rows: npt.NDArray[np.int64]
    """Rows of the chunk with a sequence that ran again in fp32, in order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FinishedChunk:
    """What became of a chunk."""

    columns: dict[str, pa.Array]
    """`num_tokens`, `truncated`, `error` and the columns of the kind of run, [N] each."""
    errors: dict[int, str]
    """Error code by row: the chunk's own and those that the model added."""
    stats: ForwardStats
    """What the forward passes cost."""


class Finisher(Protocol):
    """What makes rows of chunks, with an engine that is loaded."""

    def description(self) -> str:
        """One line on what computes where."""
        ...

    def forward(self, chunk: EncodedChunk) -> ForwardedChunk:
        """The outputs of a chunk's sequences; raises Stopped where it is told to stop."""
        ...

    def finish(self, forwarded: ForwardedChunk) -> FinishedChunk:
        """The columns of a chunk's rows, in order."""
        ...


class Forwarder:
    """Runs chunks through one engine. One thread at a time may be in `forward`."""

    def __init__(
        self,
        engine: Engine,
        encoder: Encoder,
        *,
        max_batch_tokens: int | None = None,
        deduplicate: bool = True,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        self.engine = engine
        """Gives the outputs."""
        self.encoder = encoder
        """Made the token ids."""
        self.views = encoder.views
        """How rows become sequences, and outputs of sequences those of rows."""
        self._max_batch_tokens = max_batch_tokens
        self._deduplicate = deduplicate
        self._should_stop = should_stop

    @property
    def max_tokens(self) -> int | None:
        """Most ids that a row may have; None where windows cut long rows."""
        return max_row_tokens(self.encoder)

    def run(self, sequences: Sequences) -> tuple[npt.NDArray[np.float32], ForwardStats]:
        """Sequences through the engine; raises Stopped where `should_stop` says so."""
        return run_sequences(
            self.engine,
            sequences,
            max_batch_tokens=self._max_batch_tokens,
            deduplicate=self._deduplicate,
            should_stop=self._should_stop,
        )

    def forward(self, chunk: EncodedChunk, run: RunSequences | None = None) -> ForwardedChunk:
        """The outputs of a chunk's sequences, of `run` where it is given, which may ask `self.run`."""
        expanded = self.views.expand(chunk.tokens.rows)
        outputs_SC, stats = (run or self.run)(expanded.sequences)
        return ForwardedChunk(
            chunk=chunk,
            outputs_SC=outputs_SC,
            row_S=expanded.row_S,
            view_S=expanded.view_S,
            stats=stats,
            fp32_rows=np.unique(expanded.row_S[stats.fp32_sequences]),
        )

    def outputs(self, forwarded: ForwardedChunk) -> npt.NDArray[np.float32]:
        """The outputs [N, C] of a chunk's rows; NaN for a row without tokens or without finite outputs."""
        return self.views.reduce(
            forwarded.outputs_SC, forwarded.row_S, forwarded.view_S, forwarded.chunk.num_rows
        )


def with_not_finite(errors: dict[int, str], is_finite_N: npt.NDArray[np.bool_]) -> dict[int, str]:
    """The errors of a chunk and those of rows without finite outputs; a row's own error wins."""
    if is_finite_N.all():
        return errors
    return {**dict.fromkeys(np.flatnonzero(~is_finite_N).tolist(), NOT_FINITE), **errors}


def row_columns(
    chunk: EncodedChunk, errors: Mapping[int, str]
) -> tuple[dict[str, pa.Array], npt.NDArray[np.bool_] | None]:
    """The columns that every run of an engine has, and which rows are bad; None where none is."""
    is_bad_N, error_column = None, pa.nulls(chunk.num_rows, pa.string())
    if errors:
        is_bad_N = np.zeros(chunk.num_rows, dtype=np.bool_)
        is_bad_N[list(errors)] = True
        error_column = pa.array([errors.get(row) for row in range(chunk.num_rows)], pa.string())
    columns = {
        "num_tokens": pa.array(chunk.row_tokens),
        "truncated": pa.array(chunk.row_truncated),
        "error": error_column,
    }
    return columns, is_bad_N
