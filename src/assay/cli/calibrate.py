"""`assay calibrate`: honest probabilities, thresholds and intervals from held-out rows."""

from assay.calibrate.settings import CalibrateSettings
from assay.cli.flags import stdout
from assay.cli.verb import Verb


def run(settings: CalibrateSettings) -> int:
    """Calibrate the bundle, and say what was fitted and what it changed."""
    from assay.calibrate.calibrate import calibrate

    stdout(str(calibrate(settings)))
    return 0


VERB = Verb(settings=CalibrateSettings, run=run, example="example: assay calibrate model/ held-out.jsonl")
