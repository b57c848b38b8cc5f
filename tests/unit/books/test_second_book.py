"""Two books in one file: what shows them, and what does not."""

import pytest

from assay.books.second_book import FAR, find_second_book

PROSE = "It was late, and nobody in the house had thought of the lamp.\n"
NOVEL = PROSE * (FAR // len(PROSE) + 1)


@pytest.mark.parametrize(
    ("pages", "line"),
    [
        ("\nTHE END\n\nPersuasion\n\n", "THE END"),
        ("\n  KONIEC.\n\nBolesław Prus\n\nLALKA\n\n", "KONIEC."),
        ("\nPersuasion\n\nby Jane Austen\n\n", "Persuasion"),
        ("\nPersuasion\n\nCHAPTER I.\n\n", "CHAPTER I."),
        ("\nLalka\n\nRozdział pierwszy\n\n", "Rozdział pierwszy"),
    ],
)
def test_an_end_a_title_or_a_first_chapter_shows_a_second_book(pages, line):
    """The place is that of the sign, and its line is shown."""
    text = NOVEL + pages + NOVEL
    found = find_second_book(text)
    assert found is not None
    assert found.line == line
    assert text[found.start :].startswith(line)
    assert found.share == pytest.approx(0.5, abs=0.01)
    assert found.described == f"{line!r}, 50% into the text"


@pytest.mark.parametrize(
    "pages",
    [
        "\nTHE END\n\nVOLUME II\n\nCHAPTER I\n\n",
        "\nBOOK THE SECOND\n\nCHAPTER I\n\n",
        "\nTOM DRUGI\n\nROZDZIAŁ PIERWSZY\n\n",
        "\nCHAPTER II\n\n",
        "\nChapter 1.IX.\n\n",
        "\nIn the end nobody came, by the way.\nThe end of it was\n",
    ],
)
def test_a_novel_in_volumes_is_one_book(pages):
    """A later volume or part, later chapters and prose are no sign."""
    assert find_second_book(NOVEL + pages + NOVEL) is None


def test_what_is_near_an_end_of_the_text_is_no_book():
    """A preface before the first chapter, and an advertisement behind the end."""
    preface, advertisement = PROSE * 300, PROSE * 100
    text = f"Emma\n\nby Jane Austen\n\n{preface}\nCHAPTER I\n\n{NOVEL}\nTHE END\n\n{advertisement}"
    assert find_second_book(text) is None
