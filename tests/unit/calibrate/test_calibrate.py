"""`calibrate` writes calibration.json from held-out rows alone; an error leaves the bundle as it was."""

import json
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification

from assay import metrics
from assay.bundle import Calibration, Description, load_bundle, save_calibration, write_description
from assay.calibrate.calibrate import calibrate, calibrate_rows, held_out_logits
from assay.calibrate.settings import CalibrateSettings
from assay.calibrate.temperature import apply_calibration
from assay.engine.fake import FakeEngine
from assay.engine.load import load_engine
from assay.errors import InputError, UsageError
from assay.train.provenance import pack_hashes, text_hashes
from assay.train.rows import LabelledRows

LABELS = ("low", "mid", "high")
WORDS = tuple(f"w{index}" for index in range(60))


@pytest.fixture
def bundle(tmp_path):
    """Folder of a tiny three-label bundle whose provenance knows one training text."""
    folder = tmp_path / "bundle"
    vocabulary = {word: index for index, word in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS))}
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
        initializer_range=1.0,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    write_description(
        folder,
        Description(
            assay_version="0",
            created="",
            task="single_label",
            labels=LABELS,
            max_length=16,
            is_pair=False,
            provenance={"text_hashes": {"train": pack_hashes(text_hashes(["w1 w2 w3"]))}},
        ),
    )
    return folder


@pytest.fixture
def rows():
    """200 texts of random words with random labels."""
    rng = random.Random(0)
    texts = tuple(" ".join(rng.choices(WORDS, k=rng.randint(4, 25))) for _ in range(200))
    return LabelledRows(texts=texts, labels=tuple(rng.choice(LABELS) for _ in texts))


def settings(bundle, **changes):
    """Settings for this bundle."""
    return CalibrateSettings(**{"bundle": str(bundle), "data": ("rows",), "num_threads": 1, **changes})


def labelled_by(logits_NC, labels, temperature, *, seed=0):
    """Labels drawn from softmax(logits / temperature): the temperature to be found."""
    rng = np.random.default_rng(seed)
    probabilities = metrics.softmax(logits_NC / temperature)
    return tuple(labels[rng.choice(len(labels), p=row)] for row in probabilities)


def test_the_file_holds_the_temperature_that_the_rows_ask_for(bundle, tmp_path):
    """Logits too large by 3 get about 3, through sources, tokenizer, engine and file."""
    rng = random.Random(1)
    texts = tuple(" ".join(rng.choices(WORDS, k=rng.randint(4, 25))) for _ in range(3000))
    loaded, engine = load_bundle(bundle), load_engine(bundle, num_threads=1)
    unlabelled = LabelledRows(texts=texts, labels=("low",) * len(texts))
    logits_NC = held_out_logits(settings(bundle), loaded, engine, unlabelled)
    labels = labelled_by(logits_NC, LABELS, 3.0)
    pq.write_table(pa.table({"text": texts, "label": labels}), tmp_path / "rows.parquet")
    report = calibrate(settings(bundle, data=(str(tmp_path / "rows.parquet"),)))
    assert report.calibration.temperature == pytest.approx(3.0, rel=0.15)
    assert report.num_rows == 3000
    assert report.after["nll"] < report.before["nll"]
    assert report.after["ece"] < report.before["ece"]
    assert report.after["accuracy"] == report.before["accuracy"]
    assert sum(each.num_rows for each in report.bins_after) == 3000
    saved = json.loads(report.file.read_text())
    assert saved["method"] == "temperature"
    assert saved["opt_metric"] == "nll"
    assert saved["meta"]["n_samples"] == 3000
    assert saved["meta"]["max_length"] == 16
    assert saved["meta"]["bundle_fingerprint"] == loaded.fingerprint
    after = load_bundle(bundle)
    assert after.calibration == report.calibration
    assert after.fingerprint != loaded.fingerprint


def test_calibrating_again_starts_from_the_plain_logits(bundle, rows):
    """An old calibration.json is replaced, never stacked upon."""
    engine = FakeEngine(num_outputs=3)
    loaded = load_bundle(bundle)
    logits_NC = held_out_logits(settings(bundle), loaded, engine, rows)
    drawn = LabelledRows(texts=rows.texts, labels=labelled_by(logits_NC, LABELS, 0.5))
    first = calibrate_rows(settings(bundle), loaded, engine, drawn)
    again = calibrate_rows(settings(bundle), load_bundle(bundle), engine, drawn)
    assert again.calibration.temperature == first.calibration.temperature


def test_logits_come_in_the_order_of_the_rows(bundle, rows):
    """Whatever the batches: a row alone has the logits it has among others."""
    engine = FakeEngine(num_outputs=3)
    loaded = load_bundle(bundle)
    together = held_out_logits(settings(bundle, max_batch_tokens=64), loaded, engine, rows)
    alone = [held_out_logits(settings(bundle), loaded, engine, rows.take([row])) for row in (0, 7, 199)]
    np.testing.assert_array_equal(together[[0, 7, 199]], np.concatenate(alone))


def test_applying_the_report_gives_its_metrics(bundle, rows):
    """`after` is what apply_calibration makes of the logits."""
    engine = FakeEngine(num_outputs=3)
    loaded = load_bundle(bundle)
    logits_NC = held_out_logits(settings(bundle), loaded, engine, rows)
    drawn = LabelledRows(texts=rows.texts, labels=labelled_by(logits_NC, LABELS, 2.0))
    report = calibrate_rows(settings(bundle), loaded, engine, drawn)
    probabilities = apply_calibration(logits_NC, report.calibration, "single_label")
    indices = np.array([LABELS.index(label) for label in drawn.labels])
    assert metrics.class_report(probabilities, indices) == dict(report.after)


# ---------------------------------------------------------------- refusals: the old file stays


@pytest.fixture
def old_calibration(bundle):
    """A calibration.json that must survive a refusal."""
    return save_calibration(bundle, Calibration(temperature=1.25)).read_bytes()


def refused(bundle, rows, error, match, **changes):
    """Asserts the refusal."""
    with pytest.raises(error, match=match):
        calibrate_rows(settings(bundle, **changes), load_bundle(bundle), FakeEngine(num_outputs=3), rows)


def test_rows_of_the_training_are_refused(bundle, rows, old_calibration):
    """Counted by role; white space around the text does not hide it."""
    seen = LabelledRows(texts=(" w1 w2 w3\n", *rows.texts), labels=("low", *rows.labels))
    refused(bundle, seen, InputError, "of 201 rows the training of .* has seen 1 as train rows")
    assert (bundle / "calibration.json").read_bytes() == old_calibration


def test_unknown_labels_are_refused(bundle, rows, old_calibration):
    """Both the stray labels and the bundle's are shown."""
    strange = LabelledRows(texts=rows.texts, labels=("huge", *rows.labels[1:]))
    refused(bundle, strange, InputError, r"labels \['huge'\]; the bundle knows \['low', 'mid', 'high'\]")
    assert (bundle / "calibration.json").read_bytes() == old_calibration


def test_a_length_beyond_the_model_is_refused(bundle, rows, old_calibration):
    """The model's own limit is shown."""
    refused(bundle, rows, UsageError, "max_length=64; this bundle takes 32 tokens", max_length=64)


def test_rows_that_teach_no_temperature_are_refused(bundle, rows, old_calibration):
    """All predictions right: the fit's own error, and the old file stays."""
    loaded = load_bundle(bundle)
    logits_NC = held_out_logits(settings(bundle), loaded, FakeEngine(num_outputs=3), rows)
    right = LabelledRows(texts=rows.texts, labels=tuple(LABELS[index] for index in logits_NC.argmax(axis=1)))
    refused(bundle, right, InputError, "predicted right")
    assert (bundle / "calibration.json").read_bytes() == old_calibration


def test_a_regression_bundle_is_refused(bundle, rows):
    """A value has no temperature."""
    config = json.loads((bundle / "config.json").read_text())
    config |= {"id2label": {"0": "score"}, "label2id": {"score": 0}}
    (bundle / "config.json").write_text(json.dumps(config))
    (bundle / "assay.json").unlink()
    refused(bundle, rows, UsageError, "a regression bundle")


@pytest.mark.parametrize("change", [{"max_length": 0}, {"max_batch_tokens": 0}, {"num_threads": 0}])
def test_settings_out_of_range_are_refused(change):
    """Name and value, before anything is read."""
    with pytest.raises(UsageError, match=f"{next(iter(change))}=0"):
        settings("b", **change)
