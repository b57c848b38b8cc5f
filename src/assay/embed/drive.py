"""The command of a run with an engine: planned, created or joined, its workers driven; scoring and embedding alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from assay.embed.place import Place, place
from assay.embed.settings import EngineRunSettings
from assay.engine.half import why_too_large
from assay.engine.precision import Computed, WhyNot, choose_auto
from assay.errors import RangeError, RefusedError
from assay.runs.drive import drive_workers
from assay.runs.driver import Outcome
from assay.runs.figures import read_figures
from assay.runs.kinds import RunKind
from assay.runs.manifest import Manifest
from assay.runs.placement import Cluster, Placement, static_place
from assay.runs.run import open_run, plan_again
from assay.telemetry import Progress


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineRunResult:
    """What `score` or `embed` did, or with `dry_run` would do."""

    run_url: str
    manifest: Manifest
    placement: Placement
    precision: Computed
    """What its numbers are computed in."""
    outcome: Outcome | None
    """None for a dry run."""
    parity: dict[str, Any] | None
    """What the parity gate measured, of the latest kind of worker; None where it did not."""


def drive_engine_run(
    settings: EngineRunSettings,
    kind: RunKind[Any, Any],
    module: str,
    plan: Callable[[Place], tuple[Manifest, Sequence[str]]],
    why_not_fp16: WhyNot,
    is_known: Callable[[], bool],
    *,
    cluster: Cluster | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_message: Callable[[str], None] | None = None,
) -> EngineRunResult:
    """Do the work that `settings` ask for with processes of the worker `module`, here or on a cluster.

    `plan` gives the manifest for a place, and what a person should know of it; `why_not_fp16` says whether the model
    holds in fp16, and `is_known` whether it can say so at once. Raises RefusedError where the run
    directory holds another run, InputError for what cannot be used, CheckError where the parity gate does not
    hold, WorkError where units failed. A KeyboardInterrupt stops the workers first; nothing half is published.
    """
    static_place(settings)
    # what is not known yet the first worker finds out beside its first unit, see `RangeError` below
    asked = why_not_fp16 if settings.dry_run or is_known() else lambda: None
    here = place(settings, kind, asked, cluster)
    manifest, notes = plan(here)
    for note in (*notes, here.note):
        if on_message and note:
            on_message(note)
    if settings.dry_run:
        return EngineRunResult(
            run_url=settings.run,
            manifest=manifest,
            placement=here.placement,
            precision=here.precision,
            outcome=None,
            parity=None,
        )
    again = partial(
        drive_engine_run,
        settings,
        kind,
        module,
        plan,
        why_not_fp16,
        is_known,
        cluster=cluster,
        on_progress=on_progress,
        on_message=on_message,
    )
    try:
        run, outcome = drive_workers(
            settings, manifest, module, here.placement, on_progress=on_progress, on_message=on_message
        )
    except RefusedError:
        if place(settings, kind, asked, cluster).precision == here.precision:
            raise
        # another machine, where `auto` means something else, created the run in the meantime
        return again()
    except RangeError:
        note = _plan_without_fp16(settings, kind, here, plan, why_not_fp16)
        if on_message:
            on_message(note)
        return again()
    return EngineRunResult(
        run_url=run.url,
        manifest=run.manifest,
        placement=here.placement,
        precision=here.precision,
        outcome=outcome,
        parity=next(iter(read_figures(run)), None),
    )


def _plan_without_fp16(
    settings: EngineRunSettings,
    kind: RunKind[Any, Any],
    here: Place,
    plan: Callable[[Place], tuple[Manifest, Sequence[str]]],
    why_not_fp16: WhyNot,
) -> str:
    """Plan a run that `auto` began in fp16 for what holds its corpus; a sentence that says so.

    Every worker measures the same documents before its first part, so none has published in fp16, and all drivers
    come here and plan the same. Raises RangeError where parts are there all the same, or fp16 was asked for.
    """
    run = open_run(settings.run)
    reason = why_not_fp16() or next(
        filter(None, map(why_too_large, read_figures(run))), "documents are too large"
    )
    choice = choose_auto(here.target, lambda: reason)
    note = f"the run is planned again in {choice.precision}, not fp16: {reason}"
    if run.manifest.read(kind)[0].precision != "fp16":
        return note  # another driver was first
    manifest, _ = plan(replace(here, precision=choice.precision, why=choice.why))
    if settings.precision != "auto" or not plan_again(run, manifest):
        msg = f"the run is in fp16, and {reason}; with a new --run use --precision {choice.precision}"
        raise RangeError(msg)
    return note
