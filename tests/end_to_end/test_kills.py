"""kill -9 anywhere, any number of times: rerun the same command; nothing is lost, doubled or half."""

import itertools
import random
import time

import psutil
import pytest
from support.fake_runs import contents, make_run, start_driver, write_sources
from support.fake_worker import LOCAL_STEPS, Orders, all_deaths, deaths_met, plan_deaths

from assay.runs.run import open_run
from assay.runs.verify import verify

UNIT_ROWS = 10


def finish(driver, *, seconds=120):
    """What a driver process printed, and its exit status."""
    output, _ = driver.communicate(timeout=seconds)
    return driver.returncode, output


def assert_same_as_uninterrupted(url, folder, tmp_path):
    """The run at `url` holds what a run that nobody disturbed holds, part for part and row for row."""
    proof = verify(str(url), sources=True, duplicates=True)
    assert proof.holds, proof
    assert proof.duplicate_ids == 0
    calm = make_run(tmp_path / "calm", folder, unit_rows=UNIT_ROWS, publish=True)
    assert contents(open_run(str(url))) == contents(calm)


def kill_and_rerun(url, folder, deaths, host, *, seed, driver_kills):
    """Rerun the same command until the run is whole, its workers dying and its drivers being killed."""
    chance = random.Random(seed)
    orders = Orders(seconds_per_batch=0.01, deaths=str(deaths))
    killed = 0
    for number in itertools.count():
        workers = 1 + number % 4
        driver = start_driver(url, folder, workers=workers, unit_rows=UNIT_ROWS, orders=orders, host=host)
        if killed < driver_kills:
            wanted = len(deaths_met(deaths)) + chance.randrange(15)
            while driver.poll() is None and len(deaths_met(deaths)) < wanted:
                time.sleep(0.01)
            time.sleep(chance.uniform(0, 0.05))
            driver.kill()
            killed += 1
        status, output = finish(driver)
        assert status in {0, 1, -9}, output
        if status == 0:
            return killed
    raise AssertionError


def test_a_hundred_kills(tmp_path, worker_host):
    """Workers and drivers are killed at a hundred moments: the run ends with the parts of an undisturbed one.

    Workers die before and after each step of publishing and at random moments, drivers are killed as they
    work, and the number of workers changes from try to try.
    """
    folder = write_sources(tmp_path / "sources", [2500, 0, 2333])
    deaths = plan_deaths(tmp_path / "deaths", all_deaths(timers=60, seed=1))
    killed = kill_and_rerun(tmp_path / "run", folder, deaths, worker_host, seed=1, driver_kills=6)
    met = deaths_met(deaths)
    assert len(met) + killed >= 100, met
    assert {death.split(".")[1] for death in met if "timer" not in death} == set(LOCAL_STEPS)
    assert_same_as_uninterrupted(tmp_path / "run", folder, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 6))
def test_a_thousand_kills(tmp_path, worker_host, seed):
    """The same with more kills of workers and drivers, in other orders."""
    folder = write_sources(tmp_path / "sources", [9_000, 0, 3_333])
    deaths = plan_deaths(tmp_path / "deaths", all_deaths(timers=184, seed=seed))
    killed = kill_and_rerun(tmp_path / "run", folder, deaths, worker_host, seed=seed, driver_kills=20)
    assert len(deaths_met(deaths)) + killed >= 200
    assert_same_as_uninterrupted(tmp_path / "run", folder, tmp_path)


def test_kills_while_the_run_is_created(tmp_path):
    """A driver that dies before or after any step of writing run.json leaves nothing, or a run to join."""
    folder = write_sources(tmp_path / "sources", [30])
    steps = ("create", "sync", "link", "syncfolder", "unlink")
    planned = [f"{when}.{step}.1" for step in steps for when in ("before", "after")]
    deaths = plan_deaths(tmp_path / "deaths", planned)
    environment = {"DRIVER_DEATHS": str(deaths)}
    # Each dies in a run of its own: whoever finds run.json there already has no such step to die at.
    drivers = [
        start_driver(tmp_path / f"run{number}", folder, unit_rows=UNIT_ROWS, environment=environment)
        for number in range(len(planned))
    ]
    assert {finish(driver)[0] for driver in drivers} == {-9}
    assert deaths_met(deaths) == sorted(planned)
    for number in range(len(planned)):
        run = make_run(tmp_path / f"run{number}", folder, unit_rows=UNIT_ROWS, publish=True)
        assert verify(run.url, sources=True).holds


def test_workers_stop_when_their_driver_is_killed(tmp_path):
    """A worker whose driver is gone publishes nothing half and ends by itself."""
    folder = write_sources(tmp_path / "sources", [2000])
    orders = Orders(seconds_per_batch=0.05)
    driver = start_driver(tmp_path / "run", folder, workers=2, unit_rows=UNIT_ROWS, orders=orders)
    while not list((tmp_path / "run").glob("parts/*.parquet")):
        assert driver.poll() is None
        time.sleep(0.02)
    workers = psutil.Process(driver.pid).children()
    assert len(workers) == 2
    driver.kill()
    driver.communicate()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive
    proof = verify(str(tmp_path / "run"), sources=True)
    assert 0 < proof.units_missing < proof.units_total
    assert proof.problems == (
        f"{proof.units_missing} of 200 units are not published; run the same command to go on",
    )


def test_two_drivers_on_one_run(tmp_path, worker_host):
    """Two drivers that start at once on one run directory end with one whole run."""
    folder = write_sources(tmp_path / "sources", [1500])
    orders = Orders(seconds_per_batch=0.01)
    drivers = [
        start_driver(
            tmp_path / "run", folder, workers=2, unit_rows=UNIT_ROWS, orders=orders, host=worker_host
        )
        for _ in range(2)
    ]
    for driver in drivers:
        status, output = finish(driver)
        assert status == 0, output
    assert_same_as_uninterrupted(tmp_path / "run", folder, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(("period", "seconds"), [(3, 45), (30, 600)], ids=["short", "long"])
def test_a_worker_killed_again_and_again(tmp_path, period, seconds):
    """Every so often one of four workers of two commands, for so long: each kill costs two units at most.

    These are the one that the worker had in hand, and the next, which it had begun to read.
    """
    unit_seconds, num_commands, num_workers = period / 15, 2, 2
    num_units = int(num_commands * num_workers * seconds / unit_seconds)
    folder = write_sources(tmp_path / "sources", [num_units * UNIT_ROWS], row_group_rows=1000)
    url, log, chance = str(tmp_path / "run"), tmp_path / "log", random.Random(1)
    orders = Orders(seconds_per_batch=unit_seconds, log=str(log))
    drivers = [
        start_driver(
            url,
            folder,
            workers=num_workers,
            unit_rows=UNIT_ROWS,
            orders=orders,
            environment={"POD_ID": str(rank), "NUM_WORKERS": str(num_commands)},
        )
        for rank in range(num_commands)
    ]
    while not list((tmp_path / "run").glob("parts/*")):
        time.sleep(0.1)
    killed, begin = 0, time.monotonic()
    while time.monotonic() - begin < seconds and all(driver.poll() is None for driver in drivers):
        time.sleep(period)
        workers = [worker for driver in drivers for worker in psutil.Process(driver.pid).children()]
        if workers:
            chance.choice(workers).kill()
            killed += 1
    for driver in drivers:
        status, output = finish(driver, seconds=600)
        assert status == 0, output
    assert killed >= seconds / period / 2
    num_begun = len(log.read_text().splitlines())
    assert num_begun - num_units <= 2 * killed + num_commands * num_workers, (num_begun, num_units, killed)
    assert_same_as_uninterrupted(url, folder, tmp_path)
