"""The language of a text, by py3langid (BSD licence, its model inside the package)."""

from collections import Counter
from collections.abc import Sequence

from assay.extras import need_packages

PACKAGE = "py3langid"
NUM_CHARS = 200
"""Of a text that are looked at; its language shows in fewer."""
NUM_PLACES = 8
"""Of a book that are looked at."""


def need_language_check() -> None:
    """Raise UsageError, with the ways out, where the package is missing."""
    need_packages(PACKAGE, used_by="checking languages", or_else="set --language-check off and --language en")


def language_of(text: str) -> str:
    """ISO 639-1 code of the language that the beginning of a text looks like. Costs half a millisecond."""
    from assay.prepare.chunks.language_model import classifier

    return classifier()(text[:NUM_CHARS])[0]


def language_of_book(text: str) -> str:
    """The language that most of eight places of a book look like."""
    step = max(1, len(text) // (NUM_PLACES + 1))
    places: Sequence[str] = [
        text[step * number : step * number + NUM_CHARS] for number in range(1, NUM_PLACES + 1)
    ]
    found: Counter[str] = Counter()
    for place in places:
        if place.strip():
            found[language_of(place)] += 1
        if found and max(found.values()) > NUM_PLACES / 2:
            break  # whatever the others look like
    # Of equally frequent ones the first by name, so that the order does not matter.
    return min(found, key=lambda code: (-found[code], code)) if found else language_of(text)
