"""A worker process's side of the pipe: units in, parts out, one JSON line for each thing that happens."""

import io
import json
import os
import threading

import pytest
from support.fake_runs import leftovers, make_run, write_sources
from support.fake_worker import FakeWork, Orders

from assay.errors import RefusedError
from assay.processes import Parent
from assay.runs.pipeline import CHUNKS_AHEAD, Pipeline, StopRequestedError, run_unit
from assay.runs.protocol import Finish, Loaded, Stop, Take, command_to_json
from assay.runs.verify import verify
from assay.runs.worker import Mailbox, serve_units


@pytest.fixture
def run(tmp_path):
    """A run of five units of 200 rows, each of four batches."""
    return make_run(
        tmp_path / "run", write_sources(tmp_path / "sources", [1000], row_group_rows=200), unit_rows=200
    )


def serve(run, commands, work=None):
    """What a worker answers to the driver's commands once it is ready, as JSON objects."""
    events = io.StringIO()
    lines = io.StringIO("".join(json.dumps(command_to_json(command)) + "\n" for command in commands))
    serve_units(run, work or FakeWork(run.manifest), Mailbox(run, Parent(lines, events)))
    listening, ready, *answers = [json.loads(line) for line in events.getvalue().splitlines()]
    assert listening == {"event": "listening"}
    assert ready == {"event": "loaded", "description": "fake worker"}
    return answers


def units(run, *indices):
    """Commands that give these units, then the end."""
    names = [run.manifest.units()[index].name for index in indices]
    return [*(Take(name) for name in names), Finish()]


def test_units_become_parts_in_order(run):
    """Each unit is answered with its part, in the order given, until the driver says end."""
    events = serve(run, units(run, 3, 0, 1))
    assert [event["unit"] for event in events] == ["a-600-800", "a-0-200", "a-200-400"]
    assert all(event["event"] == "done" and event["created"] for event in events)
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
    assert (event["event"], event["created"]) == ("done", False)


@pytest.mark.parametrize("command", [Stop(), None])
def test_stop_publishes_nothing_half(run, command):
    """Told to stop, or left by its driver, a worker ends; the unit under way is not published."""
    started = threading.Event()

    class SlowWork(FakeWork):
        def finish(self, unit, computed):
            for batch in super().finish(unit, computed):
                started.set()
                yield batch

    # A pipe, so that the command comes while the first unit is under way.
    reading, writing = os.pipe()
    with os.fdopen(reading) as commands, os.fdopen(writing, "w", buffering=1) as driver:
        mailbox = Mailbox(run, Parent(commands, io.StringIO()))
        work = SlowWork(run.manifest, Orders(seconds_per_batch=0.2), mailbox.should_stop)
        worker = threading.Thread(target=serve_units, args=(run, work, mailbox))
        worker.start()
        driver.write(json.dumps(command_to_json(Take(run.manifest.units()[0].name))) + "\n")
        assert started.wait(20)
        if command:
            driver.write(json.dumps(command_to_json(command)) + "\n")
        else:
            driver.close()
        worker.join(20)
        assert not worker.is_alive()
    assert run.part_files() == {}
    assert leftovers(run) == []


def test_a_failed_unit_is_no_part(run):
    """A unit that fails is reported with its error and trace; the worker goes on with the next."""
    events = serve(run, units(run, 0, 1), FakeWork(run.manifest, Orders(fail_units=("a-0-200",))))
    assert [event["event"] for event in events] == ["failed", "done"]
    assert events[0]["message"] == "RuntimeError: the unit is cursed"
    assert events[0]["kind"] is None
    assert "in fail" in events[0]["trace"]
    assert set(run.part_files()) == {"a-200-400"}
    assert leftovers(run) == []


@pytest.mark.parametrize(
    ("fail_kind", "kind", "message"),
    [
        ("SourceError", "SourceError", "the source is bad"),
        ("ENOSPC", "StorageError", "free space on that disk"),
    ],
)
def test_what_no_retry_fixes_is_named(run, fail_kind, kind, message):
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


def test_progress_is_sent_while_a_unit_runs(run, monkeypatch):
    """A long unit tells how far it is."""
    monkeypatch.setattr("assay.runs.worker.PROGRESS_SECONDS", 0.0)
    events = serve(run, units(run, 0))
    assert [event["event"] for event in events] == ["underway"] * 4 + ["done"]
    assert [event["counters"]["rows"] for event in events] == [64, 128, 192, 200, 200]


def pipeline_of(run, work):
    """A pipeline with all units of a run."""
    pipeline = Pipeline(work, lambda: False)
    for unit in run.manifest.units():
        pipeline.add(unit)
    pipeline.close()
    return pipeline


def test_a_pipeline_works_ahead_and_stays_bounded(run):
    """Units are prepared and computed before they are asked for, across their borders, a few chunks ahead."""
    prepared, computed = [], []

    class WatchedWork(FakeWork):
        def prepare(self, unit):
            for rows in super().prepare(unit):
                prepared.append(rows.start)
                yield rows

        def compute(self, rows):
            computed.append(rows.start)
            return super().compute(rows)

    taken = []
    with pipeline_of(run, WatchedWork(run.manifest)) as pipeline:
        for _, chunks in pipeline.units():
            for rows in chunks:
                taken.append(rows.start)
                # What waits in a channel, and what its two threads hold.
                assert len(computed) <= len(taken) + CHUNKS_AHEAD + 1
                assert len(prepared) <= len(computed) + CHUNKS_AHEAD + 1
    assert taken == sorted(taken) == prepared == computed
    assert len(taken) == 20


def test_the_device_computes_while_a_chunk_is_written(run):
    """No step waits for the one after it: with a chunk still being written, the next two are computed."""
    computed = [threading.Event() for _ in range(4)]

    class WatchedWork(FakeWork):
        def compute(self, rows):
            computed[rows.start // 64].set()
            return super().compute(rows)

        def finish(self, unit, chunks):
            for number, batch in enumerate(super().finish(unit, chunks)):
                assert all(event.wait(20) for event in computed[number : number + 3])
                yield batch

    assert [event["event"] for event in serve(run, units(run, 0), WatchedWork(run.manifest))] == ["done"]


def test_the_device_computes_while_a_part_is_published(run, monkeypatch):
    """Across unit borders too: the next unit is on the device before the part of this one is linked."""
    next_unit = threading.Event()
    create = type(run.store).create

    class WatchedWork(FakeWork):
        def compute(self, rows):
            if rows.start == 200:
                next_unit.set()
            return super().compute(rows)

    def create_late(store, path, source):
        assert next_unit.wait(20), "the next unit waits for the part of this one"
        return create(store, path, source)

    monkeypatch.setattr(type(run.store), "create", create_late)
    events = serve(run, units(run, 0, 1), WatchedWork(run.manifest))
    assert [event["event"] for event in events] == ["done", "done"]


@pytest.mark.parametrize("step", ["prepare", "compute", "finish"])
def test_an_error_in_any_step_fails_its_unit_alone(run, step):
    """Whichever thread a unit fails in, and in the middle of it, its neighbours are published and it is not."""
    begun = []

    class BrokenWork(FakeWork):
        def prepare(self, unit):
            for rows in super().prepare(unit):
                self._break("prepare", rows)
                yield rows

        def compute(self, rows):
            begun.append(rows.start)
            self._break("compute", rows)
            return super().compute(rows)

        def finish(self, unit, computed):
            for batch in super().finish(unit, computed):
                self._break("finish", unit)
                yield batch

        def _break(self, where, what):
            if where == step and what.start in {200, 264}:
                raise ValueError(where)

    work = BrokenWork(run.manifest)
    events = serve(run, units(run, 0, 1, 2), work)
    assert [(event["event"], event["unit"]) for event in events] == [
        ("done", "a-0-200"),
        ("failed", "a-200-400"),
        ("done", "a-400-600"),
    ]
    assert events[1]["message"] == f"ValueError: {step}"
    assert events[1]["kind"] is None
    assert "_break" in events[1]["trace"]
    assert set(run.part_files()) == {"a-0-200", "a-400-600"}
    assert leftovers(run) == []
    if step == "compute":
        assert {264, 328, 392}.isdisjoint(begun), "nothing more of a failed unit is computed"


def test_a_panic_is_a_failure(run):
    """A panic in a Rust library, which is not an Exception in Python, fails its unit and not the thread."""

    class PanicException(BaseException):
        pass

    class PanickingWork(FakeWork):
        def prepare(self, unit):
            if unit.start == 0:
                raise PanicException("index out of bounds")
            return super().prepare(unit)

    failed, published = serve(run, units(run, 0, 1), PanickingWork(run.manifest))
    assert (failed["event"], published["event"]) == ("failed", "done")
    assert "index out of bounds" in failed["message"]


def test_units_are_prepared_while_the_engine_loads(run):
    """Listening comes before loading: what is read meanwhile is bounded, and computed once all is loaded."""
    prepared, full = [], threading.Event()
    at_load = []

    class SlowToLoad(FakeWork):
        def load(self):
            assert full.wait(20), "nothing is prepared before the engine is loaded"
            # The thread would go on now if the channel did not hold it.
            threading.Event().wait(0.1)
            at_load.extend(prepared)
            return super().load()

        def prepare(self, unit):
            for rows in super().prepare(unit):
                prepared.append(rows.start)
                if len(prepared) > CHUNKS_AHEAD:
                    full.set()
                yield rows

        def compute(self, rows):
            assert at_load
            return super().compute(rows)

    events = serve(run, units(run, 0, 1), SlowToLoad(run.manifest))
    assert at_load == [0, 64, 128]
    assert [event["event"] for event in events] == ["done", "done"]


def test_loading_and_computing_are_in_one_thread(run):
    """The device belongs to one thread, in which it is loaded too; parts are written in another."""
    threads = {}

    class WatchedWork(FakeWork):
        def load(self):
            threads["load"] = threading.get_ident()
            return super().load()

        def compute(self, rows):
            threads["compute"] = threading.get_ident()
            return super().compute(rows)

        def finish(self, unit, computed):
            threads["finish"] = threading.get_ident()
            return super().finish(unit, computed)

    serve(run, units(run, 0), WatchedWork(run.manifest))
    assert threads["load"] == threads["compute"]
    assert threads["finish"] == threading.get_ident() != threads["compute"]


@pytest.mark.parametrize("error", [RefusedError("another model"), TimeoutError("no answer")])
def test_what_loading_raises(run, error):
    """Where loading fails serving ends with that error, whatever was read in the meantime."""

    class Unloadable(FakeWork):
        def load(self):
            assert self._has_read.wait(20)
            raise error

    with pytest.raises(type(error), match=str(error)):
        serve(run, units(run, 0, 1), Unloadable(run.manifest))
    with pytest.raises(type(error), match=str(error)), pipeline_of(run, Unloadable(run.manifest)) as pipeline:
        next(pipeline.units())
    assert run.part_files() == {}


@pytest.mark.parametrize("command", [Stop(), None])
def test_stop_while_the_engine_loads(run, command):
    """Told to stop, or left by its driver, before the engine is there, a worker ends without waiting for it."""
    loading, go_on, computed = threading.Event(), threading.Event(), []

    class SlowToLoad(FakeWork):
        def load(self):
            loading.set()
            assert go_on.wait(20)
            return super().load()

        def compute(self, rows):
            computed.append(rows)
            return super().compute(rows)

    reading, writing = os.pipe()
    events = io.StringIO()
    with os.fdopen(reading) as commands, os.fdopen(writing, "w", buffering=1) as driver:
        mailbox = Mailbox(run, Parent(commands, events))
        work = SlowToLoad(run.manifest)
        worker = threading.Thread(target=serve_units, args=(run, work, mailbox))
        worker.start()
        driver.write(json.dumps(command_to_json(Take(run.manifest.units()[0].name))) + "\n")
        assert loading.wait(20)
        if command:
            driver.write(json.dumps(command_to_json(command)) + "\n")
        else:
            driver.close()
        worker.join(20)
        assert not worker.is_alive()
        go_on.set()
    for thread in threading.enumerate():
        if thread.name in {"prepare", "compute"}:
            thread.join(20)
    assert [json.loads(line)["event"] for line in events.getvalue().splitlines()] == ["listening"]
    assert computed == []
    assert run.part_files() == {}


def test_a_stopped_pipeline_ends(run):
    """Once told to stop, whoever waits for a unit is let go."""
    with Pipeline(FakeWork(run.manifest), lambda: True) as pipeline, pytest.raises(StopRequestedError):
        next(pipeline.units())


def test_work_that_stops_ends_the_pipeline(run):
    """A step that gives up because it was told to stop ends the other threads with it."""

    class Stopping(FakeWork):
        def compute(self, rows):
            raise StopRequestedError

    with pipeline_of(run, Stopping(run.manifest)) as pipeline, pytest.raises(StopRequestedError):
        next(pipeline.units())


def test_a_driver_that_is_gone_stops_the_worker(run):
    """A broken pipe to the driver is a reason to stop, not to crash."""

    class Gone(io.StringIO):
        def write(self, _):
            raise BrokenPipeError

    mailbox = Mailbox(run, Parent(io.StringIO(), Gone()))
    mailbox.send(Loaded(description="x"))
    assert mailbox.should_stop()


def test_every_part_of_a_served_run_holds(run):
    """Served by two workers in turn the run is whole."""
    serve(run, units(run, 4, 2))
    serve(run, units(run, 0, 1, 2, 3))
    assert verify(run.url, sources=True).holds
