"""A fleet on a virtual clock: what a run of many machines takes, does twice and asks of its store.

The agenda, the supply, the liveness rule and the protocol of publishing are those of real runs; the world is a model
(`world.py`). After every event it is checked that no unit is published twice and that no driver ends well before all
is published.
"""

import contextlib
import heapq
import itertools
import random
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from assay.data.storage import PAGE_OBJECTS
from assay.fleet.world import Conditions, SimulatedFleet, UnsureError, WorldBoard
from assay.runs.agenda import Pages
from assay.runs.notes import beat_seconds
from assay.runs.plan import own_share
from assay.runs.supply import Supply

Executor = Literal["static", "dynamic"]
WARNING_SECONDS = 30.0
GRACE_SECONDS = 20.0
"""Of a warned driver for the unit under way."""
RELOAD_SECONDS = 20.0
"""Of a worker process that died on a machine that lives."""
NOTICE_SECONDS = 10.0
"""Until one driver of many machines knows that one is gone."""
INFANCY_SECONDS = 600.0
"""In which a machine is three times as likely to be taken away."""
MOST_HOURS = 1_000.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Simulated:
    """What came of a simulated run."""

    makespan_seconds: float
    """From the first machine being ready to the last part."""
    ready_seconds: float
    """From the launch to the first machine being ready."""
    ideal_seconds: float
    """The same with the same machines at the same times, were work a fluid and nothing lost."""
    doubled_share: float
    """Work on units that another had published by then, of the work of all units once."""
    lost_share: float
    """Work lost with machines that went, the same way."""
    requests: dict[str, int]
    """By kind; `put part` counts each try."""
    units: int
    num_lost_machines: int
    curve: tuple[tuple[float, float], ...]
    """Share of the units published, by seconds since the start; a hundred points."""

    @property
    def over_ideal(self) -> float:
        """Makespan over ideal."""
        return self.makespan_seconds / self.ideal_seconds

    @property
    def requests_per_unit(self) -> float:
        """Requests beyond the data (one put of each part) a unit."""
        return (sum(self.requests.values()) - self.units) / self.units


@dataclass(kw_only=True)
class _Machine:
    """A device, and the driver or worker on it."""

    number: int
    speed: float
    zone: int
    life: int = 0
    """Counts its starts: what was arranged for an earlier life counts for nothing."""
    is_up: bool = False
    up_since: float = 0.0
    supply: Supply | None = None
    board: WorldBoard | None = None
    in_hand: deque[int] = field(default_factory=deque)
    busy_since: float | None = None
    free_since: float = 0.0
    unit_seconds: float | None = None


class Simulation:
    """One run of one fleet."""

    def __init__(
        self,
        *,
        num_machines: int,
        costs: Sequence[float],
        executor: Executor = "static",
        conditions: Conditions | None = None,
        seed: int = 0,
        page_units: int = PAGE_OBJECTS,
    ) -> None:
        """`costs`: seconds of each unit on a device of speed 1."""
        self._executor = executor
        self._conditions = conditions or Conditions()
        self._chance = random.Random(seed)
        paths = [f"parts/corpus-{number:09d}-{number + 1:09d}.parquet" for number in range(len(costs))]
        self.world = SimulatedFleet(
            conditions=self._conditions,
            pages=Pages(paths, page_units),
            costs=costs,
            poisoned=frozenset(self._chance.sample(range(len(costs)), self._conditions.poisoned_units)),
            chance=self._chance,
        )
        self._machines = [self._new_machine(number) for number in range(num_machines)]
        self._events: list[tuple[float, int, str, int, int]] = []
        self._count = itertools.count()
        self._up: list[tuple[float, float, float]] = []
        """Machines' times: from, to, speed."""
        self._doubled = self._lost = 0.0
        self._num_lost = 0
        self._ended: set[int] = set()
        self._by_driver: dict[str, set[int]] = {}
        self._shared: tuple[Supply, WorldBoard] | None = None

    def run(self) -> Simulated:
        """Run until every driver has ended; raises AssertionError where an invariant does not hold."""
        for machine in self._machines:
            self._at(self._chance.uniform(*self._conditions.boot_seconds), "boot", machine)
        for zone in range(self._conditions.zones):
            self._arrange_zone(zone)
        handlers = {
            "boot": self._boot,
            "done": self._done,
            "crash": self._crash,
            "reload": self._reload,
            "wake": self._hand_out,
            "beat": self._beat,
            "warn": self._warn,
            "lose": self._lose,
            "notice": self._notice,
        }
        while self._events and not self._is_over():
            self.world.now, _, kind, number, life = heapq.heappop(self._events)
            assert self.world.now < MOST_HOURS * 3600, "the run does not end"
            if kind == "zone":
                self._lose_zone(number)
                continue
            machine = self._machines[number]
            if machine.life == life:
                handlers[kind](machine)
        assert self.world.num_left == 0, f"{self.world.num_left} units were never published"
        return self._outcome()

    # ------------------------------------------------------------ machines come and go

    def _new_machine(self, number: int) -> _Machine:
        conditions = self._conditions
        speed = max(self._chance.gauss(1.0, conditions.speed_deviation), 0.3)
        if self._chance.random() < conditions.slow_share:
            speed /= 4
        return _Machine(number=number, speed=speed, zone=number % conditions.zones)

    def _boot(self, machine: _Machine) -> None:
        world = self.world
        machine.life += 1
        machine.is_up, machine.up_since, machine.free_since = True, world.now, world.now
        machine.in_hand.clear()
        machine.busy_since = None
        self._arrange_loss(machine)
        num_units, num_machines = len(world.costs), len(self._machines)
        if self._executor == "static":
            board = WorldBoard(world, f"{machine.number}-{machine.life}", machine.number)
            share: Sequence[int] = own_share(num_units, machine.number, num_machines)
            machine.supply, machine.board = self._supply(board, share, in_company=num_machines > 1), board
            self._at(beat_seconds(num_machines), "beat", machine)
        else:
            if self._shared is None:
                board = WorldBoard(world, "one", None)
                self._shared = self._supply(board, range(num_units), in_company=False), board
            machine.supply, machine.board = self._shared
        self._hand_out(machine)

    def _supply(self, board: WorldBoard, share: Sequence[int], *, in_company: bool) -> Supply:
        supply = Supply(
            board,
            self.world.pages,
            share,
            in_company=in_company,
            num_workers=1 if in_company else len(self._machines),
            seed=self._chance.getrandbits(32),
            clock=lambda: self.world.now + board.waited,
        )
        board.look()  # as a command does before it begins: is anybody else there?
        supply.begin()
        return supply

    def _arrange_loss(self, machine: _Machine) -> None:
        rate = 1 / (self._conditions.hours_between_losses * 3600)
        after = self._chance.expovariate(3 * rate)
        if after > INFANCY_SECONDS:
            after = INFANCY_SECONDS + self._chance.expovariate(rate)
        if self._chance.random() < self._conditions.warned_share:
            self._at(max(after - WARNING_SECONDS, 0.0), "warn", machine)
        self._at(after, "lose", machine)

    def _arrange_zone(self, zone: int) -> None:
        after = self._chance.expovariate(1 / (self._conditions.hours_between_zone_losses * 3600))
        heapq.heappush(self._events, (self.world.now + after, next(self._count), "zone", zone, 0))

    def _lose_zone(self, zone: int) -> None:
        for machine in self._machines:
            if machine.zone == zone and machine.is_up and self._chance.random() < 1 / 3:
                self._lose(machine)
        self._arrange_zone(zone)

    def _warn(self, machine: _Machine) -> None:
        """The driver takes no more units, and goes at once where it cannot finish the one under way."""
        if not machine.is_up or self._executor == "dynamic" or machine.number in self._ended:
            return
        unit = machine.in_hand[0] if machine.in_hand else None
        if unit is not None and machine.busy_since is not None and unit not in self.world.poisoned:
            end = machine.busy_since + self.world.costs[unit] / machine.speed
            if end - self.world.now <= GRACE_SECONDS:
                self.world.now = end
                with contextlib.suppress(UnsureError):
                    self._publish(machine, unit)
        assert machine.board is not None
        machine.board.leave("drained")
        self._lose(machine)

    def _lose(self, machine: _Machine) -> None:
        """The machine is gone; another is started in its place."""
        if not machine.is_up or machine.number in self._ended:
            return
        self._num_lost += 1
        if machine.busy_since is not None:
            self._lost += max(self.world.now - machine.busy_since, 0.0) * machine.speed
        self._up.append((machine.up_since, self.world.now, machine.speed))
        machine.is_up, machine.busy_since = False, None
        machine.life += 1
        if self._executor == "dynamic":
            self._at(NOTICE_SECONDS, "notice", machine)
        self._at(NOTICE_SECONDS + self._chance.uniform(*self._conditions.boot_seconds), "boot", machine)

    def _notice(self, machine: _Machine) -> None:
        """The one driver hands out again what the machine had."""
        assert machine.supply is not None
        while machine.in_hand:
            machine.supply.put_back(machine.in_hand.pop())
        for other in self._machines:
            if other.is_up and not other.in_hand:
                self._hand_out(other)

    # ------------------------------------------------------------ units

    def _hand_out(self, machine: _Machine) -> None:
        if not machine.is_up or machine.number in self._ended:
            return
        supply, board = machine.supply, machine.board
        assert supply is not None
        assert board is not None
        board.waited = 0.0
        num_workers = 1 if self._executor == "static" else len(self._machines)
        while len(machine.in_hand) < supply.units_for(
            len(machine.in_hand), machine.unit_seconds, num_workers
        ):
            unit = supply.take()
            if unit is None:
                break
            machine.in_hand.append(unit)
        if machine.in_hand and machine.busy_since is None:
            self._begin(machine, machine.in_hand[0], board.waited)
        elif not machine.in_hand:
            if not supply.is_over:
                self._at(max(supply.paused_until - self.world.now, 0.2), "wake", machine)
            elif self._executor == "static":
                assert self.world.num_left == 0, "a driver ended well before all was published"
                board.leave("finished")
                self._ended.add(machine.number)
                self._up.append((machine.up_since, self.world.now, machine.speed))

    def _begin(self, machine: _Machine, unit: int, waited: float) -> None:
        machine.busy_since = self.world.now + waited
        if unit in self.world.poisoned:
            self._at(waited + min(10.0, self.world.costs[unit]), "crash", machine)
        else:
            self._at(waited + self.world.costs[unit] / machine.speed, "done", machine)

    def _done(self, machine: _Machine) -> None:
        if not machine.is_up:
            return
        try:
            self._publish(machine, machine.in_hand[0])
        except UnsureError:
            self._lose(machine)  # a store that refuses a put seven times ends a driver
            return
        machine.in_hand.popleft()
        machine.busy_since = None
        if machine.in_hand:
            self._begin(machine, machine.in_hand[0], 0.0)
        self._hand_out(machine)
        if self._executor == "dynamic":
            self._beat_of_one()
        elif machine.supply is not None:
            machine.supply.keep_up(units_published=1)

    def _publish(self, machine: _Machine, unit: int) -> None:
        world, supply, board = self.world, machine.supply, machine.board
        assert supply is not None
        assert board is not None
        was_there = unit in world.owners
        owner = world.owners.get(unit)
        created = board.publish(unit, f"{machine.number}-{machine.life}-{next(self._count)}")
        assert created is not was_there, (
            "one put of a unit is told that it was first, and the others that they were not"
        )
        assert not was_there or world.owners[unit] == owner, "a published part is replaced"
        if was_there:
            self._doubled += world.costs[unit]
        seconds = world.now - machine.free_since
        machine.free_since = world.now
        machine.unit_seconds = (
            seconds if machine.unit_seconds is None else (3 * machine.unit_seconds + seconds) / 4
        )
        supply.done(unit, seconds)

    def _crash(self, machine: _Machine) -> None:
        """The unit killed its process; the driver lives."""
        if not machine.is_up:
            return
        assert machine.supply is not None
        unit = machine.in_hand.popleft()
        machine.supply.failed(unit, "killed")
        while machine.in_hand:
            machine.supply.put_back(machine.in_hand.pop())
        self._at(RELOAD_SECONDS, "reload", machine)

    def _reload(self, machine: _Machine) -> None:
        machine.busy_since, machine.free_since = None, self.world.now
        self._hand_out(machine)

    def _beat(self, machine: _Machine) -> None:
        if machine.number in self._ended or not machine.is_up or machine.supply is None:
            return
        machine.supply.keep_up()
        self._at(beat_seconds(len(self._machines)), "beat", machine)

    def _beat_of_one(self) -> None:
        if self._shared is not None:
            self._shared[0].keep_up(units_published=1)

    # ------------------------------------------------------------ helpers

    def _at(self, seconds: float, kind: str, machine: _Machine) -> None:
        event = (self.world.now + seconds, next(self._count), kind, machine.number, machine.life)
        heapq.heappush(self._events, event)

    def _is_over(self) -> bool:
        if self._executor == "dynamic":
            return self.world.num_left == 0
        return len(self._ended) == len(self._machines)

    def _outcome(self) -> Simulated:
        world = self.world
        self._up += [
            (machine.up_since, world.now, machine.speed)
            for machine in self._machines
            if machine.is_up and machine.number not in self._ended
        ]
        first = min(since for since, _, _ in self._up)
        last = max(world.published_at.values())
        total = sum(cost for unit, cost in enumerate(world.costs) if unit not in world.poisoned)
        times = sorted(world.published_at.values())
        assert len(times) == len(world.owners) == len(world.costs) - len(world.poisoned)
        steps = [round(k * (len(times) - 1) / 100) for k in range(101)]
        return Simulated(
            makespan_seconds=last - first,
            ready_seconds=first,
            ideal_seconds=self._ideal_end(total) - first,
            doubled_share=self._doubled / total,
            lost_share=self._lost / total,
            requests=dict(Counter(world.requests)),
            units=len(times),
            num_lost_machines=self._num_lost,
            curve=tuple((times[step] - first, (step + 1) / len(times)) for step in steps),
        )

    def _ideal_end(self, total: float) -> float:
        """When the machines, for as long as they were up, could have done the work, had it been a fluid."""
        changes = sorted(
            change for since, until, speed in self._up for change in ((since, speed), (until, -speed))
        )
        done, speed, before = 0.0, 0.0, 0.0
        for time, change in changes:
            if done + speed * (time - before) >= total:
                break
            done, before, speed = done + speed * (time - before), time, speed + change
        # where no time was lost at all, rounding may leave a last bit of work after the last machine
        return before + (total - done) / speed if speed > 1e-9 else before
