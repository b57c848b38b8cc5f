"""The executor of a verb: settings that name no cluster that can be joined are one line, before anything is done."""

import sys

import pytest
from support.models import write_model

from assay.cli.main import main


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """The error line of a score command with these flags more."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    model = write_model(tmp_path / "model")
    run = tmp_path / "run"

    def line(*more):
        capsys.readouterr()
        words = ["score", str(tmp_path / "none.csv"), "--bundle", str(model), "--run", str(run), *more]
        assert main(words) == 2
        (found,) = capsys.readouterr().err.splitlines()
        assert not run.exists()
        return found

    return line


@pytest.mark.parametrize(
    ("package", "extra", "words"),
    [
        ("starlette", "ray-serve", ["serve", "{model}"]),
        ("pandas", "ray-train", ["train", "--base", "{model}", "--data", "rows.csv", "--out", "out"]),
    ],
)
def test_what_serving_and_training_need(package, extra, words, tmp_path, monkeypatch, capsys):
    """Each has an extra of its own, which the line names before any cluster is looked for."""
    pytest.importorskip("ray")
    model = write_model(tmp_path / "model")
    capsys.readouterr()
    monkeypatch.setitem(sys.modules, package, None)
    command = [word.format(model=model) for word in words]
    assert main([*command, "--executor", "ray", "--ray-address", "127.0.0.1:1"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"the package {package} of the extra {extra}, which is not installed" in line


def test_ranks_that_a_launcher_started(tmp_path, monkeypatch, capsys):
    """One of several processes does not start a training on a cluster, which the others would start too."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    model = write_model(tmp_path / "model")
    words = ["train", "--base", str(model), "--data", "rows.csv", "--out", str(tmp_path / "out")]
    assert main([*words, "--executor", "ray"]) == 2
    assert "executor ray starts the ranks itself, and torchrun has" in capsys.readouterr().err


def test_an_address_without_the_executor(refused):
    """An address that nothing uses is a mistake."""
    assert refused("--ray-address", "auto").endswith("is for the ray executor; add --executor ray")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:1", "no Ray cluster at 127.0.0.1:1 ("),
        ("head", "ray_address 'head'; it must be auto or HOST:PORT, for example 10.0.0.1:6379"),
        (":6379", "ray_address ':6379'; it must be auto or HOST:PORT"),
        ("ray://127.0.0.1:10001", "is for Ray's client or its jobs; run this on a machine of the cluster"),
    ],
)
def test_an_address_where_no_cluster_is(refused, address, words):
    """What is not an address, what is one of another kind, and one at which nothing listens, at once."""
    pytest.importorskip("ray")
    assert words in refused("--executor", "ray", "--ray-address", address)
