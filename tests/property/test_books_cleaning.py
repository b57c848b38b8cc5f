"""Whatever the publisher's words are put around: cleaning settles at once, and what has no marks is not touched."""

from hypothesis import given, settings
from hypothesis import strategies as st

from assay.books.cleaning import CleanOptions, clean_book, decode_book
from assay.books.headers import read_header

_PIECES = st.sampled_from(
    [
        "*** START OF THIS PROJECT GUTENBERG EBOOK A TALE ***",
        "***START OF THE PROJECT GUTENBERG EBOOK A TALE,\nWITH STORMS***",
        "*** START OF",
        "*** END OF THIS PROJECT GUTENBERG EBOOK A TALE ***",
        "End of Project Gutenberg's A Tale",
        "End of the",
        "PROJECT GUTENBERG",
        "The Project Gutenberg EBook of A Tale, by Jane Roe",
        "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*",
        "***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN ETEXTS**START***",
        "Title: A Tale\n  of the Sea",
        "Author: Jane Roe",
        "Language: English, French",
        "Produced by Daniel Lazarus",
        "Produced by Al Haines and the Online Distributed Proofreading Team",
        "E-text prepared by X. Y.",
        "Transcriber's Note:",
        "Transcriber's Note: the spelling was kept.",
        "[Transcriber's Note: the spelling",
        "was kept.]",
        "+-----+\n| Transcriber's note: |\n+-----+",
        "[Illustration]",
        "[Illustration: a [small] boat]",
        "[Illu",
        "stration]",
        "[12]",
        "[1",
        "2]",
        "<<THIS ELECTRONIC VERSION",
        ">>",
        "*** START: FULL LICENSE ***",
        "*** END: FULL LICENSE ***",
        "Updated editions will replace the previous one",
        "subscribe to our email newsletter",
        "This file should be named 99.txt",
        "A paragraph of the work, which goes on for a while and says this and that of the sea.",
        "x" * 300,
        "words of a long tale " * 200,
        "<html>",
        "* * * * *",
    ]
)
_JOINTS = st.sampled_from(["\n\n", "\n", "\n\n\n\n", " ", "", "\r\n\r\n", "\r\n", "\r", "\n \n"])
_TEXTS = st.lists(st.tuples(_PIECES, _JOINTS).map("".join), max_size=24).map("".join)
_OPTIONS = st.builds(
    CleanOptions,
    credits=st.booleans(),
    transcriber_notes=st.booleans(),
    illustrations=st.booleans(),
    footnote_marks=st.booleans(),
    max_dropped_share=st.sampled_from([0.0, 0.1, 1.0]),
    min_characters=st.sampled_from([0, 1, 200]),
)


@given(text=_TEXTS, options=_OPTIONS)
@settings(max_examples=300, deadline=None)
def test_cleaning_twice_is_cleaning_once(text, options):
    """A cleaned text comes back as the same object, and a quarantined one for the same reason."""
    once = clean_book(text, options)
    twice = clean_book(once.text, options)
    assert twice.text is once.text
    assert twice.quarantined == once.quarantined
    assert twice.dropped_share == 0


@given(text=_TEXTS, options=_OPTIONS)
@settings(max_examples=300, deadline=None)
def test_what_is_left_was_there_and_is_enough(text, options):
    """Cleaning only takes away, in order, and leaves what the options ask for or everything."""
    cleaned = clean_book(text, options)
    if cleaned.quarantined is not None:
        assert cleaned.text is text
        return
    lines = iter(text.replace("\r\n", "\n").replace("\r", "\n"))
    assert all(character in lines for character in cleaned.text.replace("\r\n", "\n").replace("\r", "\n"))
    if cleaned.dropped_share > 0:
        assert len(cleaned.text.strip()) >= options.min_characters
    assert 0 <= cleaned.dropped_share <= 1


@given(
    text=st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=400)
)
@settings(max_examples=200, deadline=None)
def test_any_text_without_marks_is_unchanged(text):
    """No letters of the publisher's in it: nothing happens to it, and it has no header."""
    if "gutenberg" in text.lower() or "[" in text or "<" in text:
        return
    assert clean_book(text).text is text
    assert read_header(text).title is None


@given(content=st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_bytes_become_text(content):
    """Decoding never fails, and what it gives can be written as UTF-8 and read again unchanged."""
    text = decode_book(content).text
    assert decode_book(text.encode("utf-8")).text == text


_LETTERS = "abc \u00e9\u00fc\u00f1\u00e7\u00f8\u0142\u0105\u017c\u2014\u201c\u201d\u2019\u00a0\u2026\n"


@given(text=st.text(alphabet=_LETTERS, max_size=200), times=st.integers(min_value=1, max_value=3))
@settings(max_examples=200, deadline=None)
def test_text_that_was_decoded_wrongly_is_put_right(text, times):
    """UTF-8 read as cp1252 (Latin-1 where that has no character), once or several times, is found again."""
    text = f"\u00e9 \u00e0 \u00fc {text}"
    wrong = text
    for _ in range(times):
        wrong = "".join(_read_wrongly(byte) for byte in wrong.encode("utf-8"))
    assert decode_book(wrong.encode("utf-8")).text == text


def _read_wrongly(byte):
    try:
        return bytes([byte]).decode("cp1252")
    except UnicodeDecodeError:
        return chr(byte)
