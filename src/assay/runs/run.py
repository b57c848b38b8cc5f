"""A run on its store: create it or join it, list what is published, publish a part."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from assay.data.ids import IdChecksum
from assay.data.row_groups import row_groups
from assay.data.scratch import scratch_file
from assay.data.sources import SOURCE_ROW
from assay.data.storage import PAGE_OBJECTS, FileInfo, Store, is_object_url, open_store, writing
from assay.errors import InputError, RefusedError, SourceError, UnitError
from assay.runs.agenda import Pages
from assay.runs.manifest import MANIFEST_PATH, Manifest, differences, parse_manifest
from assay.runs.plan import Unit

LISTING_THREADS = 16
LISTING_RANGES = 64
"""About as many ranges of a large run's parts are listed, some at once."""
PARTS = "parts/"
SUFFIX = ".parquet"
ID_COLUMNS = ("id", SOURCE_ROW)

FOOTER_RUN_ID = b"assay.run_id"
FOOTER_UNIT = b"assay.unit"
FOOTER_ROWS_IN = b"assay.rows_in"
FOOTER_ROWS_OUT = b"assay.rows_out"
FOOTER_ID_CHECKSUM = b"assay.id_checksum"
FOOTER_STATS = b"assay.stats"


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """What became of a unit."""

    unit: str
    rows_out: int
    """Rows of the part that was made here."""
    created: bool
    """False where another worker had published the same unit first; its part stands."""


class Run:
    """A planned run. Cheap to open; holds no file open."""

    def __init__(self, store: Store, manifest: Manifest) -> None:
        """A run whose manifest has been read from `store`, or was just written there."""
        self.store = store
        self.manifest = manifest

    @property
    def url(self) -> str:
        """Where the run lies."""
        return self.store.url

    @cached_property
    def units(self) -> list[Unit]:
        """All units in source and row order, made once."""
        return self.manifest.units()

    def part_files(self) -> dict[str, FileInfo]:
        """The published parts by unit name, from one listing; in a bucket ranges of it are listed at once."""
        with ThreadPoolExecutor(LISTING_THREADS) as pool:
            listed = pool.map(lambda ends: list(self.list_parts(*ends)), self._ranges())
            return {
                info.path[len(PARTS) : -len(SUFFIX)]: info
                for infos in listed
                for info in infos
                if info.path.endswith(SUFFIX)
            }

    def _ranges(self) -> list[tuple[str | None, str | None]]:
        """Paths between which to list, as `list_parts` takes them; whatever lies in `parts/` is in one of them.

        They are cut by the names that parts will have: a page each, or several where there are many, as a range that
        is empty is a request too.
        """
        if not is_object_url(self.url) or len(self.units) <= PAGE_OBJECTS:
            return [(None, None)]
        units = self.units
        range_units = PAGE_OBJECTS * max(len(units) // (PAGE_OBJECTS * LISTING_RANGES), 1)
        pages = Pages([part_path(unit) for unit in units], range_units)
        return [pages.bounds(page) for page in range(pages.num_pages)]

    def list_parts(self, after: str | None, until: str | None) -> Iterator[FileInfo]:
        """What lies in `parts/` after the path `after` and up to the path `until`, by path; None for either end."""
        return self.store.list(PARTS, after=after, until=until)

    def is_published(self, unit: Unit) -> bool:
        """Whether the unit's part is there."""
        return self.store.info(part_path(unit)) is not None

    def publish(
        self,
        unit: Unit,
        batches: Iterable[pa.RecordBatch],
        *,
        rows_in: Callable[[], int],
        stats: Callable[[], dict[str, Any]] = dict,
        clock: Callable[[], float] = time.time,
    ) -> Published:
        """Write `batches` as the unit's part and publish it, unless someone already has.

        The part is written under a temporary name, synced, and then created at its own name only
        if that name is free: whoever reads `parts/` sees a whole part or none. After the last batch
        `rows_in` is asked how many rows of the unit were read, and `stats` for figures.

        Raises UnitError where the rows do not add up to the unit, and StorageError where the part
        cannot be written; nothing half is left behind in either case.
        """
        with scratch_file(self.store, f"{unit.name[-80:]}.") as temporary:
            with writing(str(temporary)):
                rows_out = self._write_part(temporary, unit, batches, rows_in, stats, clock)
            created = self.store.create(part_path(unit), temporary)
        return Published(unit=unit.name, rows_out=rows_out, created=created)

    def _write_part(
        self,
        path: Path,
        unit: Unit,
        batches: Iterable[pa.RecordBatch],
        rows_in: Callable[[], int],
        stats: Callable[[], dict[str, Any]],
        clock: Callable[[], float],
    ) -> int:
        schema = self.manifest.arrow_schema()
        id_column = next(name for name in ID_COLUMNS if name in schema.names)
        started_at = clock()
        with pq.ParquetWriter(path, schema, **writer_options(schema)) as writer:
            rows_out, checksum = write_rows(writer, batches, schema, lambda table, _: table.column(id_column))
            taken = rows_in()
            made = rows_out if self.manifest.rows_out == "one_each" else unit.num_rows
            if (taken, made) != (unit.num_rows, unit.num_rows):
                msg = (
                    f"unit {unit.name} of {unit.num_rows} rows: {taken} were read and {rows_out} came out; "
                    "its source may have changed; check it and start a new run"
                )
                raise UnitError(msg)
            finished_at = clock()
            figures = {"started_at": started_at, "finished_at": finished_at, **stats()}
            writer.add_key_value_metadata(
                footer_of_part(
                    run_id=self.manifest.run_id,
                    unit=unit.name,
                    rows_in=taken,
                    rows_out=rows_out,
                    id_checksum=checksum,
                    stats=figures,
                )
            )
        return rows_out


def part_path(unit: Unit) -> str:
    """Path of the unit's part within the run."""
    return f"{PARTS}{unit.name}{SUFFIX}"


def writer_options(schema: pa.Schema) -> dict[str, Any]:
    """How parts are written: zstd level 1, dictionaries only where values repeat (labels, codes)."""
    repeating = [name for name in ("prediction", "error") if name in schema.names]
    strings = [name for name in repeating if pa.types.is_string(schema.field(name).type)]
    return {
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": strings or False,
        "write_statistics": True,
        "write_page_checksum": True,
    }


def write_rows(
    writer: pq.ParquetWriter,
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    ids_of: Callable[[pa.Table, int], pa.ChunkedArray | pa.Array],
) -> tuple[int, str]:
    """Write all rows of a part; returns how many they are and the checksum of their ids.

    `ids_of` gives the ids of a table, and is told how many rows came before it.
    """
    checksum = IdChecksum()
    num_rows = 0
    for table in row_groups(pa.Table.from_batches([batch], schema) for batch in batches):
        checksum.update(ids_of(table, num_rows))
        num_rows += table.num_rows
        writer.write_table(table, row_group_size=max(table.num_rows, 1))
    return num_rows, checksum.hexdigest()


def footer_of_part(
    *, run_id: str, unit: str, rows_in: int, rows_out: int, id_checksum: str, stats: Mapping[str, Any]
) -> dict[bytes, bytes]:
    """What the footer of a part says of it."""
    return {
        FOOTER_RUN_ID: run_id.encode(),
        FOOTER_UNIT: unit.encode(),
        FOOTER_ROWS_IN: str(rows_in).encode(),
        FOOTER_ROWS_OUT: str(rows_out).encode(),
        FOOTER_ID_CHECKSUM: id_checksum.encode(),
        FOOTER_STATS: json.dumps(dict(stats)).encode(),
    }


def find_run(url: str) -> Run | None:
    """The run at `url`, or None where there is no run.json."""
    store = open_store(url)
    if store.info(MANIFEST_PATH) is None:
        return None
    manifest = parse_manifest(store.read_bytes(MANIFEST_PATH), f"{store.url}/{MANIFEST_PATH}")
    return Run(store, manifest)


def open_run(url: str) -> Run:
    """The run at `url`; raises SourceError where there is none, RefusedError for an unknown format."""
    run = find_run(url)
    if run is None:
        msg = f"{url} holds no run (no {MANIFEST_PATH}); give the directory that was named with --run"
        raise SourceError(msg)
    return run


def create_or_join(url: str, manifest: Manifest) -> tuple[Run, bool]:
    """The run at `url`, created from `manifest` or joined if it is the same; and whether it is new.

    Two drivers may call this at once: one creates, the other joins. Raises RefusedError naming what
    changed where `url` holds a run with another id, and where parts lie there without a run.json; InputError where
    the store cannot tell the first of two that publish one part.
    """
    store = open_store(url)
    content = manifest.model_dump_json(indent=1).encode()
    if store.info(MANIFEST_PATH) is None:
        if next(iter(store.list(PARTS)), None) is not None:
            msg = (
                f"{store.url} has parts but no {MANIFEST_PATH}; which run they belong to is unknown; "
                "use another --run"
            )
            raise RefusedError(msg)
        if store.create(MANIFEST_PATH, content):
            _refuse_without_conditional_writes(store, content)
            return Run(store, manifest), True
    run = open_run(url)
    refuse_if_changed(run.manifest, manifest, store.url)
    return run, False


def plan_again(run: Run, manifest: Manifest) -> bool:
    """Give a run without parts another manifest; False where it has parts, which stay what they are.

    Drivers that do this at once must give it the same: the later one replaces the earlier one's.
    """
    if next(run.list_parts(None, None), None) is not None:
        return False
    run.store.replace(MANIFEST_PATH, manifest.model_dump_json(indent=1).encode())
    return True


def _refuse_without_conditional_writes(store: Store, content: bytes) -> None:
    """Create run.json a second time: a store that lets this happen would let it happen to parts."""
    if is_object_url(store.url) and store.create(MANIFEST_PATH, content):
        from assay.data.object_store import no_conditional_writes

        store.delete(MANIFEST_PATH)
        raise InputError(no_conditional_writes(store.url))


def refuse_if_changed(old: Manifest, new: Manifest, where: str) -> None:
    """Raise RefusedError naming what differs between the run at `where` and what is asked for now."""
    if old.run_id == new.run_id:
        return
    msg = f"{where} holds another run: {shown_differences(old, new)}; put it back as it was, or use another --run"
    raise RefusedError(msg)


def shown_differences(old: Manifest, new: Manifest) -> str:
    """What differs between two plans, for a message: `seed was 0, now 2; ...`, the first three."""
    changed = differences(old, new) or ["something that this Assay does not know"]
    return "; ".join(changed[:3]) + (f"; and {len(changed) - 3} more" if len(changed) > 3 else "")
