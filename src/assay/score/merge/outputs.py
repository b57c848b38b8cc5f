"""Which files a merge writes: each source's own name and folders, below one folder."""

from collections.abc import Sequence
from dataclasses import dataclass

from assay.data.sinks.table import SINKS
from assay.data.storage import is_object_url
from assay.runs.manifest import SourceRecord

MERGE_PATH = "_merge.json"
"""Names the run that a folder of merged files belongs to. Readers of datasets leave out names in `_`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """One file to write."""

    source: int
    """Index of the source in the corpus."""
    path: str
    """Path within the output folder."""


def plan_outputs(records: Sequence[SourceRecord]) -> list[Output]:
    """A path for each source that the run covers: its own below the common folder of all sources.

    Where that would name one file twice, or the sources have no common place, the sources' unique
    names are used instead.
    """
    covered = [index for index, record in enumerate(records) if record.boundaries]
    named = {index: _named_path(records[index]) for index in covered}
    files = {index: records[index].uri.split("/") for index in covered if records[index].format != "text"}
    depth = _common_depth([parts[:-1] for parts in files.values()])
    paths = dict(named)
    # The URL of an object begins with scheme, nothing and bucket: these three at least must agree.
    if depth >= 3 or not any(is_object_url(records[index].uri) for index in files):
        for index, parts in files.items():
            paths[index] = _output_name(records[index], "/".join(parts[depth:]))
    if len(set(paths.values())) < len(paths) or MERGE_PATH in paths.values():
        paths = named
    return [Output(source=index, path=paths[index]) for index in covered]


def _common_depth(folders: Sequence[Sequence[str]]) -> int:
    """How many leading folders are the same for all."""
    depth = 0
    for level in zip(*folders, strict=False):
        if len(set(level)) > 1:
            break
        depth += 1
    return depth


def _named_path(record: SourceRecord) -> str:
    """The unique name of a source with the ending of its output, compression included."""
    file = record.uri.rpartition("/")[2].lower()
    ending = SINKS[record.format].format
    if ending == "csv" and record.delimiter == "\t":
        ending = "tsv"
    codec = next((codec for codec in (".gz", ".zst", ".zstd") if file.endswith(codec)), "")
    return f"{record.name}.{ending}{codec if ending != 'parquet' else ''}"


def _output_name(record: SourceRecord, path: str) -> str:
    return path.removesuffix(".arrow") + ".parquet" if record.format == "arrow" else path
