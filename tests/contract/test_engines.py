"""Every engine on every family passes one suite: order, company, odd lengths, equality with transformers."""

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    CamembertConfig,
    ConvBertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    GPT2Config,
    ModernBertConfig,
    MPNetConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from assay.engine.cpu import CpuPackedEngine
from assay.engine.fake import FakeEngine
from assay.engine.padded import PaddedEngine
from assay.engine.run import run_sequences
from assay.engine.sequences import Sequences
from assay.model.families import extract_weights
from assay.model.packing import pack

VOCABULARY = 120
ODD_LENGTHS = (1, 2, 127, 128, 129, 512)
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "num_labels": 3,
    # far from zero, so that a mix-up moves the logits
    "initializer_range": 0.3,
}
ROBERTA = {"max_position_embeddings": 514, "pad_token_id": 1, "type_vocab_size": 1}
MODERN = {
    "pad_token_id": 0,
    "bos_token_id": 1,
    "cls_token_id": 1,
    "eos_token_id": 2,
    "sep_token_id": 2,
    "local_attention": 16,
    "max_position_embeddings": 1024,
}
PACKED_CONFIGS = {
    "bert": BertConfig(**SHAPE),
    "bert-relu": BertConfig(**SHAPE, hidden_act="relu"),
    "bert-gelu_new": BertConfig(**SHAPE, hidden_act="gelu_new"),
    "roberta": RobertaConfig(**SHAPE, **ROBERTA),
    "xlm-roberta": XLMRobertaConfig(**SHAPE, **ROBERTA),
    "camembert": CamembertConfig(**SHAPE, **ROBERTA),
    "distilbert": DistilBertConfig(
        vocab_size=VOCABULARY,
        dim=32,
        n_layers=2,
        n_heads=4,
        hidden_dim=48,
        num_labels=3,
        initializer_range=0.3,
    ),
    "electra": ElectraConfig(**SHAPE, embedding_size=16),
    "modernbert": ModernBertConfig(**(SHAPE | {"num_hidden_layers": 4}), **MODERN),
    "modernbert-mean": ModernBertConfig(
        **SHAPE, **MODERN, classifier_pooling="mean", norm_bias=True, attention_bias=True, mlp_bias=True
    ),
}
PADDED_CONFIGS = {
    "mpnet": MPNetConfig(**SHAPE, max_position_embeddings=514, pad_token_id=1),
    "deberta-v2": DebertaV2Config(**SHAPE, relative_attention=True, pos_att_type=["p2c", "c2p"]),
    # sees padding whatever the mask
    "convbert": ConvBertConfig(**SHAPE, embedding_size=32),
    # without a padding token: takes one sequence at a time
    "gpt2": GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, num_labels=3, initializer_range=0.3
    ),
}
CONFIGS = PACKED_CONFIGS | PADDED_CONFIGS
ENGINES = [
    "fake",
    *(f"padded:{name}" for name in CONFIGS),
    *(f"packed:{name}" for name in PACKED_CONFIGS),
    *(f"packed-plain:{name}" for name in ("bert", "modernbert")),
]


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Tiny products are faster on one thread, the more so on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def models():
    """A tiny random model of each family, in evaluation mode."""
    torch.manual_seed(0)
    made = {}
    for name, config in CONFIGS.items():
        made[name] = AutoModelForSequenceClassification.from_config(config).eval()
    return made


@pytest.fixture(scope="module", params=ENGINES)
def engine(request, models):
    """Each engine in turn."""
    kind, _, name = request.param.partition(":")
    if kind == "fake":
        return FakeEngine(num_outputs=3)
    if kind == "padded":
        return PaddedEngine(models[name])
    return CpuPackedEngine(
        extract_weights(models[name]), use_onednn=False if kind == "packed-plain" else None
    )


def make_sequences(lengths, seed=0):
    """Random ids of these lengths, the padding ids of some families among them."""
    generator = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Sequences(
        flat_ids=generator.integers(0, VOCABULARY, offsets[-1]).astype(np.uint16), offsets=offsets
    )


def alone(sequences, index):
    """Sequence `index` by itself."""
    start, stop = sequences.offsets[index], sequences.offsets[index + 1]
    seconds = sequences.second_starts
    return Sequences(
        flat_ids=sequences.flat_ids[start:stop],
        offsets=np.array([0, stop - start]),
        second_starts=None if seconds is None else seconds[index : index + 1],
    )


def test_a_document_alone_equals_itself_in_company(engine):
    """Neither the company nor the batch size changes a logit beyond rounding; odd lengths included."""
    sequences = make_sequences([*ODD_LENGTHS, 5, 5, 5, 17])
    together, _ = run_sequences(engine, sequences, max_batch_tokens=4096)
    for index in range(sequences.num_sequences):
        single, _ = run_sequences(engine, alone(sequences, index), max_batch_tokens=1)
        np.testing.assert_allclose(single[0], together[index], atol=1e-5, rtol=1e-5)
    for budget in (1, 130, 700):
        other, _ = run_sequences(engine, sequences, max_batch_tokens=budget)
        np.testing.assert_allclose(other, together, atol=1e-5, rtol=1e-5)


def test_order_out_equals_order_in_for_a_thousand(engine):
    """1,000 short sequences of mixed lengths, many of them equal, come back in their own rows."""
    lengths = np.random.default_rng(3).integers(1, 9, 1000)
    sequences = make_sequences(lengths, seed=4)
    logits, stats = run_sequences(engine, sequences, max_batch_tokens=512)
    assert logits.shape == (1000, engine.num_outputs)
    assert logits.dtype == np.float32
    assert stats.num_duplicates > 0
    for index in (0, 1, 499, 998, 999):
        single, _ = run_sequences(engine, alone(sequences, index))
        np.testing.assert_allclose(single[0], logits[index], atol=1e-5, rtol=1e-5)
    undeduplicated, _ = run_sequences(engine, sequences, max_batch_tokens=512, deduplicate=False)
    np.testing.assert_allclose(undeduplicated, logits, atol=1e-5, rtol=1e-5)


def test_equality_with_transformers_on_pairs_and_singles(models):
    """Packed and padded logits equal the model's own, one document at a time, token types included."""
    sequences = make_sequences([*ODD_LENGTHS, 9, 33, 33])
    seconds = np.array([0, 1, 60, 0, 128, 200, 4, 0, 32], dtype=np.int32)
    sequences = Sequences(flat_ids=sequences.flat_ids, offsets=sequences.offsets, second_starts=seconds)
    for name, model in models.items():
        takes_types = (getattr(model.config, "type_vocab_size", 0) or 0) > 1
        expected = []
        for index in range(sequences.num_sequences):
            single = alone(sequences, index)
            length = len(single.flat_ids)
            inputs = {
                "input_ids": torch.from_numpy(single.flat_ids.astype(np.int64))[None],
                "attention_mask": torch.ones((1, length), dtype=torch.long),
            }
            if takes_types:
                start = seconds[index] or length
                inputs["token_type_ids"] = (torch.arange(length) >= start).long()[None]
            with torch.inference_mode():
                expected.append(model(**inputs).logits.numpy())
        engines = [PaddedEngine(model)]
        if name in PACKED_CONFIGS:
            weights = extract_weights(model)
            engines += [CpuPackedEngine(weights), CpuPackedEngine(weights, use_onednn=False)]
        for engine in engines:
            logits, _ = run_sequences(engine, sequences, max_batch_tokens=600)
            np.testing.assert_allclose(
                logits, np.concatenate(expected), atol=2e-5, rtol=1e-4, err_msg=f"{name} {engine.name}"
            )


def test_the_second_segment_matters_where_types_do(models):
    """Where the model tells token types apart, moving the boundary of a pair moves the logits."""
    for name in ("bert", "electra"):
        engine = CpuPackedEngine(extract_weights(models[name]))
        ids = list(range(5, 20))
        one = engine.forward(pack([ids], [[0] * 5 + [1] * 10]))
        other = engine.forward(pack([ids], [[0] * 9 + [1] * 6]))
        assert (one - other).abs().max() > 1e-3


def test_a_poisoned_weight_is_never_hidden(models):
    """A NaN in the weights shows as NaN in the logits: no engine papers over it."""
    weights = extract_weights(models["bert"])
    weights.layers[1].down.weight.data[3, 3] = float("nan")
    try:
        for engine in (CpuPackedEngine(weights), PaddedEngine(models["bert"])):
            logits, _ = run_sequences(engine, make_sequences([4, 9]))
            assert np.isnan(logits).all()
    finally:
        weights.layers[1].down.weight.data[3, 3] = 0.1


def test_a_huge_id_stays_with_its_own_document(models):
    """One document's overflow (an infinite embedding) leaves its neighbours' logits alone."""
    model = models["bert"]
    row = model.bert.embeddings.word_embeddings.weight.data
    kept = row[7].clone()
    row[7] = float("inf")
    try:
        for engine in (CpuPackedEngine(extract_weights(model)), PaddedEngine(model)):
            logits = engine.forward(pack([[3, 4, 5], [3, 7, 5], [9, 4, 5], [8]]))
            assert logits.isfinite().all(dim=1).tolist() == [True, False, True, True], engine.name
    finally:
        row[7] = kept


def test_an_empty_batch_gives_no_rows(engine):
    """Zero sequences give logits of shape [0, C], without a forward pass."""
    logits, stats = run_sequences(
        engine, Sequences(flat_ids=np.zeros(0, np.uint16), offsets=np.zeros(1, np.int64))
    )
    assert logits.shape == (0, engine.num_outputs)
    assert stats.num_batches == 0


def test_it_says_what_runs(engine):
    """`description` is one line of words."""
    assert engine.description()
    assert "\n" not in engine.description()
