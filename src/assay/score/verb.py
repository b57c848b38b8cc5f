"""`assay score`: plan the run, create it or join it, drive its workers until every unit is published."""

from collections.abc import Callable
from dataclasses import dataclass

from assay.bundle.bundle import Bundle
from assay.data.duplicates import count_duplicate_ids
from assay.data.sources import SOURCE_ROW
from assay.embed.place import Place, place
from assay.engine.precision import Computed
from assay.errors import InputError, RefusedError
from assay.runs.drive import drive_run
from assay.runs.driver import Outcome
from assay.runs.manifest import Manifest
from assay.runs.placement import Placement, place_processes, static_place
from assay.score.kind import SCORE
from assay.score.plan import other_lengths_of, plan_score
from assay.score.settings import ScoreSettings
from assay.telemetry import Progress


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreResult:
    """What `score` did, or with `dry_run` would do."""

    run_url: str
    manifest: Manifest
    placement: Placement
    precision: Computed
    """What its numbers are computed in."""
    outcome: Outcome | None
    """None for a dry run."""


def score(
    settings: ScoreSettings,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    on_message: Callable[[str], None] | None = None,
) -> ScoreResult:
    """Score every row of the sources into the run; go on where an earlier try stopped.

    Raises RefusedError where the run directory holds another run, InputError for what cannot be
    used, CheckError where the parity gate does not hold, WorkError where units failed. A
    KeyboardInterrupt stops the workers first; nothing half is published.
    """
    rank, world_size = static_place(settings.executor, settings.rank, settings.world_size)
    manifest, bundle, here = plan_here(settings)
    for note in (*bundle.notes, other_lengths_of(manifest), here.note):
        if on_message and note:
            on_message(note)
    if settings.unique_ids and manifest.arrow_schema().names[0] != SOURCE_ROW:
        _refuse_duplicate_ids(manifest)
    if settings.dry_run:
        return ScoreResult(
            run_url=settings.run,
            manifest=manifest,
            placement=here.placement,
            precision=here.precision,
            outcome=None,
        )
    try:
        run, outcome = drive_run(
            settings.run,
            manifest,
            lambda run: place_processes("assay.score.worker", run, here.placement),
            rank=rank,
            world_size=world_size,
            workers_note=f"workers: {here.placement}",
            unit_rows=settings.unit_rows,
            on_progress=on_progress,
            on_message=on_message,
        )
    except RefusedError:
        if place(settings, SCORE).precision == here.precision:
            raise
        # another machine, where `auto` means something else, created the run in the meantime
        return score(settings, on_progress=on_progress, on_message=on_message)
    return ScoreResult(
        run_url=run.url,
        manifest=run.manifest,
        placement=here.placement,
        precision=here.precision,
        outcome=outcome,
    )


def plan_here(settings: ScoreSettings) -> tuple[Manifest, Bundle, Place]:
    """The manifest of the run as this machine plans it, its bundle, and where the workers of this machine go."""
    here = place(settings, SCORE)
    return *plan_score(settings, here.planned, here.precision), here


def _refuse_duplicate_ids(manifest: Manifest) -> None:
    """Raise InputError where an id occurs twice in the sources of a run."""
    sources = [manifest.source(k) for k in range(len(manifest.sources))]
    found = count_duplicate_ids(sources, manifest.source_columns())
    if found.num_rows:
        msg = (
            f"{found.num_rows:,} rows repeat an id, for example {', '.join(map(repr, found.examples))}; "
            "--unique-ids refuses that; fix the ids, or leave --unique-ids out"
        )
        raise InputError(msg)
