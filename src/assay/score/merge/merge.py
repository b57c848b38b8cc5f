"""Published parts, zipped back onto their sources by position, every id checked on the way.

No join: parts lie in the sources' row order, so one pass over both is enough, and a row whose id
differs from its part's stops the merge. One output file a source, in the source's format, written
under a temporary name and published whole; a rerun goes on with the sources that have none yet.
Where token parts were scored, the sources are those that the parts were made from.

Not covered: sources that were reordered after scoring (they are refused; join by key instead).
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from assay import machine
from assay.data.finding import reinspect
from assay.data.scratch import scratch_file, sweep_scratch
from assay.data.sinks.sink import TakenNameError
from assay.data.sinks.table import write_merged
from assay.data.storage import Store, is_object_url, open_store, writing
from assay.runs.run import open_run
from assay.score.corpus import Corpus, corpus_of
from assay.score.merge.checks import (
    claim_folder,
    refuse_place,
    refuse_taken_names,
    require_parts,
    taken_name_error,
)
from assay.score.merge.columns import PartColumns, choose_columns
from assay.score.merge.outputs import Output, plan_outputs
from assay.telemetry import Counters, Progress, format_number_of

T = TypeVar("T")

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
            f"{format_number_of(self.ids_checked, 'id')} checked, {self.seconds:.1f} s"
        )
        if self.rows_left_out:
            left_out = format_number_of(self.rows_left_out, "row is", "rows are")
            text += f"\n{left_out} left out: the run was planned with --limit-rows"
        return text


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
    refuse_place(corpus, store)
    refuse_taken_names(corpus, outputs, [prefix + name for name in names])
    require_parts(run)
    claim_folder(run, store, outputs, names, prefix)
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
        except TakenNameError as error:
            self.watch.stop.set()
            raise taken_name_error(error.uri, error.name) from error
        except BaseException:
            self.watch.stop.set()
            raise

    def _write(self, output: Output) -> bool:
        manifest = self.corpus.manifest
        source = manifest.source(output.source)
        num_rows = manifest.sources[output.source].planned_rows
        with scratch_file(self._store) as path:
            scores = PartColumns(self.corpus, output.source, self._names, self._prefix, self._count_rows)
            with scores, writing(f"{self._store.url}/{output.path}"):
                write_merged(source, manifest.source_columns(), num_rows, scores, path)
            scores.require_all_taken()
            reinspect(source)
            created = _publish(self._store, output.path, path)
        self.watch.add(files=1)
        return created

    def _count_rows(self, num_rows: int) -> None:
        self.watch.add(rows=num_rows)


def _publish(store: Store, path: str, file: Path) -> bool:
    if is_object_url(store.url) and file.stat().st_size > MAX_CREATE_BYTES:
        if store.info(path) is not None:
            return False
        store.replace(path, file)  # two merges of one run write the same content
        return True
    return store.create(path, file)
