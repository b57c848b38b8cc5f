"""Outputs of any shape go through batching and come back in order; heads of any shape fit the engines."""

import itertools
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from support.configs import PACKED_CONFIGS, VOCABULARY
from transformers import AutoModelForSequenceClassification

from assay.engine.cpu import CpuPackedEngine
from assay.engine.fake import FakeEngine
from assay.engine.gpu import GpuPackedEngine
from assay.engine.run import run_sequences
from assay.engine.sequences import Sequences
from assay.model.families import extract_weights
from assay.model.heads import Pooling
from assay.model.packing import pack
from assay.model.parts import Linear

LENGTHS = (5, 1, 33, 5, 70, 2, 128, 33)


@pytest.fixture
def sequences():
    """Documents of mixed lengths, the fourth equal to the first."""
    generator = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(LENGTHS)]).astype(np.int64)
    flat_ids = generator.integers(0, VOCABULARY, offsets[-1]).astype(np.int32)
    flat_ids[offsets[3] : offsets[4]] = flat_ids[: offsets[1]]
    return Sequences(flat_ids=flat_ids, offsets=offsets)


def one_by_one(engine, sequences):
    """The output of each sequence alone."""
    bounds = sequences.offsets.tolist()
    ids = sequences.flat_ids.tolist()
    return np.concatenate(
        [engine.forward(pack([ids[start:stop]])).cpu().numpy() for start, stop in itertools.pairwise(bounds)]
    )


class SortingFake(FakeEngine):
    """A fake whose batches are of like lengths, so that order must be restored."""

    wants_sorted = True


@pytest.mark.parametrize("shape", [(), (3,), (384,), (81, 11), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("kind", [FakeEngine, SortingFake])
@pytest.mark.parametrize("budget", [1, 64, None])
def test_outputs_of_any_shape_come_back_in_order(sequences, shape, kind, budget):
    """A number, logits, an embedding, a grid: whatever the batches, each row is its sequence's, duplicates too."""
    engine = kind(output_shape=shape)
    outputs, stats = run_sequences(engine, sequences, max_batch_tokens=budget)
    assert outputs.shape == (len(LENGTHS), *shape)
    assert stats.num_duplicates == 1
    np.testing.assert_array_equal(outputs, one_by_one(engine, sequences))
    assert len(np.unique(outputs.reshape(len(LENGTHS), -1), axis=0)) == len(LENGTHS) - 1


def test_no_sequences_have_outputs_of_the_shape(sequences):
    """Nothing in, an empty array of the right shape out."""
    none = replace(sequences, offsets=sequences.offsets[:1])
    outputs, _ = run_sequences(FakeEngine(output_shape=(81, 11)), none)
    assert outputs.shape == (0, 81, 11)


@dataclass(frozen=True, kw_only=True, slots=True)
class GridHead:
    """A head of its own shape: a projection of what is pooled, folded into a grid."""

    pooling: Pooling
    out: Linear
    output_shape: tuple[int, ...]

    def __call__(self, pooled_NH):
        return F.linear(pooled_NH, self.out.weight, self.out.bias).unflatten(1, self.output_shape)


@pytest.mark.parametrize("pooling", ["first", "mean"])
@pytest.mark.parametrize("shape", [(16,), (81, 11)], ids=str)
@pytest.mark.parametrize("make", [CpuPackedEngine, "gpu-plain"], ids=["cpu", "gpu-plain"])
def test_a_head_of_another_shape_fits_a_packed_engine(sequences, make, shape, pooling):
    """An embedding [D] and a grid [81, 11] need nothing but the head's own value, whichever way it pools."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = AutoModelForSequenceClassification.from_config(PACKED_CONFIGS["bert"]).eval()
    weights = extract_weights(model)
    out = Linear(weight=torch.randn(int(np.prod(shape)), 32), bias=torch.randn(int(np.prod(shape))))
    head = GridHead(pooling=pooling, out=out, output_shape=shape)
    weights = replace(weights, head=head)
    if make == "gpu-plain":
        engine = GpuPackedEngine(weights, device=torch.device("cpu"), dtype=torch.float32, kernels="plain")
    else:
        engine = make(weights)
    assert engine.output_shape == shape
    outputs, _ = run_sequences(engine, sequences, max_batch_tokens=64)
    bounds = sequences.offsets.tolist()
    for row, (start, stop) in enumerate(itertools.pairwise(bounds)):
        ids = torch.from_numpy(sequences.flat_ids[None, start:stop]).long()
        with torch.inference_mode():
            hidden_1TH = model.bert(input_ids=ids).last_hidden_state
            pooled = hidden_1TH[:, 0] if pooling == "first" else hidden_1TH.mean(dim=1)
            expected = head(pooled)[0].numpy()
        np.testing.assert_allclose(outputs[row], expected, atol=1e-4, rtol=1e-4)
