"""What is published, how fast it went lately, and how long still: from the run directory alone.

Reads `run.json`, one listing of `parts/`, the heartbeats of those at work and the notes of units that failed, and
takes a quick look at the newest parts for damage, so it works while workers run, from any machine, and for 100,000
parts.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from assay.data.storage import FileInfo
from assay.runs.notes import find_living, list_failures, read_heartbeats
from assay.runs.parts import find_damaged, find_obstacles, published_parts
from assay.runs.plan import Unit
from assay.runs.run import Run, open_run
from assay.telemetry import format_count, format_duration, format_number_of, format_rate

RECENT_SECONDS = 600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class DriverStatus:
    """What one command that worked on the run said last."""

    id: str
    host: str
    rank: int
    world_size: int
    num_workers: int
    state: Literal["working", "silent", "finished", "drained", "failed"]
    """`silent`: it did not say that it ended, and said nothing for two and a half heartbeats."""
    seconds_since_heartbeat: float
    units_published: int
    rows_per_second: float
    """Since it started."""
    units: tuple[str, ...]
    """In hand."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """Where a run stands."""

    run_id: str
    kind: str
    created_at: str
    num_sources: int
    units_total: int
    units_published: int
    rows_total: int
    rows_published: int
    size_bytes: int
    """Of the published parts."""
    recent_rows_per_second: float
    """Over the parts published in the last ten minutes; 0 where there are fewer than two."""
    seconds_since_last_part: float | None
    seconds_left: float | None
    """At the recent rate; None where there is none, 0 where all is done."""
    obstacles: tuple[str, ...] = ()
    """What lies where a part belongs and is not a file, a sentence each."""
    drivers: tuple[DriverStatus, ...] = ()
    """The commands that worked on the run, the latest heartbeat first."""
    failed_units: Mapping[str, int] = field(default_factory=dict)
    """Units that are not published, by how often they failed."""
    damaged: tuple[str, ...] = ()
    """What a quick look found wrong with parts, a sentence each; `assay verify` looks at every byte."""

    @property
    def is_complete(self) -> bool:
        """Whether every unit is published, and no part is known to be damaged."""
        return self.units_published == self.units_total and not self.damaged

    def to_json(self) -> dict[str, Any]:
        """The status as a JSON object."""
        return {**asdict(self), "is_complete": self.is_complete}

    def __str__(self) -> str:
        """A line or two for people."""
        done = f"{self.units_published:,} of {self.units_total:,} units are published"
        rows = f"{format_count(self.rows_published)} of {format_count(self.rows_total)} rows"
        if self.obstacles:
            return f"{done} ({rows}); {self.obstacles[0]}"
        if self.damaged:
            damaged = format_number_of(len(self.damaged), "part is", "parts are")
            return f"{done} ({rows}); {damaged} damaged: {self.damaged[0]}"
        if self.is_complete:
            return f"{done} ({rows}): complete; `assay verify` proves what the parts hold"
        if self.seconds_since_last_part is None:
            return f"{done} ({rows}); no part yet{self._fleet()}"
        rate = f"{format_rate(self.recent_rows_per_second)} docs/s lately"
        age = format_duration(self.seconds_since_last_part)
        return f"{done} ({rows}); {rate}, last part {age} ago, {format_duration(self.seconds_left)} left{self._fleet()}"

    def _fleet(self) -> str:
        """Who is at work and what failed, for the end of a line; "" where nothing is known."""
        parts = []
        if working := sum(driver.state == "working" for driver in self.drivers):
            parts.append(f"{format_number_of(working, 'command')} at work")
        if silent := sum(driver.state == "silent" for driver in self.drivers):
            parts.append(f"{silent:,} silent")
        if self.failed_units:
            name, count = max(self.failed_units.items(), key=lambda each: each[1])
            failed = format_number_of(len(self.failed_units), "unit")
            parts.append(f"{failed} failed, {name} {format_number_of(count, 'time')}")
        return "".join(f"; {part}" for part in parts)


def status(url: str, *, clock: Callable[[], float] = time.time) -> Status:
    """The status of the run at `url`; raises SourceError where there is none."""
    run = open_run(url)
    published = published_parts(run)
    damaged = find_damaged(run, published)
    obstacles = tuple(find_obstacles(run))
    now = clock()
    return replace(
        status_of(run, published, obstacles=obstacles, damaged=tuple(damaged.values()), now=now),
        drivers=find_drivers(run, now),
        failed_units=find_failed(run, {unit.name for unit, _ in published}),
    )


def find_drivers(run: Run, now: float) -> tuple[DriverStatus, ...]:
    """Who worked on the run, by their heartbeats; those of `now` (unix seconds by the store's clock) are at work."""
    beats = read_heartbeats(run.store)
    living = find_living({beat.id: at for beat, at in beats if beat.state == "working"}, now)
    return tuple(
        DriverStatus(
            id=beat.id,
            host=beat.host,
            rank=beat.rank,
            world_size=beat.world_size,
            num_workers=beat.num_workers,
            state="silent" if beat.state == "working" and beat.id not in living else beat.state,
            seconds_since_heartbeat=max(now - at, 0.0),
            units_published=beat.units_published,
            rows_per_second=beat.rows_per_second,
            units=beat.units,
        )
        for beat, at in beats
    )


def find_failed(run: Run, published: AbstractSet[str]) -> dict[str, int]:
    """The units that failed and are not among those published, by how often."""
    known = {unit.name for unit in run.manifest.units()} - published
    return {unit: count for unit, count in list_failures(run.store).items() if unit in known}


def status_of(
    run: Run,
    published: Sequence[tuple[Unit, FileInfo]],
    *,
    obstacles: tuple[str, ...] = (),
    damaged: tuple[str, ...] = (),
    now: float,
) -> Status:
    """The status of an open run with these parts at the time `now` (unix seconds)."""
    units = run.manifest.units()
    rows_published = sum(unit.num_rows for unit, _ in published)
    rows_total = run.manifest.planned_rows
    last = max((info.modified for _, info in published), default=None)
    recent = [
        (info.modified, unit.num_rows) for unit, info in published if now - info.modified <= RECENT_SECONDS
    ]
    rate = _rate(recent)
    left = rows_total - rows_published
    return Status(
        run_id=run.manifest.run_id,
        kind=run.manifest.kind,
        created_at=run.manifest.created_at,
        num_sources=len(run.manifest.sources),
        units_total=len(units),
        units_published=len(published),
        rows_total=rows_total,
        rows_published=rows_published,
        size_bytes=sum(info.size_bytes for _, info in published),
        recent_rows_per_second=rate,
        seconds_since_last_part=None if last is None else max(now - last, 0.0),
        seconds_left=0.0 if left == 0 else (left / rate if rate > 0 else None),
        obstacles=obstacles,
        damaged=damaged,
    )


def _rate(parts: list[tuple[float, int]]) -> float:
    """Rows a second between the first and the last of the parts; the first one only starts the clock."""
    if len(parts) < 2:
        return 0.0
    parts = sorted(parts)
    seconds = parts[-1][0] - parts[0][0]
    return sum(rows for _, rows in parts[1:]) / seconds if seconds > 0 else 0.0
