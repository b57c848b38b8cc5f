"""What cleaning removes in each generation of published texts, what it must not touch, and what it refuses to."""

import pytest

from assay.books.cleaning import CleanOptions, clean_book

PROSE = "\n\n".join(
    f"Paragraph {number} of the tale. She walked down to the sea, and the wind, produced by the heat of the\n"
    f"day, came up to meet her at the end of the road."
    for number in range(40)
)
TITLE = "A TALE OF THE SEA\n\nby Jane Roe\n\n\nCHAPTER I"
WORK = f"{TITLE}\n\n{PROSE}\n\nTHE END"
LICENCE = (
    "***** This file should be named 99.txt or 99.zip *****\n\n"
    "Updated editions will replace the previous one--the old editions\nwill be renamed.\n\n"
    "*** START: FULL LICENSE ***\n\nTHE FULL PROJECT GUTENBERG LICENSE\n\n"
    + "Section. General Terms of Use of Project Gutenberg-tm electronic works.\n\n"
    * 250
    + "This Web site includes information about Project Gutenberg-tm,\nand how to\n"
    "subscribe to our email newsletter to hear about new eBooks.\n"
)
FIELDS = "Title: A Tale of the Sea\n\nAuthor: Jane Roe\n\nRelease Date: May 1, 2010 [EBook #99]\n\nLanguage: English\n"
HEADER = f"The Project Gutenberg EBook of A Tale of the Sea, by Jane Roe\n\n{FIELDS}\n"
SMALL_PRINT = (
    "**The Project Gutenberg Etext of A Tale of the Sea, by Jane Roe**\n\n"
    "Copyright laws are changing all over the world.\n\nMay, 1995  [Etext #99]\n\n"
    "***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN ETEXTS**START***\n"
    + "Why is this here?  You know: lawyers.  Project Gutenberg-tm etexts are yours to keep.\n"
    * 120
)
GENERATIONS = {
    "1995": f"{SMALL_PRINT}*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\n\n\n{WORK}\n\n\n"
    "End of the Project Gutenberg Etext of A Tale of the Sea, by Jane Roe\n",
    "1996": f"{SMALL_PRINT}*END THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\n\n\n{WORK}\n\n\n"
    "End of Project Gutenberg's A Tale of the Sea\n",
    "2003": f"{HEADER}*** START OF THE PROJECT GUTENBERG EBOOK, A TALE OF THE SEA ***\n\n\n"
    f"E-text prepared by X. Y.\n\n\n{WORK}\n\n\n*** END OF THE PROJECT GUTENBERG EBOOK, A TALE OF THE SEA ***\n\n"
    f"This file should be named tale10.txt or tale10.zip\n\n{SMALL_PRINT}"
    "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN EBOOKS*Ver.02/11/02*END*\n",
    "2008": f"{HEADER}*** START OF THIS PROJECT GUTENBERG EBOOK A TALE OF THE SEA ***\n\n\nProduced by X. Y.\n\n\n"
    f"{WORK}\n\n\nEnd of Project Gutenberg's A Tale of the Sea, by Jane Roe\n\n"
    f"*** END OF THIS PROJECT GUTENBERG EBOOK A TALE OF THE SEA ***\n\n{LICENCE}",
    "two lines": f"{HEADER}***START OF THE PROJECT GUTENBERG EBOOK A TALE OF THE SEA, WITH ALL\n"
    f"ITS STORMS***\n\n\nE-text prepared by X. Y.\n\n\n{WORK}\n\n\n"
    f"***END OF THE PROJECT GUTENBERG EBOOK A TALE OF THE SEA, WITH ALL\nITS STORMS***\n\n{LICENCE}",
    "2024": f"\ufeff{HEADER}*** START OF THE PROJECT GUTENBERG EBOOK A TALE OF THE SEA ***\n\n\n{WORK}\n\n\n"
    f"*** END OF THE PROJECT GUTENBERG EBOOK A TALE OF THE SEA ***\n\n{LICENCE.replace('-tm', '™')}",
    "without stars": f"{HEADER}*** START OF THIS PROJECT GUTENBERG EBOOK A TALE\n\n\n{WORK}\n\n\n"
    f"*** END OF THIS PROJECT GUTENBERG EBOOK A TALE\n\n{LICENCE}",
    "German": f"{HEADER}*** START OF THIS PROJECT GUTENBERG EBOOK SEE ***\n\n{WORK}\n\n"
    f"Ende dieses Projekt Gutenberg Etextes Eine Seegeschichte\n\n{LICENCE}",
}
MARKED = GENERATIONS["2008"]


PREPARED = (
    "E-text prepared by Jonathan Ingram and Project Gutenberg Distributed\nProofreaders\n\n\n\n"
    "Note: Project Gutenberg also has an HTML version of this\n      file which includes the original"
    " illustration.\n      (http://www.ibiblio.org/gutenberg/1/0/0/2/10026/10026-h.zip)"
)
BOX = (
    "  +-----------------------------+\n  | Transcriber\u2019s note:         |\n  |                             |\n"
    "  | Genus names were corrected. |\n  +-----------------------------+"
)


def marked(work, *, behind=LICENCE):
    """A work between the markers of 2008."""
    return (
        f"{HEADER}*** START OF THIS PROJECT GUTENBERG EBOOK A TALE OF THE SEA ***\n\n\n{work}\n\n\n"
        f"*** END OF THIS PROJECT GUTENBERG EBOOK A TALE OF THE SEA ***\n\n{behind}"
    )


@pytest.mark.parametrize("generation", GENERATIONS)
def test_every_generation_gives_the_work(generation):
    """The work, and nothing else."""
    cleaned = clean_book(GENERATIONS[generation])
    assert cleaned.quarantined is None
    assert cleaned.text == WORK
    assert cleaned.dropped_share == pytest.approx(1 - len(WORK) / len(GENERATIONS[generation]))


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("line_end", ["\r\n", "\r"])
def test_line_ends_do_not_matter(generation, line_end):
    """Files of DOS and of old Macintoshes give the same work as those of Unix."""
    assert clean_book(GENERATIONS[generation].replace("\n", line_end)).text == WORK


@pytest.mark.parametrize(
    "text",
    [
        "",
        "One line.",
        WORK,
        WORK.replace("\n", "\r\n"),
        "  \n\n" + WORK + "\n\n\n",
        "Produced by the heat of the day, a haze lay over the bay.\n\n" + WORK,
        WORK + "\n\nEnd of the first volume.\n",
        "Gutenberg printed his Bible about 1455.\n\n" + WORK,
        "*** END OF THE ROAD ***\n\n" + WORK,
        "<< A dialogue >>\n\n" + WORK,
    ],
)
def test_a_text_without_markers_is_unchanged(text):
    """Nothing of the publisher's in it: the very same object comes back."""
    cleaned = clean_book(text)
    assert cleaned.text is text
    assert cleaned.quarantined is None
    assert cleaned.dropped_share == 0


@pytest.mark.parametrize(
    "sentence",
    [
        "Produced by the action of the waves, the pebbles lay in long ridges.",
        "ISLANDS PRODUCED BY INSECTS.",
        "PRODUCED BY CHARLES FROHMAN AT THE DUKE OF YORK'S THEATRE",
        "End of the first book of the voyage.",
        "END OF THE VOYAGE",
        "Prepared by long habit for such moments, she did not cry out.",
        "This edition was prepared by the author himself.",
        "He wrote to the transcriber: notes would be welcome.",
        "[She had been [long ago] an illustration of patience.]",
        "Special thanks to the captain were voted by all.",
        "Scanned by a hundred eyes, the horizon gave up nothing.",
    ],
)
@pytest.mark.parametrize("place", ["beginning", "middle", "end"])
def test_prose_that_looks_like_a_credit_stays(sentence, place):
    """A sentence of the work stays wherever it stands behind the first title line."""
    works = {
        "beginning": f"A TALE\n\n{sentence}\n\n{PROSE}",
        "middle": f"A TALE\n\n{PROSE}\n\n{sentence}\n\n{PROSE}",
        "end": f"A TALE\n\n{PROSE}\n\n{sentence}\n\nTHE END",
    }
    assert clean_book(marked(works[place])).text == works[place]


@pytest.mark.parametrize(
    "credit",
    [
        "Produced by Daniel Lazarus and Jonesey",
        "Produced by Judith Boss and David Widger\n\nHTML version by Al Haines.",
        "This etext was prepared by David Price, email ccx074@coventry.ac.uk",
        "Transcribed from the 1899 George Bell edition by David Price, email\nccx074@pglaf.org",
        PREPARED,
        "[This file was produced from images generously made available by the\nInternet Archive]",
        "This eBook was produced by Charles Franks and the Online Distributed Proofreading Team.",
        "Scanned and proofed by Ron Burkey (rburkey@heads-up.com).",
    ],
)
def test_credits_at_both_ends_go(credit):
    """A credit behind the start marker or before the end marker is no part of the work, unless it is asked for."""
    text = marked(f"{credit}\n\n\n{WORK}\n\n\n{credit}")
    assert clean_book(text).text == WORK
    kept = clean_book(text, CleanOptions(credits=False))
    assert kept.text == f"{credit}\n\n\n{WORK}\n\n\n{credit}"


def test_a_telling_credit_goes_without_markers():
    """A text that somebody stripped of its markers keeps no credit that names the volunteers."""
    credit = (
        "Produced by Juliet Sutherland and the Online Distributed\nProofreading Team at http://www.pgdp.net"
    )
    assert clean_book(f"{credit}\n\n\n{WORK}").text == WORK


@pytest.mark.parametrize(
    "note",
    [
        "Transcriber's Note: Spelling has been kept as printed.",
        "[Transcriber's Note: Spelling has been kept\n\nas printed.]",
        "TRANSCRIBER'S NOTE\n\nSpelling has been kept as printed.\n\nGreek is given in Latin letters.",
        BOX,
        "Original Transcriber's Notes:\n\nThis text is a combination of etexts.\n\nIn chapter 24 a capital L stands.",
        "Anmerkungen zur Transkription\n\nDie Rechtschreibung wurde beibehalten.",
    ],
)
@pytest.mark.parametrize("place", ["beginning", "end"])
def test_transcriber_notes_go(note, place):
    """Notes before and behind the work go, of one paragraph or several, unless they are asked for."""
    works = {"beginning": f"{note}\n\n\n\n{WORK}", "end": f"{WORK}\n\n\n{note}"}
    text = marked(works[place])
    assert clean_book(text).text == WORK
    assert clean_book(text, CleanOptions(transcriber_notes=False)).text == works[place]


def test_notes_in_brackets_go_from_the_middle():
    """A note within the work goes; brackets of the author stay."""
    work = f"{PROSE}\n\n[Transcriber's note: a page is missing here.]\n\n[The author adds a word.]\n\n{PROSE}"
    assert clean_book(marked(work)).text == f"{PROSE}\n\n[The author adds a word.]\n\n{PROSE}"


@pytest.mark.parametrize(
    ("mark", "options", "left"),
    [
        ("[Illustration]", {}, "A  B"),
        ("[Illustration: The bay. [See page 4.]]", {}, "A  B"),
        ("[Illustration: Fig. 3.--The\nbay]", {}, "A  B"),
        ("[Illustration]", {"illustrations": False}, "A [Illustration] B"),
        ("[Illustration of this we have", {}, "A [Illustration of this we have B"),
        ("[12]", {}, "A [12] B"),
        ("[12]", {"footnote_marks": True}, "A B"),
        ("[A]", {"footnote_marks": True}, "A B"),
        ("[*]", {"footnote_marks": True}, "A B"),
        ("[sic]", {"footnote_marks": True}, "A [sic] B"),
        ("[Footnote 12: He did.]", {"footnote_marks": True}, "A [Footnote 12: He did.] B"),
    ],
)
def test_marks_go_by_choice(mark, options, left):
    """Illustrations go by default, footnote marks where asked."""
    cleaned = clean_book(f"{PROSE}\n\nA {mark} B\n\n{PROSE}", CleanOptions(**options))
    assert cleaned.text == f"{PROSE}\n\n{left}\n\n{PROSE}"


def test_the_first_of_two_end_markers_counts():
    """What lies between an end and its repetition is the publisher's."""
    end = "*** END OF THIS PROJECT GUTENBERG EBOOK A TALE OF THE SEA ***\n\n"
    assert clean_book(marked(WORK, behind=LICENCE + end)).text == WORK


def test_an_end_marker_in_the_middle_of_the_work_is_no_end():
    """A first volume that ends as a file of its own is followed by the second; its licence goes."""
    volume = f"{WORK}\n\n*** END OF THIS PROJECT GUTENBERG EBOOK A TALE OF THE SEA ***\n\n{LICENCE}\n\nVOLUME II\n\n"
    text = marked(volume + PROSE * 8)
    cleaned = clean_book(text)
    assert cleaned.quarantined is None
    assert cleaned.text.startswith(WORK)
    assert cleaned.text.endswith(f"VOLUME II\n\n{PROSE * 8}")
    assert "GUTENBERG" not in cleaned.text.upper()


def test_a_licence_inside_the_work_goes():
    """Between the plays of a collection the licence is repeated; the plays stay."""
    notice = (
        "<<THIS ELECTRONIC VERSION OF THE COMPLETE WORKS OF WILLIAM\nSHAKESPEARE IS COPYRIGHT 1990-1993 BY WORLD"
        "\nLIBRARY, INC., AND IS PROVIDED BY PROJECT GUTENBERG ETEXT OF\nILLINOIS BENEDICTINE COLLEGE.>>"
    )
    print_inside = f"{SMALL_PRINT}*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\n"
    for inside in (notice, print_inside.partition("[Etext #99]\n\n")[2], LICENCE.partition("\n\n")[2]):
        cleaned = clean_book(marked(f"{WORK}\n\n{inside}\n\n{PROSE}"))
        assert cleaned.quarantined is None
        assert cleaned.text == f"{WORK}\n\n{PROSE}"


@pytest.mark.parametrize("generation", ["1995", "2003", "2008", "2024"])
def test_two_books_in_a_file_are_not_cut(generation):
    """The text comes back whole, with the line where the second book begins."""
    text = GENERATIONS[generation] + "\n\n" + GENERATIONS["2008"]
    cleaned = clean_book(text)
    assert cleaned.text is text
    assert cleaned.quarantined is not None
    line = text[: text.rindex("*** START OF TH")].count("\n") + 1
    assert (
        cleaned.quarantined
        == f"it holds two books, and the second begins at line {line}: split the file there"
    )


def test_two_books_without_an_end_between():
    """The end marker of the first is missing; the header of the second tells."""
    first = MARKED.partition("*** END OF")[0].partition("End of Project")[0]
    text = first + PROSE * 8 + "\n\n" + MARKED
    assert "two books" in (clean_book(text).quarantined or "")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (marked(""), "only 0 characters would be left"),
        (marked("A line."), "only 7 characters would be left"),
        (marked(WORK, behind=PROSE * 10), "is outside its markers"),
        (f"{PROSE * 10}\n\n{MARKED}", "is outside its markers"),
        (MARKED.partition("Produced by")[0] + "\n\n", "only 0 characters would be left"),
        ("<!DOCTYPE html>\n<html><body><p>A tale.</p></body></html>", "it is HTML"),
        ('<?xml version="1.0"?>\n<html><head></head></html>', "it is HTML"),
        (f"{HEADER}<p>" + "<p>A paragraph.</p>\n" * 40, "it is HTML"),
        ("\x89PNG\r\n\x00\x00\x00", "NUL"),
    ],
)
def test_what_cannot_be_cleaned_is_kept_and_named(text, reason):
    """The unchanged text comes back with a reason that says what to do."""
    cleaned = clean_book(text)
    assert cleaned.text is text
    assert cleaned.quarantined is not None
    assert reason in cleaned.quarantined
    assert "\n" not in cleaned.quarantined
    assert ": " in cleaned.quarantined


def test_the_share_and_the_least_length_are_options():
    """A user who knows better may take what is left."""
    text = marked(WORK, behind=PROSE)
    assert clean_book(text).quarantined is not None
    assert clean_book(text, CleanOptions(max_dropped_share=1.0)).text == WORK
    assert clean_book(marked("A line."), CleanOptions(min_characters=1)).text == "A line."


@pytest.mark.parametrize("generation", ["1995", "2003", "2008", "2024"])
def test_a_collapsed_text_keeps_its_work(generation):
    """A text whose lines were joined before is cut at its markers, and never emptied."""
    cleaned = clean_book(" ".join(GENERATIONS[generation].split()))
    work = " ".join(WORK.split())
    assert cleaned.quarantined is None
    assert cleaned.text.removeprefix("Produced by X. Y. ").removeprefix("E-text prepared by X. Y. ") == work


def test_a_collapsed_text_without_markers_is_unchanged():
    """The words of credits and ends within one long line are no reason to cut."""
    text = " ".join(f"{WORK} Produced by X. Y. The end of the road. {PROSE}".split())
    assert clean_book(text).text is text
