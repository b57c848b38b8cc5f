"""What `load_classifier` loads, and what it refuses."""

import json
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, BertConfig

from assay.errors import BundleError
from assay.model.pretrained import load_classifier


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A tiny classifier's directory."""
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    config = BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=16,
    )
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture
def bundle(saved, tmp_path):
    """A copy of it to spoil."""
    return shutil.copytree(saved, tmp_path / "bundle")


def test_it_loads_in_evaluation_mode_and_quietly(bundle, capfd):
    """The model comes without gradients, in the dtype asked for, and nothing is printed."""
    model = load_classifier(bundle, dtype=torch.bfloat16)
    assert not model.training
    assert model.dtype == torch.bfloat16
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert capfd.readouterr() == ("", "")


def test_remote_code_is_refused(bundle):
    """A config that names code of its own is refused before anything is loaded."""
    config = json.loads((bundle / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Config"}
    (bundle / "config.json").write_text(json.dumps(config))
    with pytest.raises(BundleError, match="remote code"):
        load_classifier(bundle)


@pytest.mark.parametrize("content", ["", "{", "[]", "null"])
def test_a_broken_config_is_refused(bundle, content):
    """A config that is not a JSON object is named."""
    (bundle / "config.json").write_text(content)
    with pytest.raises(BundleError, match=r"config\.json"):
        load_classifier(bundle)


def test_an_unknown_architecture_is_refused(bundle):
    """A model type that transformers does not know is a BundleError of one line."""
    (bundle / "config.json").write_text('{"model_type": "no-such-model"}')
    with pytest.raises(BundleError, match="no-such-model") as caught:
        load_classifier(bundle)
    assert "\n" not in str(caught.value)


def test_no_directory_no_weights(tmp_path, bundle):
    """A missing directory and missing weights are told apart."""
    with pytest.raises(BundleError, match="no such folder"):
        load_classifier(tmp_path / "nowhere")
    (bundle / "model.safetensors").unlink()
    with pytest.raises(BundleError, match=r"no model\.safetensors"):
        load_classifier(bundle)


def test_a_pickle_alone_is_refused(bundle):
    """A pickled model is never opened."""
    (bundle / "model.safetensors").unlink()
    (bundle / "model.pkl").write_bytes(b"never read")
    with pytest.raises(BundleError, match=r"model\.pkl.*never loaded"):
        load_classifier(bundle)


def test_old_weights_are_read_as_weights_only(bundle):
    """pytorch_model.bin gives the same numbers."""
    weights = load_file(bundle / "model.safetensors")
    (bundle / "model.safetensors").unlink()
    torch.save(weights, bundle / "pytorch_model.bin")
    model = load_classifier(bundle)
    assert torch.equal(model.state_dict()["classifier.weight"], weights["classifier.weight"])


class _Evil:
    def __reduce__(self):
        return (print, ("arbitrary code ran",))


def test_a_pickle_that_runs_code_is_refused(bundle, capfd):
    """Code in pytorch_model.bin is refused and does not run."""
    (bundle / "model.safetensors").unlink()
    torch.save({"classifier.weight": _Evil()}, bundle / "pytorch_model.bin", pickle_module=pickle)
    with pytest.raises(BundleError, match="cannot be loaded"):
        load_classifier(bundle)
    assert "arbitrary code ran" not in capfd.readouterr().out


def test_legacy_garbage_is_refused(bundle):
    """A pytorch_model.bin that is not an archive is a BundleError."""
    (bundle / "model.safetensors").unlink()
    (bundle / "pytorch_model.bin").write_bytes(b"\x80\x02garbage")
    with pytest.raises(BundleError, match="cannot be loaded"):
        load_classifier(bundle)


@pytest.mark.parametrize(
    "wrong", [{"pad_token_id": 99}, {"num_attention_heads": 0}, {"hidden_size": 0}, {"hidden_act": "none"}]
)
def test_sizes_that_no_model_has_are_refused(bundle, wrong):
    """Whatever error a library raises for a config's values, it is one of ours that names the bundle."""
    config = json.loads((bundle / "config.json").read_text())
    (bundle / "config.json").write_text(json.dumps({**config, **wrong}))
    with pytest.raises(BundleError, match=r"cannot be loaded.*check that config\.json"):
        load_classifier(bundle)


@pytest.mark.parametrize("kept", [0, 4, 100, -10])
def test_truncated_weights_are_refused(bundle, kept):
    """A copy that broke off is named, wherever it broke off."""
    file = bundle / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(BundleError, match="must be complete"):
        load_classifier(bundle)


def test_a_head_that_would_be_made_up_is_refused(bundle):
    """An encoder without its classifier is refused, not given random weights."""
    weights = load_file(bundle / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        del weights[name]
    save_file(weights, bundle / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BundleError, match=r"classifier\.bias.*random"):
        load_classifier(bundle)


def test_a_head_of_another_size_is_refused(bundle):
    """Labels in the config and rows in the head must match."""
    config = json.loads((bundle / "config.json").read_text())
    config["id2label"] = {str(k): f"L{k}" for k in range(5)}
    config["label2id"] = {f"L{k}": k for k in range(5)}
    (bundle / "config.json").write_text(json.dumps(config))
    with pytest.raises(BundleError):
        load_classifier(bundle)
