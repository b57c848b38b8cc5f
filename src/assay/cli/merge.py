"""`assay merge`: scores or vectors back onto their sources."""

from dataclasses import dataclass, field

from assay.cli.flags import stdout
from assay.cli.verb import Verb
from assay.settings import Settings, positional


@dataclass(frozen=True, kw_only=True)
class MergeSettings(Settings):
    """Which run to merge, and where to."""

    run: str = field(metadata=positional("RUN"))
    """Directory or URL of the run."""
    out: str
    """Directory or URL for the merged files; one for each source."""
    columns: tuple[str, ...] = ()
    """Columns of the parts to add; all of them by default."""
    prefix: str = ""
    """Put before the name of each added column, for sources that have such a name already."""


def run(settings: MergeSettings) -> int:
    """Merge the parts back onto the sources."""
    from assay.score.merge.merge import merge

    stdout(str(merge(settings.run, settings.out, columns=settings.columns or None, prefix=settings.prefix)))
    return 0


VERB = Verb(settings=MergeSettings, run=run, example="example: assay merge run/ --out scored/")
