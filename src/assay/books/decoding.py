"""[pure] Bytes of a book to text: byte order marks, declared encodings that lie, text that was decoded wrongly.

UTF-8 is tried first, whatever the file declares: bytes of another encoding are almost never valid UTF-8. Then
what the header declares, unless the bytes contradict it; then cp1252, of which Latin-1 texts are a part.
"""

import re
from dataclasses import dataclass

_BYTE_ORDER_MARKS = (
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe\x00\x00", "utf-32-le"),
    (b"\x00\x00\xfe\xff", "utf-32-be"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)
# "Chatacter" is how a whole year of headers spells it.
_DECLARED = re.compile(rb"Cha[rt]acter set encoding:[ \t]*([^\r\n]{1,40})", re.IGNORECASE)
_HEADER_BYTES = 30_000

_ENCODINGS = (
    (re.compile(r"8859[-_ ]?2|latin[- ]?2", re.IGNORECASE), "iso-8859-2"),
    (re.compile(r"8859[-_ ]?7", re.IGNORECASE), "iso-8859-7"),
    (re.compile(r"8859[-_ ]?15|latin[- ]?9", re.IGNORECASE), "iso-8859-15"),
    (re.compile(r"125[02]", re.IGNORECASE), None),  # named by its own number, below
    (re.compile(r"8859|latin|ascii|utf|unicode", re.IGNORECASE), "cp1252"),
    (re.compile(r"mac", re.IGNORECASE), "mac_roman"),
    (re.compile(r"\b(?:cp|code ?page|ibm)[- ]?(437|850)", re.IGNORECASE), "cp"),
    (re.compile(r"big-?5", re.IGNORECASE), "big5"),
    (re.compile(r"shift.?jis|sjis", re.IGNORECASE), "shift_jis"),
    (re.compile(r"euc.?jp", re.IGNORECASE), "euc_jp"),
    (re.compile(r"gb2312|gbk|gb18030", re.IGNORECASE), "gb18030"),
)
_LATIN_2_CONTROLS = re.compile(rb"[\x80-\x9f]")
_VALID_SEQUENCE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_HIGH_BYTE = re.compile(rb"[\x80-\xff]")

# What a continuation byte of UTF-8 becomes when it is read as cp1252 (or, where that has no character, Latin-1).
_CONTINUATIONS = "".join(
    dict.fromkeys(
        bytes([byte]).decode(encoding, "ignore")
        for byte in range(0x80, 0xC0)
        for encoding in ("cp1252", "latin-1")
    )
)
_MOJIBAKE = re.compile(
    f"[\u00c2-\u00c6\u00cb\u00ce-\u00d1][{_CONTINUATIONS}]|[\u00e0-\u00ef][{_CONTINUATIONS}]{{2}}|[\u00f0-\u00f4][{_CONTINUATIONS}]{{3}}"
)
_TELLTALES = ("\u00e2\u20ac", *"\u00c3\u00c2\u00c4\u00c5\u00ce\u00cf\u00d0\u00d1")
"""One of these is in every European text that was read as cp1252: found at the speed of memory, before any pattern."""
_LEADS = re.compile("[\u00c2-\u00f4]")
_QUOTES = "\u00e2\u20ac"
"""How every curly quote and dash begins once it has been read as cp1252: nothing else does."""
_CLOSERS = frozenset("\u2018\u2019\u201a\u201c\u201d\u201e\u2013\u2014\u2026\u2039\u203a\u00ab\u00bb")
"""What may well stand behind a letter: `IRM\u00c3\u00bb`, `fran\u00e7\u2014\u2014`."""
_LEAST_SHARE = 0.8
"""Of the characters that begin a wrongly decoded one, how many must do so before any is repaired."""
_LEAST_PLAIN_SHARE = 0.2
"""Of the wrongly decoded ones, how many must be of a kind that correct text does not have."""

# The same, after the text was reduced to ASCII: the euro sign spelled out, the trademark sign in brackets.
_FOLDED_SIGN = "aEuro"
_LEAST_FOLDED = 3
_FOLDED = re.compile(r'aEuro\(TM\)|aEurooe|aEuro\ufffd|aEuro~|aEuro"|aEuro\||A\(C\)|A\(R\)')
_UNFOLDED = {
    "aEuro(TM)": "\u2019",
    "aEurooe": "\u201c",
    "aEuro\ufffd": "\u201d",
    "aEuro~": "\u2018",
    'aEuro"': "\u2014",
    "aEuro|": "\u2026",
    "A(C)": "\u00e9",
    "A(R)": "\u00ee",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """A book as text."""

    text: str
    """With `\\n` as its line ends, without a byte order mark."""
    encoding: str
    """What the bytes turned out to be, as Python names it."""
    num_repaired: int
    """Characters that had been decoded wrongly once, and were put right."""


def decode_book(content: bytes) -> Decoded:
    """The text of a book's bytes. Never fails: a byte that no rule explains becomes the character of its number."""
    text, encoding = _decode(content)
    text, num_repaired = repair_mojibake(text)
    if "\r" in text:
        text = _with_line_feeds(text)
    return Decoded(text=text.rstrip("\x1a"), encoding=encoding, num_repaired=num_repaired)


def _with_line_feeds(text: str) -> str:
    """The text with a line feed for every line end."""
    if text.count("\r") == text.count("\r\n"):  # as nearly all have it, and twice as fast
        return text.replace("\r", "")
    return text.replace("\r\r\n", "\n").replace("\r\n", "\n").replace("\r", "\n")


def repair_mojibake(text: str) -> tuple[str, int]:
    """The text with UTF-8 that was once read as cp1252 put right, as often as it was; and how many characters.

    Curly quotes and dashes are repaired wherever they are found. The others only where nearly all accented
    letters of the text are of this kind: a Portuguese `IRMÃ»` is not `IRMû`.
    """
    num_repaired = 0
    if text.count(_FOLDED_SIGN) >= _LEAST_FOLDED:
        text, num_repaired = _FOLDED.subn(lambda match: _UNFOLDED[match.group()], text)
    while not text.isascii() and any(telltale[-1] in text and telltale in text for telltale in _TELLTALES):
        repaired, number = _repair_once(text)
        if not number:
            break
        text, num_repaired = repaired, num_repaired + number
    return text, num_repaired


def _decode(content: bytes) -> tuple[str, str]:
    for mark, encoding in _BYTE_ORDER_MARKS:
        if content.startswith(mark):
            try:
                return content[len(mark) :].decode(encoding), encoding
            except UnicodeDecodeError:
                if encoding == "utf-8":
                    content = content[len(mark) :]
                break
    if content.isascii():
        return content.decode("ascii"), "ascii"
    try:
        return content.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        pass
    if _is_mostly_utf8(content):
        return _decode_mixed(content), "utf-8"
    for encoding in _candidates(content):
        try:
            return content.decode(encoding), encoding
        except UnicodeDecodeError:
            continue
    return _decode_single_bytes(content), "cp1252"


def _candidates(content: bytes) -> list[str]:
    """The encoding that a text declares, unless its bytes show that it lies."""
    match = _DECLARED.search(content, 0, _HEADER_BYTES)
    if match is None:
        return []
    declared = match.group(1).decode("ascii", "ignore")
    for pattern, encoding in _ENCODINGS:
        found = pattern.search(declared)
        if found is None:
            continue
        if encoding is None or encoding == "cp":
            return [f"cp{re.sub('[^0-9]', '', found.group())}"]
        if encoding == "iso-8859-2" and _LATIN_2_CONTROLS.search(content):
            return ["cp1250"]  # ISO 8859-2 has only control characters there
        return [encoding]
    return []


def _is_mostly_utf8(content: bytes) -> bool:
    """Whether a few bytes of another encoding were pasted into UTF-8."""
    rest, num_valid = _VALID_SEQUENCE.subn(b"", content)
    return num_valid > 4 * len(_HIGH_BYTE.findall(rest))


def _decode_mixed(content: bytes) -> str:
    pieces = []
    place = 0
    for match in _VALID_SEQUENCE.finditer(content):
        pieces += [
            _decode_single_bytes(content[place : match.start()]),
            match.group().decode("utf-8", "replace"),
        ]
        place = match.end()
    return "".join([*pieces, _decode_single_bytes(content[place:])])


def _decode_single_bytes(content: bytes) -> str:
    """Read as cp1252; its five unused bytes as Latin-1."""
    text = content.decode("cp1252", "surrogateescape")
    if text.isascii():
        return text
    return "".join(chr(ord(char) - 0xDC00) if 0xDC80 <= ord(char) <= 0xDCFF else char for char in text)


def _repair_once(text: str) -> tuple[str, int]:
    sequences = _MOJIBAKE.findall(text)
    if not sequences:
        return text, 0
    repairs = {sequence: _repaired(sequence) for sequence in set(sequences)}
    valid = [sequence for sequence in sequences if repairs[sequence] is not None]
    num_plain = sum(not _CLOSERS.issuperset(sequence[1:]) for sequence in valid)
    if len(valid) < _LEAST_SHARE * len(_LEADS.findall(text)) or num_plain < _LEAST_PLAIN_SHARE * len(valid):
        repairs = {
            sequence: good if sequence.startswith(_QUOTES) else None for sequence, good in repairs.items()
        }
    number = 0

    def repair(match: re.Match[str]) -> str:
        nonlocal number
        good = repairs[match.group()]
        number += good is not None
        return match.group() if good is None else good

    return _MOJIBAKE.sub(repair, text), number


def _repaired(sequence: str) -> str | None:
    content = bytearray()
    for char in sequence:
        try:
            content += char.encode("cp1252")
        except UnicodeEncodeError:
            content.append(ord(char))
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return None
