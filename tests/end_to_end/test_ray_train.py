"""`assay train --executor ray` on a cluster of loopback nodes: one machine's weights, whatever is lost."""

import csv
import signal
import subprocess
import sys

import psutil
import pytest
from safetensors.torch import load_file
from support.ray_cluster import LoopbackCluster, wait_until
from support.training import animal_rows, write_base

from assay.cli.main import main
from assay.fleet.ray.rank import MODULE
from assay.train.checkpoints import newest, training_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def cluster():
    """A head, and three nodes of one CPU each, of which a training takes two."""
    made = LoopbackCluster()
    try:
        for _ in range(3):
            made.add()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Rows, a base, and the weights that two processes of this machine come to."""
    folder = tmp_path_factory.mktemp("train")
    write_base(folder / "base")
    rows = animal_rows(240, seed=1)
    with (folder / "rows.csv").open("w") as file:
        csv.writer(file).writerows([("text", "label"), *zip(rows.texts, rows.labels, strict=True)])
    assert main([str(word) for word in train_words(folder, "local")]) == 0
    return folder


def train_words(folder, out, *more):
    """The command that trains, with checkpoints often."""
    return [
        *("train", "--base", folder / "base", "--data", folder / "rows.csv", "--out", folder / out),
        *("--devices", "2", "--num-threads", "1", "--max-length", "32", "--learning-rate", "1e-3"),
        *("--epochs", "60", "--evaluate-every", "20", "--checkpoint-minutes", "0.02", *more),
    ]


@pytest.fixture
def start(cluster, job):
    """Start the training of a bundle on the cluster, in a process of its own and with relative paths."""
    started = []

    def start(out, *more):
        words = [str(word).removeprefix(f"{job}/") for word in train_words(job, out, *more)]
        words += ["--executor", "ray", "--ray-address", cluster.address]
        command = [sys.executable, "-m", "assay", *words]
        started.append(
            subprocess.Popen(command, cwd=job, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        )
        return started[-1]

    yield start
    for each in started:
        each.kill()


def rank_processes():
    """The processes of this machine that are a rank, by the attempt that started them."""
    found = {}
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if MODULE in words[:-1]:  # a rank of one machine has no attempt
            found.setdefault(words[-1], []).append(process)
    return found


def wait_for_attempt(job, out, driver, before):
    """Wait for both ranks of an attempt that was not there before, and for a checkpoint of it; returns the ranks."""
    wait_for(
        lambda: any(len(ranks) == 2 for attempt, ranks in rank_processes().items() if attempt not in before),
        driver,
    )
    attempt, ranks = next(each for each in rank_processes().items() if each[0] not in before)
    before.add(attempt)
    wait_for_checkpoint(job, out, driver, newest(training_folder(job / out)))
    return ranks


def wait_for_checkpoint(job, out, driver, after=None):
    """Wait for a checkpoint that is not `after`; returns it."""
    folder = training_folder(job / out)
    wait_for(lambda: newest(folder) not in {None, after}, driver)
    return newest(folder)


def wait_for(condition, driver):
    """Wait for a condition as long as the command runs; where it does not come true, show what was said."""
    try:
        wait_until(lambda: condition() or driver.poll() is not None, 240)
    except AssertionError:
        driver.kill()
        driver.wait()
    assert driver.poll() is None, driver.communicate()


def same_weights(job, out):
    """Whether a bundle has the weights of this machine's, bit for bit."""
    ours, theirs = (load_file(job / name / "model.safetensors") for name in (out, "local"))
    return ours.keys() == theirs.keys() and all(ours[name].equal(theirs[name]) for name in ours)


def test_what_is_lost_costs_time_alone(cluster, job, start):
    """A rank, a worker of Ray and a node are killed in turn: each time it goes on, to the weights of one machine."""
    driver, before = start("lost"), set()
    rank, _ = wait_for_attempt(job, "lost", driver, before)
    rank.send_signal(signal.SIGKILL)
    rank, _ = wait_for_attempt(job, "lost", driver, before)
    rank.parent().send_signal(signal.SIGKILL)
    rank, _ = wait_for_attempt(job, "lost", driver, before)
    raylet = rank.parent().parent()
    assert raylet.name() == "raylet"
    for each in (raylet, *raylet.children(recursive=True)):
        each.send_signal(signal.SIGKILL)
    _, said = driver.communicate(timeout=600)
    assert driver.returncode == 0, said
    assert said.count("starting again from the last checkpoint") == 3, said
    assert "was killed by SIGKILL" in said
    assert same_weights(job, "lost")
    assert not training_folder(job / "lost").exists()
    assert not rank_processes()


def test_the_driver_is_interrupted_and_killed(job, start):
    """Interrupted, it leaves a checkpoint; killed, its ranks end by themselves; resumed, the same weights."""
    driver = start("driver")
    at = wait_for_checkpoint(job, "driver", driver)
    driver.send_signal(signal.SIGINT)
    _, said = driver.communicate(timeout=120)
    assert driver.returncode == 130, said
    assert "--resume" in said.splitlines()[-1]
    assert not rank_processes()
    assert newest(training_folder(job / "driver")) != at
    driver = start("driver", "--resume")
    wait_for_checkpoint(job, "driver", driver, newest(training_folder(job / "driver")))
    driver.kill()
    driver.communicate()
    wait_until(lambda: not rank_processes())
    driver = start("driver", "--resume")
    _, said = driver.communicate(timeout=600)
    assert driver.returncode == 0, said
    assert "going on after step" in said
    assert same_weights(job, "driver")


def test_what_cannot_work_is_a_line(cluster, job, start, capsys):
    """More devices than the cluster has, and an error that the ranks find: as on one machine, without another try."""
    words = [str(word) for word in train_words(job, "none", "--executor", "ray")]
    assert main([*words, "--ray-address", cluster.address, "--devices", "9"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "devices 9; the Ray cluster at" in line
    assert "or less, or add machines first" in line
    driver = start("none", "--text-column", "words")
    _, said = driver.communicate(timeout=300)
    assert driver.returncode == 2, said
    assert "has no column 'words'" in said.splitlines()[-1]
    assert "starting again" not in said
    assert not rank_processes()
