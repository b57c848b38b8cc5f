"""`assay tokenize`: plan the run, create it or join it, drive its workers until all is published."""

from collections.abc import Callable
from dataclasses import dataclass

from assay.runs.drive import drive_workers
from assay.runs.driver import Outcome
from assay.runs.manifest import Manifest
from assay.runs.placement import Cluster, Placement, place_workers, static_place
from assay.telemetry import Progress
from assay.tokenize.plan import plan_tokenize
from assay.tokenize.settings import TokenizeSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizeResult:
    """What `tokenize` did, or with `dry_run` would do."""

    run_url: str
    manifest: Manifest
    placement: Placement
    outcome: Outcome | None
    """None for a dry run."""


def tokenize(
    settings: TokenizeSettings,
    *,
    cluster: Cluster | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_message: Callable[[str], None] | None = None,
) -> TokenizeResult:
    """Tokenize every row of the sources into the run; go on where an earlier try stopped.

    Raises the same errors as `score`, save those of a model.
    """
    placement = place_workers(settings.devices, num_gpus=0, num_threads=settings.num_threads, cluster=cluster)
    static_place(settings)
    manifest = plan_tokenize(settings)
    if settings.dry_run:
        return TokenizeResult(run_url=settings.run, manifest=manifest, placement=placement, outcome=None)
    run, outcome = drive_workers(
        settings,
        manifest,
        "assay.tokenize.worker",
        placement,
        on_progress=on_progress,
        on_message=on_message,
    )
    return TokenizeResult(run_url=run.url, manifest=run.manifest, placement=placement, outcome=outcome)
