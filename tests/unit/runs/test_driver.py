"""The driver: units handed out, handed out again where a worker dies, and given up where no retry helps."""

import functools
import queue
import sys
from collections import Counter
from dataclasses import replace

import pytest
from support.fake_handles import fake_spec
from support.fake_runs import fake_workers as fake_workers_of
from support.fake_runs import make_run, plan_run, publish_unit, write_sources
from support.fake_worker import Orders, deaths_met, plan_deaths

from assay.errors import CheckError, RefusedError, SourceError, StorageError, UnitError, WorkError
from assay.runs.agenda import TRIES_PER_UNIT
from assay.runs.drive import drive_run
from assay.runs.driver import STARTS_PER_WORKER, UNITS_IN_A_ROW, Driver, Outcome, WorkerSpec
from assay.runs.local import process_worker, python_worker
from assay.runs.notes import list_failures
from assay.runs.protocol import Ended, Finish, Listening, Loaded, Loading, Take, UnderWay
from assay.runs.status import status
from assay.runs.verify import verify
from assay.telemetry import Counters


@pytest.fixture
def folder(tmp_path):
    """One source of 200 rows."""
    return write_sources(tmp_path / "sources", [200])


@pytest.fixture
def run(folder, tmp_path):
    """A run of ten units, none published."""
    return make_run(tmp_path / "run", folder)


@pytest.fixture
def fake_workers(worker_host):
    """How to start fake workers quickly."""
    return functools.partial(fake_workers_of, host=worker_host)


def script(run, text):
    """A worker that is a few lines of Python."""
    return process_worker((sys.executable, "-c", text, run.url), name="a script")


def test_two_workers_publish_a_run(run, fake_workers):
    """Every unit is published once, progress is told, and the outcome counts what was done."""
    heard = []
    # What libraries print on stdout must not meet the protocol.
    orders = Orders(noisy=True, seconds_per_batch=0.02)
    driver = Driver(run, fake_workers(run, 2, orders), on_progress=heard.append)
    assert (driver.units_total, driver.units_left) == (10, 10)
    outcome = driver.run()
    assert (outcome.units_total, outcome.units_found, outcome.units_published) == (10, 0, 10)
    assert outcome.counters.rows == 200
    assert outcome.descriptions == ("fake worker",)
    assert outcome.ready_seconds > 0
    assert verify(run.url, sources=True).holds
    assert heard[-1].units_done == 10
    assert heard[-1].rows_done == heard[-1].rows_total == 200
    assert [progress.units_done for progress in heard] == sorted(progress.units_done for progress in heard)
    (driver,) = status(run.url).drivers
    assert (driver.state, driver.units_published) == ("finished", 10), "not what its last heartbeat said"


def test_a_finished_run_starts_no_worker(folder, tmp_path):
    """Where everything is published no process is started, and a person is told."""
    run = make_run(tmp_path / "run", folder, publish=True)
    said = []
    _, outcome = drive_run(
        run.url, plan_run(folder), lambda run: [script(run, "no python")], on_message=said.append
    )
    assert (outcome.units_found, outcome.units_published, outcome.seconds) == (10, 0, 0)
    assert said == ["All 10 units are published already; nothing to do."]


def test_going_on(run, folder, fake_workers):
    """A second try does only what is left, and says how much that is."""
    for unit in run.manifest.units()[:7]:
        publish_unit(run, unit)
    said = []
    _, outcome = drive_run(run.url, plan_run(folder), fake_workers, on_message=said.append)
    assert said == ["7 of 10 units are published; going on with 3."]
    assert (outcome.units_found, outcome.units_published) == (7, 3)
    assert outcome.counters.rows == 60
    assert verify(run.url).holds


@pytest.mark.parametrize(
    ("asked", "said_first"), [(20, []), (50, ["units stay as planned, of up to 20 rows"])]
)
def test_units_that_cannot_be_cut_again(run, folder, fake_workers, asked, said_first):
    """Another `--unit-rows` for a run that is there is answered, not swallowed; its own is not a matter."""
    said = []
    drive_run(
        run.url, plan_run(folder, unit_rows=asked), fake_workers, unit_rows=asked, on_message=said.append
    )
    assert [line.split(";")[0] for line in said if "unit_rows" in line] == said_first
    assert len(run.part_files()) == 10


def test_a_new_run_says_what_it_does(folder, tmp_path):
    """A new run says how much there is to do."""
    said = []
    with pytest.raises(WorkError):
        drive_run(
            str(tmp_path / "new"), plan_run(folder), lambda run: [script(run, "")], on_message=said.append
        )
    assert said[0] == "10 units to do, 200 rows."


def test_a_dead_worker_costs_its_units_only(run, tmp_path, fake_workers):
    """A worker that is killed is started again, and its units, those given ahead too, are done again."""
    deaths = plan_deaths(tmp_path / "deaths", ["before.link.2", "after.link.1"])
    log = tmp_path / "log"
    said = []
    commands = fake_workers(run, 1, Orders(deaths=str(deaths), log=str(log)))
    outcome = Driver(run, commands, on_message=said.append).run()
    assert len(deaths_met(deaths)) == 2
    cause = "worker was killed by SIGKILL (out of memory?)"
    again = f"a worker ended early ({cause}); starting it again"
    assert said[1::2] == [again, again]
    assert [line.partition(" failed ")[2] for line in said[::2]] == [f"({cause}); it is tried again"] * 2
    # The part whose worker died right after the link stands, though its worker could not say so.
    assert outcome.units_published == 9
    assert verify(run.url, sources=True).holds
    begun = Counter(line.split()[1] for line in log.read_text().splitlines())
    assert set(begun) == {unit.name for unit in run.manifest.units()}
    assert sum(begun.values()) <= 10 + 2 * 2


def test_a_worker_that_always_dies(run, fake_workers):
    """A worker that dies three times in a row ends the run, with its way of dying in the message."""
    with pytest.raises(WorkError, match=r"no worker is left .worker exited with status 3., 10 units to do"):
        Driver(run, fake_workers(run, 1, Orders(start="exit"))).run()


def test_a_worker_that_cannot_start(run, fake_workers):
    """What kept a worker from starting is the message."""
    with pytest.raises(WorkError, match=r"no worker is left .RuntimeError: no such device."):
        Driver(run, fake_workers(run, 1, Orders(start="broken"))).run()


@pytest.mark.parametrize(
    ("end", "cause", "starts"),
    [("broken", "RuntimeError: no such device", 1), ("exit", "worker exited with status 3", 3)],
)
def test_a_worker_that_cannot_load(run, tmp_path, fake_workers, end, cause, starts):
    """One device fails to load with units in hand: the other does all of them, none counts as tried, and it is said."""
    log = tmp_path / "log"
    commands = [
        *fake_workers(run, 1, Orders(load=end, log=str(log))),
        *fake_workers(run, 1, Orders(seconds_per_batch=0.15)),
    ]
    commands[0] = replace(commands[0], name="the worker on cuda:0")
    said = []
    driver = Driver(run, commands, on_message=said.append)
    outcome = driver.run()
    assert outcome.units_published == 10
    assert verify(run.url, sources=True).holds
    assert log.read_text(), "the broken worker was given a unit"
    assert not list(run.store.list("failures/"))
    assert said == [
        *[f"the worker on cuda:0 ended early ({cause}); starting it again"] * (starts - 1),
        f"the worker on cuda:0 is given up ({cause}); going on with 1 other",
    ]


@pytest.mark.parametrize(
    ("end", "cause"), [("broken", "RuntimeError: no such device"), ("exit", "worker exited with status 3")]
)
def test_no_worker_can_load(run, fake_workers, end, cause):
    """Where every device fails to load the run ends with the cause, and no unit is called a failure."""
    with pytest.raises(WorkError, match=rf"no worker is left .{cause}., 10 units to do"):
        Driver(run, fake_workers(run, 2, Orders(load=end))).run()
    assert run.part_files() == {}


@pytest.mark.parametrize(
    ("gate", "kind", "message"),
    [
        ("CheckError", CheckError, "the source is bad, says CheckError"),
        ("RuntimeError", WorkError, r"no worker is left .RuntimeError: the unit is cursed., 10 units to do"),
    ],
)
def test_a_gate_that_does_not_hold(run, fake_workers, gate, kind, message):
    """It fails the worker, not the unit at hand: nothing is published, tried again, or noted as a unit's failure."""
    with pytest.raises(kind, match=message):
        Driver(run, fake_workers(run, 2, Orders(gate=gate))).run()
    assert run.part_files() == {}
    assert not list(run.store.list("failures/"))


def test_a_worker_still_loading_is_not_waited_for(folder, tmp_path, fake_workers):
    """Once all is published, by other drivers too, a worker that still loads is let go at once."""
    run = make_run(tmp_path / "run", folder)
    first, *others = run.manifest.units()

    class Meanwhile(Driver):
        def _start(self, index):
            super()._start(index)
            for unit in (first, *others):
                publish_unit(run, unit)

    outcome = Meanwhile(run, fake_workers(run, 1, Orders(load="forever"))).run()
    assert (outcome.units_published, outcome.seconds) == (0, 0)
    assert verify(run.url).holds


def test_an_interrupt_while_loading(run, fake_workers):
    """Ctrl-C kills a worker that still loads; nothing waits for its engine."""

    def interrupt(_):
        raise KeyboardInterrupt

    driver = Driver(run, fake_workers(run, 2, Orders(load="forever")), on_progress=interrupt)
    with pytest.raises(KeyboardInterrupt):
        driver.run()
    assert all(worker.handle.wait(0) for worker in driver._workers)


def test_a_refusal_at_the_start_is_not_retried(run, fake_workers):
    """A worker that finds another model raises that error in the driver, at once."""
    with pytest.raises(RefusedError, match="the model is another now; put it back"):
        Driver(run, fake_workers(run, 2, Orders(start="refused"))).run()


def test_a_unit_that_fails_three_times(run, tmp_path, fake_workers):
    """A cursed unit is tried three times and named; all the others are published."""
    log = tmp_path / "log"
    orders = Orders(fail_units=("a-40-60",), log=str(log))
    with pytest.raises(UnitError) as failed:
        Driver(run, fake_workers(run, 1, orders)).run()
    assert str(failed.value) == (
        "1 of 10 units failed 3 times (a-40-60: RuntimeError: the unit is cursed); "
        "the others are published; fix the cause and run the same command again"
    )
    begun = Counter(line.split()[1] for line in log.read_text().splitlines())
    assert begun.pop("a-40-60") == 3
    assert set(begun.values()) == {1}
    assert verify(run.url).units_missing == 1


def test_a_store_that_fails_at_the_end_leaves_nobody_at_work(run, fake_workers, monkeypatch):
    """Where it cannot be seen whether another published the unit that failed, the command still says that it ended."""

    def refuse(_):
        raise StorageError("the store is gone")

    monkeypatch.setattr(run, "is_published", refuse)
    with pytest.raises(StorageError, match="the store is gone"):
        Driver(run, fake_workers(run, 1, Orders(fail_units=("a-40-60",)))).run()
    assert [driver.state for driver in status(run.url).drivers] == ["failed"]


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("SourceError", SourceError, "the source is bad, says SourceError; fix it"),
        ("ENOSPC", StorageError, "free space on that disk"),
    ],
)
def test_what_no_retry_fixes_stops_the_run(run, kind, error, message, fake_workers):
    """A bad source and a full disk stop the run at once; what is published stays."""
    orders = Orders(fail_units=("a-100-120",), fail_kind=kind)
    with pytest.raises(error, match=message):
        Driver(run, fake_workers(run, 1, orders)).run()
    assert 5 <= len(run.part_files()) < 10


def test_a_worker_killed_in_the_middle_of_a_line(run):
    """Half a line on the pipe is a death like any other, not a hang."""
    half = script(run, 'import sys; sys.stdout.write(\'{"event": "rea\')')
    with pytest.raises(WorkError, match="worker exited with status 0"):
        Driver(run, [half]).run()


def test_a_worker_lost_when_nothing_is_left_is_told_of(folder, tmp_path, fake_workers):
    """One of two ends while the other does the last unit: the run is whole, and a person knows."""
    run = make_run(tmp_path / "run", folder, unit_rows=100)
    waiting = (
        "import glob, sys, time\nwhile not glob.glob(sys.argv[1] + '/parts/*'): time.sleep(0.02)\n"
        "time.sleep(0.7)\nraise SystemExit(1)"
    )
    commands = [
        replace(script(run, waiting), name="the worker on cuda:0"),
        *fake_workers(run, 1, Orders(seconds_per_batch=1.0)),
    ]
    said = []
    assert Driver(run, commands, on_message=said.append).run().units_published == 2
    assert said == [
        "the worker on cuda:0 ended early (worker exited with status 1); there is nothing left for it"
    ]


def test_one_bad_worker_of_two(run, fake_workers):
    """While one device never starts, the other does all of the work."""
    commands = [script(run, "raise SystemExit(1)"), *fake_workers(run)]
    assert Driver(run, commands).run().units_published == 10
    assert verify(run.url).holds


def test_no_more_workers_than_units(folder, tmp_path, fake_workers):
    """Two units start at most two processes."""
    run = make_run(tmp_path / "run", folder, unit_rows=100)
    log = tmp_path / "log"
    Driver(run, fake_workers(run, 5, Orders(log=str(log)))).run()
    assert len({line.split()[0] for line in log.read_text().splitlines()}) <= 2


def test_a_rank_does_its_share_first(run, tmp_path, fake_workers):
    """A static driver begins with its share, in order, then takes what is left of the others' once each."""
    log = tmp_path / "log"
    Driver(run, fake_workers(run, 1, Orders(log=str(log))), rank=1, world_size=3).run()
    begun = [int(line.split()[1].split("-")[1]) // 20 for line in log.read_text().splitlines()]
    assert begun[:3] == [3, 4, 5]
    assert sorted(begun) == list(range(10))


def test_a_python_worker_is_our_own_interpreter(tmp_path):
    """A worker is a module run by this interpreter, with its arguments and its place in the environment."""
    (tmp_path / "told.py").write_text(
        "import json, os, sys\n"
        "said = [sys.executable, *sys.argv[1:], os.environ['OMP_NUM_THREADS']]\n"
        "print(json.dumps({'event': 'loaded', 'description': ' '.join(said)}))"
    )
    environment = {"OMP_NUM_THREADS": "3", "PYTHONPATH": str(tmp_path)}
    heard = queue.SimpleQueue()
    spec = python_worker("told", "--device", "cpu", name="worker 1", environment=environment)
    handle = spec.start(heard.put)
    assert heard.get(timeout=60) == Loaded(description=f"{sys.executable} --device cpu 3")
    assert heard.get(timeout=60) == Ended(cause="worker exited with status 0")
    handle.kill()


# ------------------------------------------------------------ without processes


def test_a_driver_needs_no_process(run):
    """Whatever can be sent a command and be killed is a worker; the driver holds nothing else of it."""
    started = []
    outcome = Driver(run, [fake_spec(run, started=started)] * 2).run()
    assert (outcome.units_published, outcome.counters.rows) == (10, 200)
    assert outcome.descriptions == ("in this process",)
    assert verify(run.url, sources=True).holds
    taken = [command.unit for handle in started for command in handle.commands if isinstance(command, Take)]
    assert sorted(taken) == sorted(unit.name for unit in run.manifest.units())
    assert [handle.commands[-1] for handle in started] == [Finish(), Finish()]


def test_a_handle_that_ends_costs_its_unit_alone(run):
    """A worker that ends in the middle is started again, and the unit that it had is done by the next."""
    said, started = [], []
    spec = fake_spec(run, name="the actor", deadly=("a-40-60", "a-180-200"), started=started)
    outcome = Driver(run, [spec], on_message=said.append).run()
    assert outcome.units_published == 10
    assert len(started) == 3
    assert (
        said[1] == "the actor ended early (worker was killed by SIGKILL (out of memory?)); starting it again"
    )


def test_a_worker_that_fails_of_every_unit_is_started_again(run):
    """What a device in a bad state fails of costs each unit one try, and the next process does them all."""
    said, started = [], []
    spec = fake_spec(run, name="the worker on cuda:0", sick_from=["a-40-60"], started=started)
    assert Driver(run, [spec], on_message=said.append).run().units_published == 10
    assert len(started) == 2
    assert said[-1] == "the worker on cuda:0 ended early (RuntimeError: CUDA error); starting it again"
    assert len(said) == UNITS_IN_A_ROW + 1
    assert sum(list_failures(run.store).values()) == UNITS_IN_A_ROW


@pytest.mark.parametrize("num_others", [0, 1])
def test_a_device_that_fails_of_every_unit_is_given_up(folder, tmp_path, num_others):
    """Three processes in a row that fail of all they are given: no unit is set aside, and others do all of them."""
    run = make_run(tmp_path / "run", folder, unit_rows=4)
    said, started = [], []
    bad = fake_spec(run, name="the worker on cuda:0", sick_from=[""] * 9, started=started)
    driver = Driver(run, [bad, *[fake_spec(run)] * num_others], on_message=said.append)
    if num_others:
        assert driver.run().units_published == 50
        assert "the worker on cuda:0 is given up (RuntimeError: CUDA error); going on with 1 other" in said
    else:
        with pytest.raises(WorkError, match=r"no worker is left .RuntimeError: CUDA error., 50 units to do"):
            driver.run()
    assert len(started) == STARTS_PER_WORKER
    assert 0 < max(list_failures(run.store).values(), default=0) < TRIES_PER_UNIT


def test_a_handle_that_never_loads_is_killed_at_the_end(run):
    """Once all is published a worker that still loads is killed, not waited for."""
    started = []
    slow = fake_spec(run, loads=False, started=started)
    Driver(run, [slow, fake_spec(run)]).run()
    assert started[0].wait(0)
    assert Finish() not in started[0].commands


@pytest.mark.parametrize(
    ("device_seconds", "seconds", "expected"),
    [(12.0, 8.0, 0.25), (16.1, 8.0, 0.0), (0.0, 8.0, None), (1.0, 0.0, None)],
)
def test_the_idle_share_is_of_all_devices(device_seconds, seconds, expected):
    """Two workers could have worked twice the time; clocks that disagree give no negative share."""
    outcome = Outcome(
        units_total=2,
        units_found=0,
        units_published=2,
        counters=Counters(device_seconds=device_seconds),
        seconds=seconds,
        ready_seconds=1.0,
        descriptions=(),
        num_workers=2,
    )
    assert outcome.idle_share == expected


def test_progress_names_the_phase(run):
    """From the start to the first row it is told what the worker that is furthest does; then no more."""
    heard, scripted = [], []

    class Scripted:
        """A worker that says what the test says."""

        def __init__(self, hear):
            self.say = hear
            scripted.append(self)

        def send(self, command):
            pass

        def kill(self):
            self.say(Ended(cause="killed"))

        def wait(self, seconds):
            return True

    said = [
        Listening(),
        Loaded(description="x"),
        UnderWay(counters=Counters(rows=5)),
        Loading(phase="parity"),
    ]

    def hear(progress):
        heard.append((progress.phase, progress.rows_done))
        if not said:
            raise KeyboardInterrupt
        scripted[0].say(said.pop(0))

    with pytest.raises(KeyboardInterrupt):
        Driver(run, [WorkerSpec(name="scripted", start=Scripted)], on_progress=hear).run()
    assert heard == [("starting", 0), ("loading", 0), ("first unit", 0), (None, 5), ("parity", 5)]


def test_lent_workers_go_as_soon_as_nothing_is_left_for_them(folder, tmp_path):
    """Of two, the idle one is let go while the other works on the last unit; one that is not lent stays to the end."""
    for is_lent in (True, False):
        run = make_run(tmp_path / f"run-{is_lent}", folder, unit_rows=100)
        started = []
        specs = [fake_spec(run, holds=True, started=started), fake_spec(run, started=started)]
        driver = Driver(run, [replace(spec, is_lent=is_lent) for spec in specs])
        driver._start_new()
        for _ in range(12):
            driver._step()
        assert [handle.wait(0) for handle in started] == ([False, True] if is_lent else [False, False])
        started[0].release()
        while driver._workers:
            driver._step()
        assert verify(run.url).holds


def test_workers_that_are_added_meanwhile_are_started(run):
    """A list of workers that grows while the driver runs gets its new ones started, if there are units for them."""
    specs, started = [], []

    def grow(progress):
        if progress.units_done == 3 and len(specs) == 1:
            specs.extend(fake_spec(run, started=started) for _ in range(2))

    specs.append(fake_spec(run, started=started))
    assert Driver(run, specs, on_progress=grow).run().units_published == 10
    assert len(started) == 3
    assert all(any(isinstance(each, Take) for each in handle.commands) for handle in started)
