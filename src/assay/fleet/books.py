"""`assay prepare books` on the machines that its settings ask for."""

from assay.fleet.executors import cluster_of
from assay.prepare import books
from assay.prepare.books import Watch, unwatched
from assay.prepare.drawing import Say
from assay.prepare.report import BooksReport
from assay.prepare.settings import BooksSettings


def prepare_books(
    settings: BooksSettings, *, watch: Watch = unwatched, say: Say = lambda _: None
) -> BooksReport:
    """Make the data set of pairs in `settings.out`, or go on making it; returns what it holds.

    Raises what `prepare.books.prepare_books` and `cluster_of` do.
    """
    with cluster_of(settings) as cluster:
        return books.prepare_books(settings, watch=watch, say=say, cluster=cluster)
