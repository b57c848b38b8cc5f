"""Training: rows in, a bundle out that predicts what its metrics say, or an error before the first step."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.training import settings
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from assay.bundle.load import load_bundle
from assay.engine import devices
from assay.engine.precision import Target
from assay.errors import BundleError, InputError, SourceError, UsageError, WorkError
from assay.labelled.provenance import count_seen, text_hashes
from assay.labelled.rows import LabelledRows
from assay.model.tokenizer_files import read_tokenizer, tokenizer_fingerprint
from assay.train import resources
from assay.train import train as training
from assay.train.history import Validation, cost
from assay.train.train import fit, train


def predictions(folder, texts):
    """Labels by transformers alone: the bundle opened as any user would."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.inference_mode():
        logits = model(**tokenizer(list(texts), padding=True, return_tensors="pt")).logits
    return [model.config.id2label[index] for index in logits.argmax(dim=1).tolist()]


def test_training_learns_and_the_saved_weights_are_those_reported(base, rows, tmp_path):
    """The bundle, opened by transformers, has the very validation accuracy that the report claims."""
    train_rows, validation_rows = rows
    report = fit(settings(base, tmp_path / "b"), train_rows, validation_rows)
    assert report.validation["accuracy"] >= 0.9
    predicted = predictions(tmp_path / "b", validation_rows.texts)
    measured = np.mean([a == b for a, b in zip(predicted, validation_rows.labels, strict=True)])
    assert measured == pytest.approx(report.validation["accuracy"])
    assert report.labels == ("cat", "dog")
    assert (report.num_train_rows, report.num_validation_rows) == (64, 32)
    assert report.num_tokens == 6 * sum(len(text.split()) + 2 for text in train_rows.texts)


def test_the_result_is_a_bundle_with_its_provenance(base, rows, tmp_path):
    """Labels, trained length, the base's tokenizer, and which texts were seen."""
    train_rows, validation_rows = rows
    report = fit(settings(base, tmp_path / "b", epochs=2), train_rows, validation_rows)
    bundle = load_bundle(report.out)
    assert (bundle.task, bundle.labels, bundle.default_max_length) == ("single_label", ("cat", "dog"), 32)
    assert bundle.is_pair is False
    assert bundle.tokenizer_fingerprint == tokenizer_fingerprint(read_tokenizer(base))
    assert bundle.provenance["num_rows_by_label"] == {"cat": 32, "dog": 32}
    assert bundle.provenance["best_step"] == report.best.step
    seen = count_seen(text_hashes([*train_rows.texts, "never seen"]), bundle.provenance)
    assert seen == {"train": 64, "validation": 0}
    assert not [file.name for file in report.out.iterdir() if file.suffix in {".bin", ".pt", ".pkl"}]


def test_the_same_seed_gives_the_same_weights(base, rows, tmp_path):
    """Order of the rows, dropout and the head's first weights all come from the seed; none from outside."""
    fingerprints = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(len(fingerprints))
        report = fit(settings(base, tmp_path / name, epochs=1, seed=seed), *rows)
        fingerprints.append(load_bundle(report.out).fingerprint)
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_training_leaves_the_callers_random_state_alone(base, rows, tmp_path):
    """A notebook's generator goes on as if nothing had happened."""
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    fit(settings(base, tmp_path / "b", epochs=1), *rows)
    assert torch.rand(1) == expected


def test_frozen_layers_stay_as_they_are(base, rows, tmp_path):
    """With one of two layers frozen, embeddings and layer 0 are the base's, layer 1 is not."""
    fit(settings(base, tmp_path / "b", epochs=1, num_frozen_layers=1), *rows)
    before = AutoModelForSequenceClassification.from_pretrained(base).bert.state_dict()
    after = AutoModelForSequenceClassification.from_pretrained(tmp_path / "b").bert.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith(("encoder.layer.1.", "pooler.")) for name in changed)


def test_dropout_is_a_setting_of_the_training_not_of_the_model(base, rows, tmp_path):
    """The saved config keeps the base's dropout."""
    fit(settings(base, tmp_path / "b", epochs=1, dropout=0.0), *rows)
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    assert config["hidden_dropout_prob"] == config["attention_probs_dropout_prob"] == 0.1


def test_progress_is_told_after_each_step_and_each_epoch(base, rows, tmp_path):
    """8 steps an epoch, validation metrics at its end; nothing is printed."""
    seen = []
    fit(settings(base, tmp_path / "b", epochs=2), *rows, on_progress=seen.append)
    assert [each.step for each in seen] == [*range(1, 9), 8, *range(9, 17), 16]
    assert [each.epoch for each in seen if each.validation] == [1, 2]
    assert seen[-1].num_rows == 128
    assert all(math.isfinite(each.loss) for each in seen)


def test_pairs_are_trained_with_both_texts(base, tmp_path):
    """The label is the animal of the second text: only a model that reads it can be right."""
    rng = np.random.default_rng(0)
    words = np.array(["the", "a", "sat", "ran", "on", "mat", "hill", "red", "blue", "saw", "heard", "under"])
    animals = [("cat", "dog")[index % 2] for index in range(96)]
    everything = LabelledRows(
        texts=tuple(" ".join(rng.choice(words, 6)) for _ in animals),
        text_pairs=tuple(f"{' '.join(rng.choice(words, 3))} {animal}" for animal in animals),
        labels=tuple(animals),
    )
    chosen = settings(base, tmp_path / "b", learning_rate=2e-3)
    report = fit(chosen, everything.take(range(64)), everything.take(range(64, 96)))
    assert report.validation["accuracy"] >= 0.9
    assert load_bundle(report.out).is_pair is True


def test_rows_come_from_sources_and_labels_may_be_numbers(base, rows, save_rows, tmp_path):
    """Integer labels become names in numeric order; validation rows are set aside by share."""
    train_rows, _ = rows
    numbers = [{"cat": 10, "dog": 9}[label] for label in train_rows.labels]
    data = save_rows("train", train_rows, label=numbers)
    report = train(settings(base, tmp_path / "b", data=(data,), validation_share=0.25, epochs=1))
    assert report.labels == ("9", "10")
    assert (report.num_train_rows, report.num_validation_rows) == (48, 16)


def test_rows_without_label_or_text_are_refused(base, rows, save_rows, tmp_path):
    """Half-labelled data is counted and refused, never trained on in part."""
    train_rows, _ = rows
    labels = [None, None, *train_rows.labels[2:]]
    texts = [*train_rows.texts[:-1], None]
    data = save_rows("train", train_rows, label=labels, text=texts)
    with pytest.raises(SourceError, match=r"3 of 64 rows.*2 without a label") as caught:
        train(settings(base, tmp_path / "b", data=(data,)))
    assert "1 null" in str(caught.value)


@pytest.mark.parametrize(("best_by", "expected"), [("accuracy", 2), ("nll", 3), ("macro_f1", 1), ("auc", 4)])
def test_the_weights_are_chosen_by_the_named_metric(best_by, expected):
    """Highest accuracy, F1 or AUC, lowest NLL; ties in accuracy go to the lower NLL."""
    values = [(0.8, 0.9, 0.5, 0.6), (0.9, 0.7, 0.4, 0.5), (0.7, 0.6, 0.2, 0.8), (0.9, 0.8, 0.6, 0.9)]
    validations = [
        Validation(
            step=number,
            epoch=float(number),
            train_loss=0.0,
            metrics={"accuracy": accuracy, "macro_f1": f1, "nll": nll, "auc": auc},
            seconds=0.0,
        )
        for number, (accuracy, f1, nll, auc) in enumerate(values, start=1)
    ]
    assert min(validations, key=lambda each: cost(each, best_by)).step == expected


# ---------------------------------------------------------------- refusals


def test_a_device_without_bf16_trains_in_float32(monkeypatch):
    """Where scoring takes fp16: its gradients would need scaling."""
    monkeypatch.setattr(devices, "target_of", lambda device: Target(kind="cuda", has_bf16=False))
    gpu = torch.device("cuda")
    assert resources.choose_precision(settings("base", "out"), gpu) == "fp32"
    with pytest.raises(UsageError, match="precision bf16; the GPU has none"):
        resources.choose_precision(settings("base", "out", precision="bf16"), gpu)


def test_one_class_data_is_refused(base, rows, tmp_path):
    """A classifier of one label is not a classifier."""
    one = LabelledRows(texts=rows[0].texts, labels=("cat",) * 64)
    with pytest.raises(InputError, match="needs at least two"):
        fit(settings(base, tmp_path / "b"), one, rows[1])


def test_labels_only_in_validation_are_refused(base, rows, tmp_path):
    """They could never be predicted."""
    other = dataclasses.replace(rows[1], labels=("bird", *rows[1].labels[1:]))
    with pytest.raises(InputError, match=r"\['bird'\] never occur in training"):
        fit(settings(base, tmp_path / "b"), rows[0], other)


def test_validation_rows_that_are_trained_on_are_refused(base, rows, tmp_path):
    """Counted, white space at the ends ignored."""
    leaking = dataclasses.replace(rows[1], texts=(f" {rows[0].texts[0]}\n", *rows[1].texts[1:]))
    with pytest.raises(InputError, match="1 of 32 validation rows are training rows too"):
        fit(settings(base, tmp_path / "b"), rows[0], leaking)


def test_no_validation_rows_are_refused(base, rows, tmp_path):
    """Something must choose the epoch."""
    with pytest.raises(InputError, match="0 validation rows"):
        fit(settings(base, tmp_path / "b"), rows[0], rows[1].take([]))


def test_a_loss_that_is_no_number_stops_and_leaves_nothing(base, rows, tmp_path):
    """Weights that overflow end with advice and without a bundle."""
    broken = Path(shutil.copytree(base, tmp_path / "base"))
    weights = load_file(broken / "model.safetensors")
    for name in weights:
        if name.endswith("word_embeddings.weight"):
            weights[name].fill_(3e38)
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WorkError, match=r"they must stay numbers; lower learning_rate="):
        fit(settings(broken, tmp_path / "b"), *rows)
    assert list(tmp_path.iterdir()) == [broken]


def test_a_callback_that_stops_the_training_leaves_nothing(base, rows, tmp_path):
    """Ctrl-C in the middle of an epoch: no half bundle."""

    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(settings(base, tmp_path / "b"), *rows, on_progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_a_used_folder_is_refused_before_any_work(base, rows, tmp_path):
    """Unless told to, nothing is replaced."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="not empty"):
        fit(settings(base, tmp_path), *rows, on_progress=lambda progress: pytest.fail("trained"))


def test_too_many_frozen_layers_are_refused(base, rows, tmp_path):
    """The number of layers is shown."""
    with pytest.raises(UsageError, match="num_frozen_layers=3; this bert has 2 layers"):
        fit(settings(base, tmp_path / "b", num_frozen_layers=3), *rows)


def test_a_base_that_is_no_model_is_refused(rows, tmp_path):
    """The same checks as for a bundle, less the head."""
    with pytest.raises(BundleError, match="no such folder"):
        fit(settings(tmp_path / "nowhere", tmp_path / "b"), *rows)


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"validation_share": 1.0},
        {"warmup_share": 1.5},
        {"warmup_steps": -1},
        {"weight_decay": -1.0},
        {"dropout": 1.0},
        {"num_frozen_layers": -1},
        {"seed": -1},
        {"seed": 1 << 63},
    ],
)
def test_settings_out_of_range_are_refused(change):
    """Name, value and rule, before anything is read."""
    with pytest.raises(UsageError, match=next(iter(change))):
        settings("base", "out", **change)


def test_columns_of_different_length_are_refused():
    """Texts and labels go row by row."""
    with pytest.raises(InputError, match=r"columns of \[1, 2\] rows"):
        LabelledRows(texts=("a", "b"), labels=("x",))


def test_what_begins_is_told_as_it_does(base, rows, save_rows, tmp_path):
    """From reading the rows to writing the bundle, in order, each before the work that it names."""
    data = save_rows("train", rows[0])
    heard = []
    train(
        settings(base, tmp_path / "b", data=(data,), epochs=2),
        on_phase=heard.append,
        on_message=lambda line: heard.append(f"said {line.split()[0]}"),
        on_progress=lambda progress: heard.append("step" if progress.validation is None else "validation"),
    )
    once = list(dict.fromkeys(heard))
    assert once == [
        "said 1",  # process on cpu, and its threads
        "reading rows",
        "said split:",
        "measuring the device",
        "loading the base",
        "tokenizing",
        "preparing the first step",
        "step",
        "validating after step 8",
        "validation",
        "validating after step 16",
        "writing the bundle",
    ]


def test_who_has_more_gpus_hears_of_it(base, tmp_path, monkeypatch):
    """One is used unless asked for, as the batch of a step depends on their number; a launched rank says nothing."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(training, "train_here", lambda *_, **__: None)
    chosen, said = settings(base, tmp_path / "b"), []
    train(chosen, on_message=said.append)
    assert said == ["1 of 8 GPUs is used; for more set devices, batch_size documents a step on each"]
    for name, value in {
        "RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    train(chosen, on_message=said.append)
    assert len(said) == 1
