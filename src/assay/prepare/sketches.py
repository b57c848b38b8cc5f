"""Passages of a text by which copies are known, whatever chunks, line breaks, case and marks they have. Pure.

Letters and digits of a text lie end to end; at about one place in 512, chosen by what stands there, a window
of 48 bytes (some nine words) is hashed. Two texts that share a passage of a page choose the same windows in
it (Manber, Finding Similar Files in a Large File System, 1994; Schleimer, Wilkerson, Aiken, Winnowing, 2003).
"""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

GRAM = 8
WINDOW = 48
SAMPLED_BITS = 9
"""One place in 2 ** 9 is chosen."""
Hashes = NDArray[np.uint64]

_ODD = np.uint64(0x9E3779B97F4A7C15)
_OTHER_ODD = np.uint64(0xC2B2AE3D27D4EB4F)
_MARKS = bytes(byte for byte in range(128) if not chr(byte).isalnum())
_PUNCTUATION = re.compile(rb"\xe2[\x80\x81].|\xc2[\xa0-\xbf]", re.DOTALL)
"""General punctuation and the marks of Latin-1, in UTF-8."""


def letters_of(text: str) -> bytes:
    """Letters and digits of a text in lower case, as UTF-8 without what stands between."""
    content = text.lower().encode("utf-8", "replace").translate(None, _MARKS)
    # Of a text in its normal form no such mark is left, and to look for two bytes is far cheaper.
    return _PUNCTUATION.sub(b"", content) if b"\xe2" in content or b"\xc2" in content else content


def text_hash(text: str) -> int:
    """A hash of the letters of a text that fits an int64; the same on every machine."""
    import hashlib

    return int.from_bytes(hashlib.blake2b(letters_of(text), digest_size=8).digest(), "little", signed=True)


def passages(text: str) -> Hashes:
    """The hashes of the passages that are chosen of a text, sorted, each once."""
    letters = letters_of(text)
    num_places = len(letters) - WINDOW + 1
    if num_places < 1:
        return np.zeros(0, dtype=np.uint64)
    grams: NDArray[Any] = np.ndarray((len(letters) - GRAM + 1,), dtype="<u8", buffer=letters, strides=(1,))
    mixed = grams[:num_places] * _ODD
    places = np.flatnonzero((mixed >> np.uint64(64 - SAMPLED_BITS)) == 0)
    hashes = np.zeros(len(places), dtype=np.uint64)
    for step in range(0, WINDOW, GRAM):
        hashes = (hashes ^ grams[places + step]) * _OTHER_ODD
        hashes ^= hashes >> np.uint64(29)
    return np.unique(hashes)
