"""`assay embed`: plan the run, create it or join it, drive its workers until every unit is published."""

from collections.abc import Callable, Sequence

from assay.embed.drive import EngineRunResult, drive_engine_run
from assay.embed.kind import EMBED
from assay.embed.place import Place
from assay.embed.plan import plan_embed
from assay.embed.settings import EmbedSettings
from assay.engine.half import is_noted, why_not_fp16
from assay.model.checkpoint import read_checkpoint
from assay.runs.manifest import Manifest
from assay.runs.placement import Cluster
from assay.telemetry import Progress


def embed(
    settings: EmbedSettings,
    *,
    cluster: Cluster | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_message: Callable[[str], None] | None = None,
) -> EngineRunResult:
    """Make a vector of every row of the sources into the run; go on where an earlier try stopped.

    Raises the same errors as `score`.
    """

    def plan(here: Place) -> tuple[Manifest, Sequence[str]]:
        manifest, embedder = plan_embed(settings, here.planned, here.precision, precision_why=here.why)
        return manifest, embedder.notes

    return drive_engine_run(
        settings,
        EMBED,
        "assay.embed.worker",
        plan,
        lambda: why_not_fp16(read_checkpoint(settings.bundle), headless=True),
        lambda: is_noted(read_checkpoint(settings.bundle), headless=True),
        cluster=cluster,
        on_progress=on_progress,
        on_message=on_message,
    )
