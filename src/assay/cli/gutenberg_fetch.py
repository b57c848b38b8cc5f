"""`assay gutenberg fetch`: single books over HTTP."""

from assay.cli.gathered import tell
from assay.cli.verb import Verb, say
from assay.gutenberg.settings import FetchSettings


def run(settings: FetchSettings) -> int:
    """Fetch, a line a book on stderr, and say what came of it."""
    from assay.gutenberg.fetch import fetch

    return tell(fetch(settings, on_message=say))


VERB = Verb(
    settings=FetchSettings,
    run=run,
    example="example: assay gutenberg fetch --ids 12,1342 --out books/ --contact you@example.org",
    config="flag",
)
