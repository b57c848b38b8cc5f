"""Many commands on one run, and what they leave for each other lost, stale or made up: the run is whole."""

import contextlib
import json
import random
import threading
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from support.fake_runs import contents, make_run, start_driver, write_sources
from support.fake_worker import Orders

from assay.runs.run import open_run
from assay.runs.status import status
from assay.runs.verify import verify

UNIT_ROWS = 10
WORLD_SIZE = 3


@contextlib.contextmanager
def losing_notes(run_url, *, seed):
    """For the time of a `with`, files beside the parts are deleted, emptied and made up at random."""
    chance, has_ended, struck = random.Random(seed), threading.Event(), Counter()

    def strike():
        while not has_ended.wait(0.01):
            files = [
                path
                for name in ("workers", "claims", "failures")
                for path in Path(run_url, name).rglob("*.*")
            ]
            [kind] = chance.choices(["delete", "empty", "invent"], [20, 10, 1])
            with contextlib.suppress(OSError):
                if kind == "invent":
                    start = chance.randrange(200)
                    stop = start + chance.randrange(10)
                    Path(run_url, "claims", f"{start}-{stop}.ghost{start % 5}").touch()
                elif files and kind == "delete":
                    chance.choice(files).unlink()
                elif files:
                    chance.choice(files).write_bytes(b"")
                struck[kind] += 1

    thread = threading.Thread(target=strike)
    thread.start()
    try:
        yield struck
    finally:
        has_ended.set()
        thread.join()


def kill_with_children(driver):
    """Kill -9 of a command and its workers, as a machine that is lost."""
    for process in [*psutil.Process(driver.pid).children(), psutil.Process(driver.pid)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def wait_for_parts(run_url, count, drivers):
    """Wait until so many parts are published."""
    while sum(1 for _ in Path(run_url).glob("parts/*.parquet")) < count:
        assert all(driver.poll() in {None, 0} for driver in drivers)
        time.sleep(0.01)


def begun(tmp_path):
    """How often each unit was begun, by anyone."""
    lines = [line for path in tmp_path.glob("log*") for line in path.read_text().splitlines()]
    return Counter(line.split()[1] for line in lines)


def start(run_url, folder, tmp_path, host, name, **place):
    """A command on the run whose workers write down which units they begin."""
    orders = Orders(seconds_per_batch=0.03, log=str(tmp_path / f"log{name}"))
    environment = {key: str(value) for key, value in place.items()}
    return start_driver(
        run_url, folder, workers=2, unit_rows=UNIT_ROWS, orders=orders, host=host, environment=environment
    )


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_notes_decide_nothing(tmp_path, worker_host, seed):
    """Three commands, one killed for good, one that joins late, all notes lost at random: the parts of a calm run."""
    folder, run_url = write_sources(tmp_path / "sources", [1400, 600]), str(tmp_path / "run")
    with losing_notes(run_url, seed=seed) as struck:
        drivers = [
            start(run_url, folder, tmp_path, worker_host, rank, POD_ID=rank, NUM_WORKERS=WORLD_SIZE)
            for rank in range(WORLD_SIZE)
        ]
        wait_for_parts(run_url, 30, drivers)
        kill_with_children(drivers[1])
        wait_for_parts(run_url, 60, [drivers[0], drivers[2]])
        late = start(run_url, folder, tmp_path, worker_host, "late", JOINS=1)
        for driver in (drivers[0], drivers[2], late):
            output, _ = driver.communicate(timeout=240)
            assert driver.returncode == 0, output
    drivers[1].communicate()
    assert min(struck[kind] for kind in ("delete", "empty", "invent")) > 0, struck
    proof = verify(run_url, sources=True, duplicates=True)
    assert proof.holds, proof
    assert proof.duplicate_ids == 0
    calm = make_run(tmp_path / "calm", folder, unit_rows=UNIT_ROWS, publish=True)
    assert contents(open_run(run_url)) == contents(calm)


def test_notes_spare_work(tmp_path, worker_host):
    """With notes left alone hardly a unit is begun twice, by commands with shares and one that joins; all are seen."""
    folder, run_url = write_sources(tmp_path / "sources", [1400, 600]), str(tmp_path / "run")
    drivers = [
        start(run_url, folder, tmp_path, worker_host, rank, POD_ID=rank, NUM_WORKERS=WORLD_SIZE)
        for rank in range(WORLD_SIZE)
    ]
    wait_for_parts(run_url, 20, drivers)
    drivers.append(start(run_url, folder, tmp_path, worker_host, "late", JOINS=1))
    wait_for_parts(run_url, 40, drivers)
    assert sum(driver.state == "working" for driver in status(run_url).drivers) >= WORLD_SIZE
    for driver in drivers:
        output, _ = driver.communicate(timeout=240)
        assert driver.returncode == 0, output
    assert verify(run_url, sources=True).holds
    again = sum(begun(tmp_path).values()) - 200
    assert again <= 20, begun(tmp_path).most_common(20)
    found = status(run_url)
    assert [driver.state for driver in found.drivers] == ["finished"] * 4
    assert sum(driver.units_published for driver in found.drivers) <= 200
    assert not list(Path(run_url, "claims").iterdir()), "claims go with their units"
    assert json.dumps(found.to_json())


def test_a_unit_that_fails_anywhere_stops_nobody(tmp_path, worker_host):
    """A cursed unit is tried three times by all together, reported by each, and everything else is published."""
    folder, run_url = write_sources(tmp_path / "sources", [600]), str(tmp_path / "run")
    drivers = []
    for rank in range(WORLD_SIZE):
        orders = Orders(seconds_per_batch=0.05, log=str(tmp_path / f"log{rank}"), fail_units=("a-0-10",))
        place = {"POD_ID": str(rank), "NUM_WORKERS": str(WORLD_SIZE)}
        drivers.append(
            start_driver(
                run_url, folder, unit_rows=UNIT_ROWS, orders=orders, host=worker_host, environment=place
            )
        )
    for driver in drivers:
        output, _ = driver.communicate(timeout=120)
        assert driver.returncode == 1, output
        assert "1 of 60 units failed 3 times (a-0-10: RuntimeError: the unit is cursed)" in output
    assert verify(run_url).units_missing == 1
    assert 3 <= begun(tmp_path)["a-0-10"] <= 5
    assert status(run_url).failed_units == {"a-0-10": begun(tmp_path)["a-0-10"]}
