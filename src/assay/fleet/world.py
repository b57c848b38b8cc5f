"""A modelled world for a simulated fleet: a store with its limits and faults, and machines that come and go.

The numbers follow what services document and what fleets report: 5,500 reads and 3,500 writes a second for a prefix,
listings of 1,000 names a request, some answers lost or refused; devices of unequal speed, a few at a quarter of it;
machines that are taken away, by zone too, with and without a warning. Time is virtual, chance is seeded.
"""

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from assay.data.creating import create_once
from assay.data.storage import PAGE_OBJECTS
from assay.runs.agenda import Claims, Pages
from assay.runs.notes import BEATS_SECONDS, Seen, State, beat_seconds, silent_seconds

CLAIMS_OF_A_DRIVER = 4
"""At most, at one time: a block under way, and the one after it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Conditions:
    """What the world is like."""

    boot_seconds: tuple[float, float] = (60.0, 300.0)
    """Shortest and longest, of a machine and its workers, each time."""
    speed_deviation: float = 0.15
    slow_share: float = 0.02
    """Of the devices, at a quarter of the speed."""
    hours_between_losses: float = 6.0
    """Of one machine, on average; more often in its first ten minutes."""
    zones: int = 8
    hours_between_zone_losses: float = 8.0
    """Of one zone, on average: a third of its machines go at once."""
    warned_share: float = 0.5
    """Of the losses, half a minute before."""
    latency_seconds: tuple[float, float] = (0.02, 0.1)
    reads_per_second: int = 5_500
    writes_per_second: int = 3_500
    refused_share: float = 0.002
    """Of the requests, with a 503."""
    conflict_share: float = 0.002
    """Of the conditional puts, with a 409 and nothing there."""
    lost_share: float = 0.002
    """Of the conditional puts, whose answer is lost though the object is there."""
    lost_notes_share: float = 0.0
    """Of claims and heartbeats, that never arrive."""
    clock_skew_seconds: float = 120.0
    """Largest error of a machine's clock."""
    poisoned_units: int = 0
    """Units that kill the process that does them."""


class UnsureError(Exception):
    """A put that was refused, met another, or whose answer was lost."""


@dataclass(kw_only=True)
class SimulatedFleet:
    """The store and the truth."""

    conditions: Conditions
    pages: Pages
    costs: Sequence[float]
    """Seconds of each unit on a device of speed 1."""
    poisoned: frozenset[int]
    chance: random.Random
    now: float = 0.0
    requests: Counter[str] = field(default_factory=Counter)
    in_this_second: Counter[str] = field(default_factory=Counter)
    second: int = -1
    published: bytearray = field(default_factory=bytearray)
    """By the order of the listing."""
    owners: dict[int, str] = field(default_factory=dict)
    """The mark of the put that published a unit."""
    published_at: dict[int, float] = field(default_factory=dict)
    slots: dict[str, int] = field(default_factory=dict)
    """Of each driver that did not say that it ended: its row in the tables of notes."""
    names: list[str] = field(default_factory=list)
    """Of the rows; "" for one that is free."""
    newest: npt.NDArray[np.float64] = field(default_factory=lambda: np.full(0, -np.inf))
    """The time of the newest file of each row."""
    claim_starts: npt.NDArray[np.int64] = field(
        default_factory=lambda: np.zeros((0, CLAIMS_OF_A_DRIVER), np.int64)
    )
    claim_stops: npt.NDArray[np.int64] = field(
        default_factory=lambda: np.zeros((0, CLAIMS_OF_A_DRIVER), np.int64)
    )
    """0 where there is none."""
    claims_at: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, CLAIMS_OF_A_DRIVER)))
    words: set[str] = field(default_factory=set)
    """Drivers that said that all is published."""
    tries: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        """Nothing is published."""
        self.published = bytearray(len(self.costs))

    @property
    def num_left(self) -> int:
        """Units that can be published and are not."""
        return len(self.costs) - len(self.poisoned) - len(self.owners)

    def slot(self, driver: str) -> int:
        """The row of a driver."""
        if driver not in self.slots:
            if "" not in self.names:
                more = max(len(self.names), 16)
                self.names += [""] * more
                self.newest = np.concatenate([self.newest, np.full(more, -np.inf)])
                none = np.zeros((more, CLAIMS_OF_A_DRIVER), np.int64)
                self.claim_starts = np.concatenate([self.claim_starts, none])
                self.claim_stops = np.concatenate([self.claim_stops, none])
                self.claims_at = np.concatenate([self.claims_at, none.astype(np.float64)])
            self.slots[driver] = slot = self.names.index("")
            self.names[slot] = driver
        return self.slots[driver]

    def forget(self, driver: str) -> None:
        """Nothing of a driver is left."""
        slot = self.slots.pop(driver, None)
        if slot is not None:
            self.names[slot] = ""
            self.newest[slot] = -np.inf
            self.claim_stops[slot] = 0


class WorldBoard:
    """What one driver sees of the world and leaves there, as `runs.supply.Board` wants it.

    Requests take time: `waited` is what they took since it was set to 0.
    """

    def __init__(self, world: SimulatedFleet, driver: str, rank: int | None) -> None:
        """`rank`: its place among static drivers; it replaces an earlier one of the same."""
        self.driver = driver
        self.waited = 0.0
        self._world = world
        self._ghosts = [] if rank is None else [name for name in world.slots if name.startswith(f"{rank}-")]
        """Earlier drivers of the same rank, which this one replaces."""
        self._claimed: dict[int, set[int]] = {}
        self._num_drivers = 0
        self._beat_at: float | None = None
        self._listed_at = -BEATS_SECONDS
        self._stale_words = set(world.words)
        skew = world.conditions.clock_skew_seconds
        self._clock_error = world.chance.uniform(-skew, skew)

    @property
    def is_due(self) -> bool:
        """Whether it is time for a heartbeat, by its own clock, which runs evenly."""
        return self._beat_at is None or self._world.now - self._beat_at >= beat_seconds(self._num_drivers)

    def list_pages(self, pages: Sequence[int]) -> Iterable[bytes]:
        """Which units of each page are published."""
        size = self._world.pages.page_units
        for page in pages:
            self._request("list parts", "reads")
            yield bytes(self._world.published[page * size : (page + 1) * size])

    def look(self) -> Seen:
        """The others at work and their claims."""
        world = self._world
        for _ in range(1 + int((world.claim_stops > 0).sum()) // PAGE_OBJECTS):
            self._request("list claims", "reads")
        if world.now - self._listed_at >= BEATS_SECONDS:
            self._listed_at = world.now
            for _ in range(1 + len(world.slots) // PAGE_OBJECTS):
                self._request("list heartbeats", "reads")
        is_living = self._listed_at - world.newest <= silent_seconds(len(world.slots))
        for driver in (self.driver, *self._ghosts):
            if driver in world.slots:
                is_living[world.slots[driver]] = False
        num_living = int(is_living.sum())
        self._num_drivers = num_living + 1
        chosen = is_living[:, None] & (world.claim_stops > 0)
        claims = Claims(
            starts=world.claim_starts[chosen],
            stops=world.claim_stops[chosen],
            made_at=world.claims_at[chosen],
        )
        return Seen(
            claims=claims,
            num_drivers=num_living,
            at=world.now,
            is_all_published=bool(world.words - self._stale_words),
        )

    def claim(self, start: int, stop: int) -> None:
        """Claim units."""
        self._claimed[start] = set(range(start, stop))
        if self._note("put claim"):
            world, slot = self._world, self._world.slot(self.driver)
            free = int(np.argmin(world.claim_stops[slot]))
            world.claim_starts[slot, free], world.claim_stops[slot, free] = start, stop
            world.claims_at[slot, free] = world.now

    def release(self, unit: int) -> None:
        """A unit is done or given up."""
        for start, units in list(self._claimed.items()):
            units.discard(unit)
            if not units:
                del self._claimed[start]
                self._request("delete claim", "writes")
                if (slot := self._world.slots.get(self.driver)) is not None:
                    stops = self._world.claim_stops[slot]
                    stops[self._world.claim_starts[slot] == start] = 0

    def tell_all_published(self) -> None:
        """Say that every part was seen."""
        assert not self._world.num_left, "a driver says too early that all is published"
        if self._note("put word"):
            self._world.words.add(self.driver)

    def beat(self, **_: object) -> None:
        """Write the heartbeat."""
        self._beat_at = self._world.now
        self._note("put heartbeat")

    def leave(self, state: State, **changes: object) -> None:  # noqa: ARG002  the same for all
        """Take back claims and say that this driver ended."""
        for _ in range(2 + len(self._claimed)):
            self._request("leave", "writes")
        self._world.forget(self.driver)

    def fail(self, unit: int, message: str) -> int:  # noqa: ARG002  nobody reads it
        """Note a failure."""
        self._world.tries[unit] += 1
        for _ in range(self._world.tries[unit]):
            self._request("put failure", "writes")
        return self._world.tries[unit]

    def failures(self) -> dict[int, int]:
        """How many failures were noted, by unit."""
        self._request("list failures", "reads")
        return dict(self._world.tries)

    def publish(self, unit: int, mark: str) -> bool:
        """Publish a unit by the protocol of an object store; whether this driver did."""
        world = self._world

        def put() -> None:
            self._request("put part", "writes")
            is_there = unit in world.owners
            kind = world.chance.random()
            if kind < world.conditions.conflict_share:
                raise UnsureError
            if not is_there:
                world.owners[unit] = mark
                world.published[world.pages.position[unit]] = 1
                world.published_at[unit] = world.now + self.waited
            if is_there or kind > 1 - world.conditions.lost_share:
                raise UnsureError

        def find_owner() -> str | None:
            self._request("head part", "reads")
            return world.owners.get(unit)

        return create_once(
            put, find_owner, mark, unsure=(UnsureError,), sleep=self._wait, chance=world.chance
        )

    def _note(self, kind: str) -> bool:
        """Write a note; whether it arrived."""
        self._request(kind, "writes")
        if self._world.chance.random() < self._world.conditions.lost_notes_share:
            return False
        slot = self._world.slot(self.driver)
        self._world.newest[slot] = self._world.now
        return True

    def _request(self, kind: str, limited: str) -> None:
        """One request; refused ones are counted and made again, after a while."""
        world, conditions = self._world, self._world.conditions
        limit = conditions.reads_per_second if limited == "reads" else conditions.writes_per_second
        for attempt in range(10):
            world.requests[kind] += 1
            self.waited += world.chance.uniform(*conditions.latency_seconds)
            second = int(world.now + self.waited)
            if second != world.second:
                world.second = second
                world.in_this_second.clear()
            world.in_this_second[limited] += 1
            is_over = world.in_this_second[limited] > limit
            if not is_over and world.chance.random() >= conditions.refused_share:
                return
            world.requests["refused (503)"] += 1
            self.waited += world.chance.uniform(0.1, 0.2) * 2**attempt

    def _wait(self, seconds: float) -> None:
        self.waited += seconds
