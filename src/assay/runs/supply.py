"""Units for the workers of one driver: what the agenda asks for is looked up, claimed and noted here.

`Board` is all that it knows of the run. That of a real run is `RunBoard`; a simulation has one of its own, and the
same agenda and supply.

A run of more parts than a few listings show is not listed whole by each of its drivers before it ends: who has seen
every part says so in a note, and another believes one that was written since it began, if the page that it lists next
has every part too. Runs in folders, and small ones in buckets, are listed by all.
"""

import random
import socket
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from assay._version import __version__
from assay.data.storage import PAGE_OBJECTS, is_object_url
from assay.runs.agenda import TRIES_PER_UNIT, Agenda, Give, Hold, Look, Pages, Pause
from assay.runs.notes import Heartbeat, Notes, Seen, State
from assay.runs.plan import own_share
from assay.runs.run import Run, part_path

ALONE_LOOK_SECONDS = 15.0
"""Between two looks of a driver that is alone for others."""
FAILURES_SECONDS = 180.0
"""Between two looks for units that failed elsewhere."""
NUM_THREADS = 16
"""For pages that are listed at once."""
UNITS_AHEAD = 2
"""Of a worker: the one it works on, and the next, whose reading hides behind it."""
SLOW = 2.0
"""Times as long for a unit as workers here take."""
SPARE = 2.0
"""Times as long as expected a unit may take, without another waiting for it at the end."""
PAGES_TO_START = 4
"""A driver in company that starts lists the run whole where it has no more pages."""
PAGES_BETWEEN_LOOKS = 16
"""Of a driver that lists page after page, before it looks whether another has seen all."""


class Board(Protocol):
    """What a driver sees of a run, and leaves there for others."""

    @property
    def is_due(self) -> bool:
        """Whether it is time for a heartbeat."""
        ...

    def list_pages(self, pages: Sequence[int]) -> Iterable[bytes]:
        """Which units of each page of the listing are published, as `Pages.flags` has it; one request a page."""
        ...

    def look(self) -> Seen:
        """The others at work and their claims."""
        ...

    def claim(self, start: int, stop: int) -> None:
        """Claim units."""
        ...

    def release(self, unit: int) -> None:
        """A unit is done or given up."""
        ...

    def tell_all_published(self) -> None:
        """Say that every part was seen; those who look from now on see that."""
        ...

    def beat(self, **changes: object) -> None:
        """Write the heartbeat, with these of its fields changed."""
        ...

    def leave(self, state: State, **changes: object) -> None:
        """Take back claims and say how this driver ended, in a heartbeat with these of its fields changed."""
        ...

    def fail(self, unit: int, message: str) -> int:
        """Note a failure; returns how many were noted of the unit, 0 where that is unknown."""
        ...

    def failures(self) -> dict[int, int]:
        """How many failures were noted, by unit."""
        ...


class RunBoard:
    """The board of a real run."""

    def __init__(self, run: Run, pages: Pages, notes: Notes) -> None:
        """`pages` over the paths of all parts, in the order of the plan."""
        self._run = run
        self._pages = pages
        self._notes = notes
        self._names = [unit.name for unit in run.units]
        self._numbers = {name: number for number, name in enumerate(self._names)}
        self.look = notes.look
        self.claim = notes.claim
        self.tell_all_published = notes.tell_all_published
        self.release = notes.release
        self.beat = notes.beat
        self.leave = notes.leave
        self.last_message = notes.last_message

    @property
    def is_due(self) -> bool:
        """Whether it is time for a heartbeat."""
        return self._notes.is_due

    def list_pages(self, pages: Sequence[int]) -> Iterable[bytes]:
        """Which units of each page are published; some pages at once."""
        if len(pages) == 1:
            return [self._flags(pages[0])]
        with ThreadPoolExecutor(NUM_THREADS) as pool:
            return list(pool.map(self._flags, pages))

    def _flags(self, page: int) -> bytes:
        after, until = self._pages.bounds(page)
        return self._pages.flags(page, (info.path for info in self._run.list_parts(after, until)))

    def fail(self, unit: int, message: str) -> int:
        """Note a failure."""
        return self._notes.fail(self._names[unit], message)

    def failures(self) -> dict[int, int]:
        """How many failures were noted, by unit."""
        return {self._numbers[n]: k for n, k in self._notes.failures().items() if n in self._numbers}


class Supply:
    """Gives out units until all are published."""

    def __init__(
        self,
        board: Board,
        pages: Pages,
        share: Sequence[int],
        *,
        in_company: bool,
        num_workers: int = 1,
        seed: int = 0,
        clock: Callable[[], float] = time.monotonic,
        on_published: Callable[[Iterable[int]], None] | None = None,
    ) -> None:
        """`share`: the units to do first. `on_published` hears of units that are published, by whomever, once each."""
        self._board = board
        self._pages = pages
        self._clock = clock
        self._on_published = on_published
        self._agenda = Agenda(pages, share, in_company=in_company, num_workers=num_workers, seed=seed)
        self._looked_at = self._failures_at = self._clock()
        self.paused_until = self._looked_at
        """Until then nothing is given, unless something is put back."""
        self._has_given = False
        self._has_shown_work = False
        """Whether a heartbeat has told of a unit that is published."""
        self._is_all_told = False
        """Whether another said that all is published, or this one did."""
        self._tries: Counter[int] = Counter()
        self.knows_all = False
        """Whether all that was published at the start has been seen."""
        self.is_over = False
        """Nothing was left to give, when last asked; what workers have may still be put back."""

    @property
    def num_open(self) -> int:
        """Units that may be left to give."""
        return self._agenda.num_open

    @property
    def aside(self) -> set[int]:
        """Units that failed too often, here or elsewhere."""
        return self._agenda.aside

    @property
    def unit_seconds(self) -> float | None:
        """How long a unit took here, lately; None before the first."""
        return self._agenda.unit_seconds

    def units_for(self, num_in_hand: int, unit_seconds: float | None, num_workers: int) -> int:
        """How many units a worker should have, that has so many and takes so long for one, beside so many others.

        Two while there is plenty: the next one's reading hides behind the first. Near the end one; and none, if it is
        so slow that another is free sooner than it would be done.
        """
        agenda = self._agenda
        each = agenda.unit_seconds
        plenty = agenda.held + (agenda.num_free_of_share if agenda.in_company else 0)
        if unit_seconds is None or each is None:
            return UNITS_AHEAD if plenty >= num_workers else 1
        rest_seconds = plenty * each / num_workers / SPARE
        if num_in_hand == 0:
            is_slow = num_workers > 1 and unit_seconds > max(SLOW * each, rest_seconds)
            return 0 if is_slow else 1
        return UNITS_AHEAD if plenty and UNITS_AHEAD * unit_seconds <= rest_seconds else 1

    def begin(self) -> None:
        """Say that this driver is there, and list what is published: all of it, if it is alone or the run is small."""
        self._board.beat()
        if not self._agenda.in_company or self._pages.num_pages <= PAGES_TO_START:
            self._list(range(self._pages.num_pages))
            self.knows_all = True

    def take(self) -> int | None:
        """The next unit for a worker of this driver, claimed where there is company; None where there is none now."""
        if not self._has_given:
            self._has_given = True
            self._look_around()
        if self._agenda.held == 0 and self._clock() < self.paused_until:
            return None
        self.is_over = has_looked = False
        num_listed = 0
        while True:
            step = self._agenda.step()
            match step:
                case Give(unit=unit):
                    return unit
                case Hold(start=start, stop=stop):
                    if stop > start:
                        self._board.claim(start, stop)
                case Look(page=page):
                    if has_looked:
                        self._list([page])
                        num_listed += 1
                    if not has_looked or self._agenda.has_open(page) or num_listed == PAGES_BETWEEN_LOOKS:
                        # claims first: what is published in between was claimed, or is listed
                        has_heard = self._see_others()
                        self._list([page])
                        num_listed = 0
                        if has_heard and not self._agenda.has_open(page):
                            self._believe()
                    has_looked = True
                case Pause(seconds=seconds):
                    self.paused_until = self._clock() + seconds
                    return None
                case _:
                    self.is_over = True
                    self._tell()
                    return None

    def done(self, unit: int, seconds: float | None) -> None:
        """A unit given here is published."""
        if self._agenda.finished(unit, seconds) and self._on_published is not None:
            self._on_published([unit])
        self._board.release(unit)

    def put_back(self, unit: int) -> None:
        """A unit given here was not done, through no fault of its own."""
        self._agenda.put_back(unit)
        self.is_over = False

    def failed(self, unit: int, message: str) -> bool:
        """A unit given here failed; whether it is set aside now, or tried again."""
        self._tries[unit] += 1
        if max(self._board.fail(unit, message), self._tries[unit]) < TRIES_PER_UNIT:
            self._agenda.try_again(unit)
            self.is_over = False
            return False
        self._agenda.set_aside(unit)
        self._board.release(unit)
        return True

    def keep_up(self, **changes: object) -> None:
        """Write the heartbeat where it is time, and look for others where this driver thinks that it is alone.

        It is time with the first unit too: else a driver would be seen without a figure for two minutes.
        """
        is_first = not self._has_shown_work and bool(changes.get("units_published"))
        if self._board.is_due or is_first:
            self._has_shown_work |= is_first
            self._board.beat(**changes)
        if not self._agenda.in_company and self._clock() - self._looked_at >= ALONE_LOOK_SECONDS:
            self._see_others()

    def _look_around(self) -> None:
        """What changed since the workers were started, which may be a minute ago."""
        if not self._agenda.in_company:
            self._see_others()
            if self._pages.num_pages <= PAGES_TO_START:
                self._list(range(self._pages.num_pages))

    def _list(self, pages: Sequence[int]) -> None:
        for page, flags in zip(pages, self._board.list_pages(pages), strict=True):
            new = self._agenda.saw_page(page, flags)
            if self._on_published is not None:
                self._on_published(new)

    def _believe(self) -> None:
        self._is_all_told = True
        new = self._agenda.heard_all_published()
        for unit in new:
            if self._on_published is not None:
                self._on_published([unit])

    def _tell(self) -> None:
        is_large = self._pages.num_pages > PAGES_TO_START
        if is_large and self._agenda.in_company and not self._is_all_told and self._agenda.has_all_published:
            self._is_all_told = True
            self._board.tell_all_published()

    def _see_others(self) -> bool:
        """Look at claims; whether another says that all is published."""
        seen = self._board.look()
        self._looked_at = self._clock()
        self._agenda.saw_claims(seen.claims, num_others=seen.num_drivers, store_now=seen.at)
        if self._agenda.is_helping and self._looked_at - self._failures_at >= FAILURES_SECONDS:
            self._failures_at = self._looked_at
            self._agenda.saw_failures(self._board.failures())
        return seen.is_all_published and self._pages.num_pages > PAGES_TO_START


def open_supply(
    run: Run,
    *,
    rank: int = 0,
    world_size: int = 1,
    joins: bool = False,
    num_workers: int = 1,
    on_published: Callable[[Iterable[int]], None] | None = None,
) -> tuple[Supply, RunBoard]:
    """The supply of a driver of `run` and its board; `joins`: no share is its own, it helps."""
    units = run.units
    paths = [part_path(unit) for unit in units]
    pages = Pages(paths, PAGE_OBJECTS if is_object_url(run.url) else len(paths))
    place = f"{rank}-of-{world_size}-" if world_size > 1 else ""
    now = time.time()
    notes = Notes(
        run.store,
        Heartbeat(
            id=f"{place}{uuid.uuid4().hex[:12]}",
            host=socket.gethostname(),
            rank=rank,
            world_size=world_size,
            num_workers=num_workers,
            assay_version=__version__,
            started_at=now,
            beat_at=now,
        ),
        clock=time.time,
        replaces=lambda other: bool(place) and other.startswith(place),
    )
    board = RunBoard(run, pages, notes)
    others = notes.look().num_drivers
    if not others:
        notes.forget()
    share = own_share(len(units), rank, world_size)
    is_alone = world_size == 1 and not joins and not others
    supply = Supply(
        board,
        pages,
        share if is_alone or world_size > 1 else (),
        in_company=not is_alone,
        num_workers=num_workers,
        seed=random.SystemRandom().getrandbits(32),
        on_published=on_published,
    )
    supply.begin()
    return supply, board
