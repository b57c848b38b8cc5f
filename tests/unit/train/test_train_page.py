"""`assay train` as the how-to page has it, what it prints where, and what an interruption ends with."""

import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.pages import ROOT, commands, read_blocks, shell_environment

from assay.bundle.load import load_bundle
from assay.cli.main import main
from assay.cli.train import row_flags
from assay.tasks import Task
from assay.train import display
from assay.train import train as training
from assay.train.settings import TrainSettings

PAGE = ROOT / "docs" / "how-to" / "train.md"
BLOCKS = read_blocks(PAGE)
COMMANDS = [command for block in BLOCKS if block.language == "console" for command in commands(block)]


pytestmark = pytest.mark.usefixtures("kept_sigterm")


@pytest.fixture(scope="module")
def place(base, tmp_path_factory):
    """A folder with the encoder, the reviews and the settings file of the page."""
    place = tmp_path_factory.mktemp("page")
    shutil.copytree(base, place / "encoder")
    (place / "reviews").mkdir()
    rng = random.Random(0)
    words = ("the", "a", "sat", "ran", "on", "under", "mat", "hill", "saw", "heard")
    with (place / "reviews" / "all.jsonl").open("w") as file:
        for row in range(80):
            label = ("cat", "dog")[row % 2]
            text = " ".join([*rng.choices(words, k=9), label])
            stars = 1 + row % 2 * 3 + rng.random()
            line = {"id": row, "author": row // 2 % 30, "text": text, "label": label, "stars": stars}
            file.write(json.dumps({**line, "question": f"what {row}"}) + "\n")
    for block in BLOCKS:
        if "file" in block.marks:
            (place / block.marks["file"]).write_text(
                f"{block.text}num_threads = 1\nnear_duplicates = false\n"
            )
    return place


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_works(command, place, monkeypatch, capfd):
    """It ends well and leaves a bundle with a report, the figures of each step, and no checkpoint."""
    monkeypatch.chdir(place)
    words = command.split()
    out = Path(words[words.index("--out") + 1] if "--out" in words else "model")
    extra = ["--epochs", "1", "--max-length", "64"]
    if "--resume" in words:
        extra.append("--overwrite")
    if words[0] == "assay":
        assert main([*words[1:], *extra]) == 0
    else:
        subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", *words[1:], *extra],
            env=shell_environment(PYTHONPATH=str(ROOT / "src")),
            check=True,
        )
    if "--dry-run" in words:
        assert not out.exists()
        return
    assert load_bundle(out).labels
    assert {"train_report.html", "metrics.jsonl"} <= {file.name for file in out.iterdir()}
    assert not out.with_name(f"{out}.training").exists()
    assert capfd.readouterr().out.count(f"wrote {out}") == 1


def test_the_page_names_the_metrics_of_each_task():
    """The default first, as the settings have it."""
    text = PAGE.read_text(encoding="utf-8")
    for task in Task:
        row = next(line for line in text.splitlines() if line.startswith(f"| `{task}` |"))
        found = [row.index(f"`{name}`") for name in task.best_by]
        assert found == sorted(found)


def test_an_interrupted_training_says_how_to_go_on_and_does(place, monkeypatch, capsys):
    """Ctrl-C after step 5: status 130, the step of the checkpoint; with --resume the rest is trained."""
    monkeypatch.chdir(place)
    update = display.TrainDisplay.update

    def interrupt(self, progress):
        update(self, progress)
        if progress.step == 5 and progress.validation is None:
            signal.raise_signal(signal.SIGINT)

    words = ["train", "train.toml", "--out", "stopped", "--epochs", "2", "--max-length", "64"]
    with monkeypatch.context() as patch:
        patch.setattr(display.TrainDisplay, "update", interrupt)
        assert main(words) == 130
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-1] == (
        "interrupted: the last checkpoint is at step 5; run the same command with --resume"
    )
    assert not (place / "stopped").exists()
    assert main([*words, "--resume"]) == 0
    captured = capsys.readouterr()
    assert "going on after step 5 of " in captured.err
    assert "\nsplit: train " in captured.err
    assert captured.out.splitlines()[-1].startswith(
        "next: look at stopped/train_report.html; assay calibrate stopped"
    )
    steps = [
        json.loads(line)["step"] for line in (place / "stopped" / "metrics.jsonl").read_text().splitlines()
    ]
    assert steps == sorted(steps)


def test_the_hint_reads_rows_as_the_training_did():
    """Columns and format that were named are named again; what was left out is left out."""
    assert row_flags(TrainSettings(base="b", out="o", data=("d.csv",))) == ""
    chosen = TrainSettings(base="b", out="o", data=("d.csv",), label_column="my kind", delimiter=";")
    assert set(shlex.split(row_flags(chosen))) == {"--label-column", "my kind", "--delimiter", ";"}


def test_of_several_processes_the_first_alone_speaks(base, monkeypatch, capsys, tmp_path):
    """A rank above 0 that a launcher started trains, and prints nothing."""
    calls = []
    monkeypatch.setattr(training, "train", lambda settings, **hearing: calls.append(hearing))
    monkeypatch.setattr(os, "environ", {**os.environ, "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"})
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")
    assert main(["train", "--base", str(base), "--out", str(tmp_path / "b"), "--data", "rows.jsonl"]) == 0
    assert [list(filter(None, hearing.values())) for hearing in calls] == [[]]
    assert capsys.readouterr() == ("", "")
