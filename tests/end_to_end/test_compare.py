"""Documents compared by the real command, in a process of its own: calibrated, asked, and refused."""

import json
import subprocess
import sys

import pytest
from support.siamese import make_siamese_folder

from assay.cli.main import main


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """A small model, calibrated for documents of one and two chunks."""
    folder = tmp_path_factory.mktemp("compare")
    model = make_siamese_folder(folder / "model")
    texts = [
        f"We saw it{'!' * (number % 2)} and {'no' if number % 2 else 'the cat'} again. " * 9
        for number in range(20)
    ]
    rows = [
        {"text1": texts[one] + str(one), "text2": texts[two] + str(two), "label": int(one % 2 == two % 2)}
        for one in range(20)
        for two in (one - 1, one - 2)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    columns = ["--text-column", "text1", "--text-pair-column", "text2", "--num-chunks", "1", "2"]
    words = ["style", "calibrate", str(model), str(folder / "pairs.jsonl"), *columns, "--num-threads", "1"]
    assert main([*words, "--aggregate", "cosine"]) == 0
    return model


def test_a_text_on_standard_input_is_compared_with_a_file(calibrated, tmp_path, capsys):
    """JSON alone on stdout; what was calibrated is used; a calibration of other numbers is status 3 and one line."""
    (tmp_path / "a.txt").write_text("We saw it and the cat again. " * 20, encoding="utf-8")
    words = ["compare", "--bundle", str(calibrated), "--text1", str(tmp_path / "a.txt"), "--num-threads", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "assay", *words, "--text2", "-", "--json"],
        input="We saw it! and no again. " * 20,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["calibration"] == "calibrated for documents of 2 chunks"
    assert found["holds"] is (found["probability"] >= 0.5)
    assert [text["name"] for text in found["texts"]] == [str(tmp_path / "a.txt"), "standard input"]
    capsys.readouterr()
    assert main([*words, "--text2", str(tmp_path / "a.txt"), "--aggregate", "logits"]) == 3
    assert "aggregate is logits" in capsys.readouterr().err.splitlines()[-1]
