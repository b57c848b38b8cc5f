"""`assay gutenberg harvest`: the publisher's list for robots, slowly."""

from assay.cli.gathered import tell
from assay.cli.verb import Verb, say
from assay.gutenberg.settings import HarvestSettings


def run(settings: HarvestSettings) -> int:
    """Follow the list, a line a book on stderr, and say what came of it."""
    from assay.gutenberg.harvest import harvest

    return tell(harvest(settings, on_message=say))


VERB = Verb(
    settings=HarvestSettings,
    run=run,
    example="example: assay gutenberg harvest --languages en --out books/ --contact you@example.org",
    config="flag",
)
