"""How a unit of pairs becomes a part of negatives."""

import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from assay.data.reading import RowReader
from assay.data.rows import SourceRows
from assay.data.sources import SOURCE_ROW, Columns
from assay.mine.kind import MINE
from assay.mine.miner import Miner, Negatives
from assay.mine.pairs import REPEATED, pair_columns, row_errors
from assay.mine.store import CODES, Ints, VectorStore
from assay.runs.manifest import Manifest
from assay.runs.pipeline import strict_error
from assay.runs.plan import Unit
from assay.telemetry import Counters

CHUNK_ROWS = 4_096
NO_NEGATIVE = "no_negative"


@dataclass(frozen=True, kw_only=True, slots=True)
class PairRows:
    """Some rows of a unit."""

    rows: SourceRows
    first: int
    """Number of the first among all rows of the run's sources."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MinedRows:
    """What became of them."""

    batch: pa.RecordBatch
    num_rows: int
    stats: Counter[str]
    first_error: tuple[int, str] | None


class MineWork:
    """Mines the units of a run: `compute` searches, and writes out what it found."""

    def __init__(self, manifest: Manifest, load_miner: Callable[[], Miner], *, device: str) -> None:
        """Work for the run of `manifest`; `load_miner` is called by `load`."""
        self.counters = Counters()
        self._manifest = manifest
        self._identity, settings = manifest.read(MINE)
        self._strict = settings.strict
        self._load_miner = load_miner
        self._miner: Miner | None = None
        self._device = device
        self._schema = manifest.arrow_schema()
        self._reader = RowReader(columns_of(manifest))
        self._stats: Counter[str] = Counter()
        self._worker = f"{socket.gethostname()}-{os.getpid()}-{device}"

    def load(self) -> str:
        """Read the embed runs and the pairs; a line on what is searched."""
        self._miner = self._load_miner()
        corpus = self._miner.corpus
        return (
            f"{corpus.num_rows:,} distinct vectors of {corpus.num_read:,} rows, "
            f"{corpus.vectors.dimension} dimensions, {self._identity.index} on {self._device}"
        )

    def prepare(self, unit: Unit) -> Iterator[PairRows]:
        """The unit's rows, in order."""
        source = self._manifest.source(unit.source)
        before = sum(record.num_rows for record in self._manifest.sources[: unit.source])
        for rows in self._reader.read(source, unit.start, unit.stop, batch_rows=CHUNK_ROWS):
            yield PairRows(rows=rows, first=before + rows.start)

    def compute(self, chunk: PairRows) -> MinedRows:
        """The negatives of a chunk's anchors."""
        assert self._miner is not None, "compute comes after load"
        return _ChunkOfPairs(chunk, self._miner, self._manifest).mine()

    def finish(self, unit: Unit, computed: Iterator[MinedRows]) -> Iterator[pa.RecordBatch]:
        """The rows of the unit's part, in source order."""
        self._stats.clear()
        for mined in computed:
            if mined.first_error is not None and self._strict:
                row, code = mined.first_error
                raise strict_error(f"row {row} of source {unit.source_name}", code)
            self._stats.update(mined.stats)
            self.counters.rows += mined.num_rows
            self.counters.error_rows += mined.stats["error_rows"]
            yield mined.batch

    @property
    def rows_in(self) -> int:
        """Rows of the unit just finished that were read."""
        return self._stats["num_rows"]

    def stats(self) -> dict[str, Any]:
        """Figures of the unit just finished, for the part's footer."""
        return {**self._stats, "worker": self._worker}


def columns_of(manifest: Manifest) -> Columns:
    """The columns of the run's sources, roles included that a manifest does not keep."""
    identity, _ = manifest.read(MINE)
    return pair_columns(identity.keys, identity.anchor_column, identity.positive_column, manifest.columns.id)


class _ChunkOfPairs:
    """One chunk on its way from rows to negatives. Axes: N rows in, R rows out."""

    def __init__(self, chunk: PairRows, miner: Miner, manifest: Manifest) -> None:
        self._rows, self._miner = chunk.rows, miner
        self._identity, _ = manifest.read(MINE)
        self._schema = manifest.arrow_schema()
        pairs, here = miner.pairs, slice(chunk.first, chunk.first + chunk.rows.num_rows)
        self._anchor_N, self._positive_N = pairs.anchor_N[here].copy(), pairs.positive_N[here].copy()
        self._is_first_N, is_repeat_N = pairs.is_first_N[here], pairs.is_repeat_N[here]
        self._errors: dict[int, str] = {}
        for place, code in row_errors(chunk.rows, self._identity.keys).items():
            self._errors[place] = code
            self._anchor_N[place] = self._positive_N[place] = -1
        self._is_unread_N = np.zeros(chunk.rows.num_rows, dtype=bool)
        self._is_unread_N[list(self._errors)] = True
        for name, places_N in (("anchor", self._anchor_N), ("positive", self._positive_N)):
            for place in np.flatnonzero(places_N < 0).tolist():
                self._errors.setdefault(place, f"{name}_{CODES[int(places_N[place])]}")
        self._is_usable_N = (self._anchor_N >= 0) & (self._positive_N >= 0)
        for place in np.flatnonzero(is_repeat_N & self._is_usable_N).tolist():
            self._errors[place] = REPEATED
        self._is_new_N = self._is_usable_N & ~is_repeat_N

    def mine(self) -> MinedRows:
        """Search, and write out."""
        is_pairs = self._identity.output_format == "pairs"
        asking_N = self._is_new_N & self._is_first_N if is_pairs else self._is_new_N
        asking = np.flatnonzero(asking_N)
        anchors_A, which = np.unique(self._anchor_N[asking], return_inverse=True)
        found = self._miner.negatives(anchors_A)
        counts_N = np.zeros(self._rows.num_rows, dtype=np.int64)
        counts_N[asking] = np.diff(found.offsets)[which]
        starts_N = np.zeros_like(counts_N)
        starts_N[asking] = found.offsets[which]
        stats: Counter[str] = Counter(num_rows=self._rows.num_rows)
        for place, anchor in zip(asking.tolist(), which.tolist(), strict=True):
            reason = found.reasons.get(anchor)
            if reason is not None:
                is_none = not counts_N[place]
                stats[f"{'none' if is_none else 'few'}.{reason}"] += 1
                if is_none:
                    self._errors[place] = f"{NO_NEGATIVE}_{reason}"
        stats.update(f"error.{code}" for code in self._errors.values())
        stats["error_rows"] = len(self._errors)
        batch = (
            self._pairs(found, counts_N, starts_N) if is_pairs else self._triplets(found, counts_N, starts_N)
        )
        stats["num_negatives"] = int(counts_N.sum())
        stats["num_rows_out"] = batch.num_rows
        first = min(self._errors.items(), default=None)
        return MinedRows(
            batch=batch,
            num_rows=self._rows.num_rows,
            stats=stats,
            first_error=None if first is None else (self._rows.start + first[0], first[1]),
        )

    def _triplets(self, found: Negatives, counts_N: Ints, starts_N: Ints) -> pa.RecordBatch:
        """Each row with each of its negatives; one without any keeps a row with its error code."""
        row_R, within_R = _repeat(np.maximum(counts_N, 1))
        negative_R = np.where(counts_N[row_R] > 0, starts_N[row_R] + within_R, -1)
        miner = self._miner
        anchor_R, positive_R = self._anchor_N[row_R], self._positive_N[row_R]
        candidate_R = _at(found.rows, negative_R)
        usable = np.flatnonzero(self._is_usable_N)
        positive_scores_N = np.full(self._rows.num_rows, np.nan, dtype=np.float32)
        positive_scores_N[usable] = miner.positive_scores(self._anchor_N[usable], self._positive_N[usable])
        columns = {
            "anchor_id": _ids(miner.anchors, anchor_R),
            "positive_id": _ids(miner.corpus, positive_R),
            "negative_id": _ids(miner.corpus, candidate_R),
            "positive_score": _floats(positive_scores_N[row_R]),
            **self._common(found, row_R, negative_R, row_R[:0]),
        }
        if self._identity.texts:
            columns["anchor"] = self._source_texts(0, row_R)
            columns["positive"] = self._source_texts(1, row_R)
            columns["negative"] = _texts(miner.corpus, candidate_R)
        return self._batch(columns)

    def _pairs(self, found: Negatives, counts_N: Ints, starts_N: Ints) -> pa.RecordBatch:
        """Each distinct pair with label 1, and behind an anchor's first its negatives with label 0."""
        is_kept_N = ~self._is_unread_N & (self._is_new_N | ~self._is_usable_N)
        if self._identity.keys == "id":
            is_kept_N &= self._is_usable_N
        row_R, within_R = _repeat(is_kept_N + counts_N)
        negative_R = np.where(within_R > 0, starts_N[row_R] + within_R - 1, -1)
        miner, is_negative_R = self._miner, negative_R >= 0
        candidate_R = _at(found.rows, negative_R)
        second_R = np.where(is_negative_R, candidate_R, self._positive_N[row_R])
        columns = {
            "label": pa.array(np.where(is_negative_R, 0, 1).astype(np.int32)),
            "id1": _ids(miner.anchors, self._anchor_N[row_R]),
            "id2": _ids(miner.corpus, second_R),
            **self._common(found, row_R, negative_R, np.flatnonzero(~is_negative_R)),
        }
        if self._identity.texts:
            seconds = np.asarray(self._source_texts(1, row_R).to_pylist(), dtype=object)
            seconds[is_negative_R] = _texts(miner.corpus, candidate_R[is_negative_R]).to_pylist()
            columns["text1"] = self._source_texts(0, row_R)
            columns["text2"] = pa.array(seconds.tolist(), pa.string())
        return self._batch(columns)

    def _common(
        self, found: Negatives, row_R: Ints, negative_R: Ints, positives: Ints
    ) -> dict[str, pa.Array]:
        """The columns that both formats have; `positives` are rows out whose score is that of a positive."""
        scores_R = _at(found.scores, negative_R, np.nan)
        if len(positives):
            rows = row_R[positives]
            usable = self._is_usable_N[rows]
            scores_R[positives[usable]] = self._miner.positive_scores(
                self._anchor_N[rows[usable]], self._positive_N[rows[usable]]
            )
        errors = [
            self._errors.get(row) if negative < 0 else None
            for row, negative in zip(row_R.tolist(), negative_R.tolist(), strict=True)
        ]
        columns = {
            SOURCE_ROW: pa.array(self._rows.start + row_R),
            "score": _floats(scores_R),
            "rank": pa.array(_at(found.ranks, negative_R).astype(np.int32), mask=negative_R < 0),
            "guard_probability": _floats(_at(found.probabilities, negative_R, np.nan)),
            "error": pa.array(errors, pa.string()),
        }
        if "row_id" in self._schema.names and self._rows.ids is not None:
            columns["row_id"] = self._rows.ids.take(pa.array(row_R))
        return columns

    def _source_texts(self, which: int, row_R: Ints) -> pa.Array:
        """The anchors (0) or positives (1): as the rows have them, or by their ids."""
        if self._identity.keys == "text":
            texts = self._rows.texts if which == 0 else self._rows.text_pairs
            assert texts is not None
            return texts.take(pa.array(row_R)).cast(pa.string())
        store = self._miner.anchors if which == 0 else self._miner.corpus
        return _texts(store, (self._anchor_N if which == 0 else self._positive_N)[row_R])

    def _batch(self, columns: dict[str, pa.Array]) -> pa.RecordBatch:
        arrays = [columns[name].cast(self._schema.field(name).type) for name in self._schema.names]
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)


def _repeat(counts_N: Ints) -> tuple[Ints, Ints]:
    """For [2, 0, 1]: rows [0, 0, 2] and places within each [0, 1, 0]."""
    counts_N = counts_N.astype(np.int64)
    row_R = np.repeat(np.arange(len(counts_N)), counts_N)
    return row_R, np.arange(len(row_R)) - np.repeat(np.cumsum(counts_N) - counts_N, counts_N)


def _at(values: NDArray[Any], places_R: Ints, missing: float = -1) -> NDArray[Any]:
    """The values at these places, `missing` at a place below 0."""
    found = np.full(len(places_R), missing, dtype=values.dtype)
    is_there = places_R >= 0
    found[is_there] = values[places_R[is_there]]
    return found


def _floats(values_R: NDArray[np.float32]) -> pa.Array:
    return pa.array(values_R, mask=np.isnan(values_R))


def _ids(store: VectorStore, places_R: Ints) -> pa.Array:
    return store.ids.take(pa.array(places_R, mask=places_R < 0))


def _texts(store: VectorStore, places_R: Ints) -> pa.Array:
    assert store.texts is not None, "the plan refuses runs without texts"
    is_there = places_R >= 0
    texts = np.full(len(places_R), None, dtype=object)
    texts[is_there] = store.texts.take(places_R[is_there])
    return pa.array(texts.tolist(), pa.string())
