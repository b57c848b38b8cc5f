"""`assay compare`: whether two documents belong together."""

import json

from assay.cli.flags import stdout
from assay.cli.verb import Verb, say
from assay.compare.settings import CompareSettings


def run(settings: CompareSettings) -> int:
    """Compare two texts, and print what was found."""
    from assay.compare.compare import compare

    found = compare(settings, say=say)
    stdout(json.dumps(found.to_json(), ensure_ascii=False) if settings.json else str(found))
    return 0


VERB = Verb(
    settings=CompareSettings,
    run=run,
    example="example: assay compare --bundle model/ --text1 emma.txt --text2 persuasion.txt",
)
