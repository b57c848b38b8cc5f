"""How many threads a command computes with, and how they wait: for every verb and every process it starts."""

import os
import subprocess
import sys

import pytest
import torch

from assay import machine
from assay.cli.help import find
from assay.cli.verbs import ASSAY
from assay.engine import load
from assay.runs import placement
from assay.score import verb as scoring
from assay.score.kind import SCORE
from assay.score.settings import ScoreSettings
from assay.serve import engines
from assay.serve.placement import first_specs
from assay.serve.settings import ServeSettings

VERBS = ("train", "score", "tokenize", "serve", "evaluate", "calibrate", "bench")
SHOW = """
import os, sys
from assay.__main__ import main
from assay.cli import main as command
command.dispatch = lambda words: print(os.environ.get("OMP_WAIT_POLICY"), "torch" in sys.modules) or 0
sys.exit(main())
"""


@pytest.mark.parametrize(("own", "seen"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_the_wait_policy_stands_before_torch_is_loaded(own, seen):
    """OpenMP reads it once, as torch is loaded: the command sets it first, unless the user did."""
    plain = {name: value for name, value in os.environ.items() if name not in machine.YIELDING}
    done = subprocess.run(
        [sys.executable, "-c", SHOW], env={**plain, **own}, capture_output=True, encoding="utf-8", check=True
    )
    assert done.stdout.split() == [seen, "False"]


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_that_computes_takes_num_threads(name):
    """`--num-threads` is one setting wherever something is computed, and counts from 1."""
    _, node, _ = find(ASSAY, [name])
    fields = node.load().settings.__dataclass_fields__
    assert fields["num_threads"].default is None


def test_workers_get_their_threads_and_yield(monkeypatch):
    """A worker of a run is started with its share of the threads, or as many as asked for, and yields."""
    seen = []
    monkeypatch.setattr(
        placement,
        "python_worker",
        lambda module, *words, name, environment: seen.append((words, environment)),
    )
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    settings = ScoreSettings(
        sources=("a",), bundle="b", run="/nowhere/run", num_threads=3, devices="2", engine="fake"
    )
    run = type("Run", (), {"url": "run"})
    placement.place_processes("module", run, scoring.place(settings, SCORE, lambda: None).placement)
    assert len(seen) == 2
    for words, environment in seen:
        assert words[-2:] == ("--threads", "3")
        assert environment["OMP_NUM_THREADS"] == environment["RAYON_NUM_THREADS"] == "3"
        assert environment["OMP_WAIT_POLICY"] == "PASSIVE"


def test_engines_of_a_server_get_their_threads_and_yield(monkeypatch, tmp_path):
    """An engine process is started with as many threads as asked for, and yields."""
    seen = []
    monkeypatch.setattr(machine, "GPU_DRIVER_FILES", ())
    monkeypatch.setattr(engines, "spawn", lambda command, **options: seen.append(options["environment"]))
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    (spec,) = first_specs(ServeSettings(bundle=str(tmp_path), num_threads=1))
    engines.start_child(spec).connection.close()
    assert seen[0]["OMP_NUM_THREADS"] == "1"
    assert seen[0]["OMP_WAIT_POLICY"] == "PASSIVE"


@pytest.mark.parametrize(("asked", "environment", "threads"), [(None, "2", 2), (1, "2", 1), (None, None, 5)])
def test_an_engine_computes_with_them(monkeypatch, asked, environment, threads):
    """Evaluate, calibrate, bench, workers and `assay.load` take the setting, OMP_NUM_THREADS, or the cores."""
    seen = []
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    monkeypatch.setattr(machine, "usable_cores", lambda: 5)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if environment:
        monkeypatch.setenv("OMP_NUM_THREADS", environment)
    with pytest.raises(Exception, match="nowhere"):
        load.load_engine("/nowhere/bundle", num_threads=asked)
    assert seen == [threads]
