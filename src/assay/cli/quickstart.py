"""`assay quickstart`: the whole life of a classifier, on data that packages carry."""

import sys
from dataclasses import dataclass, field

from assay.cli.flags import stdout
from assay.cli.verb import Verb, say
from assay.exits import INTERRUPTED
from assay.settings import AUTO_OR_COUNT, Settings, positional


@dataclass(frozen=True, kw_only=True)
class QuickstartSettings(Settings):
    """Where the quickstart works."""

    directory: str = field(default="quickstart", metadata=positional("DIR"))
    """Directory for the bundle, the run, the merged corpus and the report [quickstart]."""
    devices: str = field(default="auto", metadata=AUTO_OR_COUNT)
    """`auto`, or how many: GPUs where there are any, worker processes otherwise."""


def run(settings: QuickstartSettings) -> int:
    """Fine-tune, calibrate, score, verify, merge and report on real embedded data."""
    from assay.quickstart import quickstart

    try:
        result = quickstart(
            settings.directory, devices=settings.devices, on_message=say, show_progress=sys.stderr.isatty()
        )
    except KeyboardInterrupt:
        say("interrupted: the same command begins again, from scratch")
        return INTERRUPTED
    stdout(str(result))
    return 0


VERB = Verb(settings=QuickstartSettings, run=run, example="example: assay quickstart my-first-run")
