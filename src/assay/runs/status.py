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
from assay.runs.agenda import TRIES_PER_UNIT
from assay.runs.notes import BeatCache, Heartbeat, find_living, list_failures, read_heartbeats
from assay.runs.pace import history, pace_of
from assay.runs.parts import find_damaged, find_obstacles, published_parts
from assay.runs.plan import Unit
from assay.runs.run import Run, open_run
from assay.telemetry import format_count, format_duration, format_number_of, format_rate

LEAST_SKEW_SECONDS = 5.0
"""Between clocks; less is the time that a file takes to be written."""


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
    worker_seconds: float
    """From its start until now, or to its last heartbeat where it is not at work, times its workers."""
    is_straggler: bool = False
    """At work, at less than half the speed of the median, a worker."""


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
    """At the recent rate; None where there is none or it says nothing of now, 0 where all is done."""
    seconds_left_range: tuple[float | None, float | None] = (None, None)
    """Between which that lies at 95%, None where unknown; how evenly parts came says it, nothing of the last units."""
    rate_history: tuple[tuple[float, float], ...] = ()
    """Rows a second since the first part, by seconds since then."""
    obstacles: tuple[str, ...] = ()
    """What lies where a part belongs and is not a file, a sentence each."""
    drivers: tuple[DriverStatus, ...] = ()
    """The commands that worked on the run, the latest heartbeat first."""
    failed_units: Mapping[str, int] = field(default_factory=dict)
    """Units that are not published, by how often they failed; of three failures on they are set aside."""
    damaged: tuple[str, ...] = ()
    """What a quick look found wrong with parts, a sentence each; `assay verify` looks at every byte."""

    @property
    def worker_hours(self) -> float:
        """Of all workers from the start of each command to its end: what is paid for, without boots."""
        return sum(driver.worker_seconds for driver in self.drivers) / 3600

    @property
    def seconds_unheard(self) -> float | None:
        """Since the last sign of life, where commands are known and none is at work; None otherwise."""
        ages = [driver.seconds_since_heartbeat for driver in self.drivers]
        if not ages or self.is_complete or any(driver.state == "working" for driver in self.drivers):
            return None
        if self.seconds_since_last_part is not None:
            ages.append(self.seconds_since_last_part)
        return min(ages)

    @property
    def set_aside(self) -> list[str]:
        """The units that failed too often to be tried again."""
        return [unit for unit, count in self.failed_units.items() if count >= TRIES_PER_UNIT]

    @property
    def share_published(self) -> float:
        """Of the rows; of a run without rows 1 once it is complete."""
        return self.rows_published / self.rows_total if self.rows_total else float(self.is_complete)

    @property
    def is_complete(self) -> bool:
        """Whether every unit is published, and no part is known to be damaged."""
        return self.units_published == self.units_total and not self.damaged

    def to_json(self) -> dict[str, Any]:
        """The status as a JSON object."""
        return {**asdict(self), "worker_hours": self.worker_hours, "is_complete": self.is_complete}

    def __str__(self) -> str:
        """A line or two for people."""
        done = f"{self.units_published:,} of {format_number_of(self.units_total, 'unit is', 'units are')} published"
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
        left = "unknown" if self.seconds_left is None else format_duration(self.seconds_left)
        return f"{done} ({rows}); {rate}, last part {age} ago, {left} left{self._fleet()}"

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


class Watcher:
    """Looks at one run again and again, and reads what may have changed."""

    def __init__(self, url: str, *, clock: Callable[[], float] = time.time) -> None:
        """Of the run at `url`; raises SourceError where there is none."""
        self._run = open_run(url)
        self._clock = clock
        self._beats: BeatCache = {}
        self._sound: set[tuple[str, float]] = set()
        """Parts that a quick look found nothing wrong with."""

    def look(self) -> Status:
        """The status now."""
        run = self._run
        published = published_parts(run)
        unseen = [part for part in published if (part[0].name, part[1].modified) not in self._sound]
        damaged = find_damaged(run, unseen)
        if not damaged:
            self._sound |= {(unit.name, info.modified) for unit, info in unseen}
        beats = read_heartbeats(run.store, self._beats)
        newest = max((info.modified for _, info in published), default=0.0)
        now = store_now(self._clock(), beats, newest)
        drivers = drivers_of(beats, now)
        found = status_of(
            run, published, obstacles=tuple(find_obstacles(run)), damaged=tuple(damaged.values()), now=now
        )
        found = replace(
            found,
            drivers=drivers,
            failed_units=find_failed(run, {unit.name for unit, _ in published}),
        )
        if found.seconds_unheard is None:
            return found
        return replace(found, seconds_left=None, seconds_left_range=(None, None))


def status(url: str, *, clock: Callable[[], float] = time.time) -> Status:
    """The status of the run at `url`; raises SourceError where there is none."""
    return Watcher(url, clock=clock).look()


def store_now(now: float, beats: Sequence[tuple[Heartbeat, float]], newest: float) -> float:
    """The time by the store's clock, as far as files tell: at least that of the newest one.

    A heartbeat has the time of its driver's clock and of the store's; this machine's clock is taken to agree with
    those of most drivers, so that a store whose clock is off makes nobody silent.
    """
    skews = sorted(at - beat.beat_at for beat, at in beats)
    skew = skews[len(skews) // 2] if skews else 0.0
    if abs(skew) < LEAST_SKEW_SECONDS:
        skew = 0.0
    return max(now + skew, newest, *(at for _, at in beats))


def drivers_of(beats: Sequence[tuple[Heartbeat, float]], now: float) -> tuple[DriverStatus, ...]:
    """Who worked on a run, by heartbeats and the store's time of each; fresh at `now` by that clock is at work."""
    living = find_living({beat.id: at for beat, at in beats if beat.state == "working"}, now)
    speeds = sorted(_speed(beat) for beat, _ in beats if beat.id in living and beat.rows)
    slow = speeds[len(speeds) // 2] / 2 if len(speeds) > 2 else 0.0
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
            worker_seconds=_seconds_there(beat, now - at if beat.id in living else 0.0) * beat.num_workers,
            is_straggler=beat.id in living and bool(beat.rows) and _speed(beat) < slow,
        )
        for beat, at in beats
    )


def _seconds_there(beat: Heartbeat, since_beat: float) -> float:
    """Of a command, by its own clock to its last heartbeat and by the store's from there."""
    return max(beat.beat_at - beat.started_at, 0.0) + max(since_beat, 0.0)


def _speed(beat: Heartbeat) -> float:
    """Rows a second of each of its workers."""
    return beat.rows_per_second / max(beat.num_workers, 1)


def find_failed(run: Run, published: AbstractSet[str]) -> dict[str, int]:
    """The units that failed and are not among those published, by how often."""
    failures = {unit: count for unit, count in list_failures(run.store).items() if unit not in published}
    known = {unit.name for unit in run.units} if failures else set()
    return {unit: count for unit, count in failures.items() if unit in known}


def status_of(
    run: Run,
    published: Sequence[tuple[Unit, FileInfo]],
    *,
    obstacles: tuple[str, ...] = (),
    damaged: tuple[str, ...] = (),
    now: float,
) -> Status:
    """The status of an open run with these parts at the time `now` (unix seconds)."""
    units = run.units
    rows_published = sum(unit.num_rows for unit, _ in published)
    rows_total = run.manifest.planned_rows
    last = max((info.modified for _, info in published), default=None)
    times = [(info.modified, unit.num_rows) for unit, info in published]
    pace = pace_of(times, now)
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
        recent_rows_per_second=pace.rows_per_second,
        seconds_since_last_part=None if last is None else max(now - last, 0.0),
        seconds_left=_seconds(left, None if pace.is_stalled else pace.rows_per_second),
        seconds_left_range=(None, None)
        if pace.is_stalled
        else (_seconds(left, pace.high), _seconds(left, pace.low)),
        rate_history=history(times, now if left else last or now),
        obstacles=obstacles,
        damaged=damaged,
    )


def _seconds(rows: int, rate: float | None) -> float | None:
    """How long so many rows take; None where there is no rate."""
    return 0.0 if not rows else rows / rate if rate else None
