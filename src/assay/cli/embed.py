"""`assay embed`: every row of the sources to a vector, into a run."""

from shlex import quote

from assay.cli.flags import stdout
from assay.cli.outcome import describe_engine_run
from assay.cli.verb import Verb, say
from assay.embed.settings import EmbedSettings
from assay.telemetry import ProgressDisplay


def run(settings: EmbedSettings) -> int:
    """Embed, with progress on stderr, and say what came of it."""
    from assay.embed.parity import describe_figures
    from assay.embed.verb import embed
    from assay.fleet.executors import on_executor

    with ProgressDisplay("embed") as display:
        result = on_executor(embed)(settings, on_progress=display.update, on_message=say)
    stdout(describe_engine_run(result, "embedded", settings))
    if result.parity is not None:
        stdout(describe_figures(result.parity))
    if result.outcome is not None:
        stdout(f"next: assay verify {quote(settings.run)}")
    return 0


VERB = Verb(
    settings=EmbedSettings,
    run=run,
    is_of_a_run=True,
    example="example: assay embed chunks/ --bundle encoder/ --run vectors/",
    config="flag",
)
