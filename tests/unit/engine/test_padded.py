"""How the padded engine pads."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, ConvBertConfig, GPT2Config

from assay.engine.padded import PaddedEngine
from assay.model.packing import pack

SHAPE = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "initializer_range": 0.5,
}


def make(config):
    """A padded engine on a tiny random model."""
    torch.manual_seed(0)
    return PaddedEngine(AutoModelForSequenceClassification.from_config(config).eval())


def test_padding_is_counted():
    """Like lengths share a pass; the padding of it is counted."""
    engine = make(BertConfig(**SHAPE))
    engine.forward(pack([[1, 2, 3], [4], [5, 6, 7]]))
    assert engine.num_padded_tokens == 2


def test_far_lengths_get_passes_of_their_own():
    """A long and many short sequences are not padded together."""
    engine = make(BertConfig(**SHAPE))
    engine.forward(pack([[1] * 300, [4] * 3, [5] * 3]))
    assert engine.num_padded_tokens == 0


def test_an_architecture_that_sees_padding_gets_none():
    """ConvBERT's convolutions see padding: found by trying, and said."""
    engine = make(ConvBertConfig(**SHAPE, embedding_size=16))
    assert "without padding" in engine.description()
    engine.forward(pack([[1, 2, 3], [4], [5, 6, 7]]))
    assert engine.num_padded_tokens == 0


def test_a_decoder_without_padding_token_takes_one_at_a_time():
    """GPT-2 without a padding id refuses batches; it runs all the same."""
    engine = make(GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2))
    assert engine.forward(pack([[1, 2], [3, 4], [5]])).shape == (3, 2)


def test_a_negative_padding_id_is_none():
    """A config that says -1 for no padding token runs, and nothing is looked up under -1."""
    engine = make(BertConfig(**SHAPE, pad_token_id=-1))
    assert engine.forward(pack([[1, 2, 3], [4], [5, 6, 7]])).isfinite().all()
    assert engine.num_padded_tokens == 0


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cuda_equals_cpu(dtype):
    """The same model on a GPU gives the CPU's logits, within rounding."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(BertConfig(**SHAPE)).eval()
    batch = pack([[k % 40] * length for k, length in enumerate((1, 5, 5, 80, 300))])
    expected = PaddedEngine(model).forward(batch)
    engine = PaddedEngine(model.to(dtype), device=torch.device("cuda"))
    found = engine.forward(batch)
    assert found.device.type == "cpu"
    assert (found - expected).abs().max() < (1e-4 if dtype == torch.float32 else 0.05)
