"""A worker in a thread of its driver's process."""

import pytest
from support.fake_runs import leftovers, make_run, write_sources
from support.fake_worker import FakeWork

from assay.errors import InputError, WorkError
from assay.runs.driver import Driver
from assay.runs.verify import verify
from assay.runs.within import thread_worker


@pytest.fixture
def run(tmp_path):
    """A run of five units."""
    return make_run(tmp_path / "run", write_sources(tmp_path / "sources", [1000]), unit_rows=200)


def test_every_unit_is_published(run):
    """It is driven as a process is, and leaves the same run."""
    outcome = Driver(run, [thread_worker(run, lambda: FakeWork(run.manifest))]).run()
    assert (outcome.units_published, outcome.counters.rows) == (5, 1000)
    assert outcome.descriptions == ("fake worker",)
    assert verify(run.url).holds


def test_work_that_cannot_be_opened(run):
    """Its error is the driver's, in its own words."""

    def refuse():
        raise InputError("no such tokenizer")

    with pytest.raises((InputError, WorkError), match="no such tokenizer"):
        Driver(run, [thread_worker(run, refuse)]).run()


def test_an_interrupt_leaves_nothing_half(run):
    """The thread stops within its unit; what is published is whole, and another try does the rest."""

    def interrupt(progress):
        if progress.counters.rows:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Driver(run, [thread_worker(run, lambda: FakeWork(run.manifest))], on_progress=interrupt).run()
    assert leftovers(run) == []
    Driver(run, [thread_worker(run, lambda: FakeWork(run.manifest))]).run()
    assert verify(run.url).holds
