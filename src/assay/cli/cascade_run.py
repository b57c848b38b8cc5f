"""`assay cascade run`: a tuned cascade over sources of pairs."""

from assay.cascade.settings import CascadeRunSettings
from assay.cli.flags import stdout
from assay.cli.verb import Verb


def run(settings: CascadeRunSettings) -> int:
    """Answer, and say how many pairs reached the second model."""
    from assay.cascade.run import cascade_run

    stdout(str(cascade_run(settings)))
    return 0


VERB = Verb(
    settings=CascadeRunSettings,
    run=run,
    example="example: assay cascade run pairs.parquet --cascade cascade.json --out answers.parquet",
)
