"""The recipe of ensembles: which posts meet in a pair, and settings that a training takes."""

import importlib.util
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

from assay.train.settings import TrainSettings

FOLDER = Path(__file__).resolve().parents[2] / "recipes" / "ensembles"


@pytest.fixture(scope="module")
def tables():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("recipes_ensembles", FOLDER / "tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_other_pair_is_of_one_group_and_half_of_the_rest_of_groups_that_begin_alike(tables):
    """A pair's label is true of its posts, no post meets itself, and one seed draws the same pairs."""
    labels = [
        label for label in ("comp.graphics", "comp.windows", "rec.autos", "misc.forsale") for _ in range(5)
    ]
    texts = [f"{label} {number}" for number, label in enumerate(labels)]
    pairs = tables.draw_pairs(texts, labels, 400, seed=3)
    assert pairs == tables.draw_pairs(texts, labels, 400, seed=3)
    groups = [[pair[side].split()[0] for side in ("text1", "text2")] for pair in pairs]
    assert [one == two for one, two in groups] == [pair["label"] == "same" for pair in pairs]
    assert all(pair["text1"] != pair["text2"] for pair in pairs)
    assert sum(pair["label"] == "same" for pair in pairs) == 200
    near = [one.split(".")[0] == two.split(".")[0] for one, two in groups if one != two]
    assert 30 < sum(near) < 120


def test_the_recipe_of_pairs_is_one_that_a_training_takes(tables):
    """Its settings are known, and its files are those that the script writes."""
    settings = TrainSettings(**tomllib.loads((FOLDER / "pairs.toml").read_text(encoding="utf-8")))
    assert {
        "text_column": settings.text_column,
        "text_pair_column": settings.text_pair_column,
    } == tables.PAIR_COLUMNS
    assert settings.data == ("recipes/out/ensembles/data/pairs_train.parquet",)


def test_a_row_s_difference_is_of_the_same_documents(tables, capsys):
    """Accuracy and NLL less those of the reference, row by row, in the table and in the figures."""
    right, loss = np.array([1, 1, 0, 1]), np.array([0.1, 0.2, 1.5, 0.4])
    one = tables.Measured(name="one", passes=1, figures={"accuracy": 0.75}, right_N=right == 1, loss_N=loss)
    two = tables.Measured(
        name="two", passes=2, figures={"accuracy": 1.0}, right_N=right >= 0, loss_N=loss - 0.1
    )
    _, found = tables.table("some", [one, two])
    assert found["accuracy_difference"][0] == pytest.approx(0.25)
    assert found["nll_difference"] == pytest.approx((-0.1, -0.1, -0.1))
    assert "| two | 2 | 1.0000 | +0.2500" in capsys.readouterr().out


def test_snapshots_are_bundles_like_the_one_they_were_taken_of(tables, tmp_path):
    """The same files, other weights; pages of the training stay with the training."""
    (tmp_path / "seed_0").mkdir()
    for name in ("config.json", "train_report.html", "model.safetensors"):
        (tmp_path / "seed_0" / name).write_text("{}")
    tables.write_snapshots(tmp_path, {"snapshot_60": {"weight": torch.ones(2)}})
    assert {path.name for path in (tmp_path / "snapshot_60").iterdir()} == {
        "config.json",
        "model.safetensors",
    }
    assert (tmp_path / "snapshot_60" / "model.safetensors").stat().st_size > 8
