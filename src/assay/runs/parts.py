"""Parts read back: what shows that one is damaged, what to say then, and how to take it out of the run."""

import contextlib
import itertools
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from assay.data.columns import value_type
from assay.data.storage import FileInfo
from assay.errors import DamagedPartError
from assay.runs.plan import Unit
from assay.runs.run import (
    FOOTER_ROWS_IN,
    FOOTER_RUN_ID,
    FOOTER_STATS,
    FOOTER_UNIT,
    PARTS,
    SUFFIX,
    Run,
    part_path,
)

DAMAGED = "damaged/"
"""Where parts go that are taken out, within the run."""
FOOTERS_READ = 1_000
"""Parts whose footers a quick look reads, the newest: a crash damages what was written last."""
BYTES_READ = 64 << 20
"""A quick look reads a run's parts whole where they are no larger than this together."""
NUM_THREADS = 8


def way_out(run: Run) -> str:
    """How a bad part is made again; to follow what is wrong with it."""
    return f"take it out with `assay verify {run.url} --repair`, then run the same command as before to make it again"


@contextlib.contextmanager
def open_part(run: Run, unit: Unit, *, read_dictionary: Sequence[str] = ()) -> Iterator[pq.ParquetFile]:
    """The part of a unit, its page checksums verified as it is read.

    Within, what does not decode raises DamagedPartError; an OSError of the system (no permission, a disk
    or a network that fails) stays one: it says nothing about the part.
    """
    path = part_path(unit)
    try:
        with (
            run.store.open_input(path) as handle,
            pq.ParquetFile(
                handle, read_dictionary=list(read_dictionary), page_checksum_verification=True
            ) as file,
        ):
            yield file
    except (pa.ArrowException, KeyError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = " ".join(str(error).split())[:200]
        msg = f"{path} cannot be read ({reason}); {way_out(run)}"
        raise DamagedPartError(msg) from error


def stats_of(file: pq.ParquetFile) -> dict[str, Any]:
    """The figures that a part's worker left in its footer; {} where it left none."""
    stats = json.loads((file.metadata.metadata or {}).get(FOOTER_STATS, b"{}"))
    return stats if isinstance(stats, dict) else {}


def published_stats(run: Run) -> Iterator[dict[str, Any]]:
    """The figures of each published part, in the order of the units."""
    for unit, _ in published_parts(run):
        with open_part(run, unit) as file:
            stats = stats_of(file)
        yield stats


def footer_problem(run: Run, unit: Unit, file: pq.ParquetFile) -> str | None:
    """What shows, before any row is read, that this is not part of the unit; to follow its path."""
    footer = file.metadata.metadata or {}
    wanted = {FOOTER_RUN_ID: run.manifest.run_id, FOOTER_UNIT: unit.name, FOOTER_ROWS_IN: str(unit.num_rows)}
    for key, value in wanted.items():
        seen = footer.get(key, b"").decode("utf-8", "replace")
        if seen != value:
            return f": {key.decode()} is {seen!r}, not {value!r}"
    if not _decoded(file.schema_arrow).equals(_decoded(run.manifest.arrow_schema())):
        return " has another schema than the run"
    return None


def _decoded(schema: pa.Schema) -> pa.Schema:
    """The schema whether or not a reader asked for dictionaries."""
    return pa.schema([field.with_type(value_type(field.type)) for field in schema])


def published_parts(run: Run) -> list[tuple[Unit, FileInfo]]:
    """The units that have a part, in order, from one listing."""
    found = run.part_files()
    return [(unit, found[unit.name]) for unit in run.units if unit.name in found]


def find_obstacles(run: Run) -> list[str]:
    """What lies where a part belongs and is not a file, a sentence each with the way out; from one listing."""
    found = run.store.obstacles(PARTS)
    return [found[path] for path in map(part_path, run.units) if path in found] if found else []


def find_damaged(run: Run, parts: Sequence[tuple[Unit, FileInfo]]) -> dict[str, str]:
    """What a quick look finds wrong, by path: a sentence with the way out. Not a proof; `verify` is.

    Reads the footers of the newest thousand parts and, where all are small, their pages too.
    """
    newest = sorted(parts, key=lambda part: part[1].modified, reverse=True)[:FOOTERS_READ]
    whole = sum(info.size_bytes for _, info in parts) <= BYTES_READ
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        found = pool.map(lambda part: _look_at(run, part[0], whole=whole), newest)
        return {part_path(unit): problem for (unit, _), problem in zip(newest, found, strict=True) if problem}


def _look_at(run: Run, unit: Unit, *, whole: bool) -> str | None:
    try:
        with open_part(run, unit) as file:
            problem = footer_problem(run, unit, file)
            for _ in file.iter_batches(use_threads=False) if whole else ():
                pass
    except DamagedPartError as error:
        return str(error)
    return f"{part_path(unit)}{problem}; {way_out(run)}" if problem else None


def take_out(run: Run, path: str) -> str:
    """Move a bad part out of `parts/`, so that it is made again; returns where it is kept."""
    stem = path.rpartition("/")[2].removesuffix(SUFFIX)
    content = run.store.read_bytes(path)
    for number in itertools.count(1):
        kept = f"{DAMAGED}{stem}{f'.{number}' if number > 1 else ''}{SUFFIX}"
        if run.store.create(kept, content):
            run.store.delete(path)
            return kept
    raise AssertionError
