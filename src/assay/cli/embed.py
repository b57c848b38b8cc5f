"""`assay embed`: every row of the sources to a vector, into a run."""

from assay.cli.flags import stdout
from assay.cli.outcome import describe_outcome
from assay.cli.verb import Verb, say
from assay.embed.settings import EmbedSettings
from assay.telemetry import ProgressDisplay


def run(settings: EmbedSettings) -> int:
    """Embed, with progress on stderr, and say what came of it."""
    from assay.embed.parity import describe_figures
    from assay.embed.verb import embed
    from assay.runs.placement import describe_plan

    with ProgressDisplay("embed") as display:
        result = embed(settings, on_progress=display.update, on_message=say)
    if result.outcome is None:
        stdout(describe_plan(result.manifest, result.run_url, result.placement))
        stdout(f"numbers  {result.precision}")
        return 0
    stdout(f"embedded into {result.run_url}: {describe_outcome(result.outcome)}")
    for description in result.outcome.descriptions:
        stdout(f"engine: {description}")
    if result.parity is not None:
        stdout(describe_figures(result.parity))
    stdout(f"next: assay verify {settings.run}")
    return 0


VERB = Verb(
    settings=EmbedSettings,
    run=run,
    example="example: assay embed chunks/ --bundle encoder/ --run vectors/",
    config="flag",
)
