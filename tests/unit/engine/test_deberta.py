"""Disentangled attention and the packed DeBERTa engine, against formulas and against transformers."""

import numpy as np
import pytest
import torch
from support.interpreter import DEVICE, WHY_NOT
from transformers import AutoModelForSequenceClassification, DebertaV2Config

from assay.engine.deberta import GpuDebertaEngine
from assay.engine.kernels import disentangled
from assay.engine.kernels.disentangled import Distances
from assay.engine.kernels.layout import DeviceBatch, plan_blocks
from assay.model import deberta
from assay.model.packing import pack

needs_triton = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
KINDS = ["plain", pytest.param("triton", marks=needs_triton)]
NUM_HEADS = 2
SPAN = 16
SCALE = 0.2
FILLED = 7
"""Rows of no token behind each batch; NaN, so that whatever reads them shows."""
SHAPE = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 80,
    "num_labels": 3,
    # far from zero, so that a mix-up moves the logits
    "initializer_range": 0.3,
}
V3 = {
    "relative_attention": True,
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "position_biased_input": False,
}
CONFIGS = {
    "v3": V3,
    "v2": {**V3, "position_biased_input": True, "type_vocab_size": 2, "embedding_size": 16},
    "apart": {**V3, "share_att_key": False, "norm_rel_ebd": "none", "type_vocab_size": 2},
    "c2p": {**V3, "share_att_key": False, "pos_att_type": "c2p", "hidden_act": "gelu_new"},
    "p2c": {**V3, "pos_att_type": "p2c", "position_buckets": -1, "max_relative_positions": 20},
    "absolute": {"relative_attention": False, "pos_att_type": "p2c|c2p"},
}


def implementation(kind):
    """The module of one kind of kernels."""
    if kind == "plain":
        return disentangled
    from assay.engine.kernels import triton_disentangled

    return triton_disentangled


@pytest.fixture
def poisoned(monkeypatch):
    """Memory that kernels are given to write holds NaN."""
    new_empty, empty_like = torch.Tensor.new_empty, torch.empty_like

    def nan(made):
        return made.fill_(float("nan")) if made.is_floating_point() else made

    monkeypatch.setattr(torch.Tensor, "new_empty", lambda *given, **named: nan(new_empty(*given, **named)))
    monkeypatch.setattr(torch, "empty_like", lambda *given, **named: nan(empty_like(*given, **named)))


class Case:
    """Fresh random queries, keys, values and positions for sequences of these lengths."""

    def __init__(
        self, lengths, head_size, dtype, *, terms=("c2p", "p2c"), device=DEVICE, num_heads=NUM_HEADS
    ):
        self.num_heads = num_heads
        self.lengths = lengths
        self.bounds = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        hidden = num_heads * head_size
        num_rows = int(self.bounds[-1]) + FILLED
        self.qkv_TH = torch.randn(num_rows, 3 * hidden, device=device).to(dtype)
        self.qkv_TH[-FILLED:] = float("nan")
        self.rows = deberta.relative_rows(
            max(lengths), span=SPAN, num_buckets=SPAN, max_distance=max(32, *lengths)
        )
        self.keys_APD, self.queries_APD = (
            torch.randn(num_heads, 2 * SPAN, head_size, device=device).to(dtype) if term in terms else None
            for term in ("c2p", "p2c")
        )
        self.distances = Distances.of(self.keys_APD, self.queries_APD, self.rows)
        self.batch = DeviceBatch(
            input_ids_T=torch.zeros(num_rows, dtype=torch.int32, device=device),
            cu_seqlens=torch.from_numpy(self.bounds).to(device),
            blocks_B4=torch.from_numpy(plan_blocks(self.bounds)).to(device),
            max_seqlen=max(lengths),
            num_sequences=len(lengths),
        )

    def expected(self):
        """Attention in float64 as its equation says it, one sequence and head at a time; [tokens, H]."""
        out = []
        for first, last in zip(self.bounds[:-1], self.bounds[1:], strict=True):
            parts = self.qkv_TH[first:last].double().unflatten(1, (3, self.num_heads, -1))
            places = torch.arange(last - first)
            row = self.rows[places[:, None] - places[None, :] + len(self.rows) // 2].long().to(parts.device)
            heads = []
            for head in range(self.num_heads):
                queries, keys, values = parts[:, :, head].unbind(1)
                scores = queries @ keys.T
                if self.keys_APD is not None:
                    # [i, p] at p = row[i, j]
                    scores = scores + (queries @ self.keys_APD[head].double().T).gather(1, row)
                if self.queries_APD is not None:
                    # [p, j] at p = row[i, j]
                    scores = scores + (self.queries_APD[head].double() @ keys.T).gather(0, row)
                heads.append((scores * SCALE).softmax(dim=1) @ values)
            out.append(torch.cat(heads, dim=1))
        return torch.cat(out).cpu()

    def of_all(self, kind):
        """Attention of every token."""
        module = implementation(kind)
        out = module.attention(self.qkv_TH, self.distances, self.batch, num_heads=self.num_heads, scale=SCALE)
        return out[: self.bounds[-1]].double().cpu()

    def of_first(self, kind):
        """Attention of the first tokens."""
        hidden = self.qkv_TH.shape[1] // 3
        out = implementation(kind).first_attention(
            self.qkv_TH[self.batch.cu_seqlens[:-1].long(), :hidden].contiguous(),
            self.qkv_TH[:, hidden:].contiguous(),
            self.distances,
            self.batch,
            num_heads=self.num_heads,
            scale=SCALE,
        )
        return out.double().cpu()


TOLERANCES = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 4e-2}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("lengths", "head_size", "dtype", "terms"),
    [
        ([1, 2, 65], 32, torch.float32, ("c2p", "p2c")),
        ([129, 1, 127], 32, torch.float32, ("c2p", "p2c")),
        ([2, 128], 64, torch.float32, ("c2p", "p2c")),
        ([64, 63], 32, torch.float32, ("c2p",)),
        ([64, 63], 32, torch.float32, ("p2c",)),
        ([5, 70], 16, torch.float32, ()),
        # the interpreter has no products of bfloat16
        ([40, 66], 64, torch.float16, ("c2p", "p2c")),
    ],
)
def test_attention_is_that_of_the_equation(poisoned, kind, lengths, head_size, dtype, terms):
    """Every token's attention is float64's, whatever lies in memory before and behind."""
    case = Case(lengths, head_size, dtype, terms=terms)
    assert (case.of_all(kind) - case.expected()).abs().max() < TOLERANCES[dtype]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("terms", [("c2p", "p2c"), ("c2p",), ("p2c",), ()])
def test_attention_of_first_tokens_is_that_of_the_equation(poisoned, kind, dtype, terms):
    """First tokens alone get what they get among all."""
    case = Case([1, 2, 64, 129], 32, dtype, terms=terms)
    expected = case.expected()[case.bounds[:-1]]
    assert (case.of_first(kind) - expected).abs().max() < TOLERANCES[dtype]


@pytest.mark.gpu
@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("head_size", [32, 64, 128])
def test_attention_on_the_device(poisoned, dtype, head_size):
    """300 sequences of 1 to 512 tokens, the awkward lengths among them."""
    lengths = [1, 2, 127, 128, 129, 511, 512, *torch.randint(1, 513, (293,)).tolist()]
    case = Case(lengths, head_size, dtype)
    expected = case.expected()
    # scores of larger heads are sums of more rounded products
    allowed = TOLERANCES[dtype] * max(1, head_size / 32)
    assert (case.of_all("triton") - expected).abs().max() < allowed
    assert (case.of_first("triton") - expected[case.bounds[:-1]]).abs().max() < allowed


@pytest.mark.gpu
@needs_triton
def test_one_sequence_and_ten_thousand_on_the_device(poisoned):
    """The grid holds for one long sequence and for very many short ones."""
    for lengths in ([2048], [3] * 10_000):
        case = Case(lengths, 64, torch.float16)
        assert (case.of_all("triton") - case.expected()).abs().max() < TOLERANCES[torch.float16]


def test_distances_are_cut_to_what_a_batch_needs():
    """A batch of short sequences takes fewer rows, the same ones."""
    rows = deberta.relative_rows(200, span=SPAN, num_buckets=SPAN, max_distance=200)
    keys_APD = torch.randn(1, 2 * SPAN, 4)
    whole = Distances.of(keys_APD, None, rows)
    assert (whole.reach, whole.keys_AXD.shape[1], whole.queries_AXD) == (256, 512, None)
    short = whole.within(65)
    assert (short.reach, short.keys_AXD.shape[1]) == (128, 256)
    for ahead in (-64, 0, 64):
        # what a query meets `ahead` tokens further on is distance query - key = -ahead
        expected = keys_APD[:, rows[-ahead + 199].item()]
        assert torch.equal(short.keys_AXD[:, short.reach + ahead], expected)
        assert torch.equal(whole.keys_AXD[:, whole.reach + ahead], expected)
    assert whole.within(10_000).reach == 256


def make(name, **changes):
    """A tiny model of one of the configurations, and its engine's weights."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(
        DebertaV2Config(**{**SHAPE, **CONFIGS[name], **changes})
    ).eval()
    # biases and norms away from 0 and 1, so that a forgotten one shows
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def sequences(lengths, num_types=1):
    """Random ids, and types where the model tells some apart."""
    generator = torch.Generator().manual_seed(1)
    ids = [torch.randint(0, 50, (length,), generator=generator).tolist() for length in lengths]
    types = [[int(place >= length // 2) for place in range(length)] for length in lengths]
    return ids, types if num_types > 1 else None


@torch.no_grad()
def alone(model, ids, types):
    """Logits of the transformers model, one document at a time and unpadded."""
    rows = []
    for k, sequence in enumerate(ids):
        extra = {} if types is None else {"token_type_ids": torch.tensor([types[k]])}
        rows.append(model(input_ids=torch.tensor([sequence]), **extra).logits)
    return torch.cat(rows).float()


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, "plain") for name in CONFIGS]
    + [pytest.param(name, "triton", marks=needs_triton) for name in ("v3", "c2p", "absolute")],
)
def test_logits_are_those_of_transformers(name, kind):
    """Packed together or alone, in any order, each document gets the model's own logits."""
    model = make(name)
    ids, types = sequences([1, 2, 80, 33], model.config.type_vocab_size)
    engine = GpuDebertaEngine(
        deberta.extract_weights(model), device=torch.device(DEVICE), dtype=torch.float32, kernels=kind
    )
    expected = alone(model, ids, types)
    assert expected.std(dim=0).min() > 0.01
    together = engine.forward(pack(ids, types)).cpu()
    assert together.dtype == torch.float32
    torch.testing.assert_close(together, expected, atol=2e-5, rtol=1e-5)
    if name == "v3":
        backwards = engine.forward(pack(ids[::-1])).cpu().flip(0)
        torch.testing.assert_close(backwards, together, atol=1e-5, rtol=1e-5)
        for k in (0, 3):
            single = engine.forward(pack([ids[k]])).cpu()
            torch.testing.assert_close(single, together[k : k + 1], atol=1e-5, rtol=1e-5)


def test_a_batch_without_types_is_one_of_type_0():
    """Types are given only where a batch has second segments."""
    model = make("apart")
    ids, _ = sequences([4, 9])
    engine = GpuDebertaEngine(
        deberta.extract_weights(model), device=torch.device("cpu"), dtype=torch.float32, kernels="plain"
    )
    torch.testing.assert_close(engine.forward(pack(ids)), alone(model, ids, None), atol=1e-5, rtol=1e-5)


@needs_triton
def test_head_sizes_without_kernel_run_in_plain_torch():
    """A head of 24 is not a block of Triton's: the rest keeps its kernels."""
    model = make("v3", hidden_size=48)
    ids, _ = sequences([4, 9])
    engine = GpuDebertaEngine(
        deberta.extract_weights(model), device=torch.device(DEVICE), dtype=torch.float32, kernels="triton"
    )
    torch.testing.assert_close(engine.forward(pack(ids)).cpu(), alone(model, ids, None), atol=1e-5, rtol=1e-5)


def test_the_engine_says_what_it_is():
    """Sizes, family and kernels; no sequences give no logits."""
    engine = GpuDebertaEngine(
        deberta.extract_weights(make("v3")), device=torch.device("cpu"), dtype=torch.float32, kernels="plain"
    )
    assert (engine.output_shape, engine.max_length, engine.vocab_size) == ((3,), 80, 50)
    assert engine.packed
    assert engine.wants_sorted
    assert engine.default_batch_tokens > 0
    assert "deberta-v2" in engine.description()
    assert "plain torch" in engine.description()
    assert engine.forward(pack([])).shape == (0, 3)
    assert engine.device_seconds == 0.0


@pytest.mark.gpu
@needs_triton
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_on_the_device(dtype):
    """A model of DeBERTa-v3's shape, two layers of it: 300 documents, as close to float32 as half allows."""
    shape = {
        "hidden_size": 768,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "max_position_embeddings": 512,
        "position_buckets": 256,
        "initializer_range": 0.02,
    }
    model = make("v3", **shape)
    weights = deberta.extract_weights(model)
    ids, _ = sequences([1, 2, 127, 128, 129, 511, 512, *torch.randint(1, 513, (293,)).tolist()])
    device = torch.device("cuda")
    exact = GpuDebertaEngine(weights, device=device, dtype=torch.float32).forward(pack(ids)).cpu()
    engine = GpuDebertaEngine(weights, device=device, dtype=dtype)
    assert "Triton" in engine.description()
    logits = engine.forward(pack(ids)).cpu()
    spread = exact.std(dim=0).max()
    assert (logits - exact).abs().max() < 0.1 * spread + TOLERANCES[dtype]
    assert engine.device_seconds > 0.0
    torch.testing.assert_close(exact[:8], alone(model, ids[:8], None), atol=1e-3, rtol=1e-3)
