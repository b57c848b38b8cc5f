"""The formats that can be read."""

from assay.data.formats import arrow, csv, jsonl, npy, parquet, text
from assay.data.formats.format import FileFormat
from assay.data.formats.lines import uncompressed_name

FORMATS: dict[str, FileFormat] = {
    known.name: known
    for known in (parquet.FORMAT, jsonl.FORMAT, csv.FORMAT, arrow.FORMAT, npy.FORMAT, text.FORMAT)
}
"""By name, in the order in which they are shown."""


def format_of(name: str) -> str | None:
    """The format that the ending of a file's name shows; None where it shows none."""
    bare = uncompressed_name(name)
    for known in FORMATS.values():
        if bare.lower().endswith(known.endings) and (bare == name or known.is_compressible):
            return known.name
    return None


def ending_of(name: str, format_: str) -> str:
    """The ending of a file's name that its format accounts for, with that of its compression."""
    bare = uncompressed_name(name)
    ending = next((known for known in FORMATS[format_].endings if bare.lower().endswith(known)), "")
    return name[len(bare) - len(ending) :]


def known_formats() -> str:
    """The formats and their endings, for messages."""
    return ", ".join(f"{known.name} {'/'.join(known.endings)}" for known in FORMATS.values())
