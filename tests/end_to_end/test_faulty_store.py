"""Many workers on one run in a bucket whose requests fail, before or after their effect; and how many they send."""

from collections import Counter

import pytest
from support.fake_runs import contents, make_run, start_driver, write_sources
from support.fake_store import at_random

from assay.runs.run import open_run
from assay.runs.verify import verify

UNIT_ROWS = 5
URL = "s3://bucket/run"
TRIES = 6


def drive(folder, *, num_drivers, num_workers, host):
    """Commands that share the run, each with its workers: what each ended with and printed."""
    places = [{"POD_ID": str(rank), "NUM_WORKERS": str(num_drivers)} for rank in range(num_drivers)]
    drivers = [
        start_driver(URL, folder, workers=num_workers, unit_rows=UNIT_ROWS, host=host, environment=place)
        for place in (places if num_drivers > 1 else [{}])
    ]
    outputs = [driver.communicate(timeout=500)[0] for driver in drivers]
    return [driver.returncode for driver in drivers], outputs


@pytest.mark.parametrize(
    ("num_units", "num_drivers", "num_workers", "share", "least_faults"),
    [
        (40, 2, 2, 0.33, 40),
        pytest.param(9_200, 4, 4, 0.45, 10_000, marks=[pytest.mark.slow, pytest.mark.timeout(1200)]),
    ],
    ids=["small", "large"],
)
def test_requests_that_fail(
    fake_store, worker_host, tmp_path, num_units, num_drivers, num_workers, share, least_faults
):
    """Commands are given again until all end well, and the parts are those of a calm run."""
    rows = num_units * UNIT_ROWS
    folder = write_sources(tmp_path / "sources", [rows // 4, rows - rows // 4])
    fake_store.stall_seconds = 3
    fake_store.plan = at_random(1, share)
    for _ in range(TRIES):
        statuses, outputs = drive(folder, num_drivers=num_drivers, num_workers=num_workers, host=worker_host)
        assert set(statuses) <= {0, 1}, outputs
        assert not any("Traceback" in output for output in outputs), outputs
        if not any(statuses):
            break
    assert not any(statuses), outputs
    kinds = Counter(fault.rpartition(", then ")[2] for _, fault in fake_store.faults.elements())
    assert kinds.total() >= least_faults, kinds
    assert min(kinds[fault] for fault in ("409", "500", "503", "reset")) > 0
    fake_store.plan = lambda *_: ""
    proof = verify(URL, sources=True, duplicates=True)
    assert proof.holds, proof
    assert proof.duplicate_ids == 0
    calm = make_run(tmp_path / "calm", folder, unit_rows=UNIT_ROWS, publish=True)
    assert contents(open_run(URL)) == contents(calm)
    assert fake_store.uploads == []


@pytest.mark.parametrize(("num_drivers", "most_a_unit"), [(1, 0.1), (3, 2)])
def test_requests_a_unit(fake_store, worker_host, tmp_path, num_drivers, most_a_unit):
    """Beside the put of its part a unit costs nothing, and in company two requests at most; reads of sources apart."""
    num_units = 400
    folder = write_sources(tmp_path / "sources", [num_units * UNIT_ROWS])
    statuses, outputs = drive(folder, num_drivers=num_drivers, num_workers=2, host=worker_host)
    assert not any(statuses), outputs
    others = sum(fake_store.requests.values()) - num_units
    assert others <= num_units * most_a_unit, fake_store.requests
