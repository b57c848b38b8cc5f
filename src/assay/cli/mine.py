"""`assay mine`: hard negatives by nearest neighbours."""

from assay.cli.flags import stdout
from assay.cli.verb import Verb, say
from assay.mine.settings import MineSettings
from assay.telemetry import ProgressDisplay, format_duration, format_number_of


def run(settings: MineSettings) -> int:
    """Mine, with progress on stderr, and say what came of it."""
    from assay.fleet.executors import on_executor
    from assay.mine.verb import mine
    from assay.runs.placement import describe_plan

    with ProgressDisplay("mine") as display:
        result = on_executor(mine)(settings, on_progress=display.update, on_message=say)
    if result.outcome is None:
        stdout(describe_plan(result.manifest, result.placement, settings))
        return 0
    units = format_number_of(result.outcome.units_total, "unit")
    seconds = format_duration(result.outcome.seconds)
    stdout(f"mined into {result.run_url}: all of {units} published, now in {seconds}")
    stdout(str(result.found))
    return 0


VERB = Verb(
    settings=MineSettings,
    run=run,
    is_of_a_run=True,
    example="example: assay mine pairs.parquet --corpus vectors/ --relative-margin 0.05 --run negatives/",
    config="flag",
)
