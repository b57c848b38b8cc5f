"""`assay bench`: how fast a bundle is here, on a sample of the user's documents."""

import json

from assay.cli.flags import stdout
from assay.cli.verb import Verb, say
from assay.score.bench.settings import BenchSettings


def run(settings: BenchSettings) -> int:
    """Measure the bundle on a sample and print figures and estimate."""
    from assay.score.bench.bench import bench

    report = bench(settings, on_message=say)
    stdout(json.dumps(report.to_json()) if settings.json else str(report))
    return 0


VERB = Verb(
    settings=BenchSettings,
    run=run,
    example="example: assay bench 'corpus/*.parquet' --bundle model/ --for-documents 160M",
)
