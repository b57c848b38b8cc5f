"""What cannot work is one line with the way out, before the first step, and nothing of the user's is lost."""

import dataclasses
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.training import TINY_BERT, animal_rows, settings, write_base
from transformers import AutoModelForSequenceClassification, DistilBertConfig, T5Config

from assay.errors import BundleError, InputError, RefusedError, StorageError, UsageError
from assay.labelled.rows import LabelledRows
from assay.labelled.splits import split_report
from assay.train import checkpoints
from assay.train import train as verb
from assay.train.datasets import prepare_given
from assay.train.sinks import METRICS_FILE, MetricsFile
from assay.train.train import fit, train


@pytest.fixture
def own_base(base, tmp_path):
    """A copy of the encoder, to be damaged."""
    return shutil.copytree(base, tmp_path / "base")


@pytest.fixture
def unread(monkeypatch):
    """Fails where rows are read."""

    def read(_):
        pytest.fail("rows were read")

    monkeypatch.setattr(verb, "prepare_rows", read)


def change_config(folder, **changes):
    """Other values in config.json."""
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


# ---------------------------------------------------------------- the base


def weights_of_another_family(folder, tmp_path):
    """A config of BERT over the weights of DistilBERT."""
    config = DistilBertConfig(vocab_size=18, dim=32, n_layers=2, n_heads=2, hidden_dim=64)
    shutil.copy(write_base(tmp_path / "other", config) / "model.safetensors", folder)


def no_weights(folder, _):
    """A file without tensors."""
    save_file({}, folder / "model.safetensors")


def nan_weights(folder, _):
    """One row of an embedding that is not a number."""
    tensors = load_file(folder / "model.safetensors")
    tensors["embeddings.word_embeddings.weight"][5] = float("nan")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def small_vocabulary(folder, tmp_path):
    """A tokenizer that knows more words than the model."""
    small = type(TINY_BERT).from_dict({**TINY_BERT.to_dict(), "vocab_size": 10})
    for name in ("config.json", "model.safetensors"):
        shutil.copy(write_base(tmp_path / "small", small) / name, folder)


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (weights_of_another_family, r"weights of the bert encoder are missing .*would be random"),
        (no_weights, r"weights of the bert encoder are missing .*would be random"),
        (lambda base, _: change_config(base, num_hidden_layers=3), r"16 weights .*encoder\.layer\.2\."),
        (lambda base, _: change_config(base, hidden_size=48), r"35 weights .*or of another shape"),
        (nan_weights, r"1 weights hold NaN or infinity .*word_embeddings"),
        (small_vocabulary, r"rows cannot be tokenized, the first is row \d+ \(id_out_of_range\)"),
        (
            lambda base, _: change_config(base, model_type="nonsense"),
            r"config\.json: transformers cannot read it",
        ),
        (lambda base, _: change_config(base, hidden_size="32"), r"config\.json: transformers cannot read it"),
        (
            lambda base, _: change_config(base, hidden_act="nonsense"),
            r"cannot make a bert classifier .*nonsense",
        ),
        (
            lambda base, _: change_config(base, num_attention_heads=5),
            r"cannot make a bert classifier .*\(5\)",
        ),
    ],
)
def test_a_base_that_is_not_what_it_says_is_refused(own_base, rows, tmp_path, damage, match):
    """Trained from random weights it would look like a training: only the metrics would be poor."""
    damage(own_base, tmp_path)
    with pytest.raises((BundleError, InputError), match=match) as caught:
        fit(settings(own_base, tmp_path / "b"), *rows)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("b*.training"))


def test_a_base_without_a_pooler_is_a_base(own_base, rows, tmp_path):
    """Masked language models have none; it is new, as the head is."""
    tensors = load_file(own_base / "model.safetensors")
    kept = {name: each for name, each in tensors.items() if "pooler" not in name}
    assert len(kept) < len(tensors)
    save_file(kept, own_base / "model.safetensors", {"format": "pt"})
    assert fit(settings(own_base, tmp_path / "b", epochs=1), *rows).out.is_dir()


def test_a_model_with_tied_weights_is_published(rows, tmp_path):
    """Its tensors share memory, which safetensors refuses: found out after the last step, all would be lost."""
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    ids = {"pad_token_id": 0, "eos_token_id": 3, "decoder_start_token_id": 0}
    base = write_base(tmp_path / "base", T5Config(vocab_size=18, **sizes, **ids))
    report = fit(settings(base, tmp_path / "b", epochs=1), *rows)
    model, found = AutoModelForSequenceClassification.from_pretrained(report.out, output_loading_info=True)
    assert not found["missing_keys"]
    held = load_file(report.out / "model.safetensors")
    assert torch.equal(model.transformer.shared.weight, held["transformer.shared.weight"])
    assert torch.equal(model.transformer.encoder.embed_tokens.weight, held["transformer.shared.weight"])


@pytest.mark.usefixtures("unread")
def test_a_length_beyond_the_base_is_refused_before_a_row_is_read(base, tmp_path):
    """A longer text would be an index error in the middle of the training."""
    with pytest.raises(UsageError, match=r"max_length=65; .* takes 64 tokens; set max_length=64"):
        train(settings(base, tmp_path / "b", max_length=65))


# ---------------------------------------------------------------- places


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("out", ["s3://bucket/model", "file:///model"])
def test_a_url_is_no_place_for_a_bundle(base, out):
    """It would become a folder named s3: here."""
    with pytest.raises(UsageError, match="name a local path"):
        train(settings(base, out))


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("out", [".", "..", "/"])
def test_the_working_folder_is_not_replaced(base, tmp_path, monkeypatch, out):
    """Nor what is above it, not even with leave to overwrite."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="is the folder that this command runs in, or one above it"):
        train(settings(base, out, overwrite=True))


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("inside", ["data", "glob", "folder", "validation_data", "base"])
def test_overwriting_buries_no_rows_and_no_base(base, tmp_path, inside):
    """The old folder is removed, and so would be what the bundle is made of."""
    out = tmp_path / "out"
    out.mkdir()
    file = out / "rows.parquet"
    file.touch()
    changes = {
        "data": {"data": (str(file),)},
        "glob": {"data": (str(out / "*.parquet"),)},
        "folder": {"data": (str(out),)},
        "validation_data": {"validation_data": (str(file),)},
        "base": {"base": str(out / "base")},
    }[inside]
    if inside == "base":
        shutil.copytree(base, out / "base")
    with pytest.raises(UsageError, match=r"lies in out=.*, which is overwritten; name another out"):
        train(dataclasses.replace(settings(base, out, overwrite=True), **changes))
    assert file.exists()


@pytest.mark.usefixtures("unread")
def test_places_without_room_are_refused_before_a_row_is_read(base, tmp_path, monkeypatch):
    """A path through a file, and a full disk."""
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="a folder that can be written to is needed"):
        train(settings(base, tmp_path / "file" / "b"))
    usage = shutil._ntuple_diskusage(1 << 40, 1 << 40, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StorageError, match=r"0\.0 GB free; a bundle and a checkpoint of .* take at least"):
        train(settings(base, tmp_path / "b"))
    assert not (tmp_path / "b.training").exists()


def test_a_disk_that_is_full_at_the_end_is_one_line(base, rows, tmp_path, monkeypatch):
    """The library's own error would be a traceback."""

    def no_space(*_, metadata):
        del metadata
        raise checkpoints.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoints, "save_file", no_space)
    with pytest.raises(StorageError, match="No space left on device; the bundle could not be written"):
        fit(settings(base, tmp_path / "b", epochs=1), *rows)
    assert not (tmp_path / "b").exists()


def test_a_file_that_cannot_be_closed_does_not_hide_why_the_training_failed(tmp_path):
    """What is left in its buffer cannot be written either, of a full disk."""
    figures = MetricsFile(tmp_path / METRICS_FILE, None)

    class Full:
        def close(self):
            raise OSError(28, "No space left on device")

    figures._file.close()
    figures._file = Full()
    figures.close(is_done=False)
    with pytest.raises(StorageError, match="No space left on device"):
        figures.close(is_done=True)


# ---------------------------------------------------------------- interrupted trainings


@pytest.fixture
def interrupted(base, rows, tmp_path, monkeypatch):
    """Settings of a training that was stopped after its first validation; from then on no row is read."""

    def stop(progress):
        if progress.step == 9:
            raise KeyboardInterrupt

    chosen = settings(base, tmp_path / "b", batch_size=8)
    with pytest.raises(KeyboardInterrupt):
        fit(chosen, *rows, on_progress=stop)
    monkeypatch.setattr(verb, "prepare_rows", lambda _: pytest.fail("rows were read"))
    return chosen


def test_an_interrupted_training_is_spoken_of_before_a_row_is_read(interrupted):
    """Reading and encoding may take an hour."""
    with pytest.raises(UsageError, match="add --resume or --overwrite"):
        train(interrupted)


def test_settings_that_have_changed_are_named_before_a_row_is_read(interrupted):
    """Which, and what they were."""
    changed = dataclasses.replace(interrupted, resume=True, learning_rate=1e-4, epochs=7)
    with pytest.raises(
        RefusedError, match=r"step-00000008: that training had epochs=6, learning_rate=0\.005; use them again"
    ):
        train(changed)


# ---------------------------------------------------------------- rows


def given(train_rows, validation_rows, **changes):
    """The warnings about rows."""
    return prepare_given(settings("base", "out", **changes), train_rows, validation_rows).warnings


def test_labels_that_look_alike_are_said(rows):
    """True of one file and true of another, a space too many, an accent written in two ways."""
    validation = LabelledRows(texts=("x", "y"), labels=("true", "caf\u00e9"))
    names = ("true", "True", "caf\u00e9", "cafe\u0301", "other ", "another")
    found = given(LabelledRows(texts=names, labels=names), validation)
    alike = [line for line in found if "differ only in case" in line]
    assert len(alike) == 2
    assert "['True', 'true']" in alike[0] + alike[1]


def test_empty_texts_are_counted(rows):
    """They are rows, and hardly meant to be."""
    train_rows = LabelledRows(texts=("a", " \n", ""), labels=("x", "y", "y"))
    validation = LabelledRows(texts=("b",), labels=("x",))
    assert any(
        line.startswith("2 of 3 training rows have an empty text") for line in given(train_rows, validation)
    )


def test_a_text_taken_for_a_label_is_no_wall(rows):
    """Of a name that is long or of several lines the beginning is shown, on one."""
    long = "a line\nand another " * 500
    table = str(split_report({"train": [long, "b"], "validation": ["b"]}, "single_label"))
    assert max(map(len, table.splitlines())) < 100
    assert "a line and another" in table
    validation = LabelledRows(texts=("z",), labels=(long,))
    with pytest.raises(InputError, match="never occur in training") as caught:
        given(animal_rows(4, seed=1), validation)
    assert len(str(caught.value)) < 250


def test_an_auc_that_will_not_be_defined_cannot_choose_the_weights():
    """NaN at each validation would leave the choice to another metric, in silence."""
    train_rows = LabelledRows(texts=("a", "b"), labels=(("x",), ()))
    with pytest.raises(InputError, match="in all 2 validation rows or in none; their AUC is not defined"):
        given(
            train_rows,
            LabelledRows(texts=("c", "d"), labels=(("x",), ("x",))),
            task="multi_label",
            best_by="auc",
        )
    with pytest.raises(InputError, match="in all 1 validation rows or in none; their AUC is not defined"):
        given(
            LabelledRows(texts=("a", "b"), labels=("x", "y")),
            LabelledRows(texts=("c",), labels=("x",)),
            best_by="auc",
        )


def test_targets_whose_square_is_infinite_are_refused():
    """Else the first loss is, and the learning rate is blamed."""
    with pytest.raises(InputError, match=r"targets up to 1e\+30; their squared error is infinite"):
        given(
            LabelledRows(texts=("a", "b"), labels=(1e30, 0.0)),
            LabelledRows(texts=("c", "d"), labels=(1.0, 2.0)),
            task="regression",
        )
