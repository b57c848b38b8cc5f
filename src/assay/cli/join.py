"""`assay join`: help with a run, of which nothing but the URL is given."""

from shlex import quote

from assay.cli.flags import stdout
from assay.cli.outcome import describe_outcome
from assay.cli.verb import Verb, say
from assay.fleet.settings import JoinSettings
from assay.telemetry import ProgressDisplay


def run(settings: JoinSettings) -> int:
    """Help, with progress on stderr, and say what came of it."""
    from assay.fleet.executors import on_executor
    from assay.fleet.join import join

    with ProgressDisplay("join") as display:
        result = on_executor(join)(settings, on_progress=display.update, on_message=say)
    stdout(f"helped with {result.run_url}: {describe_outcome(result.outcome)}")
    stdout(f"next: assay verify {quote(settings.run)}")
    return 0


VERB = Verb(
    settings=JoinSettings, run=run, example="example: assay join s3://my-bucket/run", is_of_a_run=True
)
