"""[pure] Folders and files after author and title."""

import hashlib
import re
import unicodedata

MOST_AUTHOR_BYTES = 80
MOST_TITLE_BYTES = 120
_PLAIN = str.maketrans(
    {"ł": "l", "ø": "o", "đ": "d", "æ": "ae", "œ": "oe", "ð": "d", "þ": "th", "\u0131": "i"}
)


def slug(text: str | None, *, most_bytes: int, without: str) -> str:
    """A text as a file name: lower case, accents off, words joined by `_`; `without` where nothing is left.

    Letters of other scripts stay. A long name is cut and ends in a part of its hash, so that two long names
    that begin alike stay two.
    """
    folded = unicodedata.normalize("NFKD", (text or "").casefold()).translate(_PLAIN)
    bare = "".join(each for each in folded if not unicodedata.combining(each))
    words = re.findall(r"[^\W_]+", re.sub(r"['\u2019]", "", unicodedata.normalize("NFC", bare)))
    name = "_".join(words)
    if not name:
        return without
    if len(name.encode()) <= most_bytes:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    cut = name.encode()[: most_bytes - len(digest) - 1].decode(errors="ignore").rstrip("_")
    return f"{cut}_{digest}"


def author_slug(author: str | None) -> str:
    """The folder of an author."""
    return slug(author, most_bytes=MOST_AUTHOR_BYTES, without="unknown")


def title_slug(title: str | None) -> str:
    """The file name of a title, without its ending."""
    return slug(title, most_bytes=MOST_TITLE_BYTES, without="untitled")


def text_paths(author: str, title: str, key: str) -> tuple[str, str]:
    """Where a text goes, and where it goes when another book has that name: `emma.txt`, `emma__pg158.txt`."""
    return f"texts/{author}/{title}.txt", f"texts/{author}/{title}__{key}.txt"


def book_key(gutenberg_id: int | None, url: str) -> str:
    """What a book is known by in its folder: its number, or a hash of its address."""
    return (
        f"pg{gutenberg_id}"
        if gutenberg_id is not None
        else "u" + hashlib.sha256(url.encode()).hexdigest()[:12]
    )
