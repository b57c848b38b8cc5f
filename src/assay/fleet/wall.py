"""How long a run of so much work takes: the real policies on a virtual clock, with boot and tail.

Each unit costs what one of the slices that were timed, drawn at random, cost a row. The same is simulated at either
end of the interval of the work and with some seeds; what comes out least and most is the interval of the time.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from assay.fleet.simulate import Simulated, Simulation
from assay.fleet.world import Conditions
from assay.runs.plan import UNITS_OF_A_WORKER
from assay.score.estimate.intervals import Estimated, Slice

NUM_SEEDS = 3
MOST_UNITS = 20_000
"""That are simulated. Of a run with more, boot and tail are those of a run with so many: they do not grow with it."""
MANY_UNITS = 5_000
"""Above it one seed is simulated, not three."""
NEVER_HOURS = 1e9
ONE_MACHINE = Conditions(
    boot_seconds=(0.0, 0.0),
    speed_deviation=0.0,
    slow_share=0.0,
    hours_between_losses=NEVER_HOURS,
    zones=1,
    hours_between_zone_losses=NEVER_HOURS,
    latency_seconds=(0.0, 0.0),
    refused_share=0.0,
    conflict_share=0.0,
    lost_share=0.0,
    clock_skew_seconds=0.0,
)
"""And its disk: nothing is lost, and the store answers at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wall:
    """What came of the simulations."""

    seconds: Estimated
    """From the start to the last part."""
    boot_seconds: float
    """Of these, until the first worker takes a unit."""
    over_ideal: float
    """The rest, over that of an even split without a pause."""


def fleet_conditions(
    *, boot_seconds: float, start_seconds: float, speed_spread: float, hours_between_losses: float | None
) -> Conditions:
    """A fleet whose machines boot for a third to five thirds of `boot_seconds`; where they are lost, by zone too."""
    losses = NEVER_HOURS if hours_between_losses is None else hours_between_losses
    return Conditions(
        boot_seconds=(boot_seconds / 3 + start_seconds, boot_seconds * 5 / 3 + start_seconds),
        speed_deviation=speed_spread,
        slow_share=0.0,
        hours_between_losses=losses,
        hours_between_zone_losses=NEVER_HOURS
        if hours_between_losses is None
        else Conditions().hours_between_zone_losses,
    )


def machine_conditions(start_seconds: float) -> Conditions:
    """This machine, whose workers are ready after so long."""
    return replace(ONE_MACHINE, boot_seconds=(start_seconds, start_seconds))


def simulate_wall(
    unit_rows: Sequence[int],
    device_seconds: Estimated,
    slices: Sequence[Slice],
    *,
    num_workers: int,
    conditions: Conditions,
    is_one_machine: bool,
    seed: int,
) -> Wall:
    """Simulate a run of these units whose work is `device_seconds`, in the ratios of the slices."""
    most = min(UNITS_OF_A_WORKER * num_workers, max(MOST_UNITS, num_workers))
    shown = _evenly(unit_rows, most)
    share = sum(shown) / (sum(unit_rows) or 1)
    seeds = range(seed, seed + (NUM_SEEDS if len(shown) <= MANY_UNITS else 1))
    found: dict[float, list[_Run]] = {}
    for total in (device_seconds.low, device_seconds.value, device_seconds.high):
        found[total] = []
        for each in seeds:
            simulated = Simulation(
                num_machines=num_workers,
                costs=_costs(shown, total * share, slices, each),
                executor="dynamic" if is_one_machine else "static",
                conditions=conditions,
                seed=each,
            ).run()
            found[total].append(_Run(simulated, rest_seconds=total * (1 - share) / num_workers))
    middle = found[device_seconds.value]
    return Wall(
        seconds=Estimated(
            value=median(run.wall_seconds for run in middle),
            low=min(run.wall_seconds for run in found[device_seconds.low]),
            high=max(run.wall_seconds for run in found[device_seconds.high]),
        ),
        boot_seconds=median(run.simulated.ready_seconds for run in middle),
        over_ideal=median(run.over_ideal for run in middle),
    )


@dataclass(frozen=True, slots=True)
class _Run:
    """A simulation of some of the units, and how long workers without a pause take for the others."""

    simulated: Simulated
    rest_seconds: float

    @property
    def _working(self) -> float:
        """Of what is not simulated is lost what is lost of the other."""
        return self.simulated.makespan_seconds + self.rest_seconds * (1 + self.simulated.lost_share)

    @property
    def wall_seconds(self) -> float:
        """From the start to the last part."""
        return self.simulated.ready_seconds + self._working

    @property
    def over_ideal(self) -> float:
        """The time since the first worker was ready over that of an even split."""
        return self._working / (self.simulated.ideal_seconds + self.rest_seconds)


def _evenly(unit_rows: Sequence[int], most: int) -> Sequence[int]:
    """So many of the units from all over the run, in order."""
    count = min(len(unit_rows), most)
    return [unit_rows[len(unit_rows) * k // count] for k in range(count)]


def _costs(unit_rows: Sequence[int], total: float, slices: Sequence[Slice], seed: int) -> list[float]:
    """Seconds of each unit, `total` together."""
    chance = random.Random(seed)
    rates = [each.seconds / each.num_rows for each in slices if each.seconds and each.num_rows] or [1.0]
    raw = [rows * chance.choice(rates) for rows in unit_rows]
    scale = total / (sum(raw) or 1.0)
    return [cost * scale for cost in raw]
