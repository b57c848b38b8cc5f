"""`assay style calibrate`: honest probabilities of documents of many chunks."""

from assay.cli.flags import stdout
from assay.cli.verb import Verb, say
from assay.compare.settings import StyleCalibrateSettings


def run(settings: StyleCalibrateSettings) -> int:
    """Fit the maps, and say how good they are."""
    from assay.compare.style_calibrate import style_calibrate

    stdout(str(style_calibrate(settings, say=say)))
    return 0


VERB = Verb(
    settings=StyleCalibrateSettings,
    run=run,
    example="example: assay style calibrate model/ pairs.jsonl --text-column text1 --text-pair-column text2",
)
