"""[pure] Which chunks are worth keeping, and the hash by which equal ones are known."""

import hashlib
import re
from typing import Literal, get_args

Flaw = Literal["too_short", "few_letters", "other_language"]
"""Why a chunk is dropped."""
FLAWS: tuple[Flaw, ...] = get_args(Flaw)

_NO_WORD = re.compile(r"[\W_]+")
_NO_LETTER = re.compile(r"[\W\d_]+")
_SPACE = re.compile(r"\s+")


def flaw_of(text: str, *, min_chars: int, min_letters: float) -> Flaw | None:
    """Why a text is not worth keeping: it is short, or a table, a list of chapters, a row of stars."""
    if len(text) < min_chars:
        return "too_short"
    num_letters = len(_NO_LETTER.sub("", text))
    num_visible = len(_SPACE.sub("", text))
    return "few_letters" if num_letters < min_letters * num_visible else None


def hash_of(text: str) -> int:
    """64 bits, signed, of the letters and digits in lower case: texts that differ by these alone are equal."""
    plain = _NO_WORD.sub("", text.lower())
    digest = hashlib.blake2b(plain.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
