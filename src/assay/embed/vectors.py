"""Chunks of token ids to vectors: the one path that runs and tests share.

Axes: N rows of a chunk, S sequences (views of rows), D dimensions.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from assay.embed.forward import (
    FinishedChunk,
    ForwardedChunk,
    Forwarder,
    RunSequences,
    row_columns,
    with_not_finite,
)
from assay.embed.kind import VectorType
from assay.embed.plan import EMBEDDING
from assay.embed.unit_length import unit_length
from assay.engine.engine import Engine
from assay.tokenize.chunks import EncodedChunk


class Vectors:
    """Makes the rows of an embed run."""

    def __init__(
        self,
        forwarder: Forwarder,
        *,
        normalized: bool,
        dtype: VectorType = "float32",
        run: RunSequences | None = None,
    ) -> None:
        """Vectors of an engine whose head normalises them as `normalized` says.

        `run` stands between the chunks and the engine where there is a cache, see `cache.py`.
        """
        self.forwarder = forwarder
        """Gives the vectors of chunks."""
        self._normalized = normalized
        self._type = np.dtype(dtype)
        self._run = run

    @property
    def engine(self) -> Engine:
        """Gives the vectors."""
        return self.forwarder.engine

    def description(self) -> str:
        """Return one line on what computes where."""
        return self.engine.description()

    def forward(self, chunk: EncodedChunk) -> ForwardedChunk:
        """The vectors of a chunk's sequences; raises Stopped where it is told to stop."""
        return self.forwarder.forward(chunk, self._run)

    def vectors(self, forwarded: ForwardedChunk) -> npt.NDArray[np.float32]:
        """The vectors [N, D] of a chunk's rows; NaN for a row without tokens or without finite numbers.

        The mean of several windows is normalised again.
        """
        vectors_ND = self.forwarder.outputs(forwarded)
        if len(forwarded.row_S) == 0 or not forwarded.view_S.any():
            return vectors_ND
        return self.whole(vectors_ND)

    def whole(self, vectors_ND: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Vectors [N, D] of rows from the means of their windows': at length 1 where the run's are."""
        return unit_length(vectors_ND) if self._normalized else vectors_ND

    def finish(self, forwarded: ForwardedChunk) -> FinishedChunk:
        """The rows of a chunk, in order, from the vectors of its sequences."""
        with np.errstate(over="ignore", invalid="ignore"):
            vectors_ND = self.vectors(forwarded).astype(self._type, copy=False)
        is_finite_N: npt.NDArray[np.bool_] = np.asarray(np.isfinite(vectors_ND).all(axis=1))
        errors = with_not_finite(forwarded.chunk.errors, is_finite_N)
        columns, is_bad_N = row_columns(forwarded.chunk, errors)
        return FinishedChunk(
            columns={**columns, EMBEDDING: vector_array(vectors_ND, is_bad_N)},
            errors=errors,
            stats=forwarded.stats,
        )


def vector_array(
    vectors_ND: npt.NDArray[np.floating], is_bad_N: npt.NDArray[np.bool_] | None
) -> pa.FixedSizeListArray:
    """Vectors as an Arrow array, without a copy; null for rows that are bad."""
    numbers = pa.array(np.ascontiguousarray(vectors_ND).reshape(-1))
    field = pa.field("element", numbers.type, nullable=False)
    kind = pa.list_(field, vectors_ND.shape[1])
    mask = None if is_bad_N is None else pa.array(is_bad_N)
    return pa.FixedSizeListArray.from_arrays(numbers, type=kind, mask=mask)
