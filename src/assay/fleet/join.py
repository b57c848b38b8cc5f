"""`assay join`: work on a run that another command created, of which nothing but the URL is known."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from assay._version import __version__
from assay.embed.kind import EMBED
from assay.embed.place import find_gpus
from assay.ensemble.kind import ENSEMBLE
from assay.errors import InputError, RefusedError, UsageError
from assay.fleet.settings import JoinSettings
from assay.mine.kind import MINE
from assay.prepare.chunks.kind import CHUNKS
from assay.prepare.pairs.kind import PAIRS
from assay.runs.drive import wait_for_turn, work_on
from assay.runs.driver import Outcome
from assay.runs.manifest import Manifest
from assay.runs.placement import Cluster, Placement, place_processes, place_workers
from assay.runs.ranks import RANK_VARIABLES, find_rank
from assay.runs.run import open_run
from assay.score.kind import SCORE
from assay.telemetry import Progress
from assay.tokenize.kind import TOKENIZE

WORKERS = {
    SCORE.name: "assay.score.worker",
    EMBED.name: "assay.embed.worker",
    TOKENIZE.name: "assay.tokenize.worker",
    MINE.name: "assay.mine.worker",
    CHUNKS.name: "assay.prepare.chunks.worker",
    PAIRS.name: "assay.prepare.pairs.worker",
    ENSEMBLE.name: "assay.ensemble.worker",
}
"""The module of the worker process of each kind of run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JoinResult:
    """What `join` did."""

    run_url: str
    manifest: Manifest
    placement: Placement
    outcome: Outcome


def join(
    settings: JoinSettings,
    *,
    cluster: Cluster | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_message: Callable[[str], None] | None = None,
) -> JoinResult:
    """Work on the run until every unit is published, by whomever.

    Nothing is inspected but the plan: no source is opened before a worker takes a unit of it. Raises SourceError
    where there is no run, RefusedError where another version of Assay planned it, and as the run's own command does.
    """
    run = open_run(settings.run)
    manifest = run.manifest
    if manifest.kind not in WORKERS:
        msg = (
            f"{run.url} is a {manifest.kind} run, unknown to Assay {__version__}; use the one that planned it"
        )
        raise InputError(msg)
    if manifest.assay_version != __version__:
        msg = (
            f"{run.url} was planned by Assay {manifest.assay_version} and this is {__version__}, whose numbers may "
            f"differ; install assay=={manifest.assay_version} here"
        )
        raise RefusedError(msg)
    gpus = find_gpus(cluster) if _uses_gpus(manifest) else []
    placement = place_workers(
        settings.devices, num_gpus=len(gpus), num_threads=settings.num_threads, cluster=cluster
    )
    place = find_place(settings)
    wait_for_turn(1 if place is None else place[1])
    rank, world_size = place or (0, 1)
    outcome = work_on(
        run,
        place_processes(WORKERS[manifest.kind], run, placement),
        rank=rank,
        world_size=world_size,
        joins=True,
        workers_note=f"workers: {placement}",
        on_progress=on_progress,
        on_message=on_message,
    )
    return JoinResult(run_url=run.url, manifest=manifest, placement=placement, outcome=outcome)


def find_place(settings: JoinSettings) -> tuple[int, int] | None:
    """Rank and world size from flags or the environment; None where neither has one: then no share is its own."""
    flags = settings.rank, settings.world_size
    if flags == (None, None) and not any(launcher.rank in os.environ for launcher in RANK_VARIABLES):
        return None
    try:
        return find_rank(os.environ, rank=settings.rank, world_size=settings.world_size)
    except UsageError:
        if flags == (None, None):
            return None  # half a place, left by something else, is none
        raise


def _uses_gpus(manifest: Manifest) -> bool:
    """Whether the workers of a run compute on GPUs, where there are any."""
    if manifest.kind == MINE.name:
        return manifest.read(MINE)[0].index == "exact"
    on_engines = manifest.kind in {SCORE.name, EMBED.name, ENSEMBLE.name}
    return on_engines and manifest.identity.get("engine") != "fake"
