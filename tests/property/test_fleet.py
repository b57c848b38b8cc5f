"""A simulated fleet: whatever the world does, each unit is published once, and no driver ends well before all are."""

from hypothesis import given, settings
from hypothesis import strategies as st

from assay.fleet.simulate import Simulation
from assay.fleet.world import Conditions

SHARES = st.sampled_from([0.0, 0.05, 0.3])


@st.composite
def worlds(draw):
    """Stores that lose and refuse much, machines that go often, notes that never arrive, units that kill."""
    return Conditions(
        boot_seconds=draw(st.sampled_from([(1.0, 2.0), (60.0, 300.0)])),
        slow_share=draw(SHARES),
        hours_between_losses=draw(st.sampled_from([0.3, 2.0, 1000.0])),
        hours_between_zone_losses=draw(st.sampled_from([0.5, 1000.0])),
        zones=draw(st.integers(1, 3)),
        warned_share=draw(st.sampled_from([0.0, 0.5, 1.0])),
        reads_per_second=draw(st.sampled_from([3, 5_500])),
        refused_share=draw(SHARES),
        conflict_share=draw(SHARES),
        lost_share=draw(SHARES),
        lost_notes_share=draw(st.sampled_from([0.0, 0.3, 1.0])),
    )


@settings(max_examples=60, deadline=None)
@given(
    world=worlds(),
    num_machines=st.integers(1, 7),
    costs=st.lists(st.floats(0.5, 120.0), min_size=1, max_size=40),
    executor=st.sampled_from(["static", "dynamic"]),
    page_units=st.integers(1, 50),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_unit_is_published_once(world, num_machines, costs, executor, page_units, seed):
    """The simulation checks after each event that no part is replaced or counted twice; here, that it ends with all."""
    outcome = Simulation(
        num_machines=num_machines,
        costs=costs,
        executor=executor,
        conditions=world,
        page_units=page_units,
        seed=seed,
    ).run()
    assert outcome.units == len(costs)
    assert outcome.over_ideal >= 1 - 1e-9, "nothing is faster than a fluid"
    assert outcome.curve[-1][1] == 1.0


@settings(max_examples=20, deadline=None)
@given(
    num_machines=st.integers(1, 6),
    num_poisoned=st.integers(1, 3),
    executor=st.sampled_from(["static", "dynamic"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_unit_that_kills_stops_nobody(num_machines, num_poisoned, executor, seed):
    """Units that kill their process are set aside after some tries, and all the others are published."""
    simulation = Simulation(
        num_machines=num_machines,
        costs=[30.0] * 40,
        executor=executor,
        conditions=Conditions(poisoned_units=num_poisoned),
        seed=seed,
    )
    assert simulation.run().units == 40 - num_poisoned
    assert max(simulation.world.tries.values(), default=0) <= 2 + num_machines


def test_the_same_seed_gives_the_same_run():
    """A simulation is decided by its seed."""
    first, second = (Simulation(num_machines=5, costs=[20.0] * 100, seed=7).run() for _ in range(2))
    assert first == second


def test_helpers_share_the_tail():
    """Twelve machines, a hundred units each: near the ideal, little done twice, few requests."""
    outcome = Simulation(num_machines=12, costs=[60.0] * 1200, seed=3).run()
    assert outcome.over_ideal < 1.05
    assert outcome.doubled_share < 0.02
    assert outcome.requests_per_unit < 2


def test_a_large_run_is_not_listed_by_all(monkeypatch):
    """Of forty machines and as many pages of a listing, few list every page at the end: the others hear of it."""

    def lists():
        outcome = Simulation(num_machines=40, costs=[60.0] * 1600, seed=3, page_units=40).run()
        return outcome.requests["list parts"]

    found = lists()
    monkeypatch.setattr("assay.fleet.world.WorldBoard.tell_all_published", lambda _: None)
    assert lists() > found + 600
