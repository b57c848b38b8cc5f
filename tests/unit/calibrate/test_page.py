"""The commands of the how-to page, on small models of the three kinds that it names."""

import json
import random

import numpy as np
import pytest
from support.bundles import WORDS
from support.models import write_model
from support.pages import ROOT, commands, read_blocks

from assay.bundle.load import load_bundle
from assay.cli.main import main
from assay.engine.load import load_engine
from assay.metrics import sigmoid
from assay.tokenize.encode import Encoder

PAGE = ROOT / "docs" / "how-to" / "calibrate.md"
COMMANDS = [
    command for block in read_blocks(PAGE) if block.language == "console" for command in commands(block)
]


def outputs(folder, texts):
    """The logits of texts, centred and widened, to draw labels from."""
    import pyarrow as pa

    from assay.engine.run import run_sequences
    from assay.engine.sequences import Sequences

    encoder = Encoder.from_bundle(folder, max_length=64, on_long="truncate")
    tokens = encoder.encode(pa.array(texts, type=pa.large_string()))
    sequences = Sequences(flat_ids=tokens.flat_ids, offsets=tokens.offsets)
    logits_NC, _ = run_sequences(load_engine(folder, num_threads=1), sequences)
    return (logits_NC - logits_NC.mean(axis=0)) * 4


def write_rows(file, texts, labels):
    """A JSON Lines file with ids and authors."""
    lines = (
        {"id": f"{file.stem} {row}", "author": f"{file.stem} {row % 20}", "text": text, "label": label}
        for row, (text, label) in enumerate(zip(texts, labels, strict=True))
    )
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the page's bundles and rows."""
    place = tmp_path_factory.mktemp("page")
    rng, draw = random.Random(0), np.random.default_rng(0)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(3, 20))) for _ in range(260)]
    logits = outputs(write_model(place / "model"), texts)
    held = draw.random(260) < sigmoid(logits[:, 1] - logits[:, 0])
    labels = ["spam" if each else "ham" for each in held]
    write_rows(place / "held-out.jsonl", texts[:240], labels[:240])
    write_rows(place / "test.jsonl", texts[240:], labels[240:])
    topics = write_model(place / "topics", labels=("a", "b"), task="multi_label")
    holds = draw.random((260, 2)) < sigmoid(outputs(topics, texts))
    named = [[name for name, each in zip("ab", row, strict=True) if each] for row in holds]
    write_rows(place / "topics.jsonl", texts, named)
    values = outputs(write_model(place / "quality", labels=("score",), task="regression"), texts)[:, 0]
    write_rows(place / "ratings.jsonl", texts, (values + draw.normal(size=260)).tolist())
    return place


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_works(command, place, monkeypatch, capsys):
    """It ends well, says both kinds of figures, and leaves a bundle that loads calibrated."""
    monkeypatch.chdir(place)
    words = command.split()
    assert main(words[1:]) == 0
    output = capsys.readouterr().out
    assert "on these rows" in output
    assert "cross-validated" in output or "measured" in output
    assert load_bundle(words[2]).calibration is not None


def test_the_page_names_every_method_and_goal():
    """What can be asked for is in its tables."""
    from typing import get_args, get_type_hints

    from assay.calibrate.settings import CalibrateSettings

    hints = get_type_hints(CalibrateSettings)
    text = PAGE.read_text(encoding="utf-8")
    for name in ("method", "threshold_by"):
        for kind in get_args(hints[name]):
            assert all(f"`{value}`" in text for value in get_args(kind))
