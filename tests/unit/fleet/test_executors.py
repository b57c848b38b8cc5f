"""The executor of a verb: settings that name no cluster that can be joined are one line, before anything is done."""

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
