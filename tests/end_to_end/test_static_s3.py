"""Static workers: processes that never talk, on one shared disk or in one bucket, make one run."""

import time
from collections import Counter

import psutil
import pytest
from support.fake_runs import contents, make_run, start_driver, write_sources
from support.fake_worker import Orders, deaths_met, plan_deaths

from assay.runs.plan import own_share
from assay.runs.run import open_run
from assay.runs.verify import verify

WORLD_SIZE = 4
UNIT_ROWS = 20


@pytest.fixture(params=["disk", "s3"])
def run_url(request, tmp_path):
    """Where the run lies."""
    return str(tmp_path / "run") if request.param == "disk" else request.getfixturevalue("s3_url")


def start_rank(run_url, folder, rank, orders):
    """The static driver of one rank, placed by its environment as a pod is."""
    place = {"POD_ID": str(rank), "NUM_WORKERS": str(WORLD_SIZE)}
    return start_driver(run_url, folder, unit_rows=UNIT_ROWS, orders=orders, environment=place)


def test_the_others_finish_for_one_that_is_gone(run_url, tmp_path):
    """Four static workers, one killed for good mid-way: the others do its share too, and the run is whole."""
    folder = write_sources(tmp_path / "sources", [1000, 600])
    run = make_run(run_url, folder, unit_rows=UNIT_ROWS)
    units = run.manifest.units()
    doomed = own_share(len(units), 1, WORLD_SIZE)
    orders = [
        Orders(seconds_per_batch=0.3 if rank == 1 else 0.02, log=str(tmp_path / f"log{rank}"))
        for rank in range(WORLD_SIZE)
    ]
    drivers = [start_rank(run_url, folder, rank, orders[rank]) for rank in range(WORLD_SIZE)]
    while not any(run.is_published(units[index]) for index in doomed[:3]):
        assert drivers[1].poll() is None
        time.sleep(0.02)
    pod = [psutil.Process(drivers[1].pid), *psutil.Process(drivers[1].pid).children()]
    for process in pod:
        process.kill()
    for rank, driver in enumerate(drivers):
        output, _ = driver.communicate(timeout=120)
        assert driver.returncode == (-9 if rank == 1 else 0), output
    proof = verify(run_url, sources=True, duplicates=True)
    assert proof.holds, proof
    assert contents(run) == contents(make_run(tmp_path / "calm", folder, unit_rows=UNIT_ROWS, publish=True))
    for rank in range(WORLD_SIZE):
        own = {units[index].name for index in own_share(len(units), rank, WORLD_SIZE)}
        begun = [line.split()[1] for line in (tmp_path / f"log{rank}").read_text().splitlines()]
        assert begun[0] in own, "a rank begins with its own share"
        assert max(Counter(begun).values()) == 1, "a rank does no unit twice"


def test_kills_around_a_put(s3_url, tmp_path):
    """In a bucket too a worker may die before or after its part is put, answer lost: the run is whole."""
    folder = write_sources(tmp_path / "sources", [400])
    planned = [f"{when}.put.{n}" for when in ("before", "after") for n in (1, 2)]
    deaths = plan_deaths(tmp_path / "deaths", planned)
    driver = start_driver(s3_url, folder, workers=2, unit_rows=UNIT_ROWS, orders=Orders(deaths=str(deaths)))
    output, _ = driver.communicate(timeout=120)
    assert driver.returncode == 0, output
    assert deaths_met(deaths) == sorted(planned)
    proof = verify(s3_url, sources=True)
    assert proof.holds, proof
    calm = make_run(tmp_path / "calm", folder, unit_rows=UNIT_ROWS, publish=True)
    assert contents(open_run(s3_url)) == contents(calm)
