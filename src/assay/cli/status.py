"""`assay status`: where a run stands."""

import json
from dataclasses import dataclass, field

from assay.cli.flags import stdout
from assay.cli.verb import Verb
from assay.settings import Settings, positional


@dataclass(frozen=True, kw_only=True)
class StatusSettings(Settings):
    """Which run to look at."""

    run: str = field(metadata=positional("RUN"))
    """Directory or URL of the run."""
    json: bool = False
    """Print one JSON object instead of a line for people."""


def run(settings: StatusSettings) -> int:
    """Print where a run stands."""
    from assay.runs.status import status

    found = status(settings.run)
    stdout(json.dumps(found.to_json()) if settings.json else str(found))
    return 0


VERB = Verb(settings=StatusSettings, run=run, example="example: assay status run/ --json")
