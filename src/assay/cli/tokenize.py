"""`assay tokenize`: text to token ids, once, for many scoring runs."""

from shlex import quote

from assay.cli.flags import stdout
from assay.cli.outcome import describe_outcome
from assay.cli.verb import Verb, say
from assay.telemetry import ProgressDisplay
from assay.tokenize.settings import TokenizeSettings


def run(settings: TokenizeSettings) -> int:
    """Tokenize, with progress on stderr, and say what came of it."""
    from assay.fleet.executors import on_executor
    from assay.runs.placement import describe_plan
    from assay.tokenize.verb import tokenize

    with ProgressDisplay("tokenize") as display:
        result = on_executor(tokenize)(settings, on_progress=display.update, on_message=say)
    if result.outcome is None:
        stdout(describe_plan(result.manifest, result.placement, settings))
    else:
        stdout(f"tokenized into {result.run_url}: {describe_outcome(result.outcome)}")
        stdout(f"next: assay score {quote(settings.run)} --bundle {quote(settings.bundle)} --run RUN")
    return 0


VERB = Verb(
    settings=TokenizeSettings,
    run=run,
    is_of_a_run=True,
    example="example: assay tokenize 'corpus/*.parquet' --bundle model/ --run tokens/",
    config="flag",
)
