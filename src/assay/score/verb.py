"""`assay score`: plan the run, create it or join it, drive its workers until every unit is published."""

from collections.abc import Callable
from dataclasses import dataclass

from assay import machine
from assay.data.duplicates import refuse_duplicate_ids
from assay.data.sources import SOURCE_ROW
from assay.runs.drive import drive_run
from assay.runs.driver import Outcome
from assay.runs.manifest import Manifest
from assay.runs.placement import Placement, place_processes, place_workers, static_place
from assay.score.plan import other_lengths_of, plan_score
from assay.score.settings import Precision, ScoreSettings
from assay.telemetry import Progress


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreResult:
    """What `score` did, or with `dry_run` would do."""

    run_url: str
    manifest: Manifest
    placement: Placement
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
    placement, precision = place(settings)
    rank, world_size = static_place(settings.executor, settings.rank, settings.world_size)
    manifest, bundle = plan_score(settings, placement, precision)
    for note in (*bundle.notes, other_lengths_of(manifest)):
        if on_message and note:
            on_message(note)
    if settings.dry_run:
        return ScoreResult(run_url=settings.run, manifest=manifest, placement=placement, outcome=None)
    if settings.unique_ids and manifest.arrow_schema().names[0] != SOURCE_ROW:
        refuse_duplicate_ids(
            [manifest.source(k) for k in range(len(manifest.sources))], manifest.source_columns()
        )
    run, outcome = drive_run(
        settings.run,
        manifest,
        lambda run: place_processes("assay.score.worker", run, placement),
        rank=rank,
        world_size=world_size,
        on_progress=on_progress,
        on_message=on_message,
    )
    return ScoreResult(run_url=run.url, manifest=run.manifest, placement=placement, outcome=outcome)


def place(settings: ScoreSettings) -> tuple[Placement, Precision]:
    """Where the workers go and the precision that `auto` means there."""
    num_gpus = 0 if settings.engine == "fake" else count_gpus()
    placement = place_workers(settings.devices, num_gpus=num_gpus)
    if settings.precision != "auto":
        return placement, settings.precision
    return placement, "bf16" if placement.kind == "cuda" else "fp32"


def count_gpus() -> int:
    """GPUs that torch can use; torch is imported only where a driver is there."""
    if not machine.has_gpu_driver():
        return 0
    import torch

    return torch.cuda.device_count()
