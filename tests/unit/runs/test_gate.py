"""The gate before a worker's parts: who waits, who computes, and what comes of a step that fails or is stopped."""

import threading

import pytest

from assay.runs.gate import Gate
from assay.runs.pipeline import StopRequestedError, UnfitError


def test_an_open_gate_lets_through():
    """Nothing to prove is nothing to wait for."""
    gate = Gate(say_waiting=pytest.fail)
    gate.close([])
    gate.check()
    gate.wait()


def test_nobody_passes_before_the_last_step():
    """Whoever waits is heard of, and goes on once every step is taken, in order."""
    go_on, said, taken = threading.Event(), [], []

    def say():
        said.append(list(taken))
        go_on.set()

    gate = Gate(say_waiting=say)
    gate.close([lambda: go_on.wait(20) and taken.append("first"), lambda: taken.append("second")])
    gate.check()
    gate.wait()
    assert said == [[]]
    assert taken == ["first", "second"]


def test_a_step_that_fails_is_everybodys():
    """No later step is taken; the error reaches whoever asks, now and later."""
    taken = []

    def fail():
        raise ValueError("not equal")

    gate = Gate()
    gate.close([fail, lambda: taken.append("second")])
    for ask in (gate.wait, gate.check, gate.wait):
        with pytest.raises(UnfitError) as unfit:
            ask()
        assert isinstance(unfit.value.cause, ValueError)
    assert not taken


def test_a_stop_ends_both_who_wait_and_who_measure():
    """Told to stop, nobody waits for a device that another holds, and that is no failure."""
    stopping, in_turn = threading.Event(), threading.Event()
    gate = Gate(stopping.is_set)

    def step():
        in_turn.wait(20)
        with gate.turn():
            pytest.fail("somebody else computes")

    gate.close([step])
    with gate.turn():
        in_turn.set()
        stopping.set()
        with pytest.raises(StopRequestedError):
            gate.wait()
