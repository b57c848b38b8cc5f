"""`assay ensemble build`: one bundle of several classifiers."""

from assay.cli.flags import stdout
from assay.cli.verb import Verb, say
from assay.ensemble.settings import BuildSettings


def run(settings: BuildSettings) -> int:
    """Build, and say what the members and the ensemble are worth where there are test rows."""
    from assay.ensemble.build import ensemble_build

    result = ensemble_build(settings)
    for note in result.notes:
        say(note)
    stdout(str(result))
    if settings.report is not None:
        stdout(f"wrote {settings.report}")
    return 0


VERB = Verb(
    settings=BuildSettings,
    run=run,
    example=(
        "example: assay ensemble build ensemble/ --members seed1/,seed2/,seed3/ --validation validation.parquet"
        " --test test.parquet"
    ),
    config="flag",
)
