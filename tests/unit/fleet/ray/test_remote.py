"""What runs on a machine of the cluster, without one: its look around, and the worker process that it holds."""

import time

import pytest
from support.fake_runs import make_run, write_sources

from assay.fleet.ray import remote
from assay.fleet.ray.cluster import local_paths
from assay.fleet.ray.remote import RemoteWorker, find_problem
from assay.runs.protocol import Take, command_to_json

pytest.importorskip("ray")
WORKER = """
import json, os, sys
tell = lambda **event: print(json.dumps(event), flush=True)
tell(event="listening")
for line in sys.stdin:
    name = json.loads(line).get("unit")
    if name == "bad":
        print("out of luck", file=sys.stderr, flush=True)
        sys.exit(3)
    for rows in range(20):
        tell(event="underway", counters={"rows": rows})
    tell(event="done", unit=name, threads=os.environ["OMP_NUM_THREADS"])
"""


@pytest.fixture
def asked(tmp_path):
    """What a driver asks of a machine for a run that there is."""
    run = make_run(tmp_path / "run", write_sources(tmp_path / "sources", [20]))
    return {
        "versions": remote.versions(),
        "run": run.url,
        "run_id": run.manifest.run_id,
        "paths": local_paths(run),
        "module": "told",
        "device": "cpu",
        "num_threads": 3,
    }


def test_a_machine_that_fits(asked):
    """The same versions, the run, and its source in full."""
    assert find_problem(asked) is None
    (num_bytes,) = asked["paths"].values()
    assert num_bytes > 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"versions": "Assay 0.0.7"}, "and the driver Assay 0.0.7; install the same everywhere"),
        ({"run": "/elsewhere/run"}, "does not see the run /elsewhere/run; put it on a disk that all"),
        ({"run_id": "another"}, "does not see the run"),
        ({"paths": {"/elsewhere/model": None}}, "does not see /elsewhere/model; put it on a disk that all"),
        ({"paths": {__file__: 7}}, "than the driver; put it on a disk that all"),
    ],
)
def test_a_machine_that_does_not_fit(asked, change, words):
    """Each of the reasons, in words that follow the name of the machine; no process is started."""
    assert words in find_problem({**asked, **change})
    worker = RemoteWorker()
    assert words in worker.start({**asked, **change})["problem"]
    worker.end()


def test_a_worker_is_told_and_heard(asked, tmp_path, monkeypatch):
    """Commands reach the process in order; of its counts the latest come, of its end the cause and its last line."""
    (tmp_path / "told.py").write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    worker = RemoteWorker()
    assert worker.start(asked)["problem"] is None
    heard = worker.news()
    worker.tell(command_to_json(Take("a")))
    worker.tell(command_to_json(Take("bad")))
    deadline = time.monotonic() + 60
    while not any(each["event"] == "ended" for each in heard):
        assert time.monotonic() < deadline
        heard += worker.news()
    assert [each["event"] for each in heard if each["event"] != "underway"] == ["listening", "done", "ended"]
    assert next(each for each in heard if each["event"] == "done")["threads"] == "3"
    assert heard[-1]["cause"] == "worker exited with status 3: out of luck"
    assert len([each for each in heard if each["event"] == "underway"]) < 20
    worker.end()
