"""What the parts of a run hold, counted: scores, lengths, errors. One pass, memory independent of rows.

Reads only the columns it counts; ids are read only of row groups that have an error to give an
example of.
"""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from assay.data.ids import plain_ids, shown_ids
from assay.embed.plan import EMBEDDING
from assay.errors import DamagedPartError
from assay.runs.parts import footer_problem, open_part, stats_of, way_out
from assay.runs.plan import Unit
from assay.runs.run import ID_COLUMNS, Run, part_path
from assay.score.report.histogram import GrowingHistogram
from assay.score.report.words import number_of
from assay.tasks import LABELS, PREDICTION

SCORE_BINS = 20
LONGEST_COUNTED = 1 << 17
EXAMPLES_PER_CODE = 5
MOST_CODES = 50
OTHER_CODE = "(other codes)"
READ_ROWS = 65_536
NORM_ROWS = 1_024
"""Vectors of a part whose lengths are counted."""
LONGEST_EXAMPLE = 200

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating]
Stats = dict[str, object]


@dataclass(kw_only=True, slots=True)
class Tally:
    """Counts over any number of parts."""

    rows: int = 0
    truncated_rows: int = 0
    num_tokens: int = 0
    longest: int = 0
    """Tokens of the longest document."""
    lengths: Counts = field(default_factory=lambda: np.zeros(LONGEST_COUNTED + 1, np.int64))
    """Documents by number of tokens; the last entry holds all longer ones."""
    errors: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    """The first ids of each error code."""
    decisions: Counter[str] = field(default_factory=Counter)
    """Documents by label that was decided for them: one a document, or all that hold."""
    scores: dict[str, Counts] = field(default_factory=dict)
    """By label: int64 [2, SCORE_BINS], documents by probability; row 1 those that were decided to have it."""
    score_sums: dict[str, float] = field(default_factory=dict)
    values: dict[str, GrowingHistogram] = field(default_factory=dict)
    """By regression column: documents by prediction."""
    norms: GrowingHistogram = field(default_factory=GrowingHistogram)
    """Lengths of vectors, of the first of each part."""
    norm_sum: float = 0.0
    num_norms: int = 0
    not_finite: int = 0
    """Scores that are not a number, in rows without an error code."""
    stats: list[tuple[Unit, Stats]] = field(default_factory=list)
    """The footer figures of each part."""

    @property
    def error_rows(self) -> int:
        """Rows with an error code."""
        return self.errors.total()

    @property
    def scored_rows(self) -> int:
        """Rows without an error code."""
        return self.rows - self.error_rows

    def merge(self, other: "Tally") -> None:
        """Add the counts of later parts."""
        self.rows += other.rows
        self.truncated_rows += other.truncated_rows
        self.num_tokens += other.num_tokens
        self.longest = max(self.longest, other.longest)
        self.lengths += other.lengths
        self.decisions += other.decisions
        self.not_finite += other.not_finite
        self.stats += other.stats
        for code, count in other.errors.items():
            self.count_error(code, count)
        for code, ids in other.examples.items():
            self.add_examples(code, ids)
        for label, counts in other.scores.items():
            self.scores[label] = self.scores.get(label, 0) + counts
            self.score_sums[label] = self.score_sums.get(label, 0.0) + other.score_sums[label]
        self.norms.merge(other.norms)
        self.norm_sum += other.norm_sum
        self.num_norms += other.num_norms
        for column, histogram in other.values.items():
            self.values.setdefault(column, GrowingHistogram()).merge(histogram)

    def count_error(self, code: str, count: int) -> None:
        """Count rows with an error code; past fifty codes the rest goes under one name."""
        known = code in self.errors or len(self.errors) < MOST_CODES
        self.errors[code if known else OTHER_CODE] += count

    def add_examples(self, code: str, ids: Sequence[str]) -> None:
        """Keep ids as examples of a code that is counted, up to five."""
        if code in self.errors:
            held = self.examples.setdefault(code, [])
            held += ids[: EXAMPLES_PER_CODE - len(held)]

    def wants_examples(self, code: str) -> bool:
        """Whether a code that is counted has fewer than five examples."""
        return code in self.errors and len(self.examples.get(code, ())) < EXAMPLES_PER_CODE

    def sum_of(self, key: str) -> float | None:
        """The sum of a footer figure over all parts; None where no part has it."""
        found = [number for _, stats in self.stats if (number := number_of(stats.get(key))) is not None]
        return sum(found) if found else None

    def length_at(self, share: float) -> int:
        """The number of tokens that `share` of the documents do not exceed (0.5: the median)."""
        reached = np.cumsum(self.lengths)
        return int(np.searchsorted(reached, max(share * int(reached[-1]), 1)))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layout:
    """Which columns of a part hold what."""

    id: str
    labels: dict[str, str]
    """Label -> column of its probability."""
    values: tuple[str, ...]
    """Regression columns."""
    columns: tuple[str, ...]
    """All that are counted."""
    decision: str | None
    """The column of the decided label, or of a list of them; None without labels."""


def count_parts(run: Run, *, num_threads: int = 4) -> Tally:
    """The counts over all published parts of `run`, in unit order. Raises CheckError for a damaged part.

    Cost: one pass over the score, length and error columns; a few dozen MB of memory for any number
    of rows.
    """
    published = run.part_files()
    units = [unit for unit in run.units if unit.name in published]
    layout = _layout(run.manifest.arrow_schema())
    # Each thread counts a stretch of neighbouring units, so there are as many tallies as threads.
    cuts = [len(units) * thread // num_threads for thread in range(num_threads + 1)]
    tally = Tally()
    with ThreadPoolExecutor(num_threads) as pool:
        stretches = [units[start:stop] for start, stop in pairwise(cuts)]
        for part in pool.map(lambda own: _count_units(run, own, layout), stretches):
            tally.merge(part)
    return tally


def labels_of(schema: pa.Schema) -> tuple[str, ...]:
    """The labels of the probability columns, in order; () for a regression."""
    return tuple(name.removeprefix("prob_") for name in schema.names if name.startswith("prob_"))


def _layout(schema: pa.Schema) -> _Layout:
    labels = {label: f"prob_{label}" for label in labels_of(schema)}
    decision = next((name for name in (PREDICTION, LABELS) if labels and name in schema.names), None)
    values = () if labels else tuple(name for name in schema.names if name.startswith(PREDICTION))
    wanted = ("error", "num_tokens", "truncated", *([decision] if decision else []))
    # Token parts have no `num_tokens`: there the ids themselves are counted.
    lengths = ("input_ids",) if "num_tokens" not in schema.names else ()
    present = tuple(name for name in (*wanted, *lengths) if name in schema.names)
    return _Layout(
        id=next(name for name in ID_COLUMNS if name in schema.names),
        labels=labels,
        values=values,
        columns=(*present, *labels.values(), *values),
        decision=decision,
    )


def _count_units(run: Run, units: Sequence[Unit], layout: _Layout) -> Tally:
    tally = Tally()
    # Strings that repeat; Arrow takes no lists of them here.
    repeated = [name for name in (layout.decision, "error") if name in layout.columns and name != LABELS]
    for unit in units:
        with open_part(run, unit, read_dictionary=repeated) as file:
            problem = footer_problem(run, unit, file)
            if problem is not None:
                msg = f"{part_path(unit)}{problem}; {way_out(run)}"
                raise DamagedPartError(msg)
            _count_part(tally, unit, file, layout)
    return tally


def _count_part(tally: Tally, unit: Unit, file: pq.ParquetFile, layout: _Layout) -> None:
    stats = stats_of(file)
    tally.stats.append((unit, stats))
    if EMBEDDING in file.schema_arrow.names:
        _count_norms(tally, file)
    for group in range(file.num_row_groups):
        codes: set[str] = set()
        for batch in file.iter_batches(
            READ_ROWS, row_groups=[group], columns=list(layout.columns), use_threads=False
        ):
            codes |= _count_batch(tally, batch, layout)
        if any(tally.wants_examples(code) for code in codes):
            _find_examples(tally, file, group, layout)


def _count_batch(tally: Tally, batch: pa.RecordBatch, layout: _Layout) -> set[str]:
    """Count a batch; returns the error codes in it."""
    tally.rows += batch.num_rows
    codes: set[str] = set()
    if "error" in layout.columns:
        errors = batch.column("error")
        if errors.null_count < len(errors):
            for entry in pc.value_counts(errors.drop_null().cast(pa.string())).to_pylist():
                tally.count_error(entry["values"], entry["counts"])
                codes.add(entry["values"])
            batch = batch.filter(pc.is_null(errors))
    _count_lengths(tally, batch)
    decided = {} if layout.decision is None else _decided_rows(batch.column(layout.decision))
    for label, column in layout.labels.items():
        rows = decided.get(label, np.zeros(0, np.int64))
        tally.decisions[label] += len(rows)
        is_decided = np.zeros(batch.num_rows, bool)
        is_decided[rows] = True
        _count_scores(tally, label, batch.column(column).to_numpy(zero_copy_only=False), is_decided)
    for column in layout.values:
        values = batch.column(column).to_numpy(zero_copy_only=False)
        finite = values[np.isfinite(values)]
        tally.not_finite += len(values) - len(finite)
        tally.values.setdefault(column, GrowingHistogram()).add(finite)
    return codes


def _count_lengths(tally: Tally, batch: pa.RecordBatch) -> None:
    if "truncated" in batch.schema.names:
        tally.truncated_rows += int(pc.sum(batch.column("truncated")).as_py() or 0)
    if "num_tokens" in batch.schema.names:
        column = batch.column("num_tokens")
    elif "input_ids" in batch.schema.names:
        column = pc.list_value_length(batch.column("input_ids"))
    else:
        return
    lengths = np.maximum(column.drop_null().to_numpy().astype(np.int64), 0)
    if len(lengths):
        tally.num_tokens += int(lengths.sum())
        tally.longest = max(tally.longest, int(lengths.max()))
        counts = np.bincount(np.minimum(lengths, LONGEST_COUNTED))
        tally.lengths[: len(counts)] += counts


def _count_norms(tally: Tally, file: pq.ParquetFile) -> None:
    """Of the first vectors of a part: all of them would be read for hours where there are many."""
    batch = next(file.iter_batches(NORM_ROWS, columns=[EMBEDDING], use_threads=False), None)
    if batch is None:
        return
    vectors = batch.column(EMBEDDING)
    flat = vectors.drop_null().flatten().to_numpy().astype(np.float64)
    norms = np.linalg.norm(flat.reshape(-1, vectors.type.list_size), axis=1)
    finite = norms[np.isfinite(norms)]
    tally.not_finite += len(norms) - len(finite)
    tally.norms.add(finite)
    tally.norm_sum += float(finite.sum())
    tally.num_norms += len(finite)


def _decided_rows(column: pa.Array) -> dict[str, Counts]:
    """The rows of each label that was decided, in order; `column` holds a label a row, or a list of labels."""
    if pa.types.is_list(column.type):
        row_L, labels = pc.list_parent_indices(column).to_numpy(), pc.list_flatten(column)
    else:
        row_L, labels = np.flatnonzero(column.is_valid()), column.drop_null()
    if not pa.types.is_dictionary(labels.type):
        labels = labels.dictionary_encode()
    index_L = labels.indices.to_numpy()
    # Sorted once, so that many labels cost no more than few.
    order = np.argsort(index_L, kind="stable")
    counts = np.bincount(index_L, minlength=len(labels.dictionary))
    pieces = np.split(row_L[order], np.cumsum(counts)[:-1])
    return dict(zip(labels.dictionary.to_pylist(), pieces, strict=True)) if len(counts) else {}


def _count_scores(tally: Tally, label: str, scores: Floats, is_decided: npt.NDArray[np.bool_]) -> None:
    finite = np.isfinite(scores)
    if not finite.all():
        tally.not_finite += int(len(scores) - finite.sum())
        scores, is_decided = scores[finite], is_decided[finite]
    bins = np.clip((scores * SCORE_BINS).astype(np.int64), 0, SCORE_BINS - 1) + SCORE_BINS * is_decided
    counts = np.bincount(bins, minlength=2 * SCORE_BINS).reshape(2, SCORE_BINS)
    tally.scores[label] = tally.scores.get(label, 0) + counts
    tally.score_sums[label] = tally.score_sums.get(label, 0.0) + float(scores.sum(dtype=np.float64))


def _find_examples(tally: Tally, file: pq.ParquetFile, group: int, layout: _Layout) -> None:
    for batch in file.iter_batches(
        READ_ROWS, row_groups=[group], columns=[layout.id, "error"], use_threads=False
    ):
        errors = batch.column("error").cast(pa.string())
        bad = plain_ids(batch.column(layout.id)).filter(pc.is_valid(errors))
        codes = errors.drop_null()
        for code in pc.unique(codes).to_pylist():
            if tally.wants_examples(code):
                ids = shown_ids(bad.filter(pc.equal(codes, code)).slice(0, EXAMPLES_PER_CODE))
                tally.add_examples(code, [shown[:LONGEST_EXAMPLE] for shown in ids])
