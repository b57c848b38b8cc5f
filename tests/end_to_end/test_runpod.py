"""A fleet of pods that run the real `assay score` while things go wrong: the run is whole, and nothing is left."""

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from support.fake_runpod import FakeRunPod
from support.fake_runs import make_run, publish_unit, write_sources
from support.models import write_model

from assay.cli.main import main
from assay.fleet.launch.runpod import follow
from assay.runs.verify import verify


@pytest.mark.slow
@pytest.mark.parametrize("is_seen", [True, False], ids=["seen", "by-pods-alone"])
def test_pods_score_a_corpus_while_things_go_wrong(tmp_path, monkeypatch, capsys, kept_sigterm, is_seen):
    """No machine at first, answers that are lost, a pod that dies: each row once, no pod twice, none left.

    The pods are processes of this machine with the requests' own commands; their volume is a folder.
    """
    volume = tmp_path / "workspace"
    bundle = write_model(volume / "model")
    corpus = write_sources(volume / "corpus", [3_000, 2_000])
    tool = tmp_path / "bin" / "assay"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\nexec {sys.executable} -m assay "$@"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name, seconds in (("LOOK_SECONDS", 1.0), ("LAG_SECONDS", 4.0), ("FIRST_WAIT_SECONDS", 1.0)):
        monkeypatch.setattr(follow, name, seconds)
    if is_seen:
        monkeypatch.setenv("RUNPOD_VOLUME_ID", "vol1")
    with FakeRunPod(runs_args=True) as account:
        for name, value in account.environment().items():
            monkeypatch.setenv(name, value)
        account.orders = ["full", "lost", "", "torn"]
        account.hide(1)
        killer = threading.Thread(target=kill_one_at_work, args=(account, volume / "run"), daemon=True)
        killer.start()
        words = [
            "launch",
            "runpod",
            "--image",
            "assay:1",
            "--gpu-type",
            "RTX4090",
            "--hours",
            "1",
            "--workers",
            "3",
        ]
        words += [
            "--volume",
            "vol1",
            "--mount",
            str(volume),
            "--name",
            "scores",
            "--submit",
            "--",
            "score",
            str(corpus),
        ]
        status = main([*words, "--bundle", str(bundle), "--run", str(volume / "run"), "--unit-rows", "50"])
        captured = capsys.readouterr()
        assert status == 0, captured.err
        assert "run is verified; 4 pods" in captured.out, captured.err
        killer.join(10)
        assert account.names() == []
        assert account.running() == []
        ranks = Counter(pod["name"][-2:] for pod in account.made.values())
        assert ranks == {"-0": 1, "-1": 2, "-2": 1}
        assert not account.overlaps(
            next(pod["name"] for pod in account.made.values() if pod["name"].endswith("-1"))
        )
    proof = verify(str(volume / "run"), sources=True, duplicates=True)
    assert proof.holds, proof
    assert (proof.rows_out, proof.duplicate_ids) == (5_000, 0)


@pytest.mark.slow
def test_a_watcher_that_is_killed_is_replaced_by_another(fake_store, tmp_path):
    """Kill -9 right after it made pods, twice; whoever comes next finds them by name, and deletes them at the end."""
    run = make_run("s3://bucket/run", write_sources(tmp_path / "corpus", [60]))
    words = [
        "launch",
        "runpod",
        "--image",
        "assay:1",
        "--gpu-type",
        "RTX4090",
        "--hours",
        "1",
        "--workers",
        "3",
    ]
    words += ["--env", "AWS_ACCESS_KEY_ID", "--submit", "--", "join", "s3://bucket/run"]
    with FakeRunPod() as account:
        command = [sys.executable, "-m", "assay", *words]
        environment = {**os.environ, **account.environment()}
        for num_pods in (1, 3):
            with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as watcher:
                while len(account.made) < num_pods:
                    assert watcher.poll() is None
                    time.sleep(0.01)
                watcher.kill()
        assert len(account.running()) == 3
        for unit in run.manifest.units():
            publish_unit(run, unit)
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("s3://bucket/run is verified; 3 pods, ")
        assert (len(account.made), account.names()) == (3, [])


def kill_one_at_work(account, run):
    """The machine of rank 1 dies once there is a run, before it published anything or after."""
    while not Path(run, "run.json").exists() or not (at_work := second(account)):
        time.sleep(0.1)
    account.kill(*at_work)


def second(account):
    """The name of the pod of rank 1, if it is there."""
    return [name for name in account.names() if name.endswith("-1")]
