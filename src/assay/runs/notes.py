"""What the drivers of a run leave for each other beside its parts: who is at work, on what, and which units failed.

    workers/<id>.json            heartbeat of a driver at work: who, where, since when, how fast
    workers/<id>.left.json       the last one, of a driver that ended
    claims/<start>-<stop>.<id>   soft claim of units, by their numbers in the plan; empty
    claims/published.<id>        this driver has seen every part; empty
    failures/<unit>/<n>.json     one failure of a unit

All of it is advice. A file that is lost, stale or made up costs time, never rows: only a published part decides what
is done. One note ends commands: who hears that another has seen every part does not list them all itself (`supply.py`
says when that is believed); `assay verify` and `assay merge` go by parts alone. A claim lies in a name, so that one
request shows a thousand; read from heartbeats, a thousand drivers would take a thousand requests each to know of each
other. Ages go by the store's clock: a driver compares with the time of its own heartbeat in the same listing.
"""

import contextlib
import functools
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from assay.data.storage import FileInfo, Store
from assay.errors import StorageError
from assay.runs.agenda import Claims

WORKERS = "workers/"
CLAIMS = "claims/"
FAILURES = "failures/"
LAUNCHES = "launches/"
"""What rented machines of the run have cost, a file a fleet; written by who rents them, see `fleet.launch`."""
BEAT_SECONDS = 120.0
"""Between two heartbeats; more where there are many drivers, so that heartbeats are few beside the parts."""
BEAT_SECONDS_PER_DRIVER = 0.06
DEAD_BEATS = 2.5
"""A driver is gone that left nothing for so many beats."""
BEATS_SECONDS = 180.0
"""For so long the list of heartbeats is known; claims are listed at each look."""
NUM_THREADS = 32
MOST_NOTES_OF_A_UNIT = 100

State = Literal["working", "finished", "drained", "failed"]
_Count = Annotated[int, Field(ge=0, lt=2**53)]
_Time = Annotated[float, Field(ge=0, lt=2**53, allow_inf_nan=False)]
_BEAT = re.compile(r"workers/([^/.]+)\.json")
_LEFT = re.compile(r"workers/[^/.]+\.left\.json")
_CLAIM = re.compile(r"claims/(\d{1,15})-(\d{1,15})\.([^/.]+)")
_PUBLISHED = re.compile(r"claims/published\.[^/.]+")
_FAILURE = re.compile(r"failures/(.+)/\d+\.json")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Heartbeat:
    """What a driver says of itself."""

    id: str
    host: str
    rank: _Count
    world_size: _Count
    num_workers: _Count
    """Processes, one a device."""
    assay_version: str
    started_at: _Time
    """Unix seconds by its own clock."""
    beat_at: _Time
    """The same, of this heartbeat."""
    state: State = "working"
    units_published: _Count = 0
    rows: _Count = 0
    units: tuple[str, ...] = ()
    """In the hands of its workers."""

    @property
    def rows_per_second(self) -> float:
        """Since it started."""
        return self.rows / max(self.beat_at - self.started_at, 1e-9)


BeatCache = dict[str, tuple[Heartbeat | None, float]]
"""Heartbeats that were read, by path: None for one that cannot be, and the store's time of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """The others, from one listing."""

    claims: Claims
    num_drivers: int
    """That live."""
    at: float
    """Now, Unix seconds by the store's clock."""
    is_all_published: bool = False
    """Whether one of them says so, and did not when this driver began to look."""


def beat_seconds(num_drivers: int) -> float:
    """Seconds between two heartbeats of a driver among so many."""
    return BEAT_SECONDS + BEAT_SECONDS_PER_DRIVER * num_drivers


def silent_seconds(num_drivers: int) -> float:
    """Seconds without a file of a driver among so many, after which it is gone."""
    return DEAD_BEATS * beat_seconds(num_drivers)


def find_living(newest: Mapping[str, float], now: float) -> set[str]:
    """The drivers that live, of those whose newest file is of the time `newest[id]`, by the clock that says `now`."""
    period = silent_seconds(len(newest))
    return {driver for driver, at in newest.items() if now - at <= period}


class Notes:
    """The notes of one driver, and what it sees of others'. What cannot be written or read is let be."""

    def __init__(
        self,
        store: Store,
        heartbeat: Heartbeat,
        *,
        clock: Callable[[], float],
        replaces: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """`replaces` tells the id of a driver in whose place this one was started, and that is gone therefore."""
        self.heartbeat = heartbeat
        self._store = store
        self._clock = clock
        self._replaces = replaces
        self._claims: dict[str, set[int]] = {}
        """Our claims by path, with those of their units that are not done."""
        self._beats: dict[str, float] = {}
        """The time of the heartbeat of each other, by the store's clock."""
        self._listed_at = 0.0
        self._stale_words: set[str] | None = None
        """Notes of all being published that were there at the first look: parts may have been removed since."""
        self._num_drivers = 0
        self._beat_at: float | None = None
        self._skew = 0.0
        """Of the store's clock to ours."""
        self._is_timed = False
        """Whether heartbeats were listed since our own first, which tells it."""

    @property
    def is_due(self) -> bool:
        """Whether it is time for a heartbeat."""
        return self._beat_at is None or self._clock() - self._beat_at >= beat_seconds(self._num_drivers)

    def beat(self, **changes: Any) -> None:  # noqa: ANN401  fields of a heartbeat
        """Write the heartbeat, with these of its fields changed."""
        self._beat_at = self._clock()
        self.heartbeat = replace(self.heartbeat, beat_at=self._beat_at, **changes)
        with _advisory():
            self._store.replace(self._path(".json"), _to_json(self.heartbeat))

    def leave(self, state: State, **changes: Any) -> None:  # noqa: ANN401  fields of a heartbeat
        """Take back what is claimed, and leave the last heartbeat, with these of its fields, under another name."""
        self.heartbeat = replace(self.heartbeat, beat_at=self._clock(), state=state, units=(), **changes)
        with _advisory():
            self._store.replace(self._path(".left.json"), _to_json(self.heartbeat))
        for path in (self._path(".json"), *self._claims):
            with _advisory():
                self._store.delete(path)
        self._claims.clear()

    def claim(self, start: int, stop: int) -> None:
        """Claim these units."""
        path = f"{CLAIMS}{start}-{stop}.{self.heartbeat.id}"
        self._claims[path] = set(range(start, stop))
        with _advisory():
            self._store.replace(path, b"")

    def tell_all_published(self) -> None:
        """Say that every part was seen; the note stays when this driver ends."""
        with _advisory():
            self._store.replace(f"{CLAIMS}published.{self.heartbeat.id}", b"")

    def release(self, unit: int) -> None:
        """A unit is done or given up: a claim goes with its last one."""
        for path, units in list(self._claims.items()):
            units.discard(unit)
            if not units:
                del self._claims[path]
                with _advisory():
                    self._store.delete(path)

    def look(self) -> Seen:
        """The other drivers that live and what they claim, from one listing; from two once in three minutes."""
        is_known = self._listed_at and (self._is_timed or self._beat_at is None)
        if not is_known or self._clock() - self._listed_at >= BEATS_SECONDS:
            self._list_beats()
        newest, claims, words = dict(self._beats), [], set()
        with _advisory():
            for info in self._store.list(CLAIMS):
                found = _CLAIM.fullmatch(info.path)
                if found is not None and self._is_other(found[3]):
                    newest[found[3]] = max(newest.get(found[3], info.modified), info.modified)
                    claims.append((found[3], int(found[1]), int(found[2]), info.modified))
                elif _PUBLISHED.fullmatch(info.path):
                    words.add(info.path)
        if self._stale_words is None:
            self._stale_words = words
        now = self._clock() + self._skew
        living = find_living(newest, self._listed_at + self._skew)  # as it was when heartbeats were listed
        self._num_drivers = len(living) + 1
        return Seen(
            claims=Claims.of((start, stop, at) for driver, start, stop, at in claims if driver in living),
            num_drivers=len(living),
            at=now,
            is_all_published=bool(words - self._stale_words),
        )

    def _list_beats(self) -> None:
        """List heartbeats; where that fails, what was known of them stays as it was."""
        begun = self._clock()
        with _advisory():
            listed = {
                found[1]: info for info in self._store.list(WORKERS) if (found := _BEAT.fullmatch(info.path))
            }
            if self._beat_at is not None and (own := listed.get(self.heartbeat.id)) is not None:
                self._skew = own.modified - self._beat_at
            self._beats = {driver: info.modified for driver, info in listed.items() if self._is_other(driver)}
            self._listed_at, self._is_timed = begun, self._beat_at is not None

    def _is_other(self, driver: str) -> bool:
        return driver != self.heartbeat.id and not self._replaces(driver)

    def fail(self, unit: str, message: str) -> int:
        """Note that a unit failed here; returns how many such notes there are, 0 where that cannot be known."""
        content = json.dumps({"driver": self.heartbeat.id, "at": self._clock(), "message": message}).encode()
        with _advisory():
            for number in range(1, MOST_NOTES_OF_A_UNIT):
                if self._store.create(f"{FAILURES}{unit}/{number}.json", content):
                    return number
        return 0

    def failures(self) -> dict[str, int]:
        """How many failures were noted, by unit."""
        return list_failures(self._store)

    def last_message(self, unit: str) -> str:
        """As `last_message` of the module."""
        return last_message(self._store, unit)

    def forget(self) -> None:
        """As `forget` of the module."""
        forget(self._store)

    def _path(self, ending: str) -> str:
        return f"{WORKERS}{self.heartbeat.id}{ending}"


def is_note(path: str) -> bool:
    """Whether this is the path of a note, in a run."""
    return any(pattern.fullmatch(path) for pattern in (_BEAT, _LEFT, _CLAIM, _PUBLISHED, _FAILURE))


def list_failures(store: Store) -> dict[str, int]:
    """How many failures were noted, by unit; from one listing."""
    tries: dict[str, int] = {}
    with _advisory():
        for info in store.list(FAILURES):
            if found := _FAILURE.fullmatch(info.path):
                tries[found[1]] = tries.get(found[1], 0) + 1
    return tries


def last_message(store: Store, unit: str) -> str:
    """What the unit failed of, as its newest note says; "" where none can be read."""
    with _advisory():
        paths = sorted((info.modified, info.path) for info in store.list(f"{FAILURES}{unit}/"))
        if paths:
            return _message(store.read_bytes(paths[-1][1]))
    return ""


def forget(store: Store) -> None:
    """Remove what was noted of units: who begins alone tries and sees everything again."""
    with _advisory():
        words = (info.path for info in store.list(CLAIMS) if _PUBLISHED.fullmatch(info.path))
        for path in [*words, *(info.path for info in store.list(FAILURES))]:
            store.delete(path)


def read_heartbeats(store: Store, known: BeatCache | None = None) -> list[tuple[Heartbeat, float]]:
    """The latest heartbeat of each driver and the store's time of it, the newest first; unreadable ones left out.

    `known` keeps what was read, for the next time: what has not changed since is not read again.
    """
    listed: list[FileInfo] = []
    with _advisory():
        listed = [info for info in store.list(WORKERS) if info.path.endswith(".json")]
    known = {} if known is None else known
    for path in known.keys() - {info.path for info in listed}:
        del known[path]
    changed = [info for info in listed if known.get(info.path, (None, None))[1] != info.modified]
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        known.update(
            pool.map(lambda info: (info.path, (_read_heartbeat(store, info.path), info.modified)), changed)
        )
    beats = [(beat, at) for beat, at in known.values() if beat is not None]
    latest = {
        beat.id: (beat, at)
        for beat, at in sorted(beats, key=lambda each: (each[0].state != "working", each[1]))
    }
    return sorted(latest.values(), key=lambda each: -each[1])


def _read_heartbeat(store: Store, path: str) -> Heartbeat | None:
    """What anyone may have written: None unless each field is what it should be."""
    try:
        return _heartbeats().validate_json(store.read_bytes(path), strict=True)
    except (StorageError, ValueError):
        return None


@functools.cache
def _heartbeats() -> TypeAdapter[Heartbeat]:
    return TypeAdapter(Heartbeat)


def _message(content: bytes) -> str:
    try:
        return str(json.loads(content)["message"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""


def _to_json(heartbeat: Heartbeat) -> bytes:
    return json.dumps(asdict(heartbeat)).encode()


@contextlib.contextmanager
def _advisory() -> Iterator[None]:
    """What goes wrong with advice is not an error."""
    try:
        yield
    except StorageError as error:
        _log.debug("a note is left out: %s", error)
