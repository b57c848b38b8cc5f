"""The pairs of anchor and positive, as places in the stores of vectors; some 30 bytes a row."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from assay.data.ids import hash_ids
from assay.data.reading import RowReader, read_rows
from assay.data.rows import NULL, SourceRows
from assay.data.sources import Columns, Source
from assay.errors import SourceError
from assay.mine.settings import KeyKind
from assay.mine.store import Hashes, Ints, KeyPlaces, VectorStore

REPEATED = "repeated_pair"
"""Code of a row whose pair an earlier row has too."""


def pair_columns(keys: KeyKind, anchor_column: str, positive_column: str, id_column: str | None) -> Columns:
    """The columns to read: texts as texts, ids in their own types."""
    if keys == "text":
        return Columns(text=anchor_column, text_pair=positive_column, id=id_column)
    return Columns(text=None, label=anchor_column, group=positive_column, id=id_column)


def pair_keys(
    rows: SourceRows, keys: KeyKind, kinds: tuple[pa.DataType, pa.DataType]
) -> tuple[Hashes, Hashes]:
    """The hashes of the anchors and of the positives; `kinds` are the types of the stores' ids."""
    if keys == "text":
        assert rows.texts is not None
        assert rows.text_pairs is not None
        return hash_ids(rows.texts), hash_ids(rows.text_pairs)
    assert rows.labels is not None
    assert rows.groups is not None
    try:
        return hash_ids(rows.labels.cast(kinds[0])), hash_ids(rows.groups.cast(kinds[1]))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SourceError(
            f"ids are {rows.labels.type} and {rows.groups.type} in the rows, {kinds[0]} and {kinds[1]} in the embed "
            "runs; name columns of their ids, or use --keys text"
        ) from error


def row_errors(rows: SourceRows, keys: KeyKind) -> dict[int, str]:
    """Error codes of rows that hold no pair, by place in the batch."""
    if keys == "text":
        return rows.errors
    assert rows.labels is not None
    assert rows.groups is not None
    missing = np.asarray(rows.labels.is_null()) | np.asarray(rows.groups.is_null())
    return rows.errors | {int(row): NULL for row in np.flatnonzero(missing)}


def most_positives(sources: Sequence[Source], columns: Columns, keys: KeyKind) -> int:
    """The most rows that one anchor has; 1 where there are none."""
    found = []
    for rows in _all_rows(sources, columns):
        anchors = rows.texts if keys == "text" else rows.labels
        assert anchors is not None
        found.append(hash_ids(anchors.drop_null()))
    counts = np.unique(np.concatenate([*found, np.zeros(0, dtype=np.uint64)]), return_counts=True)[1]
    return int(counts.max(initial=1))


def _all_rows(sources: Sequence[Source], columns: Columns) -> Iterator[SourceRows]:
    for source in sources:
        yield from read_rows(source, columns, 0, source.num_rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class NumberedPairs:
    """All rows of the run's sources, numbered through."""

    first_rows: Ints
    """Of each source: the number of its first row."""
    anchor_N: Ints
    """Place of the anchor in its store, or the code of why it has none."""
    positive_N: Ints
    """Place of the positive in the corpus, likewise."""
    is_repeat_N: np.ndarray
    """Whether an earlier row has the same pair."""
    is_first_N: np.ndarray
    """Whether the row is the first usable one of its anchor."""
    by_anchor: Ints
    """Places of anchors with a usable pair, ascending."""
    offsets: Ints
    """Where the positives of each of these begin in `positives`."""
    positives: Ints
    """Places of the distinct positives."""

    def positives_of(self, anchors: Ints) -> tuple[Ints, Ints]:
        """The positives of anchors that have some: of each the number of its anchor in `anchors`, and its place."""
        found = np.searchsorted(self.by_anchor, anchors)
        counts = self.offsets[found + 1] - self.offsets[found]
        owner = np.repeat(np.arange(len(anchors)), counts)
        within = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        return owner, self.positives[self.offsets[found][owner] + within]


def read_pairs(
    sources: Sequence[Source], columns: Columns, keys: KeyKind, anchors: VectorStore, corpus: VectorStore
) -> NumberedPairs:
    """Read all rows and find their anchors and positives."""
    kinds = (anchors.ids.type, corpus.ids.type)
    of_anchors: KeyPlaces = anchors.by_text if keys == "text" else anchors.by_id
    of_positives: KeyPlaces = corpus.by_text if keys == "text" else corpus.by_id
    anchor_parts, positive_parts, bad = [], [], []
    first_rows = [0]
    row = 0
    for source in sources:
        with RowReader(columns) as reader:
            for rows in reader.read(source, 0, source.num_rows):
                of_anchor, of_positive = pair_keys(rows, keys, kinds)
                anchor_parts.append(of_anchors.find(of_anchor))
                positive_parts.append(of_positives.find(of_positive))
                bad += [row + place for place in row_errors(rows, keys)]
                row += rows.num_rows
        first_rows.append(row)
    nothing = np.zeros(0, dtype=np.int64)
    anchor_N, positive_N = (
        np.concatenate([*anchor_parts, nothing]),
        np.concatenate([*positive_parts, nothing]),
    )
    is_usable_N = (anchor_N >= 0) & (positive_N >= 0)
    is_usable_N[bad] = False
    usable = np.flatnonzero(is_usable_N)
    order = usable[np.lexsort((usable, positive_N[usable], anchor_N[usable]))]
    repeats = np.zeros(len(order), dtype=bool)
    repeats[1:] = (np.diff(anchor_N[order]) == 0) & (np.diff(positive_N[order]) == 0)
    is_repeat_N = np.zeros(row, dtype=bool)
    is_repeat_N[order[repeats]] = True
    distinct = order[~repeats]
    by_anchor, starts = np.unique(anchor_N[distinct], return_index=True)
    is_first_N = np.zeros(row, dtype=bool)
    is_first_N[usable[np.unique(anchor_N[usable], return_index=True)[1]]] = True
    return NumberedPairs(
        first_rows=np.array(first_rows, dtype=np.int64),
        anchor_N=anchor_N,
        positive_N=positive_N,
        is_repeat_N=is_repeat_N,
        is_first_N=is_first_N,
        by_anchor=by_anchor,
        offsets=np.append(starts, len(distinct)).astype(np.int64),
        positives=positive_N[distinct],
    )
