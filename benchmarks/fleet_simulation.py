"""A fleet on a virtual clock: makespan over the ideal, work done twice, and requests to the store a unit.

Simulated, not measured: the agenda, the supply, the liveness rule and the protocol of publishing are those of real
runs, the store and the machines are a model (`assay/fleet/world.py` has its numbers): boots of 60 to 300 s, speeds 15%
apart and 2% of the devices at a quarter, machines lost every six hours and a third of a zone every eight, half of them
with a warning, 0.2% of requests refused, 0.2% of puts met by a 409 and as many answers lost, clocks two minutes off.
Units take a minute, 20% apart.

The ideal is what the same machines, up at the same times, would have taken were work a fluid and nothing lost. Values
are the worst of the seeds. `static` are drivers that share a run, a machine each; `dynamic` is one driver of all.
"""

import random
from collections.abc import Sequence
from pathlib import Path

from _record import finish, parser

from assay import charts
from assay.fleet.simulate import Executor, Simulated, Simulation

UNIT_SECONDS = 60.0
SPREAD = 0.2
PICTURES = Path(__file__).resolve().parents[1] / "docs" / "images"
CASES = {
    "corpus_160m": (12, 1_352, 60.0),
    "billion": (1_000, 100, 10.0),
    "minutes_360k": (1_000, 360, 60.0),
}
"""Machines, units for each and seconds of a unit.

160 million documents on 12 devices at 164 a second each; a billion on 1,000 at 1,000 a second each, in a hundred units
of ten seconds for each; 360,000 minutes of work on 1,000."""


def simulate(
    machines: int, units: int, executor: Executor, seed: int, unit_seconds: float = UNIT_SECONDS
) -> Simulated:
    """One run of one fleet."""
    chance = random.Random(seed)
    costs = [unit_seconds * chance.lognormvariate(-SPREAD * SPREAD / 2, SPREAD) for _ in range(units)]
    return Simulation(num_machines=machines, costs=costs, executor=executor, seed=seed).run()


def describe(runs: Sequence[Simulated]) -> dict[str, float]:
    """The figures of some runs, each the worst."""
    return {
        "over_ideal": round(max(run.over_ideal for run in runs), 4),
        "doubled_share": round(max(run.doubled_share for run in runs), 4),
        "lost_share": round(max(run.lost_share for run in runs), 4),
        "requests_per_unit": round(max(run.requests_per_unit for run in runs), 3),
        "machines_lost": max(run.num_lost_machines for run in runs),
    }


def main() -> None:
    """Simulate, print, record."""
    arguments = parser(__doc__, smoke="4 machines, 10 units each")
    arguments.add_argument("--machines", type=int, default=100, help="machines of the fleet [100]")
    arguments.add_argument("--units-each", type=int, default=100, help="units for each of them [100]")
    arguments.add_argument("--seeds", type=int, default=3, help="runs of each kind [3]")
    arguments.add_argument("--unit-seconds", type=float, default=UNIT_SECONDS, help="seconds of a unit [60]")
    arguments.add_argument("--case", choices=CASES, help="one of the fleets of the page, for its claims")
    arguments.add_argument(
        "--picture", action="store_true", help="draw fleet.svg of the docs, or that of the case"
    )
    chosen = arguments.parse_args()
    machines, each, unit_seconds = (
        CASES[chosen.case] if chosen.case else (chosen.machines, chosen.units_each, chosen.unit_seconds)
    )
    if chosen.tiny:
        machines, each = 4, 10
    found: dict[Executor, list[Simulated]] = {}
    executors: tuple[Executor, ...] = ("static", "dynamic")
    for executor in executors:
        found[executor] = [
            simulate(machines, machines * each, executor, seed, unit_seconds) for seed in range(chosen.seeds)
        ]
        print(executor, describe(found[executor]), flush=True)
    if chosen.picture:
        lines = [
            charts.Line(
                name=f"{name}, {run.over_ideal:.3f} of the ideal time",
                x=[seconds / 60 for seconds, _ in run.curve],
                y=[share for _, share in run.curve],
            )
            for name, (run, *_) in found.items()
        ]
        title = f"Share of the units published: {machines:,} machines, {each:,} units of {unit_seconds:.0f} s each"
        drawing = charts.line_chart(
            title,
            lines,
            x_label="minutes since the first machine was ready",
            y_label="share",
            marks=[charts.Mark(x=found["static"][0].ideal_seconds / 60, text="ideal")],
        )
        picture = PICTURES / (f"fleet_{chosen.case}.svg" if chosen.case else "fleet.svg")
        picture.write_text(drawing.replace("<title>", f"<style>{charts.STYLE}</style><title>", 1) + "\n")
    static, dynamic = describe(found["static"]), describe(found["dynamic"])
    details = {
        "machines": machines,
        "units": machines * each,
        "seeds": chosen.seeds,
        "static": static,
        "dynamic": dynamic,
        "requests_static": {
            kind: round(n / found["static"][0].units, 3) for kind, n in found["static"][0].requests.items()
        },
    }
    if chosen.case:
        details["minutes"] = {
            name: round(max(run.makespan_seconds for run in runs) / 60, 1) for name, runs in found.items()
        }
    baseline = "the ideal: the same machines at the same times, work a fluid, nothing lost = 1"
    for claim, value, unit, compared in (
        ("simulation.makespan_over_ideal_static", static["over_ideal"], "ratio", baseline),
        ("simulation.makespan_over_ideal_dynamic", dynamic["over_ideal"], "ratio", baseline),
        (
            "simulation.doubled_work_share",
            static["doubled_share"],
            "share",
            "no unit done twice = 0",
        ),
        (
            "simulation.store_requests_per_unit",
            static["requests_per_unit"],
            "requests",
            "one put of each part, which is not counted",
        ),
    ):
        name = claim.replace("simulation.", f"simulation.{chosen.case}_") if chosen.case else claim
        finish(name, value, unit, compared, details=details, record=chosen.record, trial=chosen.tiny)


if __name__ == "__main__":
    main()
