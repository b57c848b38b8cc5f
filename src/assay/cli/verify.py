"""`assay verify`: the proof that a run is whole."""

import json
from dataclasses import dataclass, field

from assay.cli.flags import stdout
from assay.cli.verb import Verb
from assay.settings import Settings, positional


@dataclass(frozen=True, kw_only=True)
class VerifySettings(Settings):
    """Which run to prove."""

    run: str = field(metadata=positional("RUN"))
    """Directory or URL of the run."""
    check_sources: bool = False
    """Also read the ids of the sources again and compare them."""
    duplicates: bool = False
    """Count the ids that occur more than once (reads all ids, in bounded memory)."""
    repair: bool = False
    """Move damaged parts, and files that are not parts of a unit, to damaged/, so that the same command as before
    makes them again."""
    json: bool = False
    """Print one JSON object instead of lines for people."""


def run(settings: VerifySettings) -> int:
    """Print the proof that a run is whole; status 1 where it is not."""
    from assay.runs.verify import require, verify

    proof = verify(
        settings.run, sources=settings.check_sources, duplicates=settings.duplicates, repair=settings.repair
    )
    stdout(json.dumps(proof.to_json()) if settings.json else str(proof))
    require(proof)
    return 0


VERB = Verb(settings=VerifySettings, run=run, example="example: assay verify run/ --check-sources")
