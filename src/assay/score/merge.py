"""Published parts, zipped back onto their sources by position, every id checked on the way.

No join: parts lie in the sources' row order, so one pass over both is enough, and a row whose id
differs from its part's stops the merge. One output file a source, in the source's format, written
under a temporary name and published whole; a rerun goes on with the sources that have none yet.
Where token parts were scored, the sources are those that the parts were made from.

Not covered: sources that were reordered after scoring (they are refused; join by key instead).
"""

import difflib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from assay import machine
from assay.data.finding import reinspect
from assay.data.ids import IdChecksum, first_difference, shown_ids
from assay.data.scratch import scratch_file, sweep_scratch
from assay.data.sinks import OUTPUT_FORMATS, taken_name, write_merged
from assay.data.storage import Store, is_object_url, local_path, open_store, writing
from assay.errors import CheckError, InputError, RefusedError, UsageError
from assay.runs.manifest import SourceRecord
from assay.runs.parts import footer_problem, open_part, way_out
from assay.runs.plan import Unit
from assay.runs.run import (
    ID_COLUMNS,
    Run,
    open_run,
    part_path,
)
from assay.score.corpus import Corpus, corpus_of
from assay.score.kind import SCORE
from assay.telemetry import Counters, Progress, format_number_of

T = TypeVar("T")

MERGE_PATH = "_merge.json"
"""Names the run that a folder of merged files belongs to. Readers of datasets leave out names in `_`."""

PART_ROWS = 65_536
MAX_THREADS = 4
MAX_CREATE_BYTES = 5_000_000_000
"""Above this an object store takes no conditional put in one request."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MergeReport:
    """What a merge did."""

    run_id: str
    out: str
    """Where the merged files lie."""
    files_written: int
    files_skipped: int
    """Files that an earlier merge of this run had written."""
    rows: int
    """Rows of all merged files, the skipped ones included."""
    ids_checked: int
    """Rows whose id in the part was compared with that in the source, by this merge."""
    rows_left_out: int
    """Rows of the sources that the run was not planned for (`--limit-rows`)."""
    seconds: float

    def __str__(self) -> str:
        """The report in one line, or two where rows were left out."""
        files = f"{self.files_written:,} written"
        if self.files_skipped:
            files += f" and {self.files_skipped:,} there already"
        text = (
            f"merged {format_number_of(self.rows, 'row')} into {self.out}: files {files}, "
            f"{self.ids_checked:,} ids checked, {self.seconds:.1f} s"
        )
        if self.rows_left_out:
            left_out = format_number_of(self.rows_left_out, "row is", "rows are")
            text += f"\n{left_out} left out: the run was planned with --limit-rows"
        return text


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """One file to write."""

    source: int
    """Index of the source in the corpus."""
    path: str
    """Path within the output folder."""


def merge(
    run_url: str,
    out: str,
    *,
    columns: Sequence[str] | None = None,
    prefix: str = "",
    num_threads: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> MergeReport:
    """Write each source of the run again under `out`, with the columns of its parts beside its own.

    The sources of a run over token parts are those that were tokenized.
    `columns` chooses among the parts' columns (default: all but the id); `prefix` goes before their
    names. Files keep their names and folders below the sources' common folder; Arrow files and
    text folders become Parquet. `on_progress` is called from several threads, one at a time.

    Raises SourceError where there is no run, UsageError for an unknown column, InputError where a
    name is taken or `out` would get in the way of a source, CheckError where a part is missing or
    an id does not meet its row, RefusedError where a source or a scored tokenize run changed or `out`
    holds something else.
    """
    started = time.monotonic()
    run = open_run(run_url)
    names = choose_columns(run, columns)
    corpus = corpus_of(run)
    sources = corpus.manifest.sources
    outputs = plan_outputs(sources)
    store = open_store(out)
    _refuse_place(corpus, store)
    _refuse_taken_names(corpus, outputs, [prefix + name for name in names])
    _require_parts(run)
    _claim(run, store, outputs, names, prefix)
    present = {info.path for info in store.list()}
    todo = [output for output in outputs if output.path not in present]
    merger = _Merger(corpus, store, names, prefix, _Watch(corpus, outputs, todo, on_progress))
    try:
        written = _run_all(merger, todo, num_threads)
    finally:
        sweep_scratch(store)
    checked = sum(sources[output.source].planned_rows for output in todo)
    return MergeReport(
        run_id=run.manifest.run_id,
        out=store.url,
        files_written=written,
        files_skipped=len(outputs) - written,
        rows=sum(sources[output.source].planned_rows for output in outputs),
        ids_checked=checked,
        rows_left_out=sum(record.num_rows - record.planned_rows for record in sources),
        seconds=time.monotonic() - started,
    )


def choose_columns(run: Run, columns: Sequence[str] | None) -> list[str]:
    """The parts' columns to add, in the parts' order; raises UsageError for one that parts do not have."""
    if run.manifest.kind != SCORE.name:
        msg = f"{run.url} is a {run.manifest.kind} run; merge adds scores: give a run of `assay score`"
        raise InputError(msg)
    names = [name for name in run.manifest.arrow_schema().names if name not in ID_COLUMNS]
    if columns is None:
        return names
    for name in columns:
        if name not in names:
            nearest = difflib.get_close_matches(name, names, n=1) or names
            msg = f"--columns {name!r} is not a column of the run's parts; nearest: {', '.join(nearest)}"
            raise UsageError(msg)
    return [name for name in names if name in columns]


def plan_outputs(records: Sequence[SourceRecord]) -> list[Output]:
    """A path for each source that the run covers: its own below the common folder of all sources.

    Where that would name one file twice, or the sources have no common place, the sources' unique
    names are used instead.
    """
    covered = [index for index, record in enumerate(records) if record.boundaries]
    named = {index: _named_path(records[index]) for index in covered}
    files = {index: records[index].uri.split("/") for index in covered if records[index].format != "text"}
    depth = _common_depth([parts[:-1] for parts in files.values()])
    paths = dict(named)
    # The URL of an object begins with scheme, nothing and bucket: these three at least must agree.
    if depth >= 3 or not any(is_object_url(records[index].uri) for index in files):
        for index, parts in files.items():
            paths[index] = _output_name(records[index], "/".join(parts[depth:]))
    if len(set(paths.values())) < len(paths) or MERGE_PATH in paths.values():
        paths = named
    return [Output(source=index, path=paths[index]) for index in covered]


def _common_depth(folders: Sequence[Sequence[str]]) -> int:
    """How many leading folders are the same for all."""
    depth = 0
    for level in zip(*folders, strict=False):
        if len(set(level)) > 1:
            break
        depth += 1
    return depth


def _named_path(record: SourceRecord) -> str:
    """The unique name of a source with the ending of its output, compression included."""
    file = record.uri.rpartition("/")[2].lower()
    ending = OUTPUT_FORMATS[record.format]
    if ending == "csv" and record.delimiter == "\t":
        ending = "tsv"
    codec = next((codec for codec in (".gz", ".zst", ".zstd") if file.endswith(codec)), "")
    return f"{record.name}.{ending}{codec if ending != 'parquet' else ''}"


def _output_name(record: SourceRecord, path: str) -> str:
    return path.removesuffix(".arrow") + ".parquet" if record.format == "arrow" else path


# ------------------------------------------------------------ what a merge refuses


def _refuse_place(corpus: Corpus, store: Store) -> None:
    """Raise InputError where the output folder holds a source, or would become one."""
    out = _real(store.url)
    if any(_is_below(out, _real(run.url)) for run in (corpus.run, corpus.token_run) if run is not None):
        msg = f"--out {store.url} lies in the run directory; merged files go elsewhere: name another folder"
        raise InputError(msg)
    for record in corpus.manifest.sources:
        folder, _, _ = record.uri.partition("*")[0].rpartition("/")
        is_inside = record.format == "text" and "*" in record.uri and _is_below(out, _real(folder))
        if is_inside or _is_below(_real(folder), out):
            msg = f"--out {store.url} shares a folder with source {record.uri}; name a folder of its own"
            raise InputError(msg)


def _real(url: str) -> str:
    return url.rstrip("/") if is_object_url(url) else os.path.realpath(local_path(url))


def _is_below(path: str, folder: str) -> bool:
    """Whether `path` is `folder` or lies in it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _refuse_taken_names(corpus: Corpus, outputs: Sequence[Output], names: Sequence[str]) -> None:
    seen: dict[int, str | None] = {}
    for output in outputs:
        record = corpus.manifest.sources[output.source]
        if record.schema_index not in seen:
            present = set(corpus.manifest.source(output.source).schema.names)
            seen[record.schema_index] = next((name for name in names if name in present), None)
        taken = seen[record.schema_index]
        if taken is not None:
            raise InputError(taken_name(record.uri, taken))


def _require_parts(run: Run) -> None:
    units = run.manifest.units()
    found = run.part_files()
    missing = [unit.name for unit in units if unit.name not in found]
    if missing:
        msg = (
            f"{len(missing):,} of {len(units):,} units of {run.url} are not published (first: {missing[0]}); "
            "run the same `assay score` command to finish, then merge"
        )
        raise CheckError(msg)


def _claim(run: Run, store: Store, outputs: Sequence[Output], names: Sequence[str], prefix: str) -> None:
    """Mark the output folder as this run's, or raise RefusedError where it is not."""
    claim = {"run_id": run.manifest.run_id, "columns": list(names), "prefix": prefix, "run": run.url}
    if store.info(MERGE_PATH) is None:
        there = {info.path for info in store.list()}
        taken = next((output.path for output in outputs if output.path in there), None)
        if taken is not None:
            msg = f"{store.url}/{taken} is there and no merge of this run wrote it; use another --out"
            raise RefusedError(msg)
        if store.create(MERGE_PATH, json.dumps(claim, indent=1).encode()):
            return
    try:
        found = json.loads(store.read_bytes(MERGE_PATH))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        msg = f"{store.url}/{MERGE_PATH} is damaged; use another --out"
        raise RefusedError(msg)
    for key, what in (("run_id", "run"), ("columns", "columns"), ("prefix", "prefix")):
        if found.get(key) != claim[key]:
            seen = f"{what} {found.get(key)!r}, not {claim[key]!r}"
            msg = f"{store.url} holds a merge with {seen}; use another --out"
            raise RefusedError(msg)


# ------------------------------------------------------------ the work


class _StoppedError(Exception):
    """Another file's merge failed or the user interrupted; never leaves this module."""


class _Watch:
    """Counts what is done, tells the caller, and says whether to stop."""

    def __init__(
        self,
        corpus: Corpus,
        outputs: Sequence[Output],
        todo: Sequence[Output],
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        rows = {output.path: corpus.manifest.sources[output.source].planned_rows for output in outputs}
        left = sum(rows[output.path] for output in todo)
        self.stop = threading.Event()
        self._on_progress = on_progress
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._rows_skipped = sum(rows.values()) - left
        self._progress = Progress(
            units_total=len(outputs),
            units_done=len(outputs) - len(todo),
            rows_total=sum(rows.values()),
            rows_done=self._rows_skipped,
            counters=Counters(),
        )

    def add(self, *, rows: int = 0, files: int = 0) -> None:
        """Count, and stop where that was asked for."""
        if self.stop.is_set():
            raise _StoppedError
        with self._lock:
            progress = self._progress
            progress.counters.rows += rows
            progress.units_done += files
            progress.rows_done = self._rows_skipped + progress.counters.rows
            progress.seconds = time.monotonic() - self._started
            if self._on_progress is not None:
                self._on_progress(progress)


def _run_all(merger: "_Merger", todo: Sequence[Output], num_threads: int | None) -> int:
    """Merge the outputs in threads; the number written. The first failure ends the others."""
    threads = num_threads or min(MAX_THREADS, machine.usable_cores())
    pool = ThreadPoolExecutor(threads, thread_name_prefix="merge")
    try:
        inputs = (source for output in todo for source in merger.corpus.inputs(output.source))
        _results([pool.submit(reinspect, source) for source in inputs])
        return sum(_results([pool.submit(merger.write, output) for output in todo]))
    finally:
        merger.watch.stop.set()
        pool.shutdown(cancel_futures=True)


def _results(futures: list[Future[T]]) -> list[T]:
    """The results in order; raises the first error that is not a mere stop because of another's."""
    wait(futures, return_when=FIRST_EXCEPTION)
    if any(future.done() and future.exception() for future in futures):
        begun = [future for future in futures if not future.cancel()]
        wait(begun)
        errors = [error for future in begun if (error := future.exception()) is not None]
        raise next((error for error in errors if not isinstance(error, _StoppedError)), errors[0])
    return [future.result() for future in futures]


class _Merger:
    """Writes the outputs of one merge; `write` may run in many threads."""

    def __init__(
        self, corpus: Corpus, store: Store, names: Sequence[str], prefix: str, watch: _Watch
    ) -> None:
        self.corpus = corpus
        self.watch = watch
        self._store = store
        self._names = names
        self._prefix = prefix

    def write(self, output: Output) -> bool:
        """Write one file and publish it; False where another merge had done so first."""
        try:
            return self._write(output)
        except BaseException:
            self.watch.stop.set()
            raise

    def _write(self, output: Output) -> bool:
        manifest = self.corpus.manifest
        source = manifest.source(output.source)
        num_rows = manifest.sources[output.source].planned_rows
        with scratch_file(self._store) as path:
            scores = _PartColumns(self.corpus, output.source, self._names, self._prefix, self.watch)
            with scores, writing(f"{self._store.url}/{output.path}"):
                write_merged(source, manifest.source_columns(), num_rows, scores, path)
            scores.require_all_taken()
            reinspect(source)
            created = _publish(self._store, output.path, path)
        self.watch.add(files=1)
        return created


class _PartColumns:
    """The columns of one source's parts, a batch at a time; checks the ids as they go by."""

    def __init__(self, corpus: Corpus, source: int, names: Sequence[str], prefix: str, watch: _Watch) -> None:
        part_schema = corpus.run.manifest.arrow_schema()
        self._run = corpus.run
        self._record = corpus.manifest.sources[source]
        self._names = list(names)
        self._prefix = prefix
        self._watch = watch
        self._id_column = next(name for name in ID_COLUMNS if name in part_schema.names)
        self._row = 0
        self._checksum = IdChecksum()
        self._batches = self._read(corpus.units[source])
        self._rest: pa.RecordBatch | None = None
        fields = [part_schema.field(name) for name in names]
        self.schema = pa.schema([field.with_name(prefix + field.name) for field in fields])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._batches = iter(())  # ends the generator, which closes the part it has open

    def take(self, num_rows: int, ids: pa.Array | None) -> pa.Table:
        """The columns of the next rows; raises CheckError where their ids are not `ids`, the source's."""
        taken: list[pa.RecordBatch] = []
        first, stop = self._row, self._row + num_rows
        while self._row < stop:
            batch = self._rest if self._rest is not None else self._next()
            kept = batch.slice(0, stop - self._row)
            self._rest = batch.slice(kept.num_rows) if kept.num_rows < batch.num_rows else None
            self._check_ids(
                kept.column(0), None if ids is None else ids.slice(self._row - first, kept.num_rows)
            )
            taken.append(pa.RecordBatch.from_arrays(kept.columns[1:], schema=self.schema))
            self._row += kept.num_rows
        self._watch.add(rows=num_rows)
        return pa.Table.from_batches(taken, self.schema)

    def metadata(self) -> dict[str, str]:
        """Footer keys; the prefix keeps those of an earlier merge apart."""
        key = f"assay.{self._prefix}"
        return {
            f"{key}run_id": self._run.manifest.run_id,
            f"{key}num_rows": str(self._row),
            f"{key}id_checksum": self._checksum.hexdigest(),
        }

    def require_all_taken(self) -> None:
        """Raise CheckError unless each planned row was given out."""
        if self._row != self._record.planned_rows:
            rows = f"{self._row:,} rows, the run has {self._record.planned_rows:,}"
            msg = f"{self._record.uri} gave {rows}; start a new run"
            raise CheckError(msg)

    def _next(self) -> pa.RecordBatch:
        batch = next(self._batches, None)
        if batch is None:
            msg = f"{self._record.uri} has more rows than the run has parts for; start a new run"
            raise CheckError(msg)
        return batch

    def _read(self, units: Sequence[Unit]) -> Iterator[pa.RecordBatch]:
        """The parts' batches in row order, the id column first."""
        for unit in units:
            with open_part(self._run, unit) as file:
                self._check_footer(file, unit)
                for batch in file.iter_batches(PART_ROWS, columns=[self._id_column, *self._names]):
                    yield batch.select([self._id_column, *self._names])

    def _check_footer(self, file: pq.ParquetFile, unit: Unit) -> None:
        problem = footer_problem(self._run, unit, file)
        if problem is None and file.metadata.num_rows != unit.num_rows:
            problem = f" has {file.metadata.num_rows} rows, not {unit.num_rows}"
        if problem is not None:
            msg = f"{part_path(unit)}{problem}; {way_out(self._run)}"
            raise CheckError(msg)

    def _check_ids(self, part_ids: pa.Array, source_ids: pa.Array | None) -> None:
        if source_ids is None:
            source_ids = pa.array(np.arange(self._row, self._row + len(part_ids), dtype=np.int64))
        index = first_difference(part_ids, source_ids)
        if index is not None:
            mine, theirs = shown_ids(part_ids.slice(index, 1)), shown_ids(source_ids.slice(index, 1))
            seen = f"row {self._row + index} has id {theirs[0]!r}, its part has {mine[0]!r}"
            msg = f"source {self._record.uri} {seen}: the scores are not this row's; {way_out(self._run)}"
            raise CheckError(msg)
        self._checksum.update(part_ids)


# ------------------------------------------------------------ files of the output folder


def _publish(store: Store, path: str, file: Path) -> bool:
    if is_object_url(store.url) and file.stat().st_size > MAX_CREATE_BYTES:
        if store.info(path) is not None:
            return False
        store.replace(path, file)  # two merges of one run write the same content
        return True
    return store.create(path, file)
