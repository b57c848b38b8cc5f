"""`assay embed`: plan the run, create it or join it, drive its workers until every unit is published."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from assay.embed.kind import EMBED
from assay.embed.place import place
from assay.embed.plan import plan_embed
from assay.embed.settings import EmbedSettings
from assay.engine.precision import Computed
from assay.errors import RefusedError
from assay.runs.drive import drive_run
from assay.runs.driver import Outcome
from assay.runs.figures import read_figures
from assay.runs.manifest import Manifest
from assay.runs.placement import Placement, place_processes, static_place
from assay.telemetry import Progress


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedResult:
    """What `embed` did, or with `dry_run` would do."""

    run_url: str
    manifest: Manifest
    placement: Placement
    precision: Computed
    """What its numbers are computed in."""
    outcome: Outcome | None
    """None for a dry run."""
    parity: dict[str, Any] | None
    """What the parity gate measured; None where it did not."""


def embed(
    settings: EmbedSettings,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    on_message: Callable[[str], None] | None = None,
) -> EmbedResult:
    """Make a vector of every row of the sources into the run; go on where an earlier try stopped.

    Raises the same errors as `score`.
    """
    rank, world_size = static_place(settings.executor, settings.rank, settings.world_size)
    here = place(settings, EMBED)
    manifest, embedder = plan_embed(settings, here.planned, here.precision)
    for note in (*embedder.notes, here.note):
        if on_message and note:
            on_message(note)
    if settings.dry_run:
        return EmbedResult(
            run_url=settings.run,
            manifest=manifest,
            placement=here.placement,
            precision=here.precision,
            outcome=None,
            parity=None,
        )
    try:
        run, outcome = drive_run(
            settings.run,
            manifest,
            lambda run: place_processes("assay.embed.worker", run, here.placement),
            rank=rank,
            world_size=world_size,
            workers_note=f"workers: {here.placement}",
            unit_rows=settings.unit_rows,
            on_progress=on_progress,
            on_message=on_message,
        )
    except RefusedError:
        if place(settings, EMBED).precision == here.precision:
            raise
        # another machine, where `auto` means something else, created the run in the meantime
        return embed(settings, on_progress=on_progress, on_message=on_message)
    return EmbedResult(
        run_url=run.url,
        manifest=run.manifest,
        placement=here.placement,
        precision=here.precision,
        outcome=outcome,
        parity=next(iter(read_figures(run)), None),
    )
