"""`assay doctor`: what this machine has and what runs where."""

import json
from dataclasses import dataclass

from assay.cli.flags import stdout
from assay.cli.verb import Verb
from assay.errors import CheckError
from assay.settings import Settings


@dataclass(frozen=True, kw_only=True)
class DoctorSettings(Settings):
    """What to examine."""

    bundle: str | None = None
    """A bundle to load as well: says which engine runs it, and why not a faster one."""
    json: bool = False
    """Print one JSON object instead of lines for people."""


def run(settings: DoctorSettings) -> int:
    """Print versions, devices, memory and what falls back to a slower path; status 1 on a problem."""
    from assay.cli.examine import examine

    findings = examine(settings.bundle)
    stdout(json.dumps(findings.to_json()) if settings.json else str(findings))
    if findings.problems:
        raise CheckError(findings.problems[0])
    return 0


VERB = Verb(settings=DoctorSettings, run=run, example="example: assay doctor --bundle model/")
