"""The whole of a run's command: create the run or join it, drive its workers, say what a person should know."""

import random
import time
from collections.abc import Callable, Sequence

from assay.data.scratch import sweep_scratch
from assay.errors import CheckError, StorageError
from assay.runs.driver import Driver, Outcome, WorkerSpec
from assay.runs.manifest import Manifest, short
from assay.runs.parts import find_damaged, find_obstacles, published_parts
from assay.runs.placement import Placement, place_processes, static_place
from assay.runs.run import Run, create_or_join
from assay.runs.settings import RunSettings
from assay.telemetry import Progress, format_number_of

SPREAD_SECONDS = 0.05
"""For each command of many that start together."""
MOST_SPREAD_SECONDS = 30.0


def drive_workers(
    settings: RunSettings,
    manifest: Manifest,
    module: str,
    placement: Placement,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    on_message: Callable[[str], None] | None = None,
) -> tuple[Run, Outcome]:
    """`drive_run` as a command's settings ask, with processes of the worker `module` where `placement` says."""
    assert (settings.executor == "ray") == (placement.cluster is not None), "who calls opens the cluster"
    rank, world_size = static_place(settings)
    return drive_run(
        settings.run,
        manifest,
        lambda run: place_processes(module, run, placement),
        rank=rank,
        world_size=world_size,
        workers_note=f"workers: {placement}",
        unit_rows=settings.unit_rows,
        on_progress=on_progress,
        on_message=on_message,
    )


def drive_run(
    url: str,
    manifest: Manifest,
    workers: Callable[[Run], Sequence[WorkerSpec]],
    *,
    rank: int = 0,
    world_size: int = 1,
    workers_note: str | None = None,
    unit_rows: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_message: Callable[[str], None] | None = None,
) -> tuple[Run, Outcome]:
    """Create the run at `url` or join it, and work on it until every unit is published.

    `workers` gives the workers for the run, and `workers_note` says what they are; it is told where there is
    work for them. `unit_rows` is what was asked for: a run that is joined keeps its units. `on_message`
    hears what a person should know, a line at a time: "412 of 480 units are published; going on with
    68.", and that a device was lost.
    """
    say = on_message or (lambda _: None)
    wait_for_turn(world_size)
    run, is_new = create_or_join(url, manifest)
    if unit_rows is not None and _boundaries(run.manifest) != _boundaries(manifest):
        largest = max((unit.num_rows for unit in run.units), default=0)
        say(
            f"units stay as planned, of up to {format_number_of(largest, 'row')}; "
            f"unit_rows {unit_rows:,} needs a new --run."
        )
    for key, value in run.manifest.settings.items():
        asked = manifest.settings.get(key)
        if asked != value:
            say(f"{key} stays {short(value)}, as the run was planned with; {short(asked)} needs a new --run.")
    if not is_new and rank == 0:
        _refuse_damaged(run)
    outcome = work_on(
        run,
        workers(run),
        rank=rank,
        world_size=world_size,
        workers_note=workers_note,
        on_progress=on_progress,
        on_message=on_message,
    )
    return run, outcome


def work_on(
    run: Run,
    workers: Sequence[WorkerSpec],
    *,
    rank: int = 0,
    world_size: int = 1,
    joins: bool = False,
    workers_note: str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_message: Callable[[str], None] | None = None,
) -> Outcome:
    """Work on a run with these workers until every unit is published, by whomever.

    `joins`: as one that helps, whatever the share of others; nothing but the run is needed for that.
    """
    say = on_message or (lambda _: None)
    sweep_scratch(run.store)
    if obstacles := find_obstacles(run):
        raise StorageError(obstacles[0])
    driver = Driver(
        run,
        workers,
        rank=rank,
        world_size=world_size,
        joins=joins,
        on_progress=on_progress,
        on_message=on_message,
    )
    total, left = driver.units_total, driver.units_left
    if not driver.knows_all:
        say(
            f"{format_number_of(total, 'unit')} in all, {format_number_of(run.manifest.planned_rows, 'row')}."
        )
    elif left == total:
        say(f"{format_number_of(total, 'unit')} to do, {format_number_of(run.manifest.planned_rows, 'row')}.")
    elif left:
        say(f"{total - left:,} of {total:,} units are published; going on with {left:,}.")
    elif total == 1:
        say("The one unit is published already; nothing to do.")
    else:
        say(f"All {total:,} units are published already; nothing to do.")
    if not run.manifest.planned_rows:
        say("The sources hold no rows; check what they name, if there should be some.")
    if left and workers_note:
        say(workers_note)
    return driver.run()


def wait_for_turn(world_size: int) -> None:
    """Wait a while, drawn at random: a store does not meet all of so many commands at once that start together."""
    if world_size > 1:
        time.sleep(random.uniform(0, min(world_size * SPREAD_SECONDS, MOST_SPREAD_SECONDS)))


def _refuse_damaged(run: Run) -> None:
    """Raise CheckError where a quick look finds a part damaged; of many commands one looks."""
    if damaged := find_damaged(run, published_parts(run)):
        count = format_number_of(len(damaged), "part is", "parts are")
        msg = f"{count} damaged: {next(iter(damaged.values()))}"
        raise CheckError(msg)


def _boundaries(manifest: Manifest) -> list[tuple[int, ...]]:
    return [source.boundaries for source in manifest.sources]
