"""Which models run packed, and why others do not."""

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    ModernBertConfig,
    MPNetConfig,
    RobertaConfig,
)

from assay.model.families import extract_weights, max_sequence_length, why_not_packed
from assay.model.parts import activate

SHAPE = {
    "vocab_size": 20,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
}


def make(config):
    """A tiny model of a config."""
    return AutoModelForSequenceClassification.from_config(config).eval()


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (MPNetConfig(**SHAPE), "mpnet"),
        (BertConfig(**SHAPE, is_decoder=True), "decoder"),
        (BertConfig(**SHAPE, hidden_act="quick_gelu"), "quick_gelu"),
        (
            ModernBertConfig(
                **SHAPE,
                pad_token_id=0,
                bos_token_id=1,
                cls_token_id=1,
                eos_token_id=2,
                sep_token_id=2,
                rope_parameters={
                    "full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0},
                    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
                },
            ),
            "rotary",
        ),
    ],
)
def test_what_does_not_fit_is_named(config, reason):
    """A model outside the packed shape says why, and gives no weights."""
    model = make(config)
    assert reason in why_not_packed(model.config)
    assert extract_weights(model) is None


def test_another_head_is_not_packed():
    """The base model of a known family is not a classifier."""
    assert extract_weights(make(BertConfig(**SHAPE)).bert) is None


def test_sizes_are_read_from_the_weights():
    """Outputs, token types and the longest sequence; RoBERTa's positions begin after the padding id."""
    bert = extract_weights(make(BertConfig(**SHAPE, num_labels=5, max_position_embeddings=32)))
    assert (bert.head.output_shape, bert.num_token_types, bert.max_length) == ((5,), 2, 32)
    model = make(RobertaConfig(**SHAPE, max_position_embeddings=34, pad_token_id=1, type_vocab_size=1))
    roberta = extract_weights(model)
    assert (roberta.num_token_types, roberta.max_length, len(roberta.position_embeddings)) == (1, 32, 32)
    assert max_sequence_length(model.config) == 32


@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "relu", "silu", "tanh"])
def test_each_activation_keeps_zero_and_passes_ones(name):
    """Every activation is 0 at 0 and positive at 1."""
    assert activate(torch.zeros(1), name).item() == 0.0
    assert activate(torch.ones(1), name).item() > 0.5
