"""A file, or standard input, to the text in it; what is not text is refused."""

import sys
from pathlib import Path

from assay.compare.settings import STANDARD_INPUT
from assay.errors import InputError, SourceError


def read_text(path: str) -> str:
    """The text in a file, or on standard input for `-`, without its byte order mark.

    Raises SourceError for a file that cannot be read, InputError for one that holds no text in UTF-8.
    """
    name = name_of(path)
    content = _read(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name}: byte {content[error.start]:#04x} at {error.start:,} is not UTF-8; convert it, as with"
            " iconv -f latin1 -t utf-8"
        ) from None
    if not text.strip():
        raise InputError(f"{name}: no text; two texts are compared; give one with words")
    if "\0" in text:
        raise InputError(f"{name}: NUL characters; it is not a text; give a file of plain text")
    return text


def name_of(path: str) -> str:
    """What messages call it."""
    return "standard input" if path == STANDARD_INPUT else path


def are_same_file(first: str, second: str) -> bool:
    """Whether two paths lead to one file."""
    return STANDARD_INPUT not in (first, second) and Path(first).samefile(second)


def _read(path: str) -> bytes:
    if path == STANDARD_INPUT:
        return sys.stdin.buffer.read()
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise SourceError(
            f"{path} does not exist; name a file of plain text, or - for standard input"
        ) from None
    except IsADirectoryError:
        raise SourceError(f"{path} is a folder; name a file of plain text in it") from None
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}; name a file that can be read") from None
