"""What a file holds by its first bytes, whatever it is called."""

import contextlib
import re
from typing import Literal

Codec = Literal["gzip", "zstd"]

HEAD_BYTES = 512
"""As many as are looked at."""

_CODECS: tuple[tuple[re.Pattern[bytes], Codec], ...] = (
    (re.compile(rb"\x1f\x8b\x08"), "gzip"),
    # A frame, or one to be skipped.
    (re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"), "zstd"),
)
_ENCODINGS = (
    # UTF-32 first: its mark in little-endian begins with that of UTF-16.
    (re.compile(rb"\xff\xfe\x00\x00|\x00\x00\xfe\xff"), "utf-32"),
    (re.compile(rb"\xff\xfe|\xfe\xff"), "utf-16"),
)
# Only bytes that no text begins with, so that a CSV file whose first column is "ORC" is one.
_NO_TEXT = (
    (re.compile(rb"PAR1[\x00-\x1f\x80-\xff]"), "Parquet"),
    (re.compile(rb"ARROW1\x00\x00|\xff\xff\xff\xff"), "Arrow"),
    (re.compile(rb"PK(\x03\x04|\x05\x06)"), "a zip archive"),
    (re.compile(rb"BZh[1-9](1AY&SY|\x17\x72\x45\x38)"), "bzip2"),
    (re.compile(rb"\xfd7zXZ\x00"), "xz"),
    (re.compile(rb"\x04\x22\x4d\x18"), "lz4"),
    (re.compile(rb"Obj\x01"), "Avro"),
    (re.compile(rb"ORC[\x00-\x08]"), "ORC"),
    (re.compile(rb"SQLite format 3\x00"), "an SQLite database"),
    (re.compile(rb"\x89HDF\r\n"), "HDF5"),
    (re.compile(rb".{257}ustar", re.DOTALL), "a tar archive"),
    (re.compile(rb"([^\x00]\x00){2}|(\x00[^\x00]){2}"), "UTF-16 without a byte order mark"),
)


_MARK_UP = re.compile(rb"\s*<(!DOCTYPE|html|\?xml|svg|rss)\b", re.IGNORECASE)
_JSON = re.compile(rb"\s*[\[{][\s\[{]*\"")
_JSON_LINE = re.compile(rb"\s*\{[^\S\r\n]*\"")
_MARK = b"\xef\xbb\xbf"
_READ_AS = {"Parquet": "parquet", "Arrow": "arrow"}


def codec_of(head: bytes) -> Codec | None:
    """The compression of what begins with `head`; None where it is none of those that are read."""
    return next((codec for pattern, codec in _CODECS if pattern.match(head)), None)


def encoding_of(head: bytes) -> str | None:
    """The encoding that a byte order mark at the beginning names, where it is not UTF-8; else None."""
    return next((encoding for pattern, encoding in _ENCODINGS if pattern.match(head)), None)


def other_than_text(head: bytes) -> str | None:
    """What begins with `head`, in words, where it is not text; None where it may be text."""
    codec = codec_of(head)
    return codec or next((name for pattern, name in _NO_TEXT if pattern.match(head)), None)


def other_than_table(head: bytes) -> str | None:
    """What begins with `head`, in words, where it is text that is JSON or mark-up; else None."""
    head = head.removeprefix(_MARK)
    return "JSON" if _JSON.match(head) else "HTML or XML" if _MARK_UP.match(head) else None


def other_than(name: str, head: bytes) -> str | None:
    """What begins with `head`, in words, where it is not `name` ("Parquet", "Arrow"); None where that is not seen."""
    found = other_than_text(head) or other_than_table(head)
    if found is None and head:
        with contextlib.suppress(UnicodeDecodeError):
            head[:-3].decode()  # the last character may be cut
            found = "text"
    return None if found == name else found


def way_out_of(found: str, head: bytes = b"") -> str:
    """What to do with a file that was found to be something else than its name says."""
    if found in _READ_AS:
        return f"set --format {_READ_AS[found]}, or rename it"
    if found == "JSON":
        is_line = _JSON_LINE.match(head.removeprefix(_MARK))
        return "set --format jsonl, or rename it" if is_line else "write one object a line (jq -c '.[]' does)"
    if found == "HTML or XML":
        return "write the table in it as CSV or Parquet"
    if found == "text":
        return "set --format csv or jsonl, or rename it"
    return "write it as Parquet, or as text in UTF-8"
