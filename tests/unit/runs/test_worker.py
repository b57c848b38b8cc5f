"""A worker process's side of the pipe: units in, parts out, one JSON line for each thing that happens."""

import io
import json
import os
import threading

import pytest
from support.fake_runs import leftovers, make_run, write_sources
from support.fake_worker import FakeWork, Orders

from assay.errors import RefusedError, SourceError, StorageError, UnitError
from assay.runs.verify import verify
from assay.runs.worker import FATAL_ERRORS, Mailbox, StopRequestedError, UnitFeed, run_unit, serve_units


@pytest.fixture
def run(tmp_path):
    """A run of five units of 200 rows, each of four batches."""
    return make_run(
        tmp_path / "run", write_sources(tmp_path / "sources", [1000], row_group_rows=200), unit_rows=200
    )


def serve(run, commands, work=None):
    """What a worker answers to the driver's commands, as JSON objects."""
    events = io.StringIO()
    lines = io.StringIO("".join(json.dumps(command) + "\n" for command in commands))
    serve_units(run, work or FakeWork(run.manifest), Mailbox(run, lines, events))
    return [json.loads(line) for line in events.getvalue().splitlines()]


def units(run, *indices):
    """Commands that give these units, then the end."""
    names = [run.manifest.units()[index].name for index in indices]
    return [*({"unit": name} for name in names), {"end": True}]


def test_units_become_parts_in_order(run):
    """Each unit is answered with its part, in the order given, until the driver says end."""
    events = serve(run, units(run, 3, 0, 1))
    assert [event["unit"] for event in events] == ["a-600-800", "a-0-200", "a-200-400"]
    assert all(event["event"] == "published" and event["created"] for event in events)
    assert events[-1]["num_rows"] == 200
    assert events[-1]["counters"]["rows"] == 600
    assert set(run.part_files()) == {"a-600-800", "a-0-200", "a-200-400"}


def test_a_unit_in_one_call(run):
    """Without a driver one call turns a unit into its part."""
    unit = run.manifest.units()[0]
    assert run_unit(run, FakeWork(run.manifest), unit).created
    assert run.is_published(unit)


def test_a_unit_published_by_another_worker(run):
    """A unit that someone else published meanwhile is answered, and says that this part was not taken."""
    serve(run, units(run, 0))
    (event,) = serve(run, units(run, 0))
    assert (event["event"], event["created"]) == ("published", False)


@pytest.mark.parametrize("command", [{"stop": True}, None])
def test_stop_publishes_nothing_half(run, command):
    """Told to stop, or left by its driver, a worker ends; the unit under way is not published."""
    started = threading.Event()

    class SlowWork(FakeWork):
        def finish(self, unit, prepared):
            for batch in super().finish(unit, prepared):
                started.set()
                yield batch

    # A pipe, so that the command comes while the first unit is under way.
    reading, writing = os.pipe()
    with os.fdopen(reading) as commands, os.fdopen(writing, "w", buffering=1) as driver:
        mailbox = Mailbox(run, commands, io.StringIO())
        work = SlowWork(run.manifest, Orders(seconds_per_batch=0.2), mailbox.should_stop)
        worker = threading.Thread(target=serve_units, args=(run, work, mailbox))
        worker.start()
        driver.write(json.dumps({"unit": run.manifest.units()[0].name}) + "\n")
        assert started.wait(20)
        if command:
            driver.write(json.dumps(command) + "\n")
        else:
            driver.close()
        worker.join(20)
        assert not worker.is_alive()
    assert run.part_files() == {}
    assert leftovers(run) == []


def test_a_failed_unit_is_no_part(run):
    """A unit that fails is reported with its error and trace; the worker goes on with the next."""
    events = serve(run, units(run, 0, 1), FakeWork(run.manifest, Orders(fail_units=("a-0-200",))))
    assert [event["event"] for event in events] == ["failed", "published"]
    assert events[0]["message"] == "RuntimeError: the unit is cursed"
    assert events[0]["kind"] is None
    assert "in fail" in events[0]["trace"]
    assert set(run.part_files()) == {"a-200-400"}
    assert leftovers(run) == []


@pytest.mark.parametrize(
    ("fail_kind", "kind", "message"),
    [
        ("SourceError", "InputError", "the source is bad"),
        ("ENOSPC", "StorageError", "free space on that disk"),
    ],
)
def test_what_no_retry_mends_is_said_so(run, fail_kind, kind, message):
    """A bad source and a full disk are reported by the name of their error, so that nobody retries."""
    work = FakeWork(run.manifest, Orders(fail_units=("a-0-200",), fail_kind=fail_kind))
    event = serve(run, units(run, 0), work)[0]
    assert (event["event"], event["kind"]) == ("failed", kind)
    assert message in event["message"]


def test_a_failure_while_reading(run, tmp_path):
    """A source that cannot be read fails its unit, not the thread that reads ahead."""
    (tmp_path / "sources" / "a.parquet").write_bytes(b"nothing")
    events = serve(run, units(run, 0, 1))
    assert [event["event"] for event in events] == ["failed", "failed"]
    assert "a.parquet" in events[0]["message"]
    assert run.part_files() == {}


def test_fatal_errors_cover_the_tree():
    """An error of a fatal kind is found by its class, a subclass included; a unit's own failure is not fatal."""
    assert isinstance(SourceError("x"), FATAL_ERRORS["InputError"])
    assert RefusedError in FATAL_ERRORS.values()
    assert StorageError in FATAL_ERRORS.values()
    assert not any(issubclass(UnitError, kind) for kind in FATAL_ERRORS.values())


def test_progress_is_sent_while_a_unit_runs(run, monkeypatch):
    """A long unit tells how far it is."""
    monkeypatch.setattr("assay.runs.worker.PROGRESS_SECONDS", 0.0)
    events = serve(run, units(run, 0))
    assert [event["event"] for event in events] == ["progress"] * 4 + ["published"]
    assert [event["counters"]["rows"] for event in events] == [64, 128, 192, 200, 200]


def test_a_feed_prepares_ahead_and_stays_bounded(run):
    """Units are prepared before they are asked for, across their borders, but only a few chunks ahead."""
    prepared = []

    class WatchedWork(FakeWork):
        def prepare(self, unit):
            for rows in super().prepare(unit):
                prepared.append(unit.name)
                yield rows

    feed = UnitFeed(WatchedWork(run.manifest), lambda: False)
    for unit in run.manifest.units():
        feed.add(unit)
    feed.close()
    taken = []
    while (got := feed.next_unit()) is not None:
        unit, chunks = got
        for rows in chunks:
            taken.append(rows.start)
            assert len(prepared) <= len(taken) + 4
    assert taken == sorted(taken)
    assert len(taken) == len(prepared) == 20


def test_a_stopped_feed_ends(run):
    """Once told to stop, whoever waits for a unit is let go."""
    feed = UnitFeed(FakeWork(run.manifest), lambda: True)
    with pytest.raises(StopRequestedError):
        feed.next_unit()
    feed.close()


def test_a_driver_that_is_gone_stops_the_worker(run):
    """A broken pipe to the driver is a reason to stop, not to crash."""

    class Gone(io.StringIO):
        def write(self, _):
            raise BrokenPipeError

    mailbox = Mailbox(run, io.StringIO(), Gone())
    mailbox.send("ready", description="x")
    assert mailbox.should_stop()


def test_every_part_of_a_served_run_holds(run):
    """Served by two workers in turn the run is whole."""
    serve(run, units(run, 4, 2))
    serve(run, units(run, 0, 1, 2, 3))
    assert verify(run.url, sources=True).holds
