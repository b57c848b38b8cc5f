"""Training of puzzle models: what is fed, what stays, stopping and going on, what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from assay.cli.flags import read_config
from assay.errors import BundleError, RefusedError, SourceError, UsageError
from assay.model.hrm.files import read_hrm
from assay.sudoku.puzzles import PuzzleSplit, SplitDescription, write_split
from assay.train import checkpoints
from assay.train.history import Listener
from assay.train.loop import Interrupted
from assay.train.puzzles import train as room
from assay.train.puzzles.feed import Feed
from assay.train.puzzles.settings import PuzzleTraining
from assay.train.puzzles.train import sudoku_train


def split(number, *, group=1, seed=0, size=4):
    """Grids of `size` cells whose solution is the puzzle with blanks (1) filled by their row's own value."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(rng.integers(2, 6, (number, 1)), size, 1).astype(np.uint8)
    inputs = labels.copy()
    inputs[:, 1::2] = 1
    return PuzzleSplit(
        inputs=inputs,
        labels=labels,
        puzzle_identifiers=np.zeros(number, np.int32),
        puzzle_indices=np.arange(number + 1, dtype=np.int32),
        group_indices=np.arange(0, number + 1, group, dtype=np.int32),
        description=SplitDescription(vocab_size=6, seq_len=size, total_groups=number // group),
    )


@pytest.fixture
def data(tmp_path):
    """A folder of puzzles."""
    folder = tmp_path / "puzzles"
    write_split(folder, "train", split(40))
    write_split(folder, "test", split(7, seed=1))
    return folder


@pytest.fixture
def settings(data, tmp_path):
    """A training of seconds."""
    return PuzzleTraining(
        data=str(data),
        out=str(tmp_path / "model"),
        hidden_size=32,
        num_heads=2,
        num_layers=1,
        expansion=1.0,
        halt_max_steps=3,
        batch_size=8,
        num_steps=6,
        learning_rate=3e-3,
        warmup_steps=2,
        weight_decay=0.1,
        forward_dtype="float32",
        num_threads=1,
        evaluate_every=3,
        snapshot_every=1,
        snapshots=3,
        device="cpu",
    )


def weights(out):
    """Tensors of the newest snapshot."""
    return read_hrm(out).tensors


def test_a_training_leaves_its_newest_snapshots(settings, tmp_path):
    """Readable as checkpoints, with figures by step; nothing lies beside them."""
    heard = []
    report = sudoku_train(settings, Listener.of(heard.append, None, None))
    out = tmp_path / "model"
    assert report.is_done
    assert sorted(each.name for each in out.iterdir()) == [
        "config.json",
        "metrics.jsonl",
        "step_4.safetensors",
        "step_5.safetensors",
        "step_6.safetensors",
        "training.json",
    ]
    assert not checkpoints.training_folder(out).exists()
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in lines if "validation" in line] == [3, 6]
    assert heard[-1].validation == lines[-1]["validation"] == report.validation
    checkpoint = read_hrm(out)
    assert checkpoint.config.seq_len == 4
    assert "held out: accuracy" in str(report)


@pytest.mark.parametrize(
    "change",
    [{}, {"architecture": "trm", "ema": 0.9, "fast_cycles": 2, "mlp_t": True}, {"optimizer": "adamw"}],
    ids=["hrm", "trm with a running mean", "adamw"],
)
def test_interrupted_anywhere_and_resumed_it_ends_with_the_same_weights(settings, monkeypatch, change):
    """Carries, steps, optimizer, running mean, feed and draws go on as if nothing had happened."""
    settings = replace(settings, **change)
    whole = sudoku_train(replace(settings, out=f"{settings.out}-whole"))
    count = 0

    def stop_at_steps_two_and_five():
        nonlocal count
        count += 1
        return count in {2, 5}

    class Signals:
        def __enter__(self):
            return stop_at_steps_two_and_five

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(room, "stop_signals", Signals)
    for step in (2, 5):
        with pytest.raises(Interrupted):
            sudoku_train(replace(settings, resume=step > 2))
        assert checkpoints.newest(checkpoints.training_folder(settings.out)).name == f"step-{step:08}"
    resumed = sudoku_train(replace(settings, resume=True))
    assert resumed.validation == whole.validation
    ours, theirs = weights(resumed.out), weights(whole.out)
    assert all(torch.equal(each, theirs[name]) for name, each in ours.items())
    ours, theirs = (
        [
            line
            for line in map(json.loads, (each.out / "metrics.jsonl").read_text().splitlines())
            if "loss" in line
        ]
        for each in (resumed, whole)
    )
    assert [line["loss"] for line in ours] == [line["loss"] for line in theirs]


def test_a_time_limit_ends_a_piece(settings):
    """With a checkpoint; pieces come to the end, and one more says that nothing is left."""
    said = []
    piece = replace(settings, stop_after_minutes=1e-9, resume=True)
    for step in range(1, 6):
        report = sudoku_train(piece)
        assert report.step == step
        assert "--resume" in str(report)
    assert sudoku_train(piece).is_done
    again = sudoku_train(piece, Listener.of(None, said.append, None))
    assert again.is_done
    assert said == ["this training has ended; nothing is left to do"]


def test_it_learns(settings):
    """Filling a row with its own value is learned in sixty steps; a guess would be right in a quarter of them."""
    report = sudoku_train(
        replace(
            settings,
            halt_max_steps=2,
            batch_size=20,
            learning_rate=1e-2,
            num_steps=60,
            evaluate_every=60,
            snapshot_every=60,
        )
    )
    assert report.validation["cell_accuracy"] > 0.8


def test_a_resumed_training_is_the_same_one(settings, data):
    """Another setting or other puzzles are refused with what changed; places and times may change."""
    sudoku_train(replace(settings, stop_after_minutes=1e-9))
    with pytest.raises(RefusedError, match=r"learning_rate=0\.003"):
        sudoku_train(replace(settings, resume=True, learning_rate=1e-4))
    with pytest.raises(UsageError, match="--resume or --overwrite"):
        sudoku_train(settings)
    write_split(data, "train", split(40, seed=5))
    with pytest.raises(RefusedError, match="other puzzles"):
        sudoku_train(replace(settings, resume=True))
    assert sudoku_train(replace(settings, overwrite=True, num_steps=2)).is_done
    with pytest.raises(UsageError, match="not empty"):
        sudoku_train(replace(settings, num_steps=2))
    with pytest.raises(RefusedError, match="other settings"):
        sudoku_train(replace(settings, resume=True))


def test_every_epoch_offers_each_puzzle_once():
    """A step's batch depends on its number alone; groups are permuted and one of each is drawn."""
    given = split(24, group=2)
    feed, other = Feed(given, batch_size=5, seed=1), Feed(given, batch_size=5, seed=1)
    assert feed.steps_per_epoch == 2
    labels = [feed.batch(step).labels_BS for step in range(6)]
    assert torch.equal(other.batch(4).labels_BS, labels[4])
    assert not torch.equal(labels[0], labels[2])
    everything = Feed(split(24), batch_size=24, seed=1).batch(0)
    assert sorted(everything.labels_BS[:, 0].tolist()) == sorted(given.labels[:, 0].tolist())


def test_padding_is_not_asked_for():
    """Labels that the data ignores become the loss's own mark."""
    given = split(8)
    labels = given.labels.copy()
    labels[:, 2] = 0
    batch = Feed(replace(given, labels=labels), batch_size=8, seed=0).batch(0)
    assert (batch.labels_BS[:, 2] == -100).all()
    assert (batch.labels_BS[:, :2] > 0).all()
    assert batch.inputs_BS.dtype == torch.int32


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"batch_size": 41}, UsageError, "has 40 puzzles before augmentation; lower it"),
        ({"augment": True}, SourceError, "Sudokus have 81"),
        ({"num_heads": 3}, BundleError, "num_heads=3"),
        ({"data": "/nowhere"}, SourceError, "has no split train"),
        ({"device": "tpu"}, UsageError, "use cpu, cuda"),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_step(settings, change, error, message):
    """With what was seen and the way out; nothing is left behind."""
    with pytest.raises(error, match=message):
        sudoku_train(replace(settings, **change))
    assert not checkpoints.training_folder(settings.out).exists()


def test_the_recipe_is_one_that_training_takes():
    """Its settings exist and make a model for Sudokus."""
    recipe = Path(__file__).resolve().parents[4] / "recipes" / "sudoku" / "hrm.toml"
    read = PuzzleTraining(data="puzzles", out="model", **read_config(recipe, PuzzleTraining))
    config = read.config(vocab_size=11, seq_len=81, num_puzzle_identifiers=1)
    assert (config.hidden_size, config.head_size) == (256, 64)


def test_settings_that_do_not_go_together_are_refused(settings):
    """A feed-forward over positions is a TRM's."""
    with pytest.raises(UsageError, match="set architecture=trm"):
        replace(settings, mlp_t=True)
