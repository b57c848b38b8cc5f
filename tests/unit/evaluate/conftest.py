"""Bundles and labelled rows for evaluation, small enough for milliseconds."""

import json

import numpy as np
import pytest
import torch
from support.bundles import WORDS
from support.models import write_model

LABELS = {
    "single_label": ("ham", "spam"),
    "multi_label": ("ham", "spam", "fowl"),
    "regression": ("score",),
}


@pytest.fixture(scope="session", autouse=True)
def _threads():
    """Engines set torch's thread count for the whole process; it is put back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def bundles(tmp_path_factory):
    """A folder of bundles by task: `single_label`, `multi_label`, `regression`, and `other` of two labels."""
    folder = tmp_path_factory.mktemp("bundles")
    for task, labels in LABELS.items():
        write_model(folder / task, labels=labels, task=task, seed=1)
    write_model(folder / "other", seed=3)
    return folder


def texts_of(num_rows, seed=0):
    """Texts of 1 to 20 known words."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=rng.integers(1, 20))) for _ in range(num_rows)]


def labels_of(task, num_rows, seed=0):
    """Labels of a task at random."""
    rng = np.random.default_rng(seed)
    if task == "regression":
        return [round(float(value), 2) for value in rng.normal(2, 1, num_rows)]
    names = LABELS[task]
    if task == "single_label":
        return [names[index] for index in rng.integers(0, len(names), num_rows)]
    return [[name for name in names if rng.random() < 0.4] for _ in range(num_rows)]


def write_rows(file, texts, labels, **columns):
    """Labelled rows as JSON Lines."""
    rows = zip(texts, labels, *columns.values(), strict=True)
    with file.open("w", encoding="utf-8") as sink:
        for text, label, *others in rows:
            row = {"text": text, "label": label, **dict(zip(columns, others, strict=True))}
            sink.write(json.dumps(row) + "\n")
    return file
