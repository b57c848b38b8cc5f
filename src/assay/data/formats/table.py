"""The formats that can be read."""

from assay.data.formats import arrow, csv, jsonl, parquet, text
from assay.data.formats.format import FileFormat
from assay.data.formats.lines import compression_of

FORMATS: dict[str, FileFormat] = {
    known.name: known for known in (parquet.FORMAT, jsonl.FORMAT, csv.FORMAT, arrow.FORMAT, text.FORMAT)
}
"""By name, in the order in which they are shown."""


def format_of(name: str) -> str | None:
    """The format that the ending of a file's name shows; None where it shows none."""
    lowered = name.lower()
    compressed = compression_of(lowered) is not None
    bare = lowered.rpartition(".")[0] if compressed else lowered
    for known in FORMATS.values():
        if bare.endswith(known.endings) and (not compressed or known.is_compressible):
            return known.name
    return None


def ending_of(name: str, format_: str) -> str:
    """The ending of a file's name that its format accounts for, with that of its compression."""
    bare = name.rpartition(".")[0] if compression_of(name.lower()) else name
    ending = next((known for known in FORMATS[format_].endings if bare.lower().endswith(known)), "")
    return name[len(bare) - len(ending) :]


def known_formats() -> str:
    """The formats and their endings, for messages."""
    return ", ".join(f"{known.name} {'/'.join(known.endings)}" for known in FORMATS.values())
