"""The packed engine of CUDA devices: what it lays out, promises and refuses. Its logits: tests/contract."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.interpreter import WHY_NOT
from transformers import AutoModelForSequenceClassification, BertConfig, ModernBertConfig, RobertaConfig

from assay.engine import gpu
from assay.engine.fp8 import MARGIN, check_fp8, scale_for, with_scale
from assay.engine.gpu import GpuPackedEngine, choose_kernels, embedding_tables, why_not_fp8
from assay.engine.kernels.plain import FP8_MAX, PlainKernels, quantize_rows, to_fp8
from assay.engine.load import load_engine
from assay.engine.padded import PaddedEngine
from assay.engine.run import run_sequences
from assay.engine.sequences import Sequences
from assay.errors import UsageError
from assay.model.families import extract_weights
from assay.model.packing import pack

CPU = torch.device("cpu")
VOCABULARY = 90
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "num_labels": 3,
    # far from zero, so that a mix-up moves the logits
    "initializer_range": 0.3,
}
LARGER = {
    "hidden_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 1024,
    # far more, and three layers turn roundings into other logits
    "initializer_range": 0.03,
}
needs_triton = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))


def make_model(config_class=BertConfig, **changes):
    """A small random model, biases and norms away from 0 and 1."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config_class(**{**SHAPE, **changes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def make_engine(model, *, device=CPU, dtype=torch.float32, **named):
    """The engine of a model."""
    return GpuPackedEngine(extract_weights(model), device=torch.device(device), dtype=dtype, **named)


def documents(lengths, seed=0):
    """Random ids of these lengths."""
    generator = np.random.default_rng(seed)
    return [generator.integers(0, VOCABULARY, length).tolist() for length in lengths]


def as_sequences(ids):
    """Lists of ids as `run_sequences` takes them."""
    return Sequences(
        flat_ids=np.concatenate([np.array(x, dtype=np.uint16) for x in ids]),
        offsets=np.cumsum([0, *map(len, ids)]),
    )


@pytest.fixture(scope="module")
def bert():
    """A small BERT."""
    return make_model()


# --- layout


def test_the_engine_says_what_it_is(bert):
    """Sizes, family, precision and kernels; no padding is counted for its own probe."""
    engine = make_engine(bert)
    assert (engine.output_shape, engine.max_length, engine.vocab_size) == ((3,), 512, VOCABULARY)
    assert engine.packed
    assert not engine.wants_sorted
    assert engine.num_padded_tokens == 0
    for word in ("packed bert", "CPU", "float32", "plain torch"):
        assert word in engine.description()
    assert "deterministic" not in engine.description()
    assert "fp8" in make_engine(bert, fp8=True).description()


def test_no_sequences_give_no_logits(bert):
    """An empty batch is not a pass."""
    engine = make_engine(bert)
    assert engine.forward(pack([])).shape == (0, 3)
    assert engine.num_padded_tokens == 0


@pytest.mark.parametrize("config_class", [BertConfig, RobertaConfig, ModernBertConfig])
def test_the_weights_given_are_left_as_they_were(config_class):
    """Engines share weights with a model that goes on being used."""
    extra = {} if config_class is BertConfig else {"pad_token_id": 1, "bos_token_id": 1, "eos_token_id": 2}
    if config_class is ModernBertConfig:
        extra |= {"cls_token_id": 1, "sep_token_id": 2}
    model = make_model(config_class, **extra)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    engine = make_engine(model)
    engine.forward(pack(documents([3, 9])))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_batches_take_few_shapes(bert):
    """Rows are brought to steps; what is added is at most a step, and counted."""
    engine = make_engine(bert)
    for num_tokens in (1, 127, 128, 129, 5000, 8192, 8193, 20_000, 131_072):
        rows = engine._num_rows(num_tokens)
        assert num_tokens <= rows < num_tokens + 1024
    assert len({engine._num_rows(num_tokens) for num_tokens in range(1, 8193)}) <= 64
    engine.default_batch_tokens = 100_000
    assert {engine._num_rows(num_tokens) for num_tokens in range(97_001, 100_001, 7)} == {100_000}
    engine.forward(pack(documents([100, 50])))
    assert engine.num_padded_tokens == engine._num_rows(150) - 150


def test_a_deterministic_engine_has_one_shape(bert, monkeypatch):
    """All batches have as many rows, and it says what it is."""
    monkeypatch.setattr(gpu, "DETERMINISTIC_ROWS", 256)
    engine = make_engine(bert, deterministic=True)
    assert engine.deterministic
    assert "deterministic" in engine.description()
    assert engine.default_batch_tokens == 256
    assert {engine._num_rows(num_tokens) for num_tokens in range(1, 257)} == {256}
    logits, _ = run_sequences(engine, as_sequences(documents([100, 5, 200, 1])))
    expected, _ = run_sequences(make_engine(bert), as_sequences(documents([100, 5, 200, 1])))
    np.testing.assert_allclose(logits, expected, atol=1e-5, rtol=1e-5)


def test_first_tokens_in_steps_are_all_there(bert, monkeypatch):
    """More sequences than a deterministic engine takes at once in the last layer: none is lost."""
    monkeypatch.setattr(gpu, "DETERMINISTIC_ROWS", 64)
    monkeypatch.setattr(gpu, "_FIRST_ROWS", 4)
    ids = documents([1 + k % 5 for k in range(19)])
    logits = make_engine(bert, deterministic=True).forward(pack(ids))
    torch.testing.assert_close(logits, make_engine(bert).forward(pack(ids)), atol=1e-5, rtol=1e-5)


def test_type_0_is_in_the_positions():
    """Only second segments add a type's row: what it has beyond type 0's."""
    model = make_model()
    weights = extract_weights(model)
    tables, pads = embedding_tables(weights)
    assert pads is None
    torch.testing.assert_close(
        tables.positions, weights.position_embeddings + weights.token_type_embeddings[0]
    )
    torch.testing.assert_close(
        tables.positions[3] + tables.types[1],
        weights.position_embeddings[3] + weights.token_type_embeddings[1],
    )
    assert (tables.types[0] == 0.0).all()


def test_robertas_pad_row_is_behind_the_positions():
    """Pad ids inside a text take the last row, which has type 0 in it too."""
    model = make_model(
        RobertaConfig,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        type_vocab_size=1,
        max_position_embeddings=40,
    )
    weights = extract_weights(model)
    tables, pads = embedding_tables(weights)
    assert pads.pad_token_id == 1
    assert pads.pad_row == weights.position_embeddings.shape[0] == tables.positions.shape[0] - 1
    torch.testing.assert_close(
        tables.positions[pads.pad_row], weights.pad_position + weights.token_type_embeddings[0]
    )
    assert tables.types is None


def test_which_kernels(monkeypatch):
    """Plain ones on the CPU and where Triton is missing, unless asked for."""
    assert isinstance(choose_kernels(CPU, "auto"), PlainKernels)
    assert isinstance(choose_kernels(torch.device("cuda"), "plain"), PlainKernels)
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: None)
    assert isinstance(choose_kernels(torch.device("cuda"), "auto"), PlainKernels)


@needs_triton
def test_triton_kernels_where_they_can_run():
    """On a CUDA device with Triton installed, or where asked for."""
    assert choose_kernels(torch.device("cuda"), "auto").name == "Triton kernels"
    assert choose_kernels(CPU, "triton").name == "Triton kernels"


# --- fp8


@pytest.mark.parametrize("largest", [1e-9, 0.3, 1.0, 447.0, 448.0, 1e6])
def test_a_fixed_scale_leaves_a_margin(largest):
    """A power of two, with the margin and at most twice as much between what was seen and the end."""
    scale = scale_for(torch.tensor([0.0, -largest]))
    assert math.log2(scale) % 1 == 0
    assert MARGIN <= scale * FP8_MAX / max(largest, 1e-6) < 2 * MARGIN


def test_rows_in_fp8():
    """The largest value of a row is at the range's end; zeros are zeros; nothing beyond becomes NaN."""
    x = torch.tensor([[1.0, -4.0, 0.5, 0.0], [0.0] * 4, [1e-3, 2e-3, -5e-4, 0.0]])
    quantized = quantize_rows(x)
    assert quantized.values.float().abs().amax(dim=1).tolist() == [FP8_MAX, 0.0, FP8_MAX]
    torch.testing.assert_close(quantized.values.float() * quantized.scales, x, atol=0.0, rtol=0.07)
    assert to_fp8(torch.tensor([1e9, -1e9, 3.0])).float().tolist() == [FP8_MAX, -FP8_MAX, 3.0]
    shared = with_scale(quantized.values, 0.25)
    assert shared.scales.tolist() == [[0.25]] * 3


def test_which_weights_do_not_run_in_fp8():
    """Pre-norm layers and sizes that are not multiples of 16, in a few words; others do."""
    assert why_not_fp8(extract_weights(make_model(intermediate_size=256))) is None
    odd = extract_weights(make_model(intermediate_size=40))
    assert "16" in why_not_fp8(odd)
    # no whole tile of the fp8 feed-forward
    assert "256" in why_not_fp8(extract_weights(make_model(intermediate_size=128)))
    modern = make_model(
        ModernBertConfig, pad_token_id=0, bos_token_id=1, cls_token_id=1, eos_token_id=2, sep_token_id=2
    )
    assert "modernbert" in why_not_fp8(extract_weights(modern))


def test_fp8_needs_a_gpu(bert, tmp_path):
    """On the CPU it is refused in one line, with a way out."""
    bert.save_pretrained(tmp_path)
    for packed in (True, False):
        with pytest.raises(UsageError, match=r"fp8.*use ") as caught:
            load_engine(tmp_path, precision="fp8", packed=packed, num_threads=torch.get_num_threads())
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match=r"fp8.*this CPU.*bf16"):
        check_fp8(CPU)


def check_fp8_logits(device, dtype):
    """Logits of a BERT in fp8 against transformers in fp32; alone and in company."""
    model = make_model(**LARGER)
    ids = documents([1, 2, 33, 64, 127, 128, 129, *[40] * 30], seed=3)
    expected = torch.cat([PaddedEngine(model).forward(pack([x])) for x in ids])
    engine = make_engine(model, device=device, dtype=dtype, fp8=True)
    logits = engine.forward(pack(ids)).cpu()
    assert logits.dtype == torch.float32
    spread = expected.std(dim=0)
    assert spread.min() > 0.05
    # a wrong scale or a missing bias is off by the spread itself
    assert ((logits - expected).square().mean(dim=0).sqrt() < 0.15 * spread).all()
    exact = make_engine(model, device=device, dtype=dtype).forward(pack(ids)).cpu()
    # it is fp8 that ran
    assert (logits - expected).norm() > 1.5 * (exact - expected).norm()
    again = make_engine(model, device=device, dtype=dtype, fp8=True)
    again.forward(pack([[5] * 500]))
    # scales come from a batch of the engine's own, not from the first that it meets
    torch.testing.assert_close(again.forward(pack(ids)).cpu(), logits, atol=2e-2, rtol=2e-2)


def test_fp8_logits_in_plain_torch():
    """The fp8 path without a GPU: as close as 3 bits allow."""
    check_fp8_logits("cpu", torch.float32)


@pytest.mark.gpu
def test_fp8_logits_on_the_device():
    """Scaled products and fused quantization: as close as 3 bits allow."""
    check_fp8(torch.device("cuda"))
    check_fp8_logits("cuda", torch.bfloat16)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("name", ["qkv", "attention_out", "up", "down"])
def test_a_poisoned_weight_shows_in_fp8(device, name):
    """A NaN in a weight is NaN in the logits: no saturation hides it, and nothing else breaks."""
    weights = extract_weights(make_model(**LARGER))
    getattr(weights.layers[1], name).weight.data[3, 3] = float("nan")
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    engine = GpuPackedEngine(weights, device=torch.device(device), dtype=dtype, fp8=True)
    assert engine.forward(pack(documents([4, 70]))).isnan().all()


@pytest.mark.parametrize(
    ("bytes_a_row", "expected"), [(0.0, 132 * 2048), (10.0, 132 * 2048), (1e6, 32_768), (1e9, 8_192)]
)
def test_a_budget_fits_the_memory_whatever_the_probe_found(bytes_a_row, expected, monkeypatch):
    """As many rows as the processors like, or as fit into 0.4 of what is free; a probe may have found nothing."""
    card = SimpleNamespace(multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (int(100e9), int(100e9)))
    found = gpu._budget(torch.device("cuda", 0), bytes_a_row, rows_per_processor=2048)
    assert found == expected


# --- on the device


@pytest.mark.gpu
def test_a_budget_that_suits_the_device(bert):
    """Found at load from the device's processors and free memory; description names kernels and device."""
    engine = make_engine(bert, device="cuda", dtype=torch.bfloat16)
    processors = torch.cuda.get_device_properties(0).multi_processor_count
    assert engine.default_batch_tokens == processors * gpu.ROWS_PER_PROCESSOR
    assert torch.cuda.get_device_name(0) in engine.description()
    assert "Triton kernels" in engine.description()
    assert "bfloat16" in engine.description()


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("fp8", [False, True])
@pytest.mark.parametrize("has_types", [False, True])
def test_forward_does_not_wait_for_the_device(fp8, has_types):
    """Batches follow each other without a synchronization; seconds are counted when asked."""
    engine = make_engine(make_model(**LARGER), device="cuda", dtype=torch.bfloat16, fp8=fp8)
    ids = documents([1 + k % 200 for k in range(300)])
    types = [[int(place > 2) for place in range(len(x))] for x in ids] if has_types else None
    batch = pack(ids, types)
    expected = engine.forward(batch).cpu()
    # the second time that a shape is met it is captured
    engine.forward(batch)
    before = engine.device_seconds
    torch.cuda.set_sync_debug_mode("error")
    try:
        made = [engine.forward(batch) for _ in range(9)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert engine.device_seconds > before
    for logits in made:
        assert logits.is_cuda
        assert torch.equal(logits.cpu(), expected)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_forward_does_not_wait_for_the_device_in_modernbert(pooling):
    """The same with rotary positions, windows and gates."""
    model = make_model(
        ModernBertConfig,
        **{**LARGER, "num_hidden_layers": 4},
        pad_token_id=0,
        bos_token_id=1,
        cls_token_id=1,
        eos_token_id=2,
        sep_token_id=2,
        local_attention=16,
        classifier_pooling=pooling,
    )
    engine = make_engine(model, device="cuda", dtype=torch.bfloat16)
    batch = pack(documents([1 + k % 200 for k in range(300)]))
    expected = engine.forward(batch).cpu()
    engine.forward(batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        made = [engine.forward(batch) for _ in range(5)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for logits in made:
        assert torch.equal(logits.cpu(), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("max_graphs", [2, 64])
def test_graphs_give_what_a_first_pass_gives(monkeypatch, max_graphs):
    """Shapes met again, in turn, few or many of them kept: the same bits, and no logits written over."""
    from assay.engine import graphs

    monkeypatch.setattr(graphs, "MAX_GRAPHS", max_graphs)
    engine = make_engine(make_model(**LARGER), device="cuda", dtype=torch.bfloat16)
    batches = [pack(documents([1 + k % 90 for k in range(num)], seed=num)) for num in (1, 9, 40, 100, 350)]
    first = [engine.forward(batch) for batch in batches]
    rounds = [[engine.forward(batch) for batch in batches] for _ in range(4)]
    torch.cuda.synchronize()
    for made in rounds:
        for logits, expected in zip(made, first, strict=True):
            assert torch.equal(logits, expected)
    # other documents in a shape that has been met
    other = documents([1 + k % 90 for k in range(40)], seed=77)
    alone = make_engine(make_model(**LARGER), device="cuda", dtype=torch.bfloat16).forward(pack(other))
    assert torch.equal(engine.forward(pack(other)), alone)


@pytest.mark.gpu
def test_many_batches_in_flight_keep_their_rows(bert):
    """2,000 documents in small batches that are not waited for, equal to large ones."""
    engine = make_engine(bert, device="cuda")
    sequences = as_sequences(documents([1 + k % 90 for k in range(2000)]))
    small, stats = run_sequences(engine, sequences, max_batch_tokens=700)
    assert stats.num_batches > 100
    assert 0.0 < stats.forward_seconds <= stats.seconds
    large, _ = run_sequences(engine, sequences)
    np.testing.assert_allclose(small, large, atol=1e-4, rtol=1e-4)


@pytest.mark.gpu
def test_a_real_lack_of_memory_costs_no_document():
    """With little memory left to the process, batches are halved until they fit; logits are the same."""
    model = make_model(**LARGER)
    engine = make_engine(model, device="cuda", dtype=torch.bfloat16)
    sequences = as_sequences(documents([400] * 300, seed=8))
    expected, _ = run_sequences(engine, sequences, max_batch_tokens=8192)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    room = torch.cuda.memory_reserved() + 200 * 1024**2
    torch.cuda.set_per_process_memory_fraction(room / total)
    try:
        logits, stats = run_sequences(engine, sequences, max_batch_tokens=120_000)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert stats.num_batches > 1
    assert engine.default_batch_tokens < 120_000
    spread = expected.std()
    assert np.abs(logits - expected).max() < 0.1 * spread + 1e-3


@pytest.mark.gpu
@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_plain_and_triton_kernels_agree_on_the_device(dtype):
    """The fallback gives what the kernels give, within rounding."""
    model = make_model(**LARGER)
    batch = pack(documents([1, 2, 127, 128, 129, 500, *[30] * 50]))
    triton, plain = (
        make_engine(model, device="cuda", dtype=dtype, kernels=kind).forward(batch).cpu()
        for kind in ("triton", "plain")
    )
    limit = {torch.float32: 1e-4, torch.float16: 0.03, torch.bfloat16: 0.2}[dtype]
    assert ((triton - plain).abs().amax(dim=0) < limit * plain.std(dim=0)).all()


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("precision", "deterministic"),
    [("auto", False), ("fp32", False), ("fp16", True), ("bf16", False), ("fp8", False), ("fp8", True)],
)
def test_load_engine_picks_it_on_the_device(tmp_path, precision, deterministic):
    """A known family on a GPU runs packed in each precision, having passed its self test."""
    make_model(**LARGER).save_pretrained(tmp_path)
    engine = load_engine(tmp_path, device="cuda", precision=precision, deterministic=deterministic)
    assert isinstance(engine, GpuPackedEngine)
    assert engine.deterministic is deterministic
    logits, _ = run_sequences(engine, as_sequences(documents([5, 60, 1])))
    assert np.isfinite(logits).all()


@pytest.mark.gpu
def test_a_kernel_that_lies_is_found_out(tmp_path, monkeypatch):
    """Where packed logits differ from the model's own, the padded engine runs and says why."""
    make_model(**LARGER).save_pretrained(tmp_path)
    right = GpuPackedEngine.forward
    monkeypatch.setattr(GpuPackedEngine, "forward", lambda self, batch: right(self, batch) + 1.0)
    engine = load_engine(tmp_path, device="cuda", precision="bf16")
    assert isinstance(engine, PaddedEngine)
    assert "self test" in engine.description()
    with pytest.raises(UsageError, match="fp8"):
        load_engine(tmp_path, device="cuda", precision="fp8")


def test_tensors_move_at_any_depth(bert):
    """Every tensor of the weights gets the dtype; the rest is as it was."""
    weights = extract_weights(bert)
    half = gpu.moved(weights, CPU, torch.float16)
    assert half.layers[1].qkv.weight.dtype == half.head.out.bias.dtype == torch.float16
    assert half.embedding_norm.eps == weights.embedding_norm.eps
    assert dataclasses.replace(half).num_heads == weights.num_heads
    assert weights.layers[1].qkv.weight.dtype == torch.float32
