"""Throughput figures: the arithmetic counted, the shapes read from configs, the shares of time and ceiling."""

import itertools

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    CamembertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from assay.engine import measure as measure_module
from assay.engine.fake import FakeEngine
from assay.engine.measure import (
    ModelShape,
    flops,
    matmul_ceiling,
    measure,
    median,
    model_shape,
    throughput,
    with_ceiling,
)
from assay.engine.sequences import Sequences

SHAPE = ModelShape(hidden_size=6, intermediate_size=10, num_layers=3)


def sequences_of(*lengths):
    """Sequences of these lengths, their ids all alike."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Sequences(flat_ids=np.ones(offsets[-1], dtype=np.int32), offsets=offsets)


class BusyEngine(FakeEngine):
    """An engine that says how long its device worked: half a second a batch."""

    device_seconds = 0.0

    def forward(self, batch):
        self.device_seconds += 0.5
        self.num_padded_tokens = self.num_padded_tokens + batch.num_tokens
        return super().forward(batch)


# ------------------------------------------------------------ arithmetic


def test_the_arithmetic_is_that_of_a_plain_encoder():
    """Four square products, two of the feed-forward and both of attention, a layer; RoBERTa-base by hand."""
    lengths = np.array([1, 5])
    by_hand = sum(3 * (2 * L * (4 * 6 * 6 + 2 * 6 * 10) + 4 * L * L * 6) for L in (1, 5))
    assert flops(lengths, SHAPE) == by_hand
    base = model_shape(RobertaConfig())
    assert flops(np.array([228]), base) == pytest.approx(12 * (2 * 228 * 12 * 768**2 + 4 * 228**2 * 768))


def test_a_gate_is_a_third_product():
    """A gated feed-forward counts three products."""
    gated = ModelShape(hidden_size=6, intermediate_size=10, num_layers=3, gated=True)
    assert flops(np.array([7]), gated) - flops(np.array([7]), SHAPE) == 3 * 2 * 7 * 6 * 10


@pytest.mark.parametrize("length", [1, 2, 4, 5, 6, 9, 40])
def test_a_window_counts_the_pairs_that_see_each_other(length):
    """Local layers count the pairs at most a window apart, global ones all pairs."""
    window = 4
    local = ModelShape(hidden_size=1, intermediate_size=0, num_layers=2, windows=(None, window))
    pairs = sum(abs(i - j) <= window for i, j in itertools.product(range(length), repeat=2))
    products = 2 * 2 * length * 4
    assert flops(np.array([length]), local) == products + 4 * (length**2 + pairs)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (BertConfig(), (768, 3072, 12)),
        (RobertaConfig(hidden_size=1024, num_hidden_layers=24, intermediate_size=4096), (1024, 4096, 24)),
        (XLMRobertaConfig(), (768, 3072, 12)),
        (CamembertConfig(), (768, 3072, 12)),
        (DistilBertConfig(), (768, 3072, 6)),
        (ElectraConfig(), (256, 1024, 12)),
        (ModernBertConfig(), (768, 1152, 22)),
        (DebertaV2Config(hidden_size=768, num_hidden_layers=12, intermediate_size=3072), (768, 3072, 12)),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_the_shape_of_each_family(config, expected):
    """Hidden size, intermediate size and layers are read under the names that each family gives them."""
    found = model_shape(config)
    assert (found.hidden_size, found.intermediate_size, found.num_layers) == expected
    assert found.gated == (config.model_type == "modernbert")
    assert found.windows == ()


def test_windows_are_counted_where_asked_for():
    """ModernBERT's local layers are known, one in three being global; BERT has none."""
    config = ModernBertConfig()
    found = model_shape(config, windows=True)
    assert len(found.windows) == config.num_hidden_layers
    assert found.windows[:4] == (None, config.sliding_window, config.sliding_window, None)
    assert model_shape(BertConfig(), windows=True).windows == ()


# ------------------------------------------------------------ ceiling


def test_the_ceiling_is_a_rate():
    """A product on the CPU gives a finite rate; 8-bit floats have none there."""
    rate = matmul_ceiling(torch.device("cpu"), torch.float32, size=64, readings=2)
    assert rate is not None
    assert 0 < rate < 1e3
    assert matmul_ceiling(torch.device("cpu"), torch.float8_e4m3fn, size=64) is None


# ------------------------------------------------------------ figures


def test_the_figures_of_a_pass():
    """Rates are a second of wall time; padding is a share of what was computed, idle of the time."""
    lengths = np.array([10, 30])
    one = throughput(
        2.0, lengths, num_padded_tokens=10, busy_seconds=1.5, shape=SHAPE, ceiling=1e-8, num_documents=1
    )
    assert (one.num_documents, one.num_tokens) == (1, 40)
    assert (one.docs_per_second, one.tokens_per_second) == (0.5, 20)
    assert one.teraflops == pytest.approx(flops(lengths, SHAPE) / 2 / 1e12)
    assert one.ceiling_share == pytest.approx(one.teraflops / 1e-8)
    assert (one.padding_waste, one.idle_share) == (0.2, 0.25)


def test_what_is_not_known_is_none():
    """Without a shape, a ceiling or a device's clock there is no figure, rather than a wrong one."""
    one = throughput(1.0, np.array([4]))
    assert (one.teraflops, one.ceiling_share, one.idle_share, one.padding_waste) == (None, None, None, 0.0)
    assert throughput(1.0, np.array([4]), shape=SHAPE).ceiling_share is None
    assert throughput(1.0, np.array([4]), busy_seconds=1.001).idle_share == 0.0
    assert one.to_json()["teraflops"] is None


def test_a_ceiling_may_come_after_the_passes():
    """A ceiling measured later gives the same shares as one known before."""
    known = throughput(2.0, np.array([9]), shape=SHAPE, ceiling=1e-6)
    later = throughput(2.0, np.array([9]), shape=SHAPE)
    assert with_ceiling([later], 1e-6) == [known]
    assert with_ceiling([known], None) == [later]


def test_measure_gives_one_figure_a_round(monkeypatch):
    """Warm-up does not count; padding and the device's seconds are those of the pass alone."""
    now = itertools.count()
    monkeypatch.setattr(measure_module.time, "perf_counter", lambda: float(next(now)))
    engine = BusyEngine()
    passes = measure(engine, sequences_of(3, 4, 5), rounds=2, warmup=1, shape=SHAPE, max_batch_tokens=100)
    assert len(passes) == 2
    for one in passes:
        assert (one.num_documents, one.num_tokens, one.padding_waste) == (3, 12, 0.5)
        assert one.idle_share == pytest.approx(1 - 0.5 / one.seconds)
    assert engine.device_seconds == 1.5


def test_measure_runs_equal_sequences_each_time():
    """Duplicates go through the engine: none is saved."""
    engine = BusyEngine()
    measure(engine, sequences_of(4, 4, 4), rounds=1, warmup=0, max_batch_tokens=4)
    assert engine.device_seconds == 1.5


def test_an_engine_without_a_clock_has_no_idle_share():
    """Where `forward` itself waits for the device nobody knows how long it idled."""
    (one,) = measure(FakeEngine(), sequences_of(4, 2), rounds=1, warmup=0)
    assert one.idle_share is None


def test_the_median_pass_is_one_that_happened():
    """Of three the middle one, of two the slower."""
    fast, middle, slow = (throughput(seconds, np.array([1])) for seconds in (1.0, 2.0, 9.0))
    assert median([slow, fast, middle]) is middle
    assert median([fast, slow]) is slow
