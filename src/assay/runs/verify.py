"""The proof that every planned row is there exactly once.

For each source the units partition its rows (by construction of the plan, checked again here); each
unit has one part whose footer names this run and this unit, whose rows and id checksum agree with
the footer, and in which no prediction is null without an error code.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from assay.data.duplicates import count_duplicates
from assay.data.finding import reinspect
from assay.data.ids import IdChecksum
from assay.data.reading import read_rows
from assay.data.sources import SOURCE_ROW
from assay.errors import CheckError, DamagedPartError, RefusedError
from assay.runs.parts import find_obstacles, footer_problem, open_part, take_out, way_out
from assay.runs.plan import Unit
from assay.runs.run import (
    FOOTER_ID_CHECKSUM,
    FOOTER_ROWS_OUT,
    ID_COLUMNS,
    Run,
    open_run,
    part_path,
)
from assay.telemetry import format_number_of

SHOWN_PROBLEMS = 5
READ_ROWS = 65_536
VERIFIED = "verified: every row is there exactly once"
"""A line of a proof that holds; whoever watches pods looks for it in their logs."""
RESULTS = ("prediction", "embedding")
"""Columns that are null only beside an error code; those of `prob_` too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """What `verify` found; `problems` is empty where the run is whole."""

    run_id: str
    num_sources: int
    units_total: int
    units_missing: int
    rows_total: int
    """Rows planned."""
    rows_in: int
    """Rows of the sources that the parts account for."""
    rows_out: int
    """Rows of the parts: as many, but where a kind of run makes any number of one."""
    error_rows: int
    """Rows with a null prediction and an error code."""
    checked_sources: bool
    """Whether the ids were also compared with the sources."""
    duplicate_ids: int | None
    """Rows whose id an earlier row has too; None where they were not counted."""
    problems: tuple[str, ...]
    bad_parts: tuple[str, ...] = ()
    """Paths of what must not stay among the parts: damaged ones, and those of no unit of the run."""
    taken_out: Mapping[str, str] = field(default_factory=dict)
    """With `repair`, where each of them is kept now."""

    @property
    def holds(self) -> bool:
        """Whether nothing is missing and nothing is wrong."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """The proof as a JSON object."""
        return {**asdict(self), "holds": self.holds}

    def __str__(self) -> str:
        """The proof in lines, for people."""
        against = " and against the sources" if self.checked_sources else ""
        lines = [
            (
                f"run {self.run_id}: {format_number_of(self.num_sources, 'source')}, "
                f"{format_number_of(self.rows_total, 'planned row')}"
            ),
            (
                f"  units    {self.units_total - self.units_missing:,} of {self.units_total:,} published, "
                "each row range once"
            ),
            f"  rows     {self.rows_in:,} in, {self.rows_out:,} out, {self.error_rows:,} of them with an error code",
            f"  ids      checksums recomputed{against}",
        ]
        if self.duplicate_ids is not None:
            repeats = format_number_of(self.duplicate_ids, "row has", "rows have")
            lines.append(f"  repeats  {repeats} an id that an earlier row has too")
        if self.holds:
            lines.append(f"  {VERIFIED}")
        lines += [f"  PROBLEM  {problem}" for problem in self.problems[:SHOWN_PROBLEMS]]
        if len(self.problems) > SHOWN_PROBLEMS:
            more = format_number_of(len(self.problems) - SHOWN_PROBLEMS, "more problem")
            lines.append(f"  and {more}")
        lines += [f"  taken out {path}, kept as {kept}" for path, kept in self.taken_out.items()]
        if self.taken_out:
            lines.append("  run the same command as before to make them again")
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True, slots=True)
class _PartCheck:
    rows_in: int = 0
    rows_out: int = 0
    error_rows: int = 0
    problems: tuple[str, ...]
    bad_part: str | None = None
    """Path of the part, where it must be made again."""


def verify(
    url: str, *, sources: bool = False, duplicates: bool = False, repair: bool = False, num_threads: int = 4
) -> Proof:
    """The proof for the run at `url`; raises SourceError where there is no run.

    `sources=True` reads the id column of every source again and compares it too; otherwise the
    sources are only checked for changes. `duplicates=True` counts the ids that occur more than
    once. `repair=True` moves what the proof calls bad parts out of the run's parts, so that the same
    command makes them again; the proof is of the run before that. Cost: one read of all parts.
    """
    run = open_run(url)
    proof = verify_run(run, sources=sources, duplicates=duplicates, num_threads=num_threads)
    if not repair:
        return proof
    return replace(proof, taken_out={path: take_out(run, path) for path in proof.bad_parts})


def verify_run(run: Run, *, sources: bool = False, duplicates: bool = False, num_threads: int = 4) -> Proof:
    """The proof for an open run."""
    manifest = run.manifest
    units = run.units
    found = run.part_files()
    names = {unit.name for unit in units}
    missing = [unit for unit in units if unit.name not in found]
    strays = [found[name].path for name in sorted(found.keys() - names)]
    obstacles = find_obstacles(run)
    problems = [
        *obstacles,
        *(
            f"{path} is not a unit of this run; remove it, or take it out with `assay verify {run.url} --repair`"
            for path in strays
        ),
    ]
    problems += _range_problems(run)
    problems += _changed_sources(run)
    if missing:
        problems.insert(
            len(obstacles),
            f"{len(missing):,} of {len(units):,} units are not published; run the same command to go on",
        )
    present = [unit for unit in units if unit.name in found]
    with ThreadPoolExecutor(num_threads) as pool:
        checks = list(pool.map(lambda unit: _check_part(run, unit, sources=sources), present))
    problems += [problem for check in checks for problem in check.problems]
    sound = [unit for unit, check in zip(present, checks, strict=True) if check.bad_part is None]
    return Proof(
        run_id=manifest.run_id,
        num_sources=len(manifest.sources),
        units_total=len(units),
        units_missing=len(missing),
        rows_total=manifest.planned_rows,
        rows_in=sum(check.rows_in for check in checks),
        rows_out=sum(check.rows_out for check in checks),
        error_rows=sum(check.error_rows for check in checks),
        checked_sources=sources,
        duplicate_ids=_count_duplicates(run, sound) if duplicates else None,
        problems=tuple(problems),
        bad_parts=(*strays, *(check.bad_part for check in checks if check.bad_part)),
    )


def require(proof: Proof) -> None:
    """Raise CheckError naming the first problem, unless the proof holds."""
    if not proof.holds:
        if len(proof.taken_out) == len(proof.problems):
            again = "what was wrong is taken out; run the same command as before, which makes again what is missing"
            msg = f"run {proof.run_id} was not whole: {again}"
            raise CheckError(msg)
        more = f" (and {len(proof.problems) - 1} more)" if len(proof.problems) > 1 else ""
        msg = f"run {proof.run_id} is not whole: {proof.problems[0]}{more}"
        raise CheckError(msg)


def _range_problems(run: Run) -> list[str]:
    return [
        f"the units of {record.name} do not partition its rows; the run directory is damaged"
        for record in run.manifest.sources
        if record.boundaries and not is_partition(record.boundaries, record.planned_rows)
    ]


def is_partition(boundaries: Sequence[int], num_rows: int) -> bool:
    """Whether the boundaries cut 0..num_rows into ranges without gap or overlap."""
    if num_rows == 0:
        return tuple(boundaries) == (0, 0)
    rising = all(a < b for a, b in itertools.pairwise(boundaries))
    return rising and boundaries[0] == 0 and boundaries[-1] == num_rows


def _changed_sources(run: Run) -> list[str]:
    problems = []
    for index in range(len(run.manifest.sources)):
        try:
            reinspect(run.manifest.source(index))
        except RefusedError as error:
            problems.append(str(error))
    return problems


def _check_part(run: Run, unit: Unit, *, sources: bool) -> _PartCheck:
    path = part_path(unit)
    try:
        with open_part(run, unit) as file:
            wrong = footer_problem(run, unit, file)
            if wrong is None:
                return _check_rows(run, unit, file, path, sources=sources)
    except DamagedPartError as error:
        return _PartCheck(problems=(str(error),), bad_part=path)
    except OSError as error:
        return _PartCheck(problems=(f"{path} cannot be read now ({error.strerror}); verify again later",))
    return _PartCheck(problems=(f"{path}{wrong}; {way_out(run)}",), bad_part=path)


def _check_rows(run: Run, unit: Unit, file: pq.ParquetFile, path: str, *, sources: bool) -> _PartCheck:
    schema = run.manifest.arrow_schema()
    footer = file.metadata.metadata
    id_column = next(name for name in ID_COLUMNS if name in schema.names)
    scores = [name for name in schema.names if name in RESULTS or name.startswith("prob_")]
    checksum = IdChecksum()
    origins = Origins(unit)
    rows = error_rows = unexplained = 0
    # All columns: what cannot be read in any of them stops the report and the merge.
    for batch in file.iter_batches(READ_ROWS):
        checksum.update(batch.column(id_column))
        rows += batch.num_rows
        if scores:
            errors = batch.column("error")
            error_rows += batch.num_rows - errors.null_count
            unexplained += _unexplained(batch, scores, errors)
        if run.manifest.rows_out == "any_number":
            origins.update(batch.column(SOURCE_ROW))
    said = footer.get(FOOTER_ROWS_OUT, b"").decode()
    problems = []
    if run.manifest.rows_out == "one_each" and rows != unit.num_rows:
        problems.append(f"{path} has {rows} rows, not {unit.num_rows}")
    elif str(rows) != said:
        problems.append(f"{path} has {rows} rows and its footer says {said!r}")
    if origins.num_astray:
        problems.append(
            f"{path}: {origins.num_astray} rows are not of rows {unit.start} to {unit.stop - 1}, in order"
        )
    if checksum.hexdigest() != footer.get(FOOTER_ID_CHECKSUM, b"").decode():
        problems.append(f"{path}: its ids do not give the checksum in its footer")
    if unexplained:
        problems.append(f"{path}: {unexplained} rows have no prediction and no error code")
    is_bad = bool(problems)
    if sources and not is_bad and checksum.hexdigest() != _source_checksum(run, unit, file):
        problems.append(f"{path}: its ids are not those of source {unit.source_name}")
    return _PartCheck(
        rows_in=unit.num_rows,
        rows_out=rows,
        error_rows=error_rows,
        problems=tuple(f"{problem}; {way_out(run)}" for problem in problems),
        bad_part=path if is_bad else None,
    )


class Origins:
    """Whether the rows of a part name rows of their unit, none before one that came earlier."""

    def __init__(self, unit: Unit) -> None:
        self.num_astray = 0
        self._last = unit.start
        self._stop = unit.stop

    def update(self, source_rows: pa.Array) -> None:
        """Take in the next rows."""
        rows = source_rows.to_numpy()
        before = np.concatenate([[self._last], rows[:-1]])
        self.num_astray += int(((rows < before) | (rows >= self._stop)).sum())
        if len(rows):
            self._last = int(rows[-1])


def _unexplained(batch: pa.RecordBatch, scores: Iterable[str], errors: pa.Array) -> int:
    """Rows in which a score is null (or not a number) though no error says why."""
    bad = None
    for name in scores:
        column = batch.column(batch.schema.get_field_index(name))
        is_bad = pc.is_null(column, nan_is_null=True)
        bad = is_bad if bad is None else pc.or_(bad, is_bad)
    count = pc.sum(pc.and_(bad, pc.is_null(errors))).as_py()
    return int(count or 0)


def _source_checksum(run: Run, unit: Unit, file: pq.ParquetFile) -> str:
    """The checksum that the ids of a part have if they are those of its source."""
    ids = _source_ids(run, unit)
    if run.manifest.rows_out == "any_number":
        held = pa.chunked_array(list(ids)).combine_chunks()
        ids = (
            held.take(pc.subtract(batch.column(0), unit.start))
            for batch in file.iter_batches(READ_ROWS, columns=[SOURCE_ROW])
        )
    checksum = IdChecksum()
    for each in ids:
        checksum.update(each)
    return checksum.hexdigest()


def _source_ids(run: Run, unit: Unit) -> Iterator[pa.Array]:
    columns = run.manifest.source_columns()
    for rows in read_rows(run.manifest.source(unit.source), columns, unit.start, unit.stop):
        if rows.ids is None:
            yield pa.array(range(rows.start, rows.start + rows.num_rows), pa.int64())
        else:
            yield rows.ids


def _count_duplicates(run: Run, units: Sequence[Unit]) -> int:
    schema = run.manifest.arrow_schema()
    id_column = next(name for name in ID_COLUMNS if name in schema.names)
    if id_column == SOURCE_ROW:
        return 0

    many = run.manifest.rows_out == "any_number"
    columns = [id_column, SOURCE_ROW] if many else [id_column]

    def firsts(batch: pa.RecordBatch) -> pa.Array:
        """The first row of each source row: what one row became has one id, and repeats nothing."""
        rows = batch.column(SOURCE_ROW).to_numpy()
        return pa.array(np.diff(rows, prepend=-1) != 0)

    def read_ids() -> Iterable[pa.Array]:
        for unit in units:
            with open_part(run, unit) as file:
                for batch in file.iter_batches(READ_ROWS, columns=columns):
                    yield (
                        pc.filter(batch.column(id_column), firsts(batch)) if many else batch.column(id_column)
                    )

    return count_duplicates(read_ids, sum(unit.num_rows for unit in units)).num_rows
