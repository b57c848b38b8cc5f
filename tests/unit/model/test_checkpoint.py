"""Which files of a folder are the model, for everyone who asks."""

import itertools
import json
import os
import shutil

import pytest
import torch
from support.models import write_model
from transformers import AutoModelForSequenceClassification

from assay.bundle.load import load_bundle
from assay.engine.load import load_engine
from assay.engine.parity import load_reference
from assay.errors import BundleError, RefusedError
from assay.model import pretrained
from assay.model.checkpoint import read_checkpoint
from assay.model.packing import pack

SEQUENCES = pack([[2, 5, 6, 3], [2, 9, 3]])
SHARDED = "model.safetensors.index.json"


@pytest.fixture(autouse=True)
def _fresh_cache(tmp_path, monkeypatch):
    """No engine has passed its self test yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def save(folder, like, seed, form):
    """Put the weights of another seed into `folder`, in one of the forms that checkpoints have."""
    other = write_model(like / f"{form}-{seed}", seed=seed)
    model = AutoModelForSequenceClassification.from_pretrained(other)
    if form == "shards":
        shutil.rmtree(other)
        model.save_pretrained(other, max_shard_size="10KB")
    elif form == "pickle":
        (other / "model.safetensors").unlink()
        torch.save(model.state_dict(), other / "pytorch_model.bin")
    for file in other.iterdir():
        if "model" in file.name:
            shutil.copy(file, folder / file.name)
    return logits(AutoModelForSequenceClassification.from_pretrained(other))


def logits(model):
    """What transformers' own model says of the sequences, one at a time."""
    bounds = SEQUENCES.cu_seqlens.tolist()
    with torch.inference_mode():
        return torch.cat(
            [
                model.eval()(input_ids=SEQUENCES.input_ids_T[None, start:stop].long()).logits
                for start, stop in itertools.pairwise(bounds)
            ]
        )


@pytest.mark.parametrize(
    ("first", "second"), [("single", "shards"), ("single", "pickle"), ("shards", "pickle")]
)
def test_of_two_models_in_a_folder_everyone_takes_the_same(tmp_path, first, second):
    """First start, later starts, reference and fingerprint: transformers' choice, and a note names the rest."""
    folder = write_model(tmp_path / "b")
    (folder / "model.safetensors").unlink()
    wanted = save(folder, tmp_path, 1, first)
    alone = load_bundle(folder)
    assert alone.notes == ()
    other = save(folder, tmp_path, 2, second)
    assert (wanted - other).abs().max() > 0.01, "the models differ"
    bundle = load_bundle(folder)
    assert bundle.fingerprint == alone.fingerprint
    (note,) = bundle.notes
    assert "not read" in note
    chosen = AutoModelForSequenceClassification.from_pretrained(folder)
    for found in (
        logits(chosen),
        *(load_engine(folder, num_threads=1).forward(SEQUENCES) for _ in range(3)),
        load_reference(folder)(torch.device("cpu")).forward(SEQUENCES),
    ):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_shards_that_the_index_does_not_name_are_not_read(tmp_path):
    """A shard of an older model is left alone, and a note says so."""
    folder = write_model(tmp_path / "b")
    (folder / "model.safetensors").unlink()
    wanted = save(folder, tmp_path, 1, "shards")
    shutil.copy(read_checkpoint(folder).weights[0], folder / "model-00009-of-00009.safetensors")
    checkpoint = read_checkpoint(folder)
    assert checkpoint.index == folder / SHARDED
    assert "model-00009-of-00009.safetensors is not read" in checkpoint.notes[0]
    for _ in range(2):
        found = load_engine(folder, num_threads=1).forward(SEQUENCES)
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_a_changed_file_of_the_same_size_and_time_is_another_model(tmp_path):
    """No start takes an older file's word: new weights under the old date count, in place or moved there."""
    folder = write_model(tmp_path / "b")
    file = folder / "model.safetensors"
    load_engine(folder, num_threads=1)
    before, first = file.stat(), load_bundle(folder).fingerprint
    wanted = save(folder, tmp_path, 3, "single")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert load_bundle(folder).fingerprint != first
    found = load_engine(folder, num_threads=1).forward(SEQUENCES)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert len(list((tmp_path / "cache" / "assay" / "proofs").iterdir())) == 2, (
        "the new file was tried itself"
    )


@pytest.mark.parametrize(
    "changed", ["model.safetensors", "pytorch_model.bin", "config.json", "tokenizer.json"]
)
@pytest.mark.parametrize("has_passed", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_that_changes_between_hash_and_load_is_refused(tmp_path, changed, has_passed, packed):
    """An engine is of the files that the fingerprint speaks of, whoever replaces which of them meanwhile."""
    folder = write_model(tmp_path / "b")
    if changed == "pytorch_model.bin":
        (folder / "model.safetensors").unlink()
        save(folder, tmp_path, 1, "pickle")
    if has_passed:
        load_engine(folder, num_threads=1)
    bundle = load_bundle(folder)
    beside, file = tmp_path / changed, folder / changed
    before = file.stat()
    shutil.copy(file, beside)
    if changed.endswith(".json"):
        content = json.loads(beside.read_text())
        beside.write_text(json.dumps({**content, "added": 1}))
    os.utime(beside, ns=(before.st_atime_ns, before.st_mtime_ns))
    beside.replace(file)
    with pytest.raises(RefusedError, match="changed while it was being loaded"):
        load_engine(bundle.checkpoint, num_threads=1, packed=packed)


def test_weights_that_come_first_are_a_change(tmp_path):
    """Shards were hashed; a single file that appears beside them would be what is loaded."""
    folder = write_model(tmp_path / "b")
    (folder / "model.safetensors").unlink()
    save(folder, tmp_path, 1, "shards")
    bundle = load_bundle(folder)
    save(folder, tmp_path, 2, "single")
    with pytest.raises(RefusedError, match="changed while it was being loaded"):
        load_engine(bundle.checkpoint, num_threads=1)


def test_nothing_is_noted_of_files_that_change_under_a_load(tmp_path, monkeypatch):
    """Weights replaced while transformers reads them are refused, and no later start takes their word."""
    folder = write_model(tmp_path / "b")
    original = pretrained.load_classifier

    def replaced_meanwhile(*args, **named):
        model = original(*args, **named)
        save(folder, tmp_path, 2, "single")
        return model

    monkeypatch.setattr(pretrained, "load_classifier", replaced_meanwhile)
    with pytest.raises(RefusedError, match="changed while it was being loaded"):
        load_engine(folder, num_threads=1)
    assert not (tmp_path / "cache" / "assay" / "proofs").exists()


def test_weights_from_elsewhere_are_refused(tmp_path):
    """What would make transformers take weights that Assay does not hash: another file name, an adapter."""
    folder = write_model(tmp_path / "b")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "transformers_weights": "other.safetensors"}))
    with pytest.raises(BundleError, match="transformers_weights names 'other"):
        read_checkpoint(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(BundleError, match="merge_and_unload"):
        read_checkpoint(folder)
