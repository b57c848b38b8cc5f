"""Which unit a driver takes next, among many drivers that share a run. Pure: it is told what was seen.

Nothing here decides what is right: a published part does, and a second part of the same unit is dropped. What is
seen of others only makes two drivers on one unit rare.

    alone        the share in order; nothing is claimed, nothing is looked at
    in company   a look, a claim, then its units: of the own share from its front, a block at a time; then of what
                 nobody has published or claimed, at random

A look shows one page of the listing of parts and every claim. Where units were free last, and where others have just
claimed some, more are likely to be free: a driver that helps looks there first. A block is smaller the less there is
left, so that the last units are shared out and a lost claim holds up little. What is claimed by a driver that is gone,
or for three times as long as it should take, is free again.

At the end every driver has to know that all is published. Where the listing has many pages and nothing is claimed any
more, a few drivers list it and say so; the others believe that, see `supply.py`.
"""

import random
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

TRIES_PER_UNIT = 3
"""Failures of a unit, wherever they happened, after which it is set aside."""
BLOCK_SECONDS = 600.0
"""Of work in a block, at most."""
FIRST_BLOCK_UNITS = 2
"""Of each worker, before it is known how long a unit takes."""
SHARE_OF_REST = 4
"""A block is at most a quarter of what is left of the share."""
LATE = 1.5
"""Times as long as this driver would take for a claim, and its units are taken where nothing else is left."""
OVERDUE = 3
"""Times as long, and they are free again."""
SHORTEST_LIMIT_SECONDS = 2.0
"""What a claim is allowed, at the least, before these factors."""
UNKNOWN_UNIT_SECONDS = 120.0
"""Of a unit, for a driver that has not done one."""
GLANCES = 3
"""Pages without a free unit after which a driver pauses while others are at work."""
GUIDED_SHARE = 0.75
"""Of the looks for a free unit: at a page where somebody has claimed one; the rest are at any page."""
NUM_LISTERS = 8
"""So many drivers, on average, list the rest of a run that seems done; the others wait to hear of it."""
MOST_WAITS = 3
"""Pauses to hear of it, after which a driver lists the rest itself."""
FEW_PAGES = 4
"""A driver lists so many pages itself, whatever others know."""
SHORTEST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 60.0

_CLAIMED, _LATE = 1, 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Claims:
    """What other drivers that live say they have in hand, each from a unit on and up to another."""

    starts: npt.NDArray[np.int64]
    stops: npt.NDArray[np.int64]
    made_at: npt.NDArray[np.float64]
    """Unix seconds by the store's clock."""

    @staticmethod
    def of(rows: Iterable[tuple[int, int, float]]) -> "Claims":
        """From the first unit, one past the last and the time of each."""
        table = np.array(list(rows), dtype=np.float64).reshape(-1, 3)
        return Claims(
            starts=table[:, 0].astype(np.int64), stops=table[:, 1].astype(np.int64), made_at=table[:, 2]
        )


@dataclass(frozen=True, slots=True)
class Give:
    """Do this unit."""

    unit: int


@dataclass(frozen=True, slots=True)
class Hold:
    """Claim these units, if any; they are given next."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Look:
    """List this page of parts, and the claims."""

    page: int


@dataclass(frozen=True, slots=True)
class Pause:
    """All that is left is in the hands of others: ask again after so long."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Over:
    """Nothing is left that this driver does not have in hand."""


Step: TypeAlias = Give | Hold | Look | Pause | Over


class Pages:
    """The units of a run as a listing shows their parts: in the order of their paths, a page at a time."""

    def __init__(self, paths: Sequence[str], page_units: int) -> None:
        """`paths[k]` is the part of unit k; a page is one request of the listing."""
        self.order = sorted(range(len(paths)), key=paths.__getitem__)
        """Units in the order of the listing."""
        self.position = [0] * len(paths)
        for position, unit in enumerate(self.order):
            self.position[unit] = position
        self.page_units = max(page_units, 1)
        self.num_pages = -(-len(paths) // self.page_units)
        self._paths = paths

    def page_of(self, unit: int) -> int:
        """The page on which the part of a unit is listed."""
        return self.position[unit] // self.page_units

    def units_of(self, page: int) -> Sequence[int]:
        """The units of a page."""
        return self.order[page * self.page_units : (page + 1) * self.page_units]

    def bounds(self, page: int) -> tuple[str | None, str | None]:
        """A page lists the paths after the first, up to the second; None at either end of the listing."""
        before, last = page * self.page_units - 1, (page + 1) * self.page_units - 1
        is_last = page == self.num_pages - 1
        return (
            None if before < 0 else self._paths[self.order[before]],
            None if is_last else self._paths[self.order[last]],
        )

    def flags(self, page: int, published: Iterable[str]) -> bytes:
        """A byte for each unit of a page, 1 where its part is among the listed paths, which are in order."""
        listed = list(published)
        flags = bytearray()
        for unit in self.units_of(page):
            at = bisect_left(listed, self._paths[unit])
            flags.append(at < len(listed) and listed[at] == self._paths[unit])
        return bytes(flags)


class Agenda:
    """What one driver has seen of a run, has in hand, and takes next."""

    def __init__(
        self, pages: Pages, share: Sequence[int], *, in_company: bool, num_workers: int = 1, seed: int = 0
    ) -> None:
        """`share`: the units to do first, in order; `num_workers`: those of this driver."""
        self._pages = pages
        self._share = share
        self._share_at = 0
        self._num_workers = max(num_workers, 1)
        self._chance = random.Random(seed)
        self.in_company = in_company
        self.published = bytearray(len(pages.order))
        """1 for each unit that is known to be published, in the order of the listing."""
        self._open_on_page = [len(pages.units_of(page)) for page in range(pages.num_pages)]
        self.aside: set[int] = set()
        """Failed too often."""
        self._held: deque[int] = deque()
        self._given: set[int] = set()
        self._mine: set[int] = set()
        """Held or given."""
        self._claimed = bytearray(len(pages.order))
        """For each unit, by its number: not claimed by another, claimed, or claimed and late."""
        self._is_claimed = False
        self._claimed_until: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        """One past the last unit of each claim in time: what is free next to it is found there."""
        self._num_others = 0
        self._page: int | None = None
        """The page that was just seen, and after the claims; acted upon once."""
        self._has_seen_claims = False
        self._num_pauses = 0
        """Since the last unit that was free."""
        self._glanced: set[int] = set()
        """Pages without a free unit, since the last that had one or the last pause."""
        self._good_page: int | None = None
        """Where the last free unit was."""
        self._num_waits = 0
        """Pauses in a row in which nothing was claimed."""
        self._is_lister = False
        self.unit_seconds: float | None = None
        """How long a unit took here, lately."""

    # ------------------------------------------------------------ what was seen and what was done

    def saw_page(self, page: int, flags: bytes) -> Iterator[int]:
        """One page of the listing, as `Pages.flags` has it; gives the units that are newly known as published."""
        begin, length = page * self._pages.page_units, len(flags)
        before = bytes(self.published[begin : begin + length])
        after = int.from_bytes(before) | int.from_bytes(flags)  # what is known stays: a listing may be old
        self.published[begin : begin + length] = after.to_bytes(length)
        self._open_on_page[page] = self.published.count(0, begin, begin + length)
        self._page = page if self._has_seen_claims else None
        new = (after ^ int.from_bytes(before)).to_bytes(length)
        return (self._pages.order[begin + k] for k in range(length) if new[k])

    def saw_claims(self, claims: Claims, *, num_others: int, store_now: float) -> None:
        """Every claim of the other drivers that live, how many these are, and the time by the store's clock."""
        self._num_others, self._has_seen_claims = num_others, True
        counts = claims.stops - claims.starts
        limits = np.maximum(counts * (self.unit_seconds or UNKNOWN_UNIT_SECONDS), SHORTEST_LIMIT_SECONDS)
        ages = store_now - claims.made_at
        is_late = ages > LATE * limits
        is_valid = (ages <= OVERDUE * limits) & (counts > 0) & (claims.stops <= len(self._claimed))
        claimed = bytearray(len(self._claimed))
        # what anyone has begun lately is not late
        for state, chosen in ((_LATE, is_valid & is_late), (_CLAIMED, is_valid & ~is_late)):
            for start, stop in zip(
                claims.starts[chosen].tolist(), claims.stops[chosen].tolist(), strict=True
            ):
                claimed[start:stop] = bytes((state,)) * (stop - start)
        self._claimed, self._is_claimed = claimed, bool(is_valid.any())
        self._claimed_until = claims.stops[is_valid & ~is_late]
        if self._is_claimed:
            self._num_waits = 0
        if num_others and not self.in_company:
            self.in_company = True
            self._let_go()

    def heard_all_published(self) -> Iterator[int]:
        """Another has seen every part; gives the units that are newly known as published."""
        return (unit for unit in range(len(self.published)) if self._mark(unit))

    def saw_failures(self, tries: dict[int, int]) -> None:
        """How often units failed anywhere."""
        self.aside |= {unit for unit, count in tries.items() if count >= TRIES_PER_UNIT}

    def finished(self, unit: int, seconds: float | None = None) -> bool:
        """A unit given here is published, after so many seconds of a worker; whether that is news."""
        self._given.discard(unit)
        self._mine.discard(unit)
        if seconds is not None:
            self.unit_seconds = (
                seconds if self.unit_seconds is None else (self.unit_seconds * 3 + seconds) / 4
            )
        return self._mark(unit)

    def put_back(self, unit: int) -> None:
        """A unit given here was not done, through no fault of its own: it is the next again."""
        self._given.remove(unit)
        self._held.appendleft(unit)

    def try_again(self, unit: int) -> None:
        """A unit given here failed: it is tried after the others in hand."""
        self._given.remove(unit)
        self._held.append(unit)

    def set_aside(self, unit: int) -> None:
        """A unit given here failed too often."""
        self._given.discard(unit)
        self._mine.discard(unit)
        self.aside.add(unit)

    @property
    def num_open(self) -> int:
        """Units that are not known to be published, were not set aside, and are not with a worker here."""
        apart = sum(not self._is_published(unit) for unit in self._given | self.aside)
        return len(self.published) - self.published.count(1) - apart

    @property
    def has_all_published(self) -> bool:
        """Whether every unit is known to be published."""
        return 0 not in self.published

    @property
    def num_free_of_share(self) -> int:
        """Units of the share that nobody has in hand."""
        return sum(1 for unit in self._share[self._share_at :] if self._is_free(unit))

    @property
    def is_helping(self) -> bool:
        """Whether nothing of the share is left to take."""
        return self.in_company and self._next_of_share() is None

    @property
    def held(self) -> int:
        """Units that are claimed here and not given yet."""
        return len(self._held)

    # ------------------------------------------------------------ what is next

    def step(self) -> Step:
        """What to do next; each but Pause and Over is followed by another step."""
        while self._held:
            unit = self._held.popleft()
            if not self._is_published(unit) and unit not in self.aside:
                self._given.add(unit)
                return Give(unit)
            self._mine.discard(unit)
        if not self.in_company:
            return self._step_alone()
        first = self._next_of_share()
        if first is None:
            return self._help()
        page = self._pages.page_of(first)
        return self._hold(first, self._own_block()) if page == self._page else Look(page)

    def _step_alone(self) -> Step:
        rest = [unit for unit in self._share if self._is_free(unit)]
        self._held.extend(rest)
        self._mine.update(rest)
        return Hold(0, 0) if rest else Over()

    def _help(self) -> Step:
        open_pages = [page for page, count in enumerate(self._open_on_page) if count and self.has_open(page)]
        if not open_pages:
            return Over()
        if self._page is not None:
            free = [unit for unit in self._open_units(self._page) if self._is_free(unit)]
            if free:
                self._good_page = self._page
                self._num_pauses = 0
                self._begin_round()
                return self._hold(self._chance.choice(free), self._help_block(len(free) * len(open_pages)))
            self._glanced.add(self._page)
        rest = [page for page in open_pages if page not in self._glanced]
        has_glanced = len(self._glanced) >= (1 if self._num_pauses else GLANCES)
        if not rest or (has_glanced and (self._is_claimed or self._waits_to_hear(len(rest)))):
            if self._page is not None and (late := self._late_units(self._page)):
                return self._hold(self._chance.choice(late), 1)
            self._begin_round()
            self._page = None
            self._num_pauses += 1
            seconds = (self.unit_seconds or UNKNOWN_UNIT_SECONDS) * min(0.5 + 0.25 * self._num_pauses, 1.0)
            return Pause(min(max(seconds, SHORTEST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS))
        return Look(self._choose_page(rest))

    def _begin_round(self) -> None:
        self._glanced.clear()
        self._is_lister = False

    def _choose_page(self, pages: Sequence[int]) -> int:
        """The one of these pages to look at next."""
        good, self._good_page = self._good_page, None
        if good is not None and good in pages:
            return good
        if len(self._claimed_until) and self._chance.random() < GUIDED_SHARE:
            unit = int(self._chance.choice(self._claimed_until))
            page = self._pages.page_of(min(unit, len(self.published) - 1))
            if page in pages:
                return page
        return self._chance.choice(pages)

    def _waits_to_hear(self, num_pages: int) -> bool:
        """Whether others are left to list so many pages, on which nothing is claimed: all but a few drivers do."""
        if self._is_lister or num_pages <= FEW_PAGES or self._num_waits >= MOST_WAITS:
            return False
        self._is_lister = self._chance.random() * self._num_others < NUM_LISTERS
        self._num_waits += not self._is_lister
        return not self._is_lister

    def _hold(self, first: int, most: int) -> Hold:
        """Free units from `first` on, on the page that was just seen."""
        page, stop = self._pages.page_of(first), first + 1
        while (
            stop - first < most
            and stop < len(self.published)
            and self._pages.page_of(stop) == page
            and self._is_free(stop)
        ):
            stop += 1
        self._page = None
        self._held.extend(range(first, stop))
        self._mine.update(range(first, stop))
        return Hold(first, stop)

    def _own_block(self) -> int:
        return max(min(self.num_free_of_share // SHARE_OF_REST, self._longest_block()), 1)

    def _help_block(self, num_free: int) -> int:
        return max(min(num_free // (SHARE_OF_REST * (self._num_others + 1)), self._longest_block()), 1)

    def _longest_block(self) -> int:
        each = self.unit_seconds
        return self._num_workers * (
            FIRST_BLOCK_UNITS if each is None else max(int(BLOCK_SECONDS / max(each, 1e-3)), 1)
        )

    def _next_of_share(self) -> int | None:
        share = self._share
        while self._share_at < len(share) and (
            self._is_published(share[self._share_at]) or share[self._share_at] in self.aside
        ):
            self._share_at += 1
        return next((unit for unit in share[self._share_at :] if self._is_free(unit)), None)

    # ------------------------------------------------------------ helpers

    def _let_go(self) -> None:
        self._mine.difference_update(self._held)
        self._held.clear()

    def _mark(self, unit: int) -> bool:
        position = self._pages.position[unit]
        if self.published[position]:
            return False
        self.published[position] = 1
        self._open_on_page[position // self._pages.page_units] -= 1
        return True

    def _is_published(self, unit: int) -> bool:
        return bool(self.published[self._pages.position[unit]])

    def _is_ours(self, unit: int) -> bool:
        """Whether there is nothing to wait for: published, in hand here, or set aside."""
        return self._is_published(unit) or unit in self._mine or unit in self.aside

    def _is_free(self, unit: int) -> bool:
        return not self._claimed[unit] and not self._is_ours(unit)

    def _late_units(self, page: int) -> list[int]:
        return [
            unit
            for unit in self._open_units(page)
            if self._claimed[unit] == _LATE and not self._is_ours(unit)
        ]

    def has_open(self, page: int) -> bool:
        """Whether a page has units that are neither published, nor in hand here, nor set aside."""
        return any(not self._is_ours(unit) for unit in self._open_units(page))

    def _open_units(self, page: int) -> Iterator[int]:
        """The units of a page that are not known to be published."""
        begin = page * self._pages.page_units
        end = begin + self._pages.page_units
        position = self.published.find(0, begin, end)
        while position >= 0:
            yield self._pages.order[position]
            position = self.published.find(0, position + 1, end)
