"""`assay score`: every row of the sources into a run."""

from shlex import quote

from assay.cli.flags import stdout
from assay.cli.outcome import describe_engine_run
from assay.cli.verb import Verb, say
from assay.score.settings import ScoreSettings
from assay.telemetry import ProgressDisplay


def run(settings: ScoreSettings) -> int:
    """Score, with progress on stderr, and say what came of it and what comes next."""
    from assay.fleet.executors import on_executor
    from assay.score.verb import score

    with ProgressDisplay("score") as display:
        result = on_executor(score)(settings, on_progress=display.update, on_message=say)
    stdout(describe_engine_run(result, "scored", settings))
    if result.outcome is not None:
        where = quote(settings.run)
        stdout(f"next: assay verify {where}; assay merge {where} --out DIR; assay report {where}")
    return 0


VERB = Verb(
    settings=ScoreSettings,
    run=run,
    is_of_a_run=True,
    example="example: assay score 'corpus/*.parquet' --bundle model/ --run run/",
    config="flag",
)
