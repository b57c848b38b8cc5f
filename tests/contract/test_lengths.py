"""A bundle and its engine agree on the longest document, and the model takes it, whatever the family."""

import json
import warnings

import pytest
import torch
from support.configs import PACKED_CONFIGS, ROBERTA, SHAPE, VOCABULARY
from transformers import AutoConfig, AutoModelForSequenceClassification

from assay.bundle.load import load_bundle
from assay.engine.load import load_engine
from assay.model.checkpoint import NO_LIMIT
from assay.model.packing import pack

POSITIONS = 40
PAD = 1
SMALL = {**SHAPE, "max_position_embeddings": POSITIONS, "pad_token_id": PAD, "num_hidden_layers": 1}
GPT = {
    "vocab_size": VOCABULARY,
    "n_embd": 32,
    "n_layer": 1,
    "n_head": 4,
    "n_positions": POSITIONS,
    "num_labels": 3,
}
AFTER_PADDING = (
    "camembert", "data2vec-text", "esm", "ibert", "longformer", "luke", "markuplm", "mpnet", "roberta",
    "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl",
)  # fmt: skip
"""Families that number positions from the padding id on."""
FROM_ZERO = (
    "albert", "bert", "big_bird", "convbert", "deberta", "deberta-v2", "electra", "ernie", "fnet", "layoutlm",
    "megatron-bert", "nystromformer", "rembert", "roc_bert", "roformer", "squeezebert", "yoso",
)  # fmt: skip
"""Families that number them from 0 on."""
EXTRA = {
    "albert": {"embedding_size": 16},
    "longformer": {"attention_window": 4},
    "luke": {"entity_vocab_size": 10, "entity_emb_size": 16},
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 16},
    "squeezebert": {"embedding_size": 32},
    "roc_bert": {"pronunciation_vocab_size": 10, "shape_vocab_size": 10},
    "xlm-roberta-xl": {"type_vocab_size": 1},
}
OTHERS = {
    "distilbert": (
        {"vocab_size": VOCABULARY, "dim": 32, "n_layers": 1, "n_heads": 4, "hidden_dim": 48, "num_labels": 3}
        | {"max_position_embeddings": POSITIONS},
        POSITIONS,
    ),
    "gpt2": (GPT, POSITIONS),
    "openai-gpt": (GPT, POSITIONS),
    "bart": (
        {"vocab_size": VOCABULARY, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "num_labels": 3}
        | {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48}
        | {
            "decoder_ffn_dim": 48,
            "max_position_embeddings": POSITIONS,
            "eos_token_id": 2,
            "pad_token_id": PAD,
        },
        POSITIONS,
    ),
    "xlm": (
        {"vocab_size": VOCABULARY, "emb_dim": 32, "n_layers": 1, "n_heads": 4, "num_labels": 3}
        | {"max_position_embeddings": POSITIONS},
        POSITIONS,
    ),
    "xlnet": (
        {"vocab_size": VOCABULARY, "d_model": 32, "n_layer": 1, "n_head": 4, "d_inner": 48, "num_labels": 3},
        NO_LIMIT,
    ),
    "funnel": (
        {"vocab_size": VOCABULARY, "d_model": 32, "block_sizes": [1], "n_head": 4, "d_head": 8, "d_inner": 48}
        | {"num_labels": 3},
        NO_LIMIT,
    ),
    "llama": ({**SMALL, "num_key_value_heads": 4}, POSITIONS),
}
CASES = {
    **{name: (SMALL | EXTRA.get(name, {}), POSITIONS - PAD - 1) for name in AFTER_PADDING},
    **{name: (SMALL | EXTRA.get(name, {}), POSITIONS) for name in FROM_ZERO},
    **OTHERS,
}
SOME_LENGTH = 300
"""Tokens of the document where nothing limits it."""


@pytest.fixture(autouse=True)
def _fresh_cache(tmp_path, monkeypatch):
    """No engine has passed its self test yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def save(folder, config, **tokenizer_config):
    """A bundle folder of a random model with a tokenizer that is never used."""
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    content = {"version": "1.0", "model": {"type": "WordPiece", "vocab": {"a": 0}}}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    return folder


def agreed_length(folder):
    """The limit of a bundle and of its engine, first start and later one; a document of that length runs."""
    limit = load_bundle(folder).max_length
    for _ in range(2):
        engine = load_engine(folder, num_threads=1)
        assert engine.max_length == limit, engine.description()
        # 2 ends a text where a family wants to see its end
        ids = [3 + k % 50 for k in range(min(limit, SOME_LENGTH) - 1)] + [2]
        assert torch.isfinite(engine.forward(pack([ids]))).all()
    return limit


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore")
def test_bundle_and_engine_agree_on_the_longest_document(tmp_path, name):
    """What the bundle promises the engine takes, and the model computes."""
    settings, expected = CASES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = AutoConfig.for_model(name, **settings)
    assert agreed_length(save(tmp_path / "b", config)) == expected


@pytest.mark.parametrize("name", PACKED_CONFIGS)
def test_packed_engines_agree_too(tmp_path, name):
    """The families that run packed, with the positions of published checkpoints."""
    config = PACKED_CONFIGS[name]
    wanted = config.max_position_embeddings - (
        ROBERTA["pad_token_id"] + 1 if config.model_type in AFTER_PADDING else 0
    )
    assert agreed_length(save(tmp_path / "b", config)) == wanted


@pytest.mark.parametrize("name", ["bert", "mpnet"])
def test_a_shorter_length_of_the_tokenizer_holds_for_both(tmp_path, name):
    """model_max_length of tokenizer_config.json limits the engine as it does the bundle."""
    folder = save(tmp_path / "b", AutoConfig.for_model(name, **SMALL), model_max_length=17)
    assert agreed_length(folder) == 17
