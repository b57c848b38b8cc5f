"""`assay prepare books`: raw books to pairs of chunks that `assay train` takes."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from shlex import quote

from assay.cli.flags import stdout
from assay.cli.verb import Verb, say
from assay.prepare.settings import BooksSettings
from assay.telemetry import Progress, ProgressDisplay


@contextmanager
def _watch(step: str) -> Iterator[Callable[[Progress], None] | None]:
    """A progress display of one step."""
    with ProgressDisplay(step) as display:
        yield display.update


def run(settings: BooksSettings) -> int:
    """Make the data set, with progress on stderr, and say what it holds and what comes next."""
    from assay.data.arrow_alone import leave_pandas_out
    from assay.fleet.books import prepare_books
    from assay.prepare.books import describe_books
    from assay.prepare.chunks.worker import NEW_OBJECTS
    from assay.prepare.folder import RECIPE_FILE

    leave_pandas_out()
    gc.set_threshold(NEW_OBJECTS)  # of few books this process makes chunks too
    if settings.dry_run:
        stdout(describe_books(settings))
        return 0
    report = prepare_books(settings, watch=_watch, say=say)
    stdout(str(report))
    stdout(f"next: cd {quote(settings.out)}; assay train {RECIPE_FILE} --base ENCODER --out model")
    return 0


VERB = Verb(
    settings=BooksSettings,
    run=run,
    is_of_a_run=True,
    example="example: assay prepare books novels/ --out pairs/ --bundle model/",
    config="flag",
)
