"""`assay bench` as a command: figures on stdout, what it does on stderr, one line for an error."""

import json

import pytest
from support.scoring import make_classifier, make_texts, write_parquet

from assay.cli.main import main

pytestmark = pytest.mark.usefixtures("kept_sigterm")


@pytest.fixture
def bench(tmp_path, capsys):
    """The command on thirty texts and a classifier of random weights: status, stdout, lines of stderr."""
    bundle = make_classifier(tmp_path / "model")
    write_parquet(tmp_path / "corpus.parquet", make_texts(30))

    def call(*words):
        capsys.readouterr()
        status = main(
            ["bench", str(tmp_path / "*.parquet"), "--bundle", str(bundle), "--rounds", "1", *words]
        )
        captured = capsys.readouterr()
        return status, captured.out, captured.err.splitlines()

    return call


def test_figures_and_the_estimate_for_people(bench, tmp_path):
    """A table with both sides and the line with hours and cost; nothing is written beside the sources."""
    before = sorted(tmp_path.iterdir())
    status, out, lines = bench("--for-documents", "160M", "--price-per-hour", "2.5", "--device", "cpu")
    assert status == 0
    assert "transformers, padded" in out
    estimate = out.splitlines()[-1]
    assert estimate.startswith("estimate  160.00M documents: ")
    assert "at the price given" in estimate
    assert lines[-1] == "measuring 30 documents, 1 round"
    assert sorted(tmp_path.iterdir()) == before


def test_json_is_one_object(bench):
    """With --json stdout is one JSON object with the figures of both sides."""
    status, out, _ = bench("--json", "--device", "cpu", "--documents", "20")
    assert status == 0
    found = json.loads(out)
    assert found["sample"]["documents"] == 20
    assert found["rows"] == found["estimate"]["documents"] == 30
    assert {"docs_per_second", "tokens_per_second", "teraflops", "ceiling_share", "padding_waste"} <= set(
        found["engine"]
    )
    assert set(found["engine"]) == set(found["padded"])


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--for-documents", "lots"], "'lots' is not a number of documents; write it as 160M"),
        (["--device", "tpu"], "device 'tpu' is not known; use cpu, cuda or cuda:K"),
        (["--documents", "0"], "documents is 0; it must be at least 1"),
        (["--text-column", "body"], "no column 'body'"),
        (["--documents", "many"], "documents is 'many'; it must be a whole number"),
    ],
)
def test_an_error_is_one_line(bench, words, shown):
    """Bad usage and bad input give status 2 and one line that names the value."""
    status, out, lines = bench(*words)
    assert (status, out) == (2, "")
    assert len(lines) == 1
    assert shown in lines[0]
