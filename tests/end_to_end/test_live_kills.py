"""kill -9 of live `assay embed` and `assay mine`: the same command goes on to what an undisturbed run holds."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import hosting
from support.cli import use_hosted_workers
from support.embedded import write_embed_run, write_pairs
from support.encoders import make_encoder_folder
from support.fake_runs import SUPPORT
from support.scoring import WORDS

from assay.cli.main import main
from assay.runs.verify import verify

NUM_ROWS = 400
UNIT_ROWS = 4
NUM_UNITS = NUM_ROWS // UNIT_ROWS


@pytest.fixture(scope="module")
def live_host(tmp_path_factory):
    """A host of the real workers of both commands."""
    heavy = ("torch", "assay.engine.fake", "assay.engine.load", "assay.embed.forward", "assay.mine.search")
    with hosting(tmp_path_factory.mktemp("host") / "socket", "support.live_worker", *heavy) as address:
        yield address


@pytest.fixture(scope="module")
def embed_words(tmp_path_factory):
    """The command that embeds 400 rows in a hundred units, but for its run."""
    folder = tmp_path_factory.mktemp("texts")
    chance = random.Random(3)
    texts = [" ".join(chance.choices(WORDS, k=chance.randint(1, 30))) for _ in range(NUM_ROWS)]
    pq.write_table(pa.table({"text": texts}), folder / "texts.parquet")
    encoder = make_encoder_folder(folder / "encoder")
    words = ["embed", str(folder / "texts.parquet"), "--bundle", str(encoder), "--parity-documents", "0"]
    return [*words, "--unit-rows", str(UNIT_ROWS), "--devices", "2"]


@pytest.fixture(scope="module")
def mine_words(tmp_path_factory):
    """The command that mines for 400 anchors in a hundred units, but for its run."""
    folder = tmp_path_factory.mktemp("vectors")
    texts = [f"text {number}" for number in range(2 * NUM_ROWS)]
    vectors = np.random.default_rng(2).standard_normal((len(texts), 8)).astype(np.float32)
    corpus = write_embed_run(folder, texts, vectors, unit_rows=200)
    pairs = write_pairs(folder / "pairs.parquet", list(zip(texts[:NUM_ROWS], texts[NUM_ROWS:], strict=True)))
    words = ["mine", pairs, "--corpus", corpus.url, "--output-format", "pairs"]
    return [*words, "--unit-rows", str(UNIT_ROWS), "--devices", "2"]


def workers_of(host):
    """The worker processes that a host has running."""
    [process] = [child for child in psutil.Process().children() if is_host(child, host)]
    return [child for child in process.children(recursive=True) if is_leaf(child)]


def is_host(process, address):
    """Whether a process is the host of this address; a command that was killed a moment ago is not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        words = process.cmdline()
        return address in words and "serve" in words
    return False


def is_leaf(process):
    """Whether a process is still there and has started no other."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return not process.children()
    return False


def rows_of(run):
    """The rows of each part."""
    return {path.name: pq.read_table(path).to_pylist() for path in Path(run, "parts").glob("*.parquet")}


def num_parts(run):
    """How many parts are published."""
    return sum(1 for _ in Path(run, "parts").glob("*.parquet"))


def start(words, run, host):
    """The command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, str(SUPPORT / "cli.py"), *words, "--run", str(run)],
        env={**os.environ, "WORKER_HOST": host},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )


def kill(processes):
    """Kill -9; those that have ended are let be."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)


def assert_as_calm(run, calm):
    """The run holds every part once and whole, with the rows of one that nobody disturbed, to the last bit."""
    proof = verify(str(run), sources=True, duplicates=True)
    assert proof.holds, proof
    expected = rows_of(calm)
    assert len(expected) == NUM_UNITS
    assert rows_of(run) == expected


@pytest.fixture(params=["embed", "mine"])
def words(request, monkeypatch, live_host):
    """The command, whose workers come from the host."""
    use_hosted_workers(monkeypatch.setattr, host=live_host)
    return request.getfixturevalue(f"{request.param}_words")


def test_workers_that_are_killed(words, live_host, tmp_path):
    """Three times at a random moment, of a command that goes on by itself or is given again."""
    if words[0] == "embed":
        words = [*words, "--engine", "fake"]  # a real one proves itself for seconds first
    run = tmp_path / "killed"
    chance = random.Random(5)
    has_ended = threading.Event()
    killed = []

    def strike():
        for _ in range(3):
            wanted = num_parts(run) + chance.randrange(1, NUM_UNITS // 5)
            while num_parts(run) < wanted and not has_ended.wait(0.002):
                pass
            time.sleep(chance.uniform(0, 0.01))
            killed.extend(victims := workers_of(live_host))
            kill(victims)

    killer = threading.Thread(target=strike)
    killer.start()
    while main([*words, "--run", str(run)]) != 0:
        pass
    has_ended.set()
    killer.join()
    assert len(killed) >= 3
    assert main([*words, "--run", str(tmp_path / "calm")]) == 0
    assert_as_calm(run, tmp_path / "calm")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_drivers_and_workers_that_are_killed(words, live_host, tmp_path, seed):
    """Twenty times: the driver, its workers or both, and the same command given until it ends well."""
    run, chance, killed = tmp_path / "killed", random.Random(seed), 0
    while True:
        driver = start(words, run, live_host)
        while killed < 20 and driver.poll() is None:
            wanted = num_parts(run) + chance.randrange(5)
            while driver.poll() is None and num_parts(run) < wanted:
                time.sleep(0.002)
            time.sleep(chance.uniform(0, 0.01))
            which = killed % 3
            kill([*(workers_of(live_host) if which else []), *([driver] if which < 2 else [])])
            killed += 1
            if which < 2:
                break
        output, _ = driver.communicate(timeout=300)
        if driver.returncode == 0:
            break
        assert driver.returncode in {1, -signal.SIGKILL}, output
    assert killed >= 10
    assert main([*words, "--run", str(tmp_path / "calm")]) == 0
    assert_as_calm(run, tmp_path / "calm")


@pytest.mark.slow
def test_two_commands_on_one_run(words, live_host, tmp_path):
    """Started at the same moment: one creates the run, the other joins it, both end well, no part is there twice."""
    run = tmp_path / "shared"
    drivers = [start(words, run, live_host) for _ in range(2)]
    for driver, (output, _) in zip(drivers, [each.communicate(timeout=300) for each in drivers], strict=True):
        assert driver.returncode == 0, output
        assert f"of {NUM_UNITS} units published" in output
    assert main([*words, "--run", str(tmp_path / "calm")]) == 0
    assert_as_calm(run, tmp_path / "calm")
