"""`assay clean`: what Assay left behind, shown with its size, and deleted with --delete."""

import json

from assay.clean.settings import CleanSettings
from assay.cli.flags import stdout
from assay.cli.verb import Verb


def run(settings: CleanSettings) -> int:
    """Print what is deleted, or would be."""
    from assay.clean.clean import clean

    report = clean(settings)
    stdout(json.dumps(report.to_json()) if settings.json else str(report))
    return 0


VERB = Verb(settings=CleanSettings, run=run, example="example: assay clean /shared/runs --runs --delete")
