"""Ctrl-C and a preempted pod: nothing half is published, and the same command goes on."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from support.bundles import write_bundle
from support.cli import use_fake_workers
from support.fake_runs import SUPPORT, contents, leftovers, write_sources
from support.fake_worker import Orders

from assay.cli.main import main
from assay.runs.run import open_run
from assay.runs.verify import verify


def score_words(tmp_path, run="run"):
    """The words of the command that the tests interrupt: 60 units."""
    folder, bundle = tmp_path / "sources", tmp_path / "bundle"
    words = ["score", str(folder), "--bundle", str(bundle), "--run", str(tmp_path / run)]
    return [*words, "--engine", "fake", "--unit-rows", "20", "--devices", "2"]


@pytest.fixture
def assay(monkeypatch, worker_host):
    """The command line in this process, with fake workers."""
    use_fake_workers(monkeypatch.setattr, host=worker_host)
    return main


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 75, "drained"), (signal.SIGUSR1, 75, "drained")],
)
def test_an_interrupt(tmp_path, number, status, word, assay, capsys):
    """SIGINT ends with status 130, a scheduler's SIGTERM and SIGUSR1 with 75, and a line that says how to go on.

    The workers are gone, every part is whole, and the same command does only what is left.
    """
    write_sources(tmp_path / "sources", [1200])
    write_bundle(tmp_path / "bundle")
    driver = subprocess.Popen(
        [sys.executable, str(SUPPORT / "cli.py"), *score_words(tmp_path)],
        env={**os.environ, **Orders(seconds_per_batch=0.1).environment()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    while len(list((tmp_path / "run").glob("parts/*.parquet"))) < 3:
        assert driver.poll() is None, driver.stderr.read()
        time.sleep(0.02)
    workers = psutil.Process(driver.pid).children()
    driver.send_signal(number)
    _, errors = driver.communicate(timeout=60)
    assert driver.returncode == status
    assert "Traceback" not in errors
    assert (
        errors.splitlines()[-1] == f"{word}: nothing half is published; run the same command again to go on"
    )
    assert psutil.wait_procs(workers, timeout=10)[1] == []

    run = open_run(str(tmp_path / "run"))
    assert leftovers(run) == []
    published = len(run.part_files())
    assert 3 <= published < 60
    assert verify(run.url, sources=True).problems == (
        f"{60 - published} of 60 units are not published; run the same command to go on",
    )

    assert assay(score_words(tmp_path)) == 0
    assert (
        f"{published} of 60 units are published; going on with {60 - published}." in capsys.readouterr().err
    )
    assert verify(run.url, sources=True).holds
    assert assay(score_words(tmp_path)) == 0
    assert "All 60 units are published already; nothing to do." in capsys.readouterr().err
    assert assay(score_words(tmp_path, "calm")) == 0
    assert contents(run) == contents(open_run(str(tmp_path / "calm")))


def test_the_real_worker(tmp_path):
    """The same with the worker that users get: interrupted while its process starts, then run to the end."""
    write_sources(tmp_path / "sources", [60])
    write_bundle(tmp_path / "bundle")
    command = [sys.executable, "-m", "assay", *score_words(tmp_path)]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")
    while not (tmp_path / "run" / "run.json").exists():
        assert driver.poll() is None, driver.stderr.read()
        time.sleep(0.02)
    time.sleep(0.2)
    driver.send_signal(signal.SIGINT)
    _, errors = driver.communicate(timeout=120)
    assert driver.returncode == 130, errors
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert "engine: fake engine" in done.stdout
    proof = verify(str(tmp_path / "run"), sources=True)
    assert proof.holds, proof
    assert proof.error_rows == 1, "the null text has an error code"
