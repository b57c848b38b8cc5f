"""Bytes of books: byte order marks, encodings that are declared rightly, wrongly or not at all, and repairs."""

import pytest

from assay.books.cleaning import decode_book
from assay.books.decoding import repair_mojibake

ENGLISH = "The café was “full”—naïve, he said.\n" * 5
POLISH = "Zażółć gęślą jaźń.\n" * 5


def declared(encoding):
    """A header line that declares an encoding."""
    return f"Character set encoding: {encoding}\n\n"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_marks(encoding):
    """A mark says the encoding, and is no part of the text."""
    assert decode_book(ENGLISH.encode(encoding)).text == ENGLISH


@pytest.mark.parametrize(
    ("words", "text", "encoding", "found"),
    [
        ("UTF-8", ENGLISH, "utf-8", "utf-8"),
        ("ISO-8859-1", ENGLISH, "utf-8", "utf-8"),
        ("US-ASCII", ENGLISH, "cp1252", "cp1252"),
        ("UTF-8", ENGLISH, "cp1252", "cp1252"),
        ("ISO-8859-1", ENGLISH, "cp1252", "cp1252"),
        ("ISO-8859-1", "café\n", "latin-1", "cp1252"),
        ("ISO-8859-2", POLISH, "iso-8859-2", "iso-8859-2"),
        ("ISO-8859-2", POLISH, "cp1250", "cp1250"),
        ("Windows-1250", POLISH, "cp1250", "cp1250"),
        ("CP-1252", ENGLISH, "cp1252", "cp1252"),
        ("Codepage 850", "café\n", "cp850", "cp850"),
        ("MacRoman", "café\n", "mac_roman", "mac_roman"),
        ("Big5", "中文書\n", "big5", "big5"),
        ("Martian", ENGLISH, "cp1252", "cp1252"),
    ],
)
def test_declared_encodings(words, text, encoding, found):
    """What is declared is believed unless the bytes contradict it."""
    decoded = decode_book((declared(words) + text).encode(encoding))
    assert decoded.text == declared(words) + text
    assert decoded.encoding == found


def test_the_misspelled_declaration_counts():
    """The headers of 2003 spell it "Chatacter"."""
    text = f"Chatacter set encoding: ISO-8859-2\n{POLISH}"
    assert decode_book(text.encode("iso-8859-2")).text == text


def test_pasted_bytes_of_another_encoding():
    """A few bytes of cp1252 within UTF-8 spoil neither."""
    decoded = decode_book(ENGLISH.encode() + b"caf\xe9 \x93quoted\x94\n")
    assert decoded.text == ENGLISH + "café “quoted”\n"
    assert decoded.encoding == "utf-8"


def test_line_ends_and_the_end_of_a_dos_file():
    """Lines end in a line feed, and the Ctrl-Z of old DOS files goes."""
    assert decode_book(b"a\r\nb\rc\r\r\nd\n\x1a").text == "a\nb\nc\nd\n"


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("He said â€œno.â€\x9d Itâ€™s â€” wellâ€¦", "He said “no.” It’s — well…"),
        ("cafÃ©", "café"),
        ("ZaÅ¼Ã³Å‚Ä‡ gÄ™Å›lÄ… jaÅºÅ„", "Zażółć gęślą jaźń"),
        ("Ã¢â‚¬â„¢twas", "’twas"),
        ("ï»¿The Ã©tude", "\ufeffThe étude"),
        ("aEurooeNo,aEuro\ufffd heaEuro(TM)d said.", "“No,” he’d said."),
    ],
)
def test_wrongly_decoded_text_is_put_right(wrong, right):
    """UTF-8 that was read as cp1252 once or twice, or whose letters were spelled out in ASCII."""
    assert repair_mojibake(wrong)[0] == right


@pytest.mark.parametrize(
    "text",
    [
        "IRMÃ” — disse.",
        "A IRMÃ» do rei, São João",
        "le CAFÉ—là",
        "JA, ÄRGER“",
        "français—— oui",
        "Ã",
        "â€",
        "aEuro, twice aEuro",
        "“Größe” — café",
        "数据Â",
    ],
)
def test_correct_text_is_left_alone(text):
    """Accents before dashes and closing quotes are what they are."""
    assert repair_mojibake(text) == (text, 0)
