"""`assay gutenberg sync`: the texts of a mirror by rsync."""

from assay.cli.gathered import tell
from assay.cli.verb import Verb, say
from assay.gutenberg.settings import SyncSettings


def run(settings: SyncSettings) -> int:
    """Copy and clean, a line a book on stderr, and say what came of it."""
    from assay.gutenberg.sync import sync

    return tell(sync(settings, on_message=say))


VERB = Verb(
    settings=SyncSettings,
    run=run,
    example="example: assay gutenberg sync --mirror rsync://gutenberg.pglaf.org/gutenberg-epub --out books/",
    config="flag",
)
