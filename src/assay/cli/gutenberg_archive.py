"""`assay gutenberg archive`: the books of one archive."""

from assay.cli.gathered import tell
from assay.cli.verb import Verb, say
from assay.gutenberg.settings import ArchiveSettings


def run(settings: ArchiveSettings) -> int:
    """File the books, a line each on stderr, and say what came of it."""
    from assay.gutenberg.archive import archive

    return tell(archive(settings, on_message=say))


VERB = Verb(
    settings=ArchiveSettings,
    run=run,
    example="example: assay gutenberg archive --archive txt-files.tar.zip --out books/",
    config="flag",
)
