"""`assay estimate`: what a scoring run will take, before it is begun."""

import json

from assay.cli.flags import stdout
from assay.cli.verb import Verb, say
from assay.fleet.settings import EstimateSettings
from assay.telemetry import ProgressDisplay


def run(settings: EstimateSettings) -> int:
    """Score a sample, with progress on stderr, and print what the whole will take."""
    from assay.fleet.estimate import estimate
    from assay.score.estimate.words import describe

    with ProgressDisplay("sample") as display:
        found = estimate(settings, on_progress=display.update, on_message=say)
    stdout(json.dumps(found.to_json()) if settings.json else describe(found))
    return 0


VERB = Verb(
    settings=EstimateSettings,
    run=run,
    example="example: assay estimate 'corpus/*.parquet' --bundle model/ --workers 12 --price-per-hour 0.7 --run run/",
)
