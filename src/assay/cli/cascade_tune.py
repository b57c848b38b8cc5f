"""`assay cascade tune`: the thresholds of two models from labelled pairs."""

from assay.cascade.settings import CascadeTuneSettings
from assay.cli.flags import stdout
from assay.cli.verb import Verb


def run(settings: CascadeTuneSettings) -> int:
    """Tune, and say what was chosen and what it costs and keeps."""
    from assay.cascade.tune import cascade_tune

    stdout(str(cascade_tune(settings)))
    return 0


VERB = Verb(
    settings=CascadeTuneSettings,
    run=run,
    example="example: assay cascade tune siamese/ cross/ tuning.parquet --recall 0.95 --out cascade.json",
)
