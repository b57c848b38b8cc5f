"""`assay pipeline books`: a folder of books to a tuned cascade of two calibrated models."""

from assay.cli.flags import stdout
from assay.cli.verb import Verb, say
from assay.exits import INTERRUPTED
from assay.pipeline.settings import PipelineSettings


def run(settings: PipelineSettings) -> int:
    """Take the steps that are not done yet, with progress on stderr, and say what came of them."""
    from assay.pipeline.books import describe_pipeline, pipeline_books

    if settings.dry_run:
        stdout(describe_pipeline(settings))
        return 0
    try:
        report = pipeline_books(settings, on_message=say, show_progress=True)
    except KeyboardInterrupt:
        say("interrupted: the same command goes on; steps that are done stay done")
        return INTERRUPTED
    stdout(str(report))
    return 0


VERB = Verb(
    settings=PipelineSettings,
    run=run,
    example="example: assay pipeline books novels/ --base encoder/ --out pipeline/",
    config="flag",
)
