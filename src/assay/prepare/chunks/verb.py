"""The chunks of a table of books: plan the run, create it or join it, drive its workers until all is published."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from assay.prepare.chunks.plan import plan_chunks
from assay.prepare.chunks.settings import ChunkRules
from assay.prepare.chunks.worker import open_chunks_work
from assay.prepare.place import place_few
from assay.runs.drive import drive_run
from assay.runs.driver import Outcome, WorkerSpec
from assay.runs.parts import published_stats
from assay.runs.placement import Placement, place_processes, place_workers
from assay.runs.run import Run
from assay.telemetry import Progress


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunksResult:
    """What came of a chunks run."""

    run: Run
    outcome: Outcome
    counts: Counter[str]
    """`num_rows` (books), `num_chunks`, `num_tokens`, `sentences`, `windows`, `not_sampled`, dropped chunks by flaw."""
    errors: Counter[str]
    """Books without chunks by error code."""


def run_chunks(
    rules: ChunkRules,
    books: str | Path,
    url: str,
    *,
    bundle: str | Path | None = None,
    placement: Placement | None = None,
    strict: bool = False,
    unit_rows: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_message: Callable[[str], None] | None = None,
) -> ChunksResult:
    """Make chunks of every book of the table into the run at `url`; go on where an earlier try stopped.

    `placement`: the worker processes, by default one with all cores of this machine. The chunks are the same for any
    number of them.
    """
    place = placement or place_workers("auto", num_gpus=0)
    manifest = plan_chunks(rules, books, bundle=bundle, strict=strict, unit_rows=unit_rows)
    run, outcome = drive_run(
        url,
        manifest,
        lambda run: _workers(run, place, counts_tokens=bundle is not None),
        workers_note=f"workers: {place}",
        on_progress=on_progress,
        on_message=on_message,
    )
    counts, errors = count_chunks(run)
    return ChunksResult(run=run, outcome=outcome, counts=counts, errors=errors)


def _workers(run: Run, placement: Placement, *, counts_tokens: bool) -> Sequence[WorkerSpec]:
    module = "assay.prepare.chunks.worker"
    if counts_tokens:  # by threads, which are shared out to processes
        return place_processes(module, run, placement)
    return place_few(module, run, placement, lambda: open_chunks_work(run))


def count_chunks(run: Run) -> tuple[Counter[str], Counter[str]]:
    """The figures of all parts of a chunks run together, and its books without chunks by error code."""
    counts: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    for stats in published_stats(run):
        errors.update(stats["errors"])
        counts.update({key: value for key, value in stats.items() if isinstance(value, int)})
    return counts, errors


def second_books(run: Run) -> dict[str, str]:
    """Books of a finished chunks run that seem to be two, and where the second begins."""
    found: dict[str, str] = {}
    for stats in published_stats(run):
        found.update(stats.get("second_books", {}))
    return found
