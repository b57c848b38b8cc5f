"""Seven real files of Project Gutenberg, of 2003 to 2012: where their works begin and end, and what their headers say.

Each file in `texts/` is the beginning and the end of a published file, with its line ends and its bytes as
they are; between them text is left out. The expected places were found by reading the files.
"""

from pathlib import Path

import pytest

from assay.books.cleaning import CleanOptions, clean_book, decode_book

TEXTS = Path(__file__).parent / "texts"

SUBTITLE = (
    "An Inquiry into the Changes in the Price of Books which have occurred in England at different Periods"
)

ENDS = {
    "10026": (
        "THE MIRROR OF LITERATURE, AMUSEMENT, AND INSTRUCTION.\n\nVOL. 10, No. 268.] SATURDAY",
        "(near Somerset House,)\nand sold by all Newsmen and Booksellers._",
    ),
    "10028": (
        "SPALDING'S OFFICIAL ATHLETIC LIBRARY\n\nBASEBALL GUIDE\n\n1913\n\nEDITED BY\n\nJOHN B. FOSTER",
        "Simon, Pittsburgh      42  113   10  34   38   2   1  --  --   1 .301",
    ),
    "1013": (
        "THE FIRST MEN IN THE MOON\n\nby H.G. Wells\n\n\n\n\nChapter 1",
        "into the dark, into that silence\nthat has no end....",
    ),
    "10509": (
        "The Bars of Iron\n\nBy Ethel M. Dell\n\n1916\n",
        '"How very comfy you look!" she remarked.\n\nAnd, "We are comfy," said Piers, with a smile.',
    ),
    "2701": (
        "MOBY DICK; OR THE WHALE\n\nBy Herman Melville\n\n\n\n\nETYMOLOGY.",
        "that in\nher retracing search after her missing children, only found another\norphan.",
    ),
    "36261": (
        "  THE CHAIN OF LIFE\n  IN\n  GEOLOGICAL TIME\n",
        "  Zonites, 143\n\n\nRICHARD CLAY AND SONS, LONDON AND BUNGAY.",
    ),
    "40815": (
        "The Library Series\n\nEDITED BY\n\nDR. RICHARD GARNETT\n\n\nIV\n\nPRICES OF BOOKS",
        "THE END\n\nPrinted by BALLANTYNE, HANSON & CO.\n\nEdinburgh & London",
    ),
}
"""The first and the last words of each work."""

HEADERS = {
    "10026": (
        "The Mirror of Literature, Amusement, and Instruction, Vol. 10, Issue 268, August 11, 1827",
        ("Various",),
        "October 9, 2003",
    ),
    "10028": ("Spalding's Official Baseball Guide - 1913", (), "October 12, 2003"),
    "1013": ("The First Men In The Moon", ("H. G. Wells",), "October 20, 2004"),
    "10509": ("The Bars of Iron", ("Ethel May Dell",), "December 20, 2003"),
    "2701": ("Moby Dick; or The Whale", ("Herman Melville",), "June, 2001"),
    "36261": (
        "The Chain of Life in Geological Time A Sketch of the Origin and Succession of Animals and Plants",
        ("Sir J. William Dawson",),
        "May 30, 2011",
    ),
    "40815": (
        f"Prices of Books {SUBTITLE}",
        ("Henry B. Wheatley",),
        "September 22, 2012",
    ),
}

CREDITS = {
    "10026": "E-text prepared by Jonathan Ingram and Project Gutenberg Distributed Proofreaders",
    "10028": "Credit for e-text: The Library of Congress, Joshua Hutchinson, David King,",
    "1013": "This Project Gutenberg Etext was prepared by Barry Haworth.",
    "10509": "E-text prepared by Suzanne Shell, Project Gutenberg Beginners Projects, Mary Meehan,",
    "2701": "Produced by Daniel Lazarus and Jonesey",
    "36261": "Produced by Chris Curnow, Turgut Dincer and the Online Distributed Proofreading Team",
    "40815": "Produced by Irma Spehar, Jennifer Linklater and the Online Distributed Proofreading Team",
}


def read(name):
    """A file as text."""
    return decode_book((TEXTS / f"{name}.txt").read_bytes()).text


@pytest.mark.parametrize("name", ENDS)
def test_begins_and_ends_with_the_work(name):
    """Header, credits, notes and licence are gone; the first and the last words of the work are there."""
    cleaned = clean_book(read(name))
    first, last = ENDS[name]
    assert cleaned.quarantined is None
    assert cleaned.text.startswith(first)
    assert cleaned.text.endswith(last)


@pytest.mark.parametrize("name", ENDS)
def test_same_with_the_line_ends_of_the_file(name):
    """A text that was decoded by somebody else, its line ends left as they were, gives the same work."""
    content = (TEXTS / f"{name}.txt").read_bytes()
    assert b"\r\n" in content
    theirs = clean_book(content.decode("utf-8"), CleanOptions(footnote_marks=True))
    ours = clean_book(content.decode("utf-8").replace("\r\n", "\n"), CleanOptions(footnote_marks=True))
    assert theirs.text == ours.text
    assert theirs.header == ours.header


@pytest.mark.parametrize("name", ENDS)
def test_nothing_of_the_publisher_is_left(name):
    """No mention of the publisher, its volunteers and its licence."""
    text = clean_book(read(name)).text
    for words in (
        "Gutenberg",
        "GUTENBERG",
        "Proofread",
        "Transcriber",
        "Produced by",
        "[Illustration",
        "aEuro",
    ):
        assert words not in text, words


@pytest.mark.parametrize("name", HEADERS)
def test_header(name):
    """Titles over several lines, with and without indentation; authors; the number in either spelling."""
    header = clean_book(read(name)).header
    title, authors, release_date = HEADERS[name]
    assert (header.title, header.authors, header.release_date) == (title, authors, release_date)
    assert header.gutenberg_id == int(name)
    assert header.languages == ("en",)
    assert header.credits is not None
    assert header.credits.startswith(CREDITS[name])


def test_editor_and_dates():
    """Other people and the second date of an old header have fields of their own."""
    assert clean_book(read("10028")).header.editors == ("John B. Foster",)
    assert clean_book(read("2701")).header.updated == "January 3, 2009"


@pytest.mark.parametrize("name", ENDS)
def test_cleaning_again_changes_nothing(name):
    """A cleaned text comes back as the same object."""
    once = clean_book(read(name)).text
    assert clean_book(once).text is once


def test_wrongly_decoded_quotes_are_put_right():
    """The file of 2011 declares ASCII, is UTF-8, and has its curly quotes spelled out as `aEuro`."""
    decoded = decode_book((TEXTS / "36261.txt").read_bytes())
    assert decoded.encoding == "utf-8"
    assert decoded.num_repaired == 9
    assert "AUTHOR OF\n  \u201cACADIAN GEOLOGY,\u201d \u201cTHE STORY OF THE EARTH,\u201d" in decoded.text


def test_same_when_collapsed_to_one_line():
    """A whole file on one line keeps its work and its header; only its credits cannot be told from it."""
    text = read("10509")
    collapsed = " ".join((text + text[-200:]).split())
    cleaned = clean_book(collapsed)
    assert cleaned.quarantined is None
    assert cleaned.text.startswith("E-text prepared by Suzanne Shell")
    assert cleaned.text.endswith('"We are comfy," said Piers, with a smile.')
    assert cleaned.header.title == "The Bars of Iron"
    assert cleaned.header.authors == ("Ethel May Dell",)
    assert cleaned.header.gutenberg_id == 10509
    assert cleaned.header.languages == ("en",)
