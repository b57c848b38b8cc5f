"""The sample that an estimate is made from: slices from all over the sources, read, and run for real.

    lengths   64 slices are read and tokenized here
    time      others are scored by the workers of a real run of them, whose parts say how long each took

The first slice of a worker is not timed: it warms the device up.
"""

import random
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

from assay.bundle.bundle import Bundle
from assay.data.reading import RowReader
from assay.errors import DamagedPartError
from assay.runs.drive import drive_workers
from assay.runs.driver import Outcome
from assay.runs.manifest import Manifest
from assay.runs.parts import open_part, published_parts, stats_of
from assay.runs.placement import Placement
from assay.runs.plan import Unit
from assay.runs.run import Run
from assay.runs.settings import RunSettings
from assay.score.bundles import read_chunks
from assay.score.estimate.intervals import FEWEST_SLICES, Slice
from assay.score.kind import SCORE
from assay.telemetry import Progress
from assay.tokenize.chunks import read_unit

LENGTH_SLICES = 64
LENGTH_ROWS = 256
TIMED_SLICES = 32
"""Besides the first of each worker."""
FEWEST_ROWS = 32
"""Of a slice that is timed."""
FOOTERS_READ = 2_000
"""Of a run that a rate is taken from, the newest."""
LONGEST_WAIT_SECONDS = 5.0
"""Between two parts of a worker; it had nothing to do for the rest."""
NUM_THREADS = 8


def draw_lengths(manifest: Manifest, chance: random.Random) -> list[Unit]:
    """The slices whose lengths are looked at."""
    return draw(manifest, LENGTH_SLICES, LENGTH_ROWS, chance)


def draw_timed(
    manifest: Manifest, num_workers: int, num_documents: int | None, chance: random.Random
) -> list[Unit]:
    """The slices that are scored, in random order: of `num_documents` in all, or of about a unit for each worker.

    A slice has `FEWEST_ROWS` where the sources have them; for fewer documents there are fewer slices, down to
    `FEWEST_SLICES` besides the first of each worker.
    """
    most = TIMED_SLICES + num_workers
    if num_documents is None:
        sizes = sorted(unit.num_rows for unit in manifest.units())
        num_documents = sizes[len(sizes) // 2] * num_workers
    else:
        most = min(most, max(num_documents // FEWEST_ROWS, FEWEST_SLICES + num_workers))
    count = max(min(most, manifest.planned_rows // FEWEST_ROWS), 1)
    units = draw(manifest, count, max(num_documents // count, FEWEST_ROWS), chance)
    chance.shuffle(units)
    return units


def draw(manifest: Manifest, count: int, num_rows: int, chance: random.Random) -> list[Unit]:
    """Up to `count` slices of `num_rows` rows, one from each of as many equal stretches of the rows of all sources.

    A slice lies within one source: where it would go over the end it begins earlier, and where the source is too
    short for it, it is that.
    """
    ends: list[int] = []
    for record in manifest.sources:
        ends.append((ends[-1] if ends else 0) + record.planned_rows)
    total = ends[-1] if ends else 0
    count = min(count, total)
    drawn = []
    for begin, end in pairwise(total * k // max(count, 1) for k in range(count + 1)):
        length = min(num_rows, end - begin)
        first = chance.randrange(begin, end - length + 1)
        source = bisect_right(ends, first)
        record = manifest.sources[source]
        offset = ends[source] - record.planned_rows
        start = max(min(first - offset, record.planned_rows - length), 0)
        stop = min(start + length, record.planned_rows)
        drawn.append(Unit(source=source, source_name=record.name, start=start, stop=stop))
    return drawn


def read_lengths(manifest: Manifest, bundle: Bundle, units: Iterable[Unit]) -> list[Slice]:
    """The slices, tokenized as the run would, without their times."""
    identity, _ = manifest.read(SCORE)
    read = read_chunks(bundle, identity)
    found = []
    with RowReader(manifest.source_columns()) as reader:
        for unit in units:
            tokens = sum(
                int(chunk.row_tokens.sum()) for chunk in read(read_unit(manifest, reader, unit), None)
            )
            found.append(Slice(num_rows=unit.num_rows, num_tokens=tokens))
    return found


def time_slices(
    manifest: Manifest,
    units: Sequence[Unit],
    placement: Placement,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    on_message: Callable[[str], None] | None = None,
) -> tuple[list[Slice], Outcome]:
    """Score the slices as a run of their own that is then thrown away; raises as a run does."""
    records = [
        manifest.sources[unit.source].model_copy(update={"boundaries": (unit.start, unit.stop)})
        for unit in {unit.name: unit for unit in units}.values()
    ]
    with tempfile.TemporaryDirectory(prefix="assay-estimate-") as folder:
        sampled = manifest.model_copy(update={"sources": tuple(records)})
        run, outcome = drive_workers(
            RunSettings(run=f"{folder}/run"),
            sampled,
            "assay.score.worker",
            placement,
            on_progress=on_progress,
            on_message=on_message,
        )
        return slices_of(run), outcome


def slices_of(run: Run) -> list[Slice]:
    """The published parts of a run as slices, from the footers of the newest 2,000."""
    newest = sorted(published_parts(run), key=lambda part: -part[1].modified)[:FOOTERS_READ]
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        read = list(pool.map(lambda part: (part[0], _stats(run, part[0])), newest))
    return timed([(unit.num_rows, stats) for unit, stats in read])


def timed(parts: Iterable[tuple[int, Mapping[str, Any]]]) -> list[Slice]:
    """Rows and footers of parts as slices, in the order of their ends; the first of each worker without a time."""
    free_since: dict[str, float] = {}
    found = []
    for num_rows, stats in sorted(
        (part for part in parts if _is_whole(part[1])), key=lambda part: float(part[1]["finished_at"])
    ):
        worker, finished = str(stats["worker"]), float(stats["finished_at"])
        before = free_since.get(worker)
        started = float(stats["started_at"])
        found.append(
            Slice(
                num_rows=num_rows,
                num_tokens=int(stats["num_tokens"]),
                seconds=None if before is None else finished - max(before, started - LONGEST_WAIT_SECONDS),
                finished_at=finished,
                worker=worker,
            )
        )
        free_since[worker] = finished
    return found


def _is_whole(stats: Mapping[str, Any]) -> bool:
    return isinstance(stats.get("worker"), str) and all(
        isinstance(stats.get(name), int | float) for name in ("started_at", "finished_at", "num_tokens")
    )


def _stats(run: Run, unit: Unit) -> dict[str, Any]:
    try:
        with open_part(run, unit) as file:
            return stats_of(file)
    except DamagedPartError:
        return {}
