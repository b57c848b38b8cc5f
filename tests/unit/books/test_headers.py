"""What headers of several generations say of their books."""

import pytest

from assay.books.headers import NO_HEADER, read_header, read_languages

START = "\n\n*** START OF THE PROJECT GUTENBERG EBOOK X ***\n\nTitle: A line of the work\n"


def test_a_header_of_today():
    """Every field of its own, values over several lines, the number and the dates apart."""
    header = read_header(
        "\ufeffThe Project Gutenberg eBook of X\n\nTitle: The Communist Manifesto\n        A translation\n\n"
        "Author: Karl Marx\n        Friedrich Engels\n\nTranslator: Samuel Moore\n\nEditor: F. E.\n\n"
        "Illustrator: W. C.\n\nRelease date: October 18, 2019 [eBook #60600]\n"
        "                Most recently updated: October 17, 2024\n\nLanguage: English, German\n\n"
        "Original publication: London: 1888\n\n"
        "Credits: Produced by Allen Lutins,\n        with assistance from Jim Tarzia" + START
    )
    assert header.title == "The Communist Manifesto A translation"
    assert header.authors == ("Karl Marx", "Friedrich Engels")
    assert header.translators == ("Samuel Moore",)
    assert header.editors == ("F. E.",)
    assert header.illustrators == ("W. C.",)
    assert header.gutenberg_id == 60600
    assert header.release_date == "October 18, 2019"
    assert header.updated == "October 17, 2024"
    assert header.languages == ("en", "de")
    assert header.original_publication == "London: 1888"
    assert header.credits == "Produced by Allen Lutins, with assistance from Jim Tarzia"


def test_a_header_without_fields():
    """Before there were fields the first line named title and author, and the number stood as an e-text's."""
    header = read_header(
        "**The Project Gutenberg Etext of The Scarlet Letter, by Hawthorne**\n#1 in our series by N. Hawthorne\n\n"
        "May, 1992  [Etext #33]\n\n*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\n\nA line.\n"
    )
    assert header.title == "The Scarlet Letter"
    assert header.authors == ("Hawthorne",)
    assert header.gutenberg_id == 33


@pytest.mark.parametrize(
    ("line", "title", "authors"),
    [
        (
            "Project Gutenberg's Alice in Wonderland, by Lewis Carroll",
            "Alice in Wonderland",
            ("Lewis Carroll",),
        ),
        ("The Project Gutenberg eBook, Emma,\nby Jane Austen", "Emma", ("Jane Austen",)),
        ("The Project Gutenberg EBook of Beowulf", "Beowulf", ()),
    ],
)
def test_first_lines(line, title, authors):
    """Each wording of the first line, over one line or two."""
    header = read_header(f"{line}\n\n[EBook #1]{START}")
    assert (header.title, header.authors) == (title, authors)


@pytest.mark.parametrize(
    ("value", "authors"),
    [
        ("Jane Austen", ("Jane Austen",)),
        ("Karl Marx and Friedrich Engels", ("Karl Marx", "Friedrich Engels")),
        ("A. Roe, B. Roe, and C. Doe", ("A. Roe", "B. Roe", "C. Doe")),
        ("Society for the Promotion of Work and Play", ("Society for the Promotion of Work and Play",)),
        ("Various", ("Various",)),
        ("", ()),
    ],
)
def test_authors_of_one_line(value, authors):
    """Several people in a line are several authors; a society is one."""
    assert read_header(f"Title: X\n\nAuthor: {value}\n\nLanguage: English{START}").authors == authors


@pytest.mark.parametrize(
    ("value", "languages"),
    [
        ("English", ("en",)),
        ("english", ("en",)),
        ("en", ("en",)),
        ("English, French and Latin", ("en", "fr", "la")),
        ("English / Polish; German", ("en", "pl", "de")),
        ("English, English", ("en",)),
        ("Middle Low Klingon", ("middle low klingon",)),
        ("", ()),
    ],
)
def test_languages(value, languages):
    """A list of names or codes, in any of its spellings; an unknown name is kept."""
    assert read_languages(value) == languages


@pytest.mark.parametrize(
    "text",
    [
        "",
        "It was a dark night.\n\nTitle: the word stood on a card.\n",
        "Author: nobody\n",
        "x" * 100_000,
    ],
)
def test_a_text_without_a_header_has_none(text):
    """Words of the work are not read as fields."""
    assert read_header(text) == NO_HEADER


def test_fields_are_read_before_the_marker_only():
    """A field-like line of the work does not change the title."""
    assert read_header(f"Title: Emma\n{START}").title == "Emma"
    assert read_header(f"Language: English\n{START}").title is None


def test_line_ends_do_not_matter():
    """A header of a DOS file is the same header."""
    text = f"Title: Emma\n   A Novel\n\nAuthor: Jane Austen\n\n[EBook #158]{START}"
    assert read_header(text.replace("\n", "\r\n")) == read_header(text)
