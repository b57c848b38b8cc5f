"""The two bars of an ensemble run."""

import io

from assay.ensemble.display import EnsembleDisplay
from assay.telemetry import Counters, Progress


def progress(units_done, members):
    """Where a run of 4 batches stands."""
    return Progress(
        units_total=4,
        units_done=units_done,
        rows_total=40,
        rows_done=10 * units_done,
        counters=Counters(rows=10, members=members),
        seconds=3.0,
        num_workers=1,
    )


def test_batches_and_members_have_a_bar_each():
    """Of 4 batches of 5 members one was there before; another is done here, and two turns of the next."""
    display = EnsembleDisplay(5, stream=io.StringIO(), clock=lambda: 0.0)
    display.update(progress(1, 0))
    display.update(progress(2, 7))
    batches, members = display.line(80).splitlines()
    assert batches.startswith("batches ")
    assert " 50% 2/4 batches" in batches
    assert members.startswith("members ")
    assert " 60% 12/20 members, 5 a batch" in members
