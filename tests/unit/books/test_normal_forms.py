"""Normal forms of texts."""

import pytest

from assay.books.normal_forms import find_names, mask_names, normalise_typography


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("“Well,” she said, ‘so be it’—and went.", "\"Well,\" she said, 'so be it' - and went."),
        ("He came--too late---and left", "He came - too late - and left"),
        ("Wait … what. . . and....", "Wait... what... and..."),
        ("_Italics_ and\n  lines\u00a0here", "Italics and lines here"),
        ("One.\n\n* * *\n\nTwo.", "One. Two."),
        ("«\u202fQui est là\u202f? » dit-il", '"Qui est là?" dit-il'),
        ("Er sagte: »Ja.« Und ging", 'Er sagte: "Ja." Und ging'),
        ("cafe\u0301 soft\u00adhyphen", "café softhyphen"),
        ("``So,'' he said", '"So," he said'),
        ("Tabs\tand \u2003 wide\rspaces", "Tabs and wide spaces"),
        ("Why !  Yes ; no . . ! end", "Why! Yes; no . .! end"),
        ("Rows of stars \u2014 ** \u2026 and dots", "Rows of stars -... and dots"),
        ("", ""),
    ],
)
def test_typography(text: str, normal: str) -> None:
    """Two editions of one text come out alike."""
    assert normalise_typography(text) == normal
    assert normalise_typography(normal) == normal


BOOK = (
    "Then Emma spoke to Mr. Knightley. Happy days came. She saw Emma and Harriet Smith, happy again, there. "
    "O'Brien met Emma. Alas, the smith came."
)


def test_names_of_a_book() -> None:
    """Capitals within sentences and never without; titles, openers and words at a sentence's start are none."""
    assert find_names(BOOK) == {"emma", "knightley", "harriet"}


def test_masked() -> None:
    """A name is masked wherever it stands with its capital."""
    assert mask_names("Emma saw Harriet, Happy as EMMA.", names={"emma", "harriet"}) == (
        "Xx saw Xx, Happy as Xx."
    )
    assert mask_names(BOOK).count("Xx") == 5


def test_german_nouns_are_no_names() -> None:
    """A noun that is seen behind its article keeps its letters."""
    text = "Da sah Anna den Hund. Da sah der Hund Anna, und Anna rief."
    assert find_names(text, "de") == {"anna"}
