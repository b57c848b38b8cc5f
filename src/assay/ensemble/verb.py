"""`assay ensemble`: plan the run, create it or join it, drive its workers, say what members and rules found."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from assay.data.storage import replace_file
from assay.embed.place import find_gpus
from assay.ensemble.findings import LABEL_FREE, EnsembleTally, Findings, Share, checkpoints_of
from assay.ensemble.kind import ENSEMBLE
from assay.ensemble.plan import EnsemblePlan, plan_ensemble
from assay.ensemble.report import render
from assay.ensemble.results import Json, Stated, refuse_other_results, refuse_place, results_json
from assay.ensemble.rows import from_table
from assay.ensemble.settings import EnsembleSettings
from assay.errors import WorkError
from assay.runs.drive import drive_run
from assay.runs.driver import Outcome
from assay.runs.parts import open_part, published_parts, stats_of, take_out
from assay.runs.placement import Cluster, Placement, place_processes, place_workers, static_place
from assay.runs.run import Run, find_run, part_path
from assay.sudoku.grids import NUM_CELLS
from assay.telemetry import Progress, format_number_of

WORKER = "assay.ensemble.worker"


@dataclass(frozen=True, kw_only=True, slots=True)
class EnsembleResult:
    """What `ensemble` did, or with `dry_run` would do."""

    run_url: str
    plan: EnsemblePlan
    placement: Placement
    outcome: Outcome | None
    """None for a dry run, as all below."""
    found: Findings | None
    results: Json | None
    """What the results file holds."""


def ensemble(
    settings: EnsembleSettings,
    *,
    cluster: Cluster | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_message: Callable[[str], None] | None = None,
) -> EnsembleResult:
    """Run every member on every puzzle that is not settled; go on where an earlier try stopped.

    Members that fail are counted in the findings, and raise nothing: see `refuse_failures`. Raises as `plan_ensemble`
    does, `RefusedError` where the run's folder holds another run, `UsageError` for a results file of another run.
    """
    say = on_message or (lambda _: None)
    placement = place(settings, cluster)
    rank, world_size = static_place(settings)
    plan = plan_ensemble(settings, device_kind=placement.kind)
    manifest = plan.manifest
    for path in (settings.output, settings.report):
        if path is not None:
            refuse_place(path)
    if settings.output is not None:
        refuse_other_results(settings.output, manifest.run_id)
    for note in plan.notes:
        say(note)
    if settings.dry_run:
        return EnsembleResult(
            run_url=settings.run, plan=plan, placement=placement, outcome=None, found=None, results=None
        )
    if settings.retry_failed:
        say(_take_out_failed(settings.run, manifest.run_id))
    started = datetime.now(UTC)
    run, outcome = drive_run(
        settings.run,
        manifest,
        lambda made: place_processes(WORKER, made, placement),
        rank=rank,
        world_size=world_size,
        workers_note=f"workers: {placement}",
        on_progress=on_progress,
        on_message=on_message,
    )
    found = read_findings(run)
    stated = Stated(
        run_id=manifest.run_id,
        run_url=run.url,
        num_batch=len(found.batches),
        batch_size=run.manifest.read(ENSEMBLE)[0].batch_size,
        max_workers=placement.num_workers,
        precision=run.manifest.read(ENSEMBLE)[0].precision,
        started=started,
        ended=datetime.now(UTC),
    )
    results = results_json(settings, stated, found, plan.notes)
    if settings.output is not None:
        replace_file(settings.output, (json.dumps(results, indent=2) + "\n").encode())
    if settings.report is not None:
        replace_file(settings.report, render(settings, stated, found, plan.notes))
    return EnsembleResult(
        run_url=run.url, plan=plan, placement=placement, outcome=outcome, found=found, results=results
    )


def place(settings: EnsembleSettings, cluster: Cluster | None = None) -> Placement:
    """A process a GPU, or `max_workers` on a CPU (one where that is not given)."""
    num_gpus = len(find_gpus(cluster))
    asked = settings.max_workers or 1
    num_workers = min(settings.max_workers or num_gpus, num_gpus) if num_gpus else asked
    return place_workers(
        str(num_workers), num_gpus=num_gpus, num_threads=settings.num_threads, cluster=cluster
    )


def read_findings(run: Run) -> Findings:
    """What the published parts of an ensemble run hold, all their rows counted again."""
    identity, record = run.manifest.read(ENSEMBLE)
    tally = EnsembleTally(
        names=[member.name for member in record.members],
        checkpoint_M=checkpoints_of([member.path for member in record.members]),
        settled=identity.settled,
    )
    num_members = len(identity.members)
    for unit, _ in published_parts(run):
        with open_part(run, unit) as file:
            stats, table = stats_of(file), file.read()
        outcomes = from_table(
            table, unit.start, num_puzzles=unit.num_rows, num_members=num_members, num_cells=NUM_CELLS
        )
        tally.add(
            outcomes,
            seconds=stats["finished_at"] - stats["started_at"],
            failures={int(member): reason for member, reason in stats["failures"].items()},
        )
    return tally.findings()


def refuse_failures(found: Findings) -> None:
    """Raise `WorkError` naming the first member that failed, where one did."""
    failed = found.failed
    if failed:
        first = failed[0]
        more = f" (and {format_number_of(len(failed) - 1, 'more member')})" if len(failed) > 1 else ""
        batches = format_number_of(first.failed_batches, "batch", "batches")
        raise WorkError(
            f"{first.name} failed in {batches} of {len(found.batches):,}{more}: {first.error}; all else counts without"
            " it; fix the cause and run the same command with --retry-failed"
        )


def describe(found: Findings) -> str:
    """What members and rules found, for people: label-free rules first, the oracle named as one."""
    lines = []
    for name, share in found.rules.items():
        is_oracle = name not in LABEL_FREE
        kind = f"oracle pass@{found.num_members}" if name == "any-correct" else "oracle"
        lines.append(f"  {name:19}  {_shown(share)}" + (f"   {kind}" if is_oracle else ""))
    width = max(len(member.name) for member in found.members)
    lines += [f"  {member.name:{width}}  {_shown(member.right)}" for member in found.members]
    passes = f"{found.member_runs:,} passes of {found.total * found.num_members:,} in full"
    lines.append(f"  cost: {passes}, {format_number_of(found.total, 'puzzle')}")
    if found.equal_cost is not None:
        count, share = found.equal_cost
        lines.append(
            f"  that cost in full: any-correct of the first {format_number_of(count, 'member')}, {_shown(share)}"
        )
    if "vote" not in found.rules:
        lines.append(
            "  later members left settled puzzles out; votes and the curve over all orders: --settled never"
        )
    if found.num_several:
        rows = format_number_of(found.num_several, "puzzle has", "puzzles have")
        lines.append(f"  {rows} a grid that checks and is not the label: several solutions, or a wrong label")
    return "\n".join(lines)


def _shown(share: Share) -> str:
    if share.interval is None:
        return "ran on nothing"
    low, high = share.interval
    return f"{share.correct:,} of {share.total:,}  {share.accuracy:.2%}  ({low:.2%} to {high:.2%})"


def _take_out_failed(url: str, run_id: str) -> str:
    """Take the parts in which a member failed out of the run, so that they are made again; a line on what was done."""
    run = find_run(url)
    count = 0
    if run is not None and run.manifest.run_id == run_id:
        for unit, _ in published_parts(run):
            with open_part(run, unit) as file:
                has_failures = bool(stats_of(file)["failures"])
            if has_failures:
                take_out(run, part_path(unit))
                count += 1
    return f"{format_number_of(count, 'batch', 'batches')} in which a member failed to do again."
