"""`assay ensemble`: checkpoints times permutations on puzzles."""

from assay.cli.flags import stdout
from assay.cli.verb import Verb, say
from assay.ensemble.display import EnsembleDisplay
from assay.ensemble.settings import EnsembleSettings
from assay.telemetry import format_duration, format_number_of


def run(settings: EnsembleSettings) -> int:
    """Run the members, with progress on stderr, and say what they and the rules found; status 1 where one failed."""
    from assay.ensemble.verb import describe, ensemble, refuse_failures
    from assay.fleet.executors import on_executor
    from assay.runs.placement import describe_plan

    with EnsembleDisplay(settings.num_members) as display:
        result = on_executor(ensemble)(settings, on_progress=display.update, on_message=say)
    if result.outcome is None or result.found is None:
        names = ", ".join(member.name for member in result.plan.members)
        stdout(f"{describe_plan(result.plan.manifest, result.placement, settings)}\nmembers  {names}")
        return 0
    batches = format_number_of(len(result.found.batches), "batch", "batches")
    members = format_number_of(result.found.num_members, "member")
    stdout(
        f"ran {members} into {result.run_url}: {batches}, now in {format_duration(result.outcome.seconds)}"
    )
    stdout(describe(result.found))
    for path in (settings.output, settings.report):
        if path is not None:
            stdout(f"wrote {path}")
    refuse_failures(result.found)
    return 0


VERB = Verb(
    settings=EnsembleSettings,
    run=run,
    is_of_a_run=True,
    example='example: assay ensemble sudoku/ --checkpoints "run a/step_300,run b/" --permutes 5 --output results.json',
    config="flag",
)
