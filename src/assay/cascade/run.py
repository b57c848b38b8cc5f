"""A tuned cascade at work: `load_cascade(path).predict(pairs)`, and `assay cascade run` over sources.

Axes: M pairs.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from assay.cascade.decide import Answers, answer, combined
from assay.cascade.files import CascadeFile, read_cascade
from assay.cascade.settings import CascadeRunSettings
from assay.cascade.stages import Stage, open_stages
from assay.data.finding import find_sources
from assay.data.listing import local_paths
from assay.data.reading import read_rows
from assay.data.rows import SourceRows
from assay.data.sources import SOURCE_ROW, Columns, Source
from assay.data.storage import is_object_url, local_path, replace_file, writable_place
from assay.errors import InputError, UsageError
from assay.metrics import FloatArray

_PAIRS_AT_ONCE = 65_536
"""Of a source, among which each distinct text is encoded once."""
_NUMBERS = ("bi_probability", "bi_confidence", "cross_probability", "cross_confidence", "final_probability")
SCHEMA = pa.schema(
    [
        ("stage", pa.string()),
        *((name, pa.float32()) for name in _NUMBERS),
        ("same_book", pa.bool_()),
        ("error", pa.string()),
    ]
)


class Cascade:
    """Two loaded models and their thresholds. Not thread-safe: one forward pass at a time."""

    def __init__(self, tuned: CascadeFile, first: Stage, second: Stage) -> None:
        """Use `load_cascade`."""
        self.tuned = tuned
        """What the file says."""
        self.first, self.second = first, second

    @property
    def labels(self) -> tuple[str, str]:
        """The two labels; probabilities are of the second."""
        return self.tuned.labels

    def predict(self, pairs: Iterable[Sequence[str]]) -> pa.Table:
        """A row for each pair of texts, in one pass; only what the first model leaves open reaches the second.

        `stage`: `bi-only` or `two-stage`; `bi_probability`, `cross_probability`, `final_probability`: of the second
        label, calibrated where the models are, `cross_*` null where the second model was not asked;
        `bi_confidence`, `cross_confidence`: the probability of the likelier label; `same_book`: whether the pair has
        the second label; `error`: a code, all else null, for a pair with a text that a model cannot take. Raises
        InputError for what is not a pair of strings.
        """
        given = [_as_pair(number, pair) for number, pair in enumerate(pairs)]
        if not given:
            return SCHEMA.empty_table()
        label, combination = self.labels[1], self.tuned.combination
        first_M, codes = self.first.probabilities(given, label)
        errors = dict(codes)

        def ask_second(rows: NDArray[np.int64]) -> FloatArray:
            found, failed = self.second.probabilities([given[row] for row in rows], label)
            errors.update({int(rows[at]): code for at, code in failed.items()})
            return found

        answers = answer(
            self.tuned.thresholds,
            first_M,
            ask_second,
            lambda one, two, _: combined(combination, one, two),
        )
        return _as_table(answers, errors)


def load_cascade(
    path: str | os.PathLike[str],
    *,
    first: str | os.PathLike[str] | None = None,
    second: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    num_threads: int | None = None,
) -> Cascade:
    """The cascade in a file of `assay cascade tune`, with its two models.

    `first` and `second` are their folders where these are not where they were. Raises BundleError for a model that
    is not the one that the thresholds are for, and for a file that is not a cascade's.
    """
    file = Path(path)
    tuned = read_cascade(file)
    folders = [
        given if given is not None else file.absolute().parent / entry.path
        for given, entry in ((first, tuned.first), (second, tuned.second))
    ]
    stages = open_stages(*folders, device=device, num_threads=num_threads)
    for entry, stage in zip((tuned.first, tuned.second), stages, strict=True):
        entry.check(file, stage)
    return Cascade(tuned, *stages)


@dataclass(frozen=True, kw_only=True, slots=True)
class CascadeRunResult:
    """What a run of a cascade did."""

    out: str
    num_pairs: int
    num_second: int
    """Pairs that the second model was asked about."""
    num_same: int
    """Pairs with the second label."""
    num_errors: int
    label: str

    def __str__(self) -> str:
        """The counts, for people."""
        share = self.num_second / self.num_pairs
        return (
            f"{self.num_pairs:,} pairs: {self.num_same:,} {self.label}, {self.num_errors:,} with an error;"
            f" {self.num_second:,} ({share:.1%}) reached the second model\nwrote {self.out}"
        )


def cascade_run(settings: CascadeRunSettings) -> CascadeRunResult:
    """Answers for all pairs of the sources, written to `settings.out` in one step.

    Columns: `source`, `source_row`, the pair's `id` where the sources have one, then those of `Cascade.predict`.
    Raises `SourceError` for sources that cannot be read, `InputError` for sources without a row.
    """
    if not is_object_url(settings.out):
        out = local_path(settings.out)
        if out.exists() and any(out.resolve().is_relative_to(each) for each in local_paths(settings.data)):
            raise UsageError(
                f"out={settings.out} is one of the sources; it would be replaced; name another file"
            )
        if out.is_dir():
            raise UsageError(f"out={settings.out} is a folder; name a file")
        writable_place(out, f"out={settings.out}")
    columns = Columns(text=settings.text_column, text_pair=settings.text_pair_column, id=settings.id_column)
    sources = find_sources(
        settings.data, format=settings.format, delimiter=settings.delimiter, columns=columns
    )
    if not any(source.num_rows for source in sources):
        raise InputError(f"{', '.join(settings.data)}: 0 rows; a cascade needs pairs; name other sources")
    cascade = load_cascade(
        settings.cascade,
        first=settings.first,
        second=settings.second,
        device=settings.device,
        num_threads=settings.num_threads,
    )
    tables = [
        _answered(cascade, source, batches)
        for source in sources
        for batches in _blocks(read_rows(source, columns, 0, source.num_rows))
    ]
    table = pa.concat_tables(tables, promote_options="default")
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    replace_file(settings.out, sink.getvalue().to_pybytes())
    errors = table.column("error")
    return CascadeRunResult(
        out=settings.out,
        num_pairs=table.num_rows,
        num_second=table.num_rows - table.column("cross_probability").null_count,
        num_same=table.column("same_book").to_pylist().count(True),
        num_errors=table.num_rows - errors.null_count,
        label=cascade.labels[1],
    )


def _blocks(batches: Iterable[SourceRows]) -> Iterator[list[SourceRows]]:
    """Batches of a source, taken together up to about `_PAIRS_AT_ONCE` rows."""
    block: list[SourceRows] = []
    for batch in batches:
        if block and sum(each.num_rows for each in block) + batch.num_rows > _PAIRS_AT_ONCE:
            yield block
            block = []
        block.append(batch)
    if block:
        yield block


def _answered(cascade: Cascade, source: Source, batches: Sequence[SourceRows]) -> pa.Table:
    """The answers for rows of a source; one without both texts has its error code."""
    errors: dict[int, str] = {}
    pairs: list[tuple[str, str]] = []
    usable: list[int] = []
    start = batches[0].start
    for batch in batches:
        errors |= {batch.start - start + at: code for at, code in batch.errors.items()}
        if batch.texts is None or batch.text_pairs is None:
            continue
        both = zip(batch.texts.to_pylist(), batch.text_pairs.to_pylist(), strict=True)
        for at, (one, two) in enumerate(both):
            if at not in batch.errors:
                usable.append(batch.start - start + at)
                pairs.append((one, two))
    num_rows = sum(batch.num_rows for batch in batches)
    place = np.full(num_rows, -1)
    place[usable] = np.arange(len(usable))
    taken = cascade.predict(pairs).take(pa.array(place, mask=place < 0))
    codes = [errors.get(row, code) for row, code in enumerate(taken.column("error").to_pylist())]
    taken = taken.set_column(SCHEMA.get_field_index("error"), "error", pa.array(codes, pa.string()))
    taken = taken.add_column(0, SOURCE_ROW, pa.array(np.arange(start, start + num_rows)))
    taken = taken.add_column(0, "source", pa.array([source.name] * num_rows, pa.string()))
    ids = [batch.ids for batch in batches if batch.ids is not None]
    return taken.add_column(2, "id", pa.chunked_array(ids)) if len(ids) == len(batches) else taken


def _as_pair(number: int, pair: Sequence[str]) -> tuple[str, str]:
    if isinstance(pair, str) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
        raise InputError(f"pair {number} is {pair!r:.80}; two strings are needed; pass (text, text)")
    return pair[0], pair[1]


def _as_table(answers: Answers, errors: dict[int, str]) -> pa.Table:
    bad_M = ~np.isfinite(answers.final_M)
    codes = [errors.get(row, "not_finite") if is_bad else None for row, is_bad in enumerate(bad_M.tolist())]
    asked_M = answers.goes_on_M & ~bad_M
    columns = (
        (answers.first_M, ~bad_M),
        (np.maximum(answers.first_M, 1 - answers.first_M), ~bad_M),
        (answers.second_M, asked_M),
        (np.maximum(answers.second_M, 1 - answers.second_M), asked_M),
        (answers.final_M, ~bad_M),
    )
    numbers = [pa.array(values.astype(np.float32), mask=~known_M) for values, known_M in columns]
    return pa.table(
        [
            pa.array(answers.stages, pa.string(), mask=bad_M),
            *numbers,
            pa.array(answers.holds_M, mask=bad_M),
            pa.array(codes, pa.string()),
        ],
        schema=SCHEMA,
    )
