"""Token ids of a batch of documents, in one flat buffer, with what became of each document."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from assay.engine.sequences import Sequences

TOO_LONG = "too_long"
"""Error code of a document over the limit under `error`."""
ID_OUT_OF_RANGE = "id_out_of_range"
"""Error code of a document with a token id that the model has no embedding for."""

TokenIds = npt.NDArray[np.uint16] | npt.NDArray[np.int32]
"""The smallest of the two integer types that holds every id of the vocabulary."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokens:
    """Token ids of a batch of documents: row i is `flat_ids[offsets[i]:offsets[i + 1]]`.

    Under a window policy a row holds the whole document, special tokens around it; `Encoder.views`
    cuts it up. Otherwise a row is what the model gets. A null text and one with an error are rows of
    length 0.
    """

    flat_ids: TokenIds
    """Every row's ids, one after the other."""
    offsets: npt.NDArray[np.int64]
    """Row boundaries, one more than there are rows."""
    second_starts: npt.NDArray[np.int32] | None
    """Where in its row a pair's token type 1 begins; None where every token type is 0."""
    truncated: npt.NDArray[np.bool_]
    """Whether the policy cut content away."""
    errors: dict[int, str]
    """Error codes by row; rows that are not here have none."""

    @property
    def num_tokens(self) -> npt.NDArray[np.int32]:
        """Ids of each row, special tokens included; under a window policy those of the document."""
        return np.diff(self.offsets).astype(np.int32)

    @property
    def rows(self) -> Sequences:
        """The same ids, for `Encoder.views` to expand."""
        return Sequences(flat_ids=self.flat_ids, offsets=self.offsets, second_starts=self.second_starts)

    def without_rows(self, rows: npt.NDArray[np.int64], code: str) -> "Tokens":
        """The same tokens with these rows emptied and given an error code, where they have none."""
        if not len(rows):
            return self
        lengths = np.diff(self.offsets)
        keep = np.ones(len(lengths), dtype=np.bool_)
        keep[rows] = False
        flat_ids: TokenIds = self.flat_ids[np.repeat(keep, lengths)]
        return Tokens(
            flat_ids=flat_ids,
            offsets=np.concatenate([[0], np.cumsum(np.where(keep, lengths, 0))]),
            second_starts=None if self.second_starts is None else np.where(keep, self.second_starts, 0),
            truncated=self.truncated & keep,
            errors={**dict.fromkeys(rows.tolist(), code), **self.errors},
        )

    def without_ids_from(self, limit: int) -> "Tokens":
        """The same tokens with rows emptied that hold an id of `limit` or more; they get `ID_OUT_OF_RANGE`."""
        if not len(self.flat_ids) or int(self.flat_ids.max()) < limit:
            return self
        places = np.flatnonzero(self.flat_ids >= limit)
        rows = np.unique(np.searchsorted(self.offsets, places, side="right") - 1)
        return self.without_rows(rows, ID_OUT_OF_RANGE)
