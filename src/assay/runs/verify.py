"""The proof that every planned row is there exactly once.

For each source the units partition its rows (by construction of the plan, checked again here); each
unit has one part whose footer names this run and this unit, whose rows and id checksum agree with
the footer, and in which no prediction is null without an error code.
"""

import itertools
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from assay.data.duplicates import count_duplicates
from assay.data.finding import reinspect
from assay.data.ids import IdChecksum
from assay.data.reading import read_rows
from assay.errors import CheckError, RefusedError
from assay.runs.plan import Unit
from assay.runs.run import (
    FOOTER_ID_CHECKSUM,
    FOOTER_NUM_ROWS,
    FOOTER_RUN_ID,
    FOOTER_UNIT,
    ID_COLUMNS,
    Run,
    open_run,
    part_path,
)
from assay.telemetry import format_number_of

SHOWN_PROBLEMS = 5
READ_ROWS = 65_536


@dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """What `verify` found; `problems` is empty where the run is whole."""

    run_id: str
    num_sources: int
    units_total: int
    units_missing: int
    rows_total: int
    rows_found: int
    error_rows: int
    """Rows with a null prediction and an error code."""
    checked_sources: bool
    """Whether the ids were also compared with the sources."""
    duplicate_ids: int | None
    """Rows whose id an earlier row has too; None where they were not counted."""
    problems: tuple[str, ...]

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
            f"  rows     {self.rows_found:,} found, {self.error_rows:,} of them with an error code",
            f"  ids      checksums recomputed{against}",
        ]
        if self.duplicate_ids is not None:
            repeats = format_number_of(self.duplicate_ids, "row has", "rows have")
            lines.append(f"  repeats  {repeats} an id that an earlier row has too")
        if self.holds:
            lines.append("  verified: every row is there exactly once")
        lines += [f"  PROBLEM  {problem}" for problem in self.problems[:SHOWN_PROBLEMS]]
        if len(self.problems) > SHOWN_PROBLEMS:
            more = format_number_of(len(self.problems) - SHOWN_PROBLEMS, "more problem")
            lines.append(f"  and {more}")
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True, slots=True)
class _PartCheck:
    rows: int
    error_rows: int
    problems: tuple[str, ...]


def verify(url: str, *, sources: bool = False, duplicates: bool = False, num_threads: int = 4) -> Proof:
    """The proof for the run at `url`; raises SourceError where there is no run.

    `sources=True` reads the id column of every source again and compares it too; otherwise the
    sources are only checked for changes. `duplicates=True` counts the ids that occur more than
    once. Cost: one read of the id, error and prediction columns.
    """
    return verify_run(open_run(url), sources=sources, duplicates=duplicates, num_threads=num_threads)


def verify_run(run: Run, *, sources: bool = False, duplicates: bool = False, num_threads: int = 4) -> Proof:
    """The proof for an open run."""
    manifest = run.manifest
    units = manifest.units()
    found = run.part_files()
    names = {unit.name for unit in units}
    missing = [unit for unit in units if unit.name not in found]
    problems = [
        f"parts/{name}.parquet is no unit of this run; remove it" for name in sorted(found.keys() - names)
    ]
    problems += _range_problems(run)
    problems += _changed_sources(run)
    if missing:
        problems.insert(
            0, f"{len(missing):,} of {len(units):,} units are not published; run the same command to go on"
        )
    present = [unit for unit in units if unit.name in found]
    with ThreadPoolExecutor(num_threads) as pool:
        checks = list(pool.map(lambda unit: _check_part(run, unit, sources=sources), present))
    problems += [problem for check in checks for problem in check.problems]
    return Proof(
        run_id=manifest.run_id,
        num_sources=len(manifest.sources),
        units_total=len(units),
        units_missing=len(missing),
        rows_total=manifest.planned_rows,
        rows_found=sum(check.rows for check in checks),
        error_rows=sum(check.error_rows for check in checks),
        checked_sources=sources,
        duplicate_ids=_count_duplicates(run, present) if duplicates else None,
        problems=tuple(problems),
    )


def require(proof: Proof) -> None:
    """Raise CheckError naming the first problem, unless the proof holds."""
    if not proof.holds:
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
        with (
            run.store.open_input(path) as handle,
            pq.ParquetFile(handle, page_checksum_verification=True) as file,
        ):
            return _check_open_part(run, unit, file, path, sources=sources)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        problem = f"{path} cannot be read ({reason}); delete it and run the same command to make it again"
        return _PartCheck(rows=0, error_rows=0, problems=(problem,))


def _check_open_part(run: Run, unit: Unit, file: pq.ParquetFile, path: str, *, sources: bool) -> _PartCheck:
    footer = file.metadata.metadata or {}
    schema = run.manifest.arrow_schema()
    way_out = "delete it and run the same command to make it again"
    wanted = {FOOTER_RUN_ID: run.manifest.run_id, FOOTER_UNIT: unit.name, FOOTER_NUM_ROWS: str(unit.num_rows)}
    for key, value in wanted.items():
        seen = footer.get(key, b"").decode()
        if seen != value:
            problem = f"{path}: {key.decode()} is {seen!r}, not {value!r}; {way_out}"
            return _PartCheck(rows=0, error_rows=0, problems=(problem,))
    if not file.schema_arrow.remove_metadata().equals(schema.remove_metadata()):
        return _PartCheck(
            rows=0, error_rows=0, problems=(f"{path} has another schema than the run; {way_out}",)
        )
    id_column = next(name for name in ID_COLUMNS if name in schema.names)
    scores = [name for name in schema.names if name == "prediction" or name.startswith("prob_")]
    checksum = IdChecksum()
    rows = error_rows = unexplained = 0
    for batch in file.iter_batches(READ_ROWS, columns=[id_column, *scores, *_error_column(schema)]):
        checksum.update(batch.column(batch.schema.get_field_index(id_column)))
        rows += batch.num_rows
        if scores:
            errors = batch.column(batch.schema.get_field_index("error"))
            error_rows += batch.num_rows - errors.null_count
            unexplained += _unexplained(batch, scores, errors)
    problems = []
    if rows != unit.num_rows:
        problems.append(f"{path} has {rows} rows, not {unit.num_rows}; {way_out}")
    if checksum.hexdigest() != footer.get(FOOTER_ID_CHECKSUM, b"").decode():
        problems.append(f"{path}: its ids do not give the checksum in its footer; {way_out}")
    if unexplained:
        problems.append(f"{path}: {unexplained} rows have no prediction and no error code; {way_out}")
    if sources and checksum.hexdigest() != _source_checksum(run, unit):
        problems.append(f"{path}: its ids are not those of source {unit.source_name}; {way_out}")
    return _PartCheck(rows=rows, error_rows=error_rows, problems=tuple(problems))


def _error_column(schema: pa.Schema) -> list[str]:
    return ["error"] if "error" in schema.names else []


def _unexplained(batch: pa.RecordBatch, scores: Iterable[str], errors: pa.Array) -> int:
    """Rows in which a score is null (or not a number) though no error says why."""
    bad = None
    for name in scores:
        column = batch.column(batch.schema.get_field_index(name))
        is_bad = pc.is_null(column, nan_is_null=True)
        bad = is_bad if bad is None else pc.or_(bad, is_bad)
    count = pc.sum(pc.and_(bad, pc.is_null(errors))).as_py()
    return int(count or 0)


def _source_checksum(run: Run, unit: Unit) -> str:
    columns = run.manifest.source_columns()
    checksum = IdChecksum()
    for rows in read_rows(run.manifest.source(unit.source), columns, unit.start, unit.stop):
        if rows.ids is None:
            checksum.update(pa.array(range(rows.start, rows.start + rows.num_rows), pa.int64()))
        else:
            checksum.update(rows.ids)
    return checksum.hexdigest()


def _count_duplicates(run: Run, units: Sequence[Unit]) -> int:
    schema = run.manifest.arrow_schema()
    id_column = next(name for name in ID_COLUMNS if name in schema.names)
    if id_column == "source_row":
        return 0

    def read_ids() -> Iterable[pa.Array]:
        for unit in units:
            with run.store.open_input(part_path(unit)) as handle, pq.ParquetFile(handle) as file:
                for batch in file.iter_batches(READ_ROWS, columns=[id_column]):
                    yield batch.column(0)

    return count_duplicates(read_ids, sum(unit.num_rows for unit in units)).num_rows
