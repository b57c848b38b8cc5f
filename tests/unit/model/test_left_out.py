"""Weights that hold layers or heads which the model does not use, or lack some."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.models import change_json, write_model

from assay.bundle.load import load_bundle
from assay.engine.load import load_engine
from assay.errors import BundleError
from assay.model.checkpoint import read_checkpoint
from assay.model.left_out import heads_left_out, layers_left_out


@pytest.mark.parametrize(("asked", "told"), [(1, "layer.1 left out"), (0, "layer.0 to 1 left out")])
def test_layers_that_the_config_leaves_out_are_noted(tmp_path, asked, told):
    """By name, as transformers would warn; a model without layers runs too."""
    folder = write_model(tmp_path / "model")
    assert load_bundle(folder).notes == ()
    change_json(folder / "config.json", num_hidden_layers=asked)
    bundle = load_bundle(folder)
    (note,) = bundle.notes
    assert f"num_hidden_layers is {asked} and the weights hold 2: bert.encoder.{told}" in note
    assert load_engine(bundle.checkpoint).name == ("cpu-packed" if asked else "padded")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"num_hidden_layers": 3}, "lacks 16 weights"),
        ({"hidden_size": 8}, "holds 38 weights in another shape"),
        ({"vocab_size": 200}, "holds 1 weight in another shape"),
        ({"max_position_embeddings": 32}, "holds 1 weight in another shape"),
        ({"type_vocab_size": 1}, "holds 1 weight in another shape"),
        ({"intermediate_size": 16}, "holds 6 weights in another shape"),
    ],
)
def test_other_sizes_than_those_of_the_weights_are_refused(tmp_path, change, told):
    """Where transformers would make weights up."""
    folder = write_model(tmp_path / "model")
    change_json(folder / "config.json", **change)
    with pytest.raises(BundleError, match=told):
        load_engine(folder)


@pytest.mark.parametrize(
    ("config", "tensors", "told"),
    [
        (
            {"n_layers": 1},
            ("distilbert.transformer.layer.1.ffn.lin1.bias",),
            "n_layers is 1 and the weights hold 2",
        ),
        ({"num_hidden_layers": 2}, ("model.layers.1.mlp.experts.7.w1.weight",), None),
        (
            {"num_hidden_layers": 1},
            ("model.encoder.layers.0.fc1.bias", "model.decoder.layers.5.fc1.bias"),
            "decoder",
        ),
        (
            {"num_hidden_layers": 1, "decoder_layers": 6, "is_encoder_decoder": True},
            ("model.encoder.layers.0.fc1.bias", "model.decoder.layers.5.fc1.bias"),
            None,
        ),
        ({"n_layer": 12}, ("transformer.h.11.attn.bias", "classifier.0.weight"), None),
        ({}, ("bert.encoder.layer.11.output.dense.bias",), None),
    ],
)
def test_stacks_are_found_by_the_names_of_tensors(config, tensors, told):
    """The outermost number counts layers; experts and heads have numbers of their own."""
    found = layers_left_out(config, tensors)
    assert [told in clause for clause in found] == ([True] if told else [])


def test_heads_for_other_tasks_are_noted(tmp_path):
    """A classifier that kept the head it was pre-trained with runs, and says so; a base without a head says nothing."""
    folder = write_model(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors["cls.predictions.bias"] = torch.zeros(3)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (note,) = load_bundle(folder).notes
    assert note.endswith("the weights also hold cls.predictions, which a classifier does not use")
    change_json(folder / "config.json", architectures=["BertForMaskedLM"])
    assert read_checkpoint(folder).notes == ()
    assert heads_left_out(["bert.embeddings.word_embeddings.weight", "classifier.bias", "lm_head.bias"]) == (
        "lm_head",
    )
