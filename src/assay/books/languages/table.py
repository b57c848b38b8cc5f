"""[pure] The tables by the code of their language."""

from assay.books.languages.english import ENGLISH
from assay.books.languages.french import FRENCH
from assay.books.languages.german import GERMAN
from assay.books.languages.polish import POLISH
from assay.books.languages.words import Words

TABLES = {table.code: table for table in (ENGLISH, POLISH, GERMAN, FRENCH)}
"""Languages whose abbreviations are known."""
PLAIN = Words(code="")
"""What is taken for any other: punctuation and capitals alone, and initials."""


def table_of(language: str) -> Words:
    """The words of a language, of which `en-GB` names `en`."""
    return TABLES.get(language.partition("-")[0].lower(), PLAIN)
