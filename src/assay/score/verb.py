"""`assay score`: plan the run, create it or join it, drive its workers until every unit is published."""

import functools
from collections.abc import Callable, Sequence

from assay.bundle.bundle import Bundle
from assay.data.duplicates import count_duplicate_ids
from assay.data.sources import SOURCE_ROW
from assay.embed.drive import EngineRunResult, drive_engine_run
from assay.embed.place import Place, place
from assay.errors import InputError
from assay.runs.manifest import Manifest
from assay.runs.placement import Cluster
from assay.score.bundles import is_noted, open_bundle, why_not_fp16
from assay.score.kind import SCORE
from assay.score.plan import other_lengths_of, plan_score
from assay.score.settings import ScoreSettings
from assay.telemetry import Progress, format_number_of


def score(
    settings: ScoreSettings,
    *,
    cluster: Cluster | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_message: Callable[[str], None] | None = None,
) -> EngineRunResult:
    """Score every row of the sources into the run; go on where an earlier try stopped.

    Raises as `drive_engine_run` does.
    """
    opened = functools.cache(lambda: open_bundle(settings.bundle))

    def plan(here: Place) -> tuple[Manifest, Sequence[str]]:
        manifest, bundle = plan_score(
            settings, here.planned, here.precision, bundle=opened(), precision_why=here.why
        )
        if settings.unique_ids and manifest.arrow_schema().names[0] != SOURCE_ROW:
            _refuse_duplicate_ids(manifest)
        return manifest, (*bundle.notes, other_lengths_of(manifest) or "")

    return drive_engine_run(
        settings,
        SCORE,
        "assay.score.worker",
        plan,
        lambda: why_not_fp16(opened()),
        lambda: is_noted(opened()),
        cluster=cluster,
        on_progress=on_progress,
        on_message=on_message,
    )


def plan_here(settings: ScoreSettings) -> tuple[Manifest, Bundle, Place]:
    """The manifest of the run as this machine plans it, its bundle, and where the workers of this machine go."""
    opened = functools.cache(lambda: open_bundle(settings.bundle))
    here = place(settings, SCORE, lambda: why_not_fp16(opened()))
    planned = plan_score(settings, here.planned, here.precision, bundle=opened(), precision_why=here.why)
    return *planned, here


def _refuse_duplicate_ids(manifest: Manifest) -> None:
    """Raise InputError where an id occurs twice in the sources of a run."""
    sources = [manifest.source(k) for k in range(len(manifest.sources))]
    found = count_duplicate_ids(sources, manifest.source_columns())
    if found.num_rows:
        rows = format_number_of(found.num_rows, "row repeats", "rows repeat")
        msg = (
            f"{rows} an id, for example {', '.join(map(repr, found.examples))}; "
            "--unique-ids refuses that; fix the ids, or leave --unique-ids out"
        )
        raise InputError(msg)
