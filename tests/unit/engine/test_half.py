"""Whether a model holds in fp16, and what becomes of the rows of one that does not."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.configs import PACKED_CONFIGS, PADDED_CONFIGS, SHAPE
from transformers import AutoModelForSequenceClassification, BertConfig

from assay.engine import half, ranges
from assay.engine.engine import in_fp32
from assay.engine.half import LARGEST, MARGIN, out_of_range, why_not_fp16
from assay.engine.load import load_engine
from assay.engine.ranges import Watch
from assay.engine.run import run_sequences
from assay.engine.sequences import Sequences
from assay.errors import WorkError
from assay.model.checkpoint import read_checkpoint

pytestmark = pytest.mark.usefixtures("kept_threads")

LARGER = SHAPE | {
    "vocab_size": 5_000,
    "hidden_size": 256,
    "intermediate_size": 1024,
    "initializer_range": 0.03,
}
"""For a GPU's kernels, whose self test does not meet the token."""
LOUD = 7
"""The token whose embedding fp16 cannot hold."""


def save(folder, config=None, **changed):
    """A tiny classifier with random weights, of which those that end in a name of `changed` are made larger."""
    torch.manual_seed(0)
    made = AutoModelForSequenceClassification.from_config(config or BertConfig(**SHAPE))
    made.save_pretrained(folder)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    for ending, factor in changed.items():
        (name,) = [name for name in tensors if name.endswith(ending.replace("__", "."))]
        tensors[name] *= factor
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def loud(tmp_path_factory):
    """A classifier that gives NaN in fp16 for texts with one token."""
    folder = save(tmp_path_factory.mktemp("loud"))
    tensors = load_file(folder / "model.safetensors")
    tensors["bert.embeddings.word_embeddings.weight"][LOUD] *= 1e6
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def sequences_of(*lists):
    """Sequences from lists of ids."""
    return Sequences(
        flat_ids=np.array([i for x in lists for i in x], dtype=np.int32),
        offsets=np.concatenate([[0], np.cumsum([len(x) for x in lists])]).astype(np.int64),
    )


# ---------------------------------------------------------------- what is chosen


@pytest.mark.parametrize("name", [*PACKED_CONFIGS, "mpnet", "gpt2"])
def test_small_models_of_every_family_hold(tmp_path, name):
    """Nothing of a mask, of padding or of a buffer is taken for an activation."""
    config = {**PACKED_CONFIGS, **PADDED_CONFIGS}[name]
    assert why_not_fp16(read_checkpoint(save(tmp_path, config))) is None


@pytest.mark.parametrize("headless", [False, True])
def test_weights_and_activations_are_looked_at(tmp_path, headless):
    """A weight beyond the range is a reason; so is what weights within it make of a document."""
    holds = read_checkpoint(save(tmp_path / "holds"))
    weights = read_checkpoint(save(tmp_path / "weights", encoder__layer__0__output__dense__weight=1e7))
    norms = {"embeddings__LayerNorm__weight": 1e4, "encoder__layer__0__attention__self__value__weight": 1e2}
    activations = read_checkpoint(save(tmp_path / "activations", **norms))
    assert why_not_fp16(holds, headless=headless) is None
    assert "its weights reach" in why_not_fp16(weights, headless=headless)
    assert "its activations reach" in why_not_fp16(activations, headless=headless)


def test_a_head_counts_where_it_is_run(tmp_path):
    """What a classifier's head overflows in is no reason for vectors of the encoder."""
    checkpoint = read_checkpoint(save(tmp_path, classifier__weight=1e7))
    assert "weights" in why_not_fp16(checkpoint)
    assert why_not_fp16(checkpoint, headless=True) is None


def test_it_is_measured_once(tmp_path, monkeypatch):
    """What is noted of these very files is believed; other files are another model."""
    calls, measure = [], ranges.measure_ranges

    def counted(checkpoint, *, headless):
        calls.append(checkpoint.path.name)
        return measure(checkpoint, headless=headless)

    monkeypatch.setattr(ranges, "measure_ranges", counted)
    folder = save(tmp_path / "one")
    assert [why_not_fp16(read_checkpoint(folder)) for _ in range(2)] == [None, None]
    assert calls == ["one"]
    save(folder, encoder__layer__0__output__dense__weight=1e7)
    assert "weights" in why_not_fp16(read_checkpoint(folder))
    assert calls == ["one", "one"]


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), LARGEST / MARGIN * 1.01])
def test_what_is_not_known_to_hold_does_not(value):
    """A margin is kept, and a number that could not be had is no proof."""
    assert out_of_range({"weights": 1.0, "activations": LARGEST / MARGIN}) is None
    assert "activations" in out_of_range({"weights": 1.0, "activations": value})


def test_nan_is_larger_than_any_number():
    """A model that gives NaN is not taken for one of small activations."""
    watch = Watch()
    watch._see(None, (torch.tensor([1.0]),), torch.tensor([float("nan"), 2.0]))
    watch._see(None, (torch.tensor([5.0]),), None)
    assert not np.isfinite(watch.largest())
    assert "activations" in out_of_range({"activations": watch.largest()})


def test_first_reason_is_that_of_any_of_several(tmp_path):
    """Models that compute together take fp16 where all hold."""
    fine = read_checkpoint(save(tmp_path / "fine"))
    large = read_checkpoint(save(tmp_path / "large", classifier__weight=1e7))
    assert half.first_reason([fine, fine]) is None
    assert "weights" in half.first_reason([fine, large])


# ---------------------------------------------------------------- rows that overflow


@pytest.mark.parametrize("deduplicate", [True, False])
def test_what_is_not_finite_runs_again_in_fp32(loud, deduplicate):
    """Those rows have fp32's numbers to the bit, are named in their order, and no other row is touched."""
    lists = [[1, 2], [3, LOUD, 4], [5], [3, LOUD, 4], [LOUD]]
    fp16, fp32 = load_engine(loud, precision="fp16"), load_engine(loud, packed=False)
    found, stats = run_sequences(fp16, sequences_of(*lists), deduplicate=deduplicate)
    assert stats.fp32_sequences.tolist() == [1, 3, 4]
    exact, plain = run_sequences(fp32, sequences_of(*lists))
    assert plain.fp32_sequences.tolist() == []
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[[1, 3, 4]], exact[[1, 3, 4]], atol=1e-5)
    assert (found[[0, 2]] != exact[[0, 2]]).any()
    np.testing.assert_allclose(found, exact, atol=0.05)


def test_fp32_is_not_loaded_for_rows_that_hold(loud, monkeypatch):
    """A second copy of the weights is there for those that need it."""
    engine = load_engine(loud, precision="fp16")
    monkeypatch.setattr(engine, "fp32", lambda: pytest.fail("loaded"))
    found, stats = run_sequences(engine, sequences_of([1, 2], [3]))
    assert np.isfinite(found).all()
    assert not len(stats.fp32_sequences)


def test_what_fp32_gives_no_number_for_stays_as_it_is(tmp_path):
    """A model of NaN cannot be helped: its rows are not counted as run again, and become rows with an error."""
    engine = load_engine(save(tmp_path, classifier__bias=float("nan")), precision="fp16")
    found, stats = run_sequences(engine, sequences_of([1, 2], [3]))
    assert np.isnan(found).all()
    assert not len(stats.fp32_sequences)


def test_a_device_without_room_for_fp32_says_what_to_do(loud, monkeypatch):
    """The weights in fp32 lie beside those in fp16."""

    def full():
        raise torch.OutOfMemoryError

    engine = load_engine(loud, precision="fp16")
    monkeypatch.setattr(engine, "fp32", full)
    with pytest.raises(
        WorkError, match=r"1 document gave numbers that are not finite, .* use --precision bf16"
    ):
        run_sequences(engine, sequences_of([1], [LOUD]))


# ---------------------------------------------------------------- on a GPU


@pytest.mark.gpu
def test_auto_takes_fp16_where_it_holds_and_bf16_where_not(tmp_path, caplog):
    """By the model's own numbers, said on the log where it is bf16."""
    holds = load_engine(save(tmp_path / "holds", BertConfig(**LARGER)), device="cuda")
    assert ", float16, " in holds.description()
    assert not caplog.records
    large = save(tmp_path / "large", BertConfig(**LARGER), encoder__layer__0__output__dense__weight=1e7)
    assert "bfloat16" in load_engine(large, device="cuda").description()
    assert "numbers are in bf16, not fp16: its weights reach" in caplog.text


@pytest.mark.gpu
@pytest.mark.parametrize("deterministic", [False, True])
def test_the_engine_in_fp32_is_on_the_same_device(tmp_path, deterministic):
    """The packed kernels in fp32, beside the engine in fp16: rows that overflow there have finite numbers."""
    folder = save(tmp_path, BertConfig(**LARGER))
    tensors = load_file(folder / "model.safetensors")
    tensors["bert.embeddings.word_embeddings.weight"][LOUD] *= 1e7
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    engine = load_engine(folder, device="cuda", precision="fp16", deterministic=deterministic)
    lists = [[1, 2], [3, LOUD, 4], [5] * 40, [LOUD]]
    found, stats = run_sequences(engine, sequences_of(*lists))
    assert stats.fp32_sequences.tolist() == [1, 3]
    exact_engine = in_fp32(engine)
    assert (exact_engine.name, exact_engine.deterministic) == ("gpu-packed", deterministic)
    assert ", float32, " in exact_engine.description()
    exact, _ = run_sequences(load_engine(folder, packed=False), sequences_of(*lists))
    np.testing.assert_allclose(found[[1, 3]], exact[[1, 3]], atol=1e-3)
    np.testing.assert_allclose(found, exact, atol=0.05)
