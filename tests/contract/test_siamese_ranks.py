"""Siamese training on two processes is that on one: negatives of all ranks, hard ones among them, cut steps too.

The reference is one process with whole steps. Dropout is off, for it is drawn by rank and pass.
"""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support import train_ranks
from support.training import pair_rows, siamese_settings, write_base

from assay.train.gradients import BUCKET_BYTES
from assay.train.launch import launch
from assay.train.train import TrainReport, fit

ALONE = {"epochs": 1, "batch_size": 32, "dropout": 0.0, "learning_rate": 2e-3, "precision": "fp32"}
COLUMNS = {"book_columns": ("book1", "book2"), "author_columns": ("author1", "author2")}
LOSSES = {
    "infonce": {"contrastive_weight": 1.0, **COLUMNS},
    "supcon": {"contrastive": "supcon", "contrastive_weight": 1.0, "author_weight": 0.5, **COLUMNS},
}
WAYS = {
    "2 x 16": {"batch_size": 16},
    "2 x 8 x 2": {"batch_size": 8, "gradient_accumulation": 2},
    "small passes": {"batch_size": 16, "max_batch_tokens": 60},
}
FAST = [("infonce", "small passes"), ("supcon", "2 x 16")]
CASES = [(loss, way) for loss in LOSSES for way in WAYS]
"""The others than the fast ones try the same in another combination: for `make test-slow`."""
NUM_TRAIN = 65
"""The last of three steps has one row: a rank has none."""


def sides():
    """Pairs to train and to validate on, half of them negative; books of five texts, authors of three books."""
    rows = pair_rows(120, seed=5)
    number_of = {text: number for number, text in enumerate((*rows.texts, *rows.text_pairs))}
    keys = {}
    for side, texts in (("1", rows.texts), ("2", rows.text_pairs)):
        numbers = [number_of[text] * 7 % 40 // 2 for text in texts]
        keys[f"book{side}"] = tuple(None if number == 3 else str(number) for number in numbers)
        keys[f"author{side}"] = tuple(str(number // 3) for number in numbers)
    rows = dataclasses.replace(rows, keys=keys)
    validation = rows.take(range(NUM_TRAIN, rows.num_rows))
    # books of their own: those of training pairs are refused
    apart = {name: tuple(key and f"v{key}" for key in column) for name, column in validation.keys.items()}
    return rows.take(range(NUM_TRAIN)), dataclasses.replace(validation, keys=apart)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The tiny encoder."""
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def together(base, tmp_path_factory):
    """Reports of cases on two ranks, which meet once for the fast ones and once for the others."""
    found = {}

    def report(loss, way):
        if (loss, way) not in found:
            is_fast = (loss, way) in FAST
            cases = [each for each in CASES if (each in FAST) == is_fast]
            found.update(reports_of(cases, base, tmp_path_factory.mktemp("together")))
        return found[loss, way]

    return report


def reports_of(cases, base, folder):
    """Trains each case on two ranks."""
    train_rows, validation_rows = sides()
    trainings = {
        f"{loss} | {way}": {
            "settings": dataclasses.asdict(
                siamese_settings(base, folder / str(number), **{**ALONE, **LOSSES[loss], **WAYS[way]})
            ),
            "train": dataclasses.asdict(train_rows),
            "validation": dataclasses.asdict(validation_rows),
            "bucket_bytes": BUCKET_BYTES,
            "stop_at": None,
            "parts": "",
        }
        for number, (loss, way) in enumerate(cases)
    }
    reports = launch(
        [sys.executable, str(Path(train_ranks.__file__))],
        {"trainings": trainings},
        num_processes=2,
        way_out=lambda: "no way out",
        num_threads=1,
    )
    return {case: TrainReport.from_json(reports[" | ".join(case)]) for case in cases}


@pytest.fixture(scope="module")
def alone(base, tmp_path_factory):
    """A report by loss, of one process with whole steps."""
    folder = tmp_path_factory.mktemp("alone")
    return {
        name: fit(siamese_settings(base, folder / name, **{**ALONE, **changes}), *sides())
        for name, changes in LOSSES.items()
    }


@pytest.mark.parametrize(
    ("loss", "way"),
    [pytest.param(*each, marks=() if each in FAST else pytest.mark.slow) for each in CASES],
)
def test_two_ranks_are_one(loss, way, together, alone):
    """Losses, norms, counts of negatives, metrics and all weights, the temperature's among them."""
    expected, report = alone[loss], together(loss, way)
    assert report.num_devices == 2
    assert report.history.num_negatives == pytest.approx(expected.history.num_negatives)
    assert max(report.history.num_negatives) > 20, "texts of both ranks"
    assert report.history.losses == pytest.approx(expected.history.losses, rel=1e-4)
    assert report.history.gradient_norms == pytest.approx(expected.history.gradient_norms, rel=1e-3)
    assert dict(report.validation) == pytest.approx(dict(expected.validation), rel=1e-3, abs=1e-4)
    for file in ("model.safetensors", "pair_head/model.safetensors", "2_Dense/model.safetensors"):
        ours, theirs = (load_file(each.out / file) for each in (report, expected))
        assert ours.keys() == theirs.keys()
        for name, tensor in theirs.items():
            # the optimizer makes much of gradients that are 0 but for rounding: biases of keys
            if "key.bias" not in name:
                torch.testing.assert_close(ours[name], tensor, rtol=1e-2, atol=5e-4)
