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


def flaw_of(text: str, *, min_chars: int, min_letters: float) -> Flaw | None:
    """Why a text is not worth keeping: it is short, or a table, a list of chapters, a row of stars."""
    if len(text) < min_chars:
        return "too_short"
    num_letters = len(_plain(text).translate(None, _DIGITS).decode())
    num_visible = sum(map(len, text.split()))
    return "few_letters" if num_letters < min_letters * num_visible else None


def hash_of(text: str) -> int:
    """64 bits, signed, of the letters and digits in lower case; other characters change nothing."""
    digest = hashlib.blake2b(_plain(text), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _plain(text: str) -> bytes:
    """Letters and digits in lower case, as UTF-8."""
    content = text.lower().encode("utf-8", "replace").translate(None, _ASCII_NO_WORD)
    # Most texts are nearly done; only marks beyond ASCII are left.
    return content if content.isascii() else _NO_WORD.sub("", content.decode()).encode()
