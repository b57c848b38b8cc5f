"""DeBERTa-v2 and v3 as plain tensors, and which of them have none."""

import math

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    DebertaV2ForTokenClassification,
)
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

from assay.model import deberta, families

SHAPE = {
    "vocab_size": 20,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 32,
}
V3 = {
    "relative_attention": True,
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "position_biased_input": False,
}


def make(config):
    """A tiny model of a config."""
    return AutoModelForSequenceClassification.from_config(config).eval()


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (make(BertConfig(**SHAPE)), "'bert'"),
        (make(DebertaV2Config(**SHAPE, **V3, conv_kernel_size=3)), "convolution"),
        (make(DebertaV2Config(**SHAPE, **V3, hidden_act="quick_gelu")), "quick_gelu"),
        (make(DebertaV2Config(**SHAPE, **V3, pooler_hidden_act="mish")), "mish"),
        (DebertaV2ForTokenClassification(DebertaV2Config(**SHAPE, **V3)), "TokenClassification"),
    ],
)
def test_what_does_not_fit_is_named(model, reason):
    """A model outside the packed shape says why, and gives no weights."""
    assert reason in deberta.why_not_packed(model)
    assert deberta.extract_weights(model) is None


def test_sizes_are_read_from_the_weights():
    """Outputs, the longest sequence, rows of relative positions, terms of the score."""
    weights = deberta.extract_weights(make(DebertaV2Config(**SHAPE, **V3, num_labels=5)))
    assert (weights.encoder.head.output_shape, weights.encoder.max_length) == ((5,), 32)
    assert weights.positions[0].keys_APD.shape == (2, 16, 4)
    assert weights.positions[0].queries_APD.shape == (2, 16, 4)
    assert weights.relative_rows.shape == (63,)
    assert weights.score_scale == pytest.approx(1 / math.sqrt(4 * 3))
    assert weights.encoder.position_embeddings is None
    assert weights.encoder.token_type_embeddings is None


@pytest.mark.parametrize(("kind", "num_terms"), [("c2p", 2), ("p2c", 2), (None, 1)])
def test_terms_that_the_model_lacks_are_absent(kind, num_terms):
    """One term, or none, and a scale that fits."""
    weights = deberta.extract_weights(make(DebertaV2Config(**SHAPE, **{**V3, "pos_att_type": kind})))
    assert (weights.positions[0].keys_APD is not None) == (kind == "c2p")
    assert (weights.positions[0].queries_APD is not None) == (kind == "p2c")
    assert weights.score_scale == pytest.approx(1 / math.sqrt(4 * num_terms))


@pytest.mark.parametrize(
    ("num_buckets", "max_distance", "max_length"),
    [(256, 512, 512), (32, 512, 512), (8, 32, 32), (8, 32, 100), (64, 40, 40)],
)
def test_buckets_are_those_of_transformers(num_buckets, max_distance, max_length):
    """Each distance takes the row that transformers' own arithmetic gives it."""
    rows = deberta.relative_rows(
        max_length, span=num_buckets, num_buckets=num_buckets, max_distance=max_distance
    )
    distances = torch.arange(-(max_length - 1), max_length)
    theirs = make_log_bucket_position(distances, num_buckets, max_distance).long() + num_buckets
    assert torch.equal(rows.long(), theirs.clamp(0, 2 * num_buckets - 1))


def test_without_buckets_each_distance_has_a_row_up_to_the_span():
    """Distances beyond the span share its last rows."""
    rows = deberta.relative_rows(6, span=3, num_buckets=-1, max_distance=3)
    assert rows.tolist() == [0, 0, 0, 1, 2, 3, 4, 5, 5, 5, 5]


def test_families_leave_deberta_to_its_own_module():
    """The one plain shape has no place for relative positions."""
    assert families.extract_weights(make(DebertaV2Config(**SHAPE, **V3))) is None
