"""[pure] Which chunks are worth keeping, and the hash by which equal ones are known."""

import hashlib
import re
from typing import Literal, get_args

Flaw = Literal["too_short", "few_letters", "other_language"]
"""Why a chunk is dropped."""
FLAWS: tuple[Flaw, ...] = get_args(Flaw)

_NO_WORD = re.compile(r"[\W_]+")
_ASCII_NO_WORD = bytes(code for code in range(128) if not chr(code).isalnum())
_DIGITS = b"0123456789"
_NO_ASCII_LETTER = bytes(code for code in range(256) if not (code < 128 and chr(code).isalpha()))


def flaw_of(text: str, *, min_chars: int, min_letters: float, num_ascii: int | None = None) -> Flaw | None:
    """Why a text is not worth keeping: it is short, or a table, a list of chapters, a row of stars.

    `num_ascii`: letters of ASCII in it once it is in lower case, where they are counted already.
    """
    if len(text) < min_chars:
        return "too_short"
    if num_ascii is None:
        num_ascii = num_ascii_letters(letters_and_digits(text))
    # They alone are nearly always enough, and counted ten times faster.
    if num_ascii >= min_letters * len(text):
        return None
    num_letters = len(letters_and_digits(text).translate(None, _DIGITS).decode())
    num_visible = sum(map(len, text.split()))
    return "few_letters" if num_letters < min_letters * num_visible else None


def hash_of(text: str) -> int:
    """64 bits, signed, of the letters and digits in lower case; other characters change nothing."""
    return hash_of_letters(letters_and_digits(text))


def hash_of_letters(content: bytes) -> int:
    """`hash_of` the text that has these letters and digits."""
    digest = hashlib.blake2b(content, digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def letters_and_digits(text: str, *, has_marks: bool = True) -> bytes:
    """Those of a text in lower case, as UTF-8; `has_marks`: beyond ASCII it may hold anything else too."""
    content = text.lower().encode("utf-8", "replace").translate(None, _ASCII_NO_WORD)
    # Most texts are done; only marks beyond ASCII are left.
    if not has_marks or content.isascii() or content.decode().isalnum():
        return content
    return _NO_WORD.sub("", content.decode()).encode()


def num_ascii_letters(content: bytes) -> int:
    """How many of them are letters of ASCII."""
    return len(content.translate(None, _NO_ASCII_LETTER))
