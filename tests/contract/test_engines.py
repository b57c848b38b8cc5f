"""Every engine on every family passes one suite: order, company, odd lengths, equality with transformers."""

import numpy as np
import pytest
import torch
from support.configs import PACKED_CONFIGS, PADDED_CONFIGS, ROBERTA, VOCABULARY
from support.interpreter import DEVICE, WHY_NOT
from transformers import AutoModelForSequenceClassification

from assay.engine.cpu import CpuPackedEngine
from assay.engine.fake import FakeEngine
from assay.engine.gpu import GpuPackedEngine
from assay.engine.load import load_engine
from assay.engine.padded import PaddedEngine
from assay.engine.run import run_sequences
from assay.engine.sequences import Sequences
from assay.model.families import extract_weights
from assay.model.packing import pack

pytestmark = pytest.mark.usefixtures("one_thread")

ODD_LENGTHS = (1, 2, 127, 128, 129, 512)
CONFIGS = PACKED_CONFIGS | PADDED_CONFIGS
ENGINES = [
    "fake",
    *(f"padded:{name}" for name in CONFIGS),
    *(f"packed:{name}" for name in PACKED_CONFIGS),
    *(f"packed-plain:{name}" for name in ("bert", "modernbert")),
    *(f"gpu-plain:{name}" for name in PACKED_CONFIGS),
    *(pytest.param(f"gpu:{name}", marks=pytest.mark.gpu) for name in PACKED_CONFIGS),
]
needs_triton = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
PRECISIONS = {torch.float32: 1e-4, torch.float16: 0.03, torch.bfloat16: 0.25}
"""Largest difference of a logit to transformers in fp32, as a share of their spread, on a GPU."""


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
        return FakeEngine(output_shape=(3,))
    if kind == "padded":
        return PaddedEngine(models[name])
    weights = extract_weights(models[name])
    if kind == "gpu-plain":
        return gpu_engine(weights, device="cpu", kernels="plain")
    if kind == "gpu":
        return gpu_engine(weights, device="cuda")
    return CpuPackedEngine(weights, use_onednn=False if kind == "packed-plain" else None)


def gpu_engine(weights, *, device=DEVICE, dtype=torch.float32, kernels="auto", **named):
    """The packed engine of CUDA devices, on a device that is there."""
    return GpuPackedEngine(weights, device=torch.device(device), dtype=dtype, kernels=kernels, **named)


def rounding(engine):
    """How far company may move a logit: products of other shapes add up in another order."""
    limit = 1e-4 if isinstance(engine, GpuPackedEngine) and "cuda" in engine.description() else 1e-5
    return {"atol": limit, "rtol": limit}


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
        np.testing.assert_allclose(single[0], together[index], **rounding(engine))
    for budget in (1, 130, 700):
        other, _ = run_sequences(engine, sequences, max_batch_tokens=budget)
        np.testing.assert_allclose(other, together, **rounding(engine))


def test_order_out_equals_order_in_for_a_thousand(engine):
    """1,000 short sequences of mixed lengths, many of them equal, come back in their own rows."""
    lengths = np.random.default_rng(3).integers(1, 9, 1000)
    sequences = make_sequences(lengths, seed=4)
    logits, stats = run_sequences(engine, sequences, max_batch_tokens=512)
    assert logits.shape == (1000, *engine.output_shape)
    assert logits.dtype == np.float32
    assert stats.num_duplicates > 0
    for index in (0, 1, 499, 998, 999):
        single, _ = run_sequences(engine, alone(sequences, index))
        np.testing.assert_allclose(single[0], logits[index], **rounding(engine))
    undeduplicated, _ = run_sequences(engine, sequences, max_batch_tokens=512, deduplicate=False)
    np.testing.assert_allclose(undeduplicated, logits, **rounding(engine))


PAIRS = make_sequences([*ODD_LENGTHS, 9, 33, 33])
PAIRS = Sequences(
    flat_ids=PAIRS.flat_ids,
    offsets=PAIRS.offsets,
    second_starts=np.array([0, 1, 60, 0, 128, 200, 4, 0, 32], dtype=np.int32),
)


def by_transformers(model, sequences):
    """The model's own logits in fp32 on the CPU, one document at a time."""
    takes_types = (getattr(model.config, "type_vocab_size", 0) or 0) > 1
    expected = []
    for index in range(sequences.num_sequences):
        single = alone(sequences, index)
        length = len(single.flat_ids)
        inputs = {
            "input_ids": torch.from_numpy(single.flat_ids.astype(np.int64))[None],
            "attention_mask": torch.ones((1, length), dtype=torch.long),
        }
        if takes_types and sequences.second_starts is not None:
            start = sequences.second_starts[index] or length
            inputs["token_type_ids"] = (torch.arange(length) >= start).long()[None]
        with torch.inference_mode():
            expected.append(model(**inputs).logits.numpy())
    return np.concatenate(expected)


def test_equality_with_transformers_on_pairs_and_singles(models):
    """Packed and padded logits equal the model's own, one document at a time, token types included."""
    for name, model in models.items():
        expected = by_transformers(model, PAIRS)
        engines = [PaddedEngine(model)]
        if name in PACKED_CONFIGS:
            weights = extract_weights(model)
            engines += [
                CpuPackedEngine(weights),
                CpuPackedEngine(weights, use_onednn=False),
                gpu_engine(weights, device="cpu", kernels="plain"),
            ]
        for engine in engines:
            logits, _ = run_sequences(engine, PAIRS, max_batch_tokens=600)
            np.testing.assert_allclose(
                logits, expected, atol=2e-5, rtol=1e-4, err_msg=f"{name} {engine.description()}"
            )


# the interpreter's numpy warns of what rows of no token hold
@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value encountered")
@needs_triton
@pytest.mark.parametrize("where", ["here", pytest.param("gpu", marks=pytest.mark.gpu)])
@pytest.mark.parametrize(
    "name",
    [
        "bert",
        "roberta",
        "electra",
        "modernbert",
        # bert but for the activation, which the kernels' own tests try alone
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("bert-relu", "bert-gelu_new")),
    ],
)
def test_triton_kernels_give_the_models_own_logits(models, name, where):
    """Through the interpreter or compiled: pairs, pad ids inside a text, windows; alone and in company."""
    sequences = make_sequences([1, 2, 65, 33, 9], seed=5)
    sequences = Sequences(
        flat_ids=sequences.flat_ids,
        offsets=sequences.offsets,
        second_starts=np.array([0, 1, 30, 0, 8], dtype=np.int32),
    )
    sequences.flat_ids[10:14] = ROBERTA["pad_token_id"]
    engine = gpu_engine(extract_weights(models[name]), kernels="triton")
    assert "Triton" in engine.description()
    logits, stats = run_sequences(engine, sequences)
    assert stats.num_batches == 1
    np.testing.assert_allclose(logits, by_transformers(models[name], sequences), atol=5e-5, rtol=1e-4)
    for index in (1, 3):
        single, _ = run_sequences(engine, alone(sequences, index))
        np.testing.assert_allclose(single[0], logits[index], **rounding(engine))


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", [*PACKED_CONFIGS, "deberta-v2"])
def test_another_device_than_the_current_one(models, name, precision, tmp_path):
    """Two engines of one process, each on its GPU, take turns and agree, recorded batches among theirs."""
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    models[name].save_pretrained(tmp_path)
    sequences = make_sequences([*ODD_LENGTHS, 5, 17])
    engines = [load_engine(tmp_path, device=f"cuda:{k}", precision=precision) for k in (1, 0)]
    for _ in range(3):
        far, near = (run_sequences(engine, sequences, max_batch_tokens=700)[0] for engine in engines)
        np.testing.assert_array_equal(far, near)
    if (name, precision) != ("electra", "bf16"):  # its random weights fail the self test on any GPU
        assert all(engine.packed for engine in engines), [each.description() for each in engines]
    assert [engine.description().partition("cuda:")[2][:1] for engine in engines] == ["1", "0"]
    assert torch.cuda.current_device() == 0


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("name", PACKED_CONFIGS)
def test_on_a_gpu_every_family_is_as_close_as_its_precision_allows(models, name, dtype):
    """fp32, fp16 and bf16 on the device against transformers in fp32 on the CPU; pairs and singles."""
    sequences = make_sequences(np.random.default_rng(1).integers(1, 130, 60), seed=2)
    engine = gpu_engine(extract_weights(models[name]), device="cuda", dtype=dtype)
    for some in (PAIRS, sequences):
        expected = by_transformers(models[name], some)
        for budget in (None, 700):
            logits, _ = run_sequences(engine, some, max_batch_tokens=budget)
            assert np.abs(logits - expected).max() < PRECISIONS[dtype] * max(1.0, expected.std())


@pytest.mark.gpu
@pytest.mark.parametrize("fp8", [False, True])
@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize(
    "name", ["bert", "roberta", "electra", "distilbert", "modernbert", "modernbert-mean"]
)
def test_on_a_gpu_a_deterministic_engine_gives_the_same_bits_in_any_company(name, dtype, fp8):
    """Alone, in three companies of other sizes and lengths, and in another order: the same bits."""
    if fp8 and (dtype != torch.bfloat16 or "modernbert" in name):
        pytest.skip("fp8 is for post-norm layers, with bf16 beside it")
    config = PACKED_CONFIGS[name].to_dict() | {"num_labels": 3}
    larger = {"hidden_size": 256, "intermediate_size": 1024, "dim": 256, "hidden_dim": 1024}
    if "max_position_embeddings" in config and "modernbert" in name:
        larger["max_position_embeddings"] = 4096
    config |= {key: value for key, value in larger.items() if key in config}
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(type(PACKED_CONFIGS[name])(**config)).eval()
    engine = gpu_engine(extract_weights(model), device="cuda", dtype=dtype, fp8=fp8, deterministic=True)
    assert engine.deterministic
    sequences = make_sequences([1, 2, 37, 64, 127, 200, min(500, engine.max_length)], seed=1)
    num = sequences.num_sequences
    own = np.concatenate([run_sequences(engine, alone(sequences, index))[0] for index in range(num)])
    assert own.std() > 1e-3
    assert np.isfinite(own).all()
    longest = min(4000, engine.max_length)
    companies = [[3] * 5, [longest, 1, 129], [4] * 2000 + [min(300, longest)] * 9]
    for seed, lengths in enumerate(companies):
        both = joined(sequences, make_sequences(lengths, seed=50 + seed))
        logits, _ = run_sequences(engine, both, max_batch_tokens=100 * (seed + 1))
        assert np.array_equal(logits[:num], own)
        backwards, _ = run_sequences(engine, turned_round(both))
        assert np.array_equal(backwards[::-1], logits)
        # one batch by hand, whatever run_sequences would cut
        order = np.random.default_rng(seed).permutation(num)
        ids = [alone(sequences, index).flat_ids.tolist() for index in order]
        mixed = engine.forward(pack([[5] * (seed + 1), *ids])).cpu().numpy()
        assert np.array_equal(mixed[1:], own[order])


def joined(one, other):
    """The sequences of both."""
    offsets = np.concatenate([one.offsets, other.offsets[1:] + one.offsets[-1]])
    return Sequences(flat_ids=np.concatenate([one.flat_ids, other.flat_ids]), offsets=offsets)


def turned_round(sequences):
    """The sequences, last first."""
    pieces = np.split(sequences.flat_ids, sequences.offsets[1:-1])[::-1]
    offsets = np.cumsum([0, *map(len, pieces)])
    return Sequences(flat_ids=np.concatenate(pieces), offsets=offsets)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("name", ["bert", "modernbert"])
def test_a_deterministic_engine_on_the_cpu_gives_the_same_bits_in_any_company(models, name, packed, tmp_path):
    """Alone, in company and in another order, packed or through transformers: the same bits."""
    models[name].save_pretrained(tmp_path)
    threads = torch.get_num_threads()
    engine = load_engine(tmp_path, num_threads=threads, packed=packed, deterministic=True)
    assert engine.deterministic
    assert engine.packed is packed
    sequences = joined(make_sequences([1, 2, 37, 129]), make_sequences([5] * 20 + [64], seed=2))
    together, _ = run_sequences(engine, sequences, max_batch_tokens=1000)
    backwards, _ = run_sequences(engine, turned_round(sequences), max_batch_tokens=50)
    assert np.array_equal(backwards[::-1], together)
    for index in (0, 1, 2, 3, 24):
        single, _ = run_sequences(engine, alone(sequences, index))
        assert np.array_equal(single[0], together[index])


def test_the_second_segment_matters_where_types_do(models):
    """Where the model tells token types apart, moving the boundary of a pair moves the logits."""
    for name in ("bert", "electra"):
        weights = extract_weights(models[name])
        for engine in (CpuPackedEngine(weights), gpu_engine(weights, device="cpu")):
            ids = list(range(5, 20))
            one = engine.forward(pack([ids], [[0] * 5 + [1] * 10]))
            other = engine.forward(pack([ids], [[0] * 9 + [1] * 6]))
            assert (one - other).abs().max() > 1e-3


def gpu_engines(weights):
    """The packed engine of CUDA devices on plain kernels, and on Triton's where they run."""
    kinds = ["plain"] if WHY_NOT else ["plain", "triton"]
    return [gpu_engine(weights, kernels=kind) for kind in kinds]


# and of the NaN that is looked for
@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value encountered")
@pytest.mark.parametrize("where", ["here", pytest.param("gpu", marks=pytest.mark.gpu)])
def test_a_poisoned_weight_is_never_hidden(models, where):
    """A NaN in the weights shows as NaN in the logits: no engine papers over it."""
    weights = extract_weights(models["bert"])
    weights.layers[1].down.weight.data[3, 3] = float("nan")
    try:
        engines = [CpuPackedEngine(weights), PaddedEngine(models["bert"]), *gpu_engines(weights)]
        for engine in engines:
            logits, _ = run_sequences(engine, make_sequences([4, 9]))
            assert np.isnan(logits).all()
    finally:
        weights.layers[1].down.weight.data[3, 3] = 0.1


# and of the NaN that is looked for
@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value encountered")
@pytest.mark.parametrize("where", ["here", pytest.param("gpu", marks=pytest.mark.gpu)])
def test_a_huge_id_stays_with_its_own_document(models, where):
    """One document's overflow (an infinite embedding) leaves its neighbours' logits alone."""
    model = models["bert"]
    row = model.bert.embeddings.word_embeddings.weight.data
    kept = row[7].clone()
    row[7] = float("inf")
    try:
        weights = extract_weights(model)
        for engine in (CpuPackedEngine(weights), PaddedEngine(model), *gpu_engines(weights)):
            logits = engine.forward(pack([[3, 4, 5], [3, 7, 5], [9, 4, 5], [8]]))
            assert logits.isfinite().all(dim=1).tolist() == [True, False, True, True], engine.name
    finally:
        row[7] = kept


def test_an_empty_batch_gives_no_rows(engine):
    """Zero sequences give logits of shape [0, C], without a forward pass."""
    logits, stats = run_sequences(
        engine, Sequences(flat_ids=np.zeros(0, np.uint16), offsets=np.zeros(1, np.int64))
    )
    assert logits.shape == (0, *engine.output_shape)
    assert stats.num_batches == 0


def test_it_says_what_runs(engine):
    """`description` is one line of words."""
    assert engine.description()
    assert "\n" not in engine.description()
