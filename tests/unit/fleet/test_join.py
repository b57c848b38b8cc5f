"""`assay join`: a run's URL is all that a machine needs to help with it."""

import json
import shutil

import pytest
from support.bundles import write_bundle
from support.cli import use_fake_workers
from support.fake_runs import fake_workers, make_run, write_sources

from assay.cli.main import main
from assay.fleet import join as joining
from assay.fleet.join import find_place
from assay.fleet.settings import JoinSettings
from assay.runs.ranks import RANK_VARIABLES
from assay.runs.verify import verify


@pytest.fixture
def folder(tmp_path):
    """One source of 200 rows."""
    return write_sources(tmp_path / "sources", [200])


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch):
    for launcher in RANK_VARIABLES:
        monkeypatch.delenv(launcher.rank, raising=False)


@pytest.fixture
def assay(monkeypatch, worker_host):
    """The command line in this process, with fake workers."""
    use_fake_workers(monkeypatch.setattr, host=worker_host)
    monkeypatch.setattr(
        joining,
        "place_processes",
        lambda _, run, place: fake_workers(run, place.num_workers, host=worker_host),
    )
    monkeypatch.setattr(joining, "__version__", "0")
    return main


def test_a_run_is_finished_from_its_url_alone(folder, tmp_path, assay, capsys):
    """A run that was only planned is done by one that joins; once more there is nothing to do, sources or not."""
    run = make_run(tmp_path / "run", folder)
    assert assay(["join", run.url, "--devices", "2"]) == 0
    assert "10 units to do, 200 rows." in capsys.readouterr().err
    assert verify(run.url, sources=True).holds
    shutil.rmtree(folder)
    assert assay(["join", run.url]) == 0
    assert "All 10 units are published already; nothing to do." in capsys.readouterr().err


def test_what_cannot_be_joined(folder, tmp_path, assay, capsys):
    """No run, one of another version, one of an unknown kind: a line each with the way out."""
    assert assay(["join", str(tmp_path / "none")]) == 2
    assert "holds no run" in capsys.readouterr().err
    run = make_run(tmp_path / "run", folder)
    path = tmp_path / "run" / "run.json"
    raw = json.loads(path.read_text())
    path.write_text(json.dumps({**raw, "assay_version": "0.0.7"}))
    assert assay(["join", run.url]) == 3
    assert "was planned by Assay 0.0.7 and this is 0" in capsys.readouterr().err
    path.write_text(json.dumps({**raw, "kind": "dream"}))
    assert assay(["join", run.url]) == 2
    assert "is a dream run" in capsys.readouterr().err


@pytest.mark.slow
def test_a_real_run_is_joined(tmp_path, capsys):
    """A run that `assay score` began with a limit on nothing is finished by the real worker of its kind."""
    write_sources(tmp_path / "sources", [60])
    write_bundle(tmp_path / "bundle")
    words = [
        "score",
        str(tmp_path / "sources"),
        "--bundle",
        str(tmp_path / "bundle"),
        "--run",
        str(tmp_path / "run"),
    ]
    assert main([*words, "--engine", "fake", "--unit-rows", "20"]) == 0
    parts = sorted((tmp_path / "run" / "parts").iterdir())
    before = parts[1].read_bytes()
    parts[1].unlink()
    capsys.readouterr()
    assert main(["join", str(tmp_path / "run")]) == 0
    assert "helped with" in capsys.readouterr().out
    assert verify(str(tmp_path / "run"), sources=True).holds
    assert len(parts[1].read_bytes()) == pytest.approx(len(before), rel=0.2)


def test_a_place_is_optional(monkeypatch):
    """With a launcher's variables a share is its own to begin with; without, or with half of them, none is."""
    assert find_place(JoinSettings(run="r")) is None
    assert find_place(JoinSettings(run="r", rank=1, world_size=3)) == (1, 3)
    monkeypatch.setenv("POD_ID", "2")
    monkeypatch.delenv("NUM_WORKERS", raising=False)
    assert find_place(JoinSettings(run="r")) is None
    monkeypatch.setenv("NUM_WORKERS", "4")
    assert find_place(JoinSettings(run="r")) == (2, 4)
