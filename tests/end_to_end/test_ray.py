"""The executor `ray` on a cluster of loopback nodes: what is lost, and what joins."""

import os
import shutil
import signal
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from support.fake_runs import contents
from support.novels import write_novel
from support.ray_cluster import LoopbackCluster, remote_workers, wait_until
from support.scoring import MINILM
from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed

from assay.cli.main import main
from assay.fleet.ray import cluster as joined
from assay.fleet.ray import remote
from assay.runs.run import open_run
from assay.runs.verify import verify
from assay.train.corpus import load_corpus

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
UNIT_ROWS = 50


@pytest.fixture(scope="module")
def cluster():
    """A head, and two nodes of one CPU each."""
    made = LoopbackCluster()
    try:
        made.nodes = [made.add(), made.add()]
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The quickstart's corpus, MiniLM with a head of five labels that nobody trained, and this machine's scores."""
    folder = tmp_path_factory.mktemp("ray")
    corpus = load_corpus()
    columns = {name: [getattr(row, name) for row in corpus.rows] for name in ("id", "text", "label")}
    pq.write_table(pa.table(columns), folder / "corpus.parquet", row_group_size=100)
    set_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(
        MINILM,
        id2label=dict(enumerate(corpus.labels)),
        label2id={label: k for k, label in enumerate(corpus.labels)},
    )
    model.save_pretrained(folder / "model")
    AutoTokenizer.from_pretrained(MINILM).save_pretrained(folder / "model")
    assert main(score_words(folder, "local", "--devices", "2", "--num-threads", "1")) == 0
    return folder


def score_words(folder, run, *more):
    """The command that scores the corpus."""
    return [
        *("score", str(folder / "corpus.parquet"), "--bundle", str(folder / "model")),
        *("--run", str(folder / run), "--unit-rows", str(UNIT_ROWS), "--max-length", "64", *more),
    ]


def start(words):
    """The command line in a process of its own."""
    command = [sys.executable, "-m", "assay", *words]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for_parts(run, count, driver):
    """Wait for so many parts, as long as the command runs."""
    wait_until(lambda: len(list(run.glob("parts/*.parquet"))) >= count or driver.poll() is not None)
    assert driver.poll() is None, driver.communicate()


def test_nodes_actors_and_the_driver_are_lost(cluster, job):
    """One of two nodes is killed, another joins, an actor and the driver are killed: the scores of one machine."""
    run = job / "run"
    words = score_words(job, "run", "--executor", "ray", "--ray-address", cluster.address)
    driver = start(words)
    wait_for_parts(run, 4, driver)
    assert len(remote_workers()) == 2
    cluster.lose(cluster.nodes.pop())
    wait_for_parts(run, 8, driver)
    cluster.nodes.append(cluster.add())
    wait_until(lambda: len(remote_workers()) == 2)
    wait_for_parts(run, 14, driver)
    os.kill(next(iter(remote_workers())), signal.SIGKILL)
    wait_for_parts(run, 22, driver)
    driver.kill()
    _, said = driver.communicate()
    assert "starting it again" in said
    wait_until(lambda: not remote_workers())
    published = contents(open_run(str(run)))
    again = start(words)
    _, said = again.communicate(timeout=600)
    assert again.returncode == 0, said
    assert "units are published; going on with" in said
    assert verify(str(run), sources=True, duplicates=True).holds
    scored = contents(open_run(str(run)))
    assert scored == contents(open_run(str(job / "local")))
    assert published.items() <= scored.items()
    wait_until(lambda: not remote_workers())


def test_a_node_that_joins_gets_a_worker(cluster, job):
    """With `--devices auto` a third node that joins in mid-run works too; what tokenizes runs the same way."""
    run = job / "grown"
    driver = start(score_words(job, "grown", "--executor", "ray", "--ray-address", cluster.address))
    wait_for_parts(run, 1, driver)
    third = cluster.add()
    wait_until(lambda: len(remote_workers()) == 3)
    _, said = driver.communicate(timeout=600)
    assert driver.returncode == 0, said
    assert contents(open_run(str(run))) == contents(open_run(str(job / "local")))
    cluster.lose(third)


def test_a_run_is_joined_by_a_cluster(cluster, job):
    """`assay join --executor ray` does a run of which only the plan is there; of four workers two find no place."""
    shutil.copytree(job / "local", job / "planned", ignore=shutil.ignore_patterns("*.parquet"))
    words = ["join", str(job / "planned"), "--executor", "ray", "--ray-address", cluster.address]
    driver = start([*words, "--devices", "4"])
    output, said = driver.communicate(timeout=600)
    assert driver.returncode == 0, said
    assert "helped with" in output
    assert "workers: 4 on cpu of the Ray cluster" in said
    assert contents(open_run(str(job / "planned"))) == contents(open_run(str(job / "local")))


def test_pairs_of_books_are_made_on_a_cluster(cluster, tmp_path):
    """`assay prepare books` makes the files, byte by byte, that one machine makes."""
    for number in range(12):
        write_novel(tmp_path / "books" / f"{'abcdef'[number // 2]}_{number}.txt", number, sentences=40)
    files = []
    for more in ((), ("--executor", "ray", "--ray-address", cluster.address)):
        out = tmp_path / f"pairs-{len(files)}"
        words = ["prepare", "books", str(tmp_path / "books"), "--out", str(out), "--chunk-sentences", "5"]
        words += ["--language", "en", "--language-check", "off", "--min-gap-sentences", "5", *more]
        driver = start(words)
        _, said = driver.communicate(timeout=600)
        assert driver.returncode == 0, said
        assert ("of the Ray cluster" in said) == bool(more)
        files.append({path.name: path.read_bytes() for path in sorted(out.glob("*.parquet"))})
    assert len(files[0]) == 3
    assert files[0] == files[1]


def test_machines_that_do_not_fit(cluster, job, monkeypatch, capsys):
    """Other versions, what a machine cannot see, more CPUs than one has: a line, before anything is started."""

    def refused(status, *more):
        capsys.readouterr()
        assert main(score_words(job, "refused", "--executor", "ray", *more)) == status
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
        assert not remote_workers()
        return line

    address = ("--ray-address", cluster.address)
    assert "no machine of the Ray cluster" in refused(2, *address, "--num-threads", "2")
    with monkeypatch.context() as patch:
        patch.setattr(remote, "versions", lambda: "Assay 0.0.7, Ray 2.60.0, Python 3.11")
        assert "and the driver Assay 0.0.7" in refused(3, *address)
    with monkeypatch.context() as patch:
        patch.setattr(joined, "local_paths", lambda run: {"/models/elsewhere": None})
        line = refused(2, *address)
    assert "does not see /models/elsewhere; put it on a disk that all machines share" in line
    if not torch.cuda.is_available():
        node = cluster.add(num_gpus=1)
        assert "lends 1 GPU and PyTorch finds none there" in refused(2, *address)
        cluster.lose(node)
