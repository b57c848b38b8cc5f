"""`assay score` as it is run: real worker processes, the real engine, a tiny model."""

import json
import os
import subprocess
import sys

import pytest
from support.scoring import assert_close, make_classifier, make_texts, read_parts, write_parquet

from assay.runs.run import open_run
from assay.runs.verify import verify

NUM_ROWS = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small classifier, 300 documents in two files with a null among them, and their scores by one worker."""
    folder = tmp_path_factory.mktemp("score")
    make_classifier(folder / "bundle", calibration={"temperature": 1.5, "threshold": 0.4})
    texts = make_texts(NUM_ROWS)
    texts[100] = None
    (folder / "sources").mkdir()
    write_parquet(folder / "sources" / "a.parquet", texts[:200])
    write_parquet(folder / "sources" / "b.parquet", texts[200:])
    done = assay(folder, "one", "--devices", "1").communicate()
    assert done[1].endswith("\n"), done
    return folder


def assay(folder, run, *more, **environment):
    """`assay score` of the documents, in a process."""
    words = ["score", str(folder / "sources"), "--bundle", str(folder / "bundle"), "--run", str(folder / run)]
    return subprocess.Popen(
        [sys.executable, "-m", "assay", *words, "--unit-rows", "32", *more],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def finished(process):
    """Its output, once it ended well."""
    out, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    return out


def assert_same_scores(folder, run):
    """The run is whole and verified, and its scores are those of one worker alone."""
    found, one = open_run(str(folder / run)), open_run(str(folder / "one"))
    assert found.manifest.run_id == one.manifest.run_id
    assert len(found.part_files()) == len(found.manifest.units()) > 8
    proof = verify(found.url, sources=True, duplicates=True)
    assert proof.holds, proof
    assert_close(read_parts(found), read_parts(one))


def test_one_worker(folder):
    """One worker scores every row, in order, with the gate's word that the engine is right."""
    run = open_run(str(folder / "one"))
    table = read_parts(run)
    assert table.num_rows == NUM_ROWS
    assert table["error"].to_pylist() == ["null" if row == 100 else None for row in range(NUM_ROWS)]
    assert json.loads(run.store.read_bytes("parity.json"))["passed"]
    again = read_parts(run)
    finished(assay(folder, "one"))
    assert read_parts(open_run(str(folder / "one"))).equals(again), "a finished run is left as it is"


def test_two_workers_equal_one(folder):
    """--devices 2 gives the scores of --devices 1."""
    finished(assay(folder, "two", "--devices", "2"))
    assert_same_scores(folder, "two")


def test_two_static_ranks_equal_one(folder):
    """Two drivers that never talk make one run, one placed by flags and one by its environment."""
    # without the gate, which has passed in the other runs: its reference takes seconds to import
    words = ("--executor", "static", "--parity-documents", "0")
    ranks = [
        assay(folder, "static", *words, "--rank", "0", "--world-size", "2"),
        assay(folder, "static", *words, POD_ID="1", NUM_WORKERS="2"),
    ]
    for rank in ranks:
        finished(rank)
    assert_same_scores(folder, "static")
