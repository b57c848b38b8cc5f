"""Tensors in parts: spread, put together, clipped and loaded as whole ones are."""

import os

import numpy as np
import pytest
import torch
import torch.distributed as dist
from support.configs import PACKED_CONFIGS
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import AutoModelForSequenceClassification

from assay.tasks import Task
from assay.train.inputs import EncodedRows, host_batch
from assay.train.model import make_classifier, state_for_saving
from assay.train.objective import TaskLoss
from assay.train.optimizer import layer_stack
from assay.train.sharded import ShardedGradients, load_tensors, shard, spread_like, whole, wholes
from assay.train.world import World

SEED = torch.zeros(1, dtype=torch.int64)
WORLD = World(rank=0, world_size=1, local_rank=0, device=torch.device("cpu"))


@pytest.fixture(autouse=True, scope="module")
def _group(tmp_path_factory):
    """A group of one rank."""
    store = dist.FileStore(os.fspath(tmp_path_factory.mktemp("store") / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def make(dtype=torch.float32):
    """A model, and it as a sharded classifier."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(PACKED_CONFIGS["bert"])
    before = {name: each.detach().clone() for name, each in model.named_parameters()}
    classifier = make_classifier(model, dtype=dtype, gradient_checkpointing=False)
    shard(classifier, layer_stack(model)[0], world=WORLD, dtype=dtype)
    return model, classifier, before


def test_a_sharded_model_has_the_weights_it_had():
    """Every parameter lies in parts; put together they are the weights, under the names of transformers."""
    _, classifier, before = make()
    assert all(isinstance(each, DTensor) for each in classifier.parameters())
    found = wholes(state_for_saving(classifier))
    assert not [name for name, each in before.items() if not torch.equal(found[name], each)]
    assert not any(isinstance(each, DTensor) for each in found.values())


def make_batch(classifier):
    """Two documents of six and four tokens."""
    rows = EncodedRows(
        flat_ids=np.arange(5, 15, dtype=np.int32),
        offsets=np.array([0, 6, 10]),
        second_starts=None,
        targets=np.array([0, 1]),
        weights=np.ones(2, dtype=np.float32),
        num_truncated=0,
    )
    return host_batch(rows, np.arange(2), classifier.layout, total_weight=2.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_between_passes_everything_is_in_parts(dtype):
    """After a look at validation rows too, and in float32: a copy of the weights loses nothing."""
    _, classifier, before = make(dtype)
    with torch.no_grad():
        classifier.eval()(make_batch(classifier), SEED)
    for name, each in classifier.named_parameters():
        assert isinstance(each, DTensor), name
        assert torch.equal(whole(each), before[name.removeprefix("model.")])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_are_those_of_the_whole_model(dtype):
    """In bf16 too, of which gradients in float32 come; two passes add up."""
    torch.manual_seed(0)
    config = type(PACKED_CONFIGS["bert"]).from_dict(
        {**PACKED_CONFIGS["bert"].to_dict(), "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    )
    model, same = (AutoModelForSequenceClassification.from_config(config) for _ in range(2))
    same.load_state_dict(model.state_dict())
    found = []
    for each, is_sharded in ((model, True), (same, False)):
        classifier = make_classifier(each, dtype=dtype, gradient_checkpointing=False).train()
        gradients = None
        if is_sharded:
            shard(classifier, layer_stack(each)[0], world=WORLD, dtype=dtype)
            gradients = ShardedGradients(classifier, dict(classifier.named_parameters()))
        for is_last in (False, True):
            if gradients is not None:
                gradients.begin_pass(is_last=is_last)
            batch = make_batch(classifier)
            losses = TaskLoss(task=Task.SINGLE_LABEL).of_documents(classifier(batch, SEED), batch.targets)
            torch.dot(losses, batch.weights_S).backward()
        found.append({name: whole(value.grad) for name, value in each.named_parameters()})
    tolerance = 1e-5 if dtype == torch.float32 else 0.1
    for name, expected in found[1].items():
        assert found[0][name].dtype == torch.float32
        far = (found[0][name] - expected).norm() / expected.norm().clamp(min=1e-2)
        assert far < tolerance, name


def test_loading_reaches_the_parts():
    """Whole tensors, and parts as they lie, are what the model then is."""
    _, classifier, _ = make()
    wanted = {name: torch.randn(each.shape) for name, each in classifier.named_parameters()}
    load_tensors(classifier, wanted)
    parts = {name: each.detach().clone() for name, each in classifier.named_parameters()}
    load_tensors(classifier, {name: torch.zeros_like(each) for name, each in wanted.items()})
    load_tensors(classifier, parts)
    assert all(torch.equal(whole(each), wanted[name]) for name, each in classifier.named_parameters())


def test_a_tensor_of_another_shape_is_left_whole():
    """The step count of an optimizer is not part of a parameter."""
    parameter = next(make()[1].parameters())
    assert isinstance(spread_like(torch.zeros(parameter.shape), parameter), DTensor)
    assert not isinstance(spread_like(torch.zeros(()), parameter), DTensor)
    plain = torch.zeros(3)
    assert whole(spread_like(torch.ones(3), plain)).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_clipping_is_torchs(max_norm):
    """The norm is that of all parts, before; gradients are scaled down to the largest norm, never up."""
    _, classifier, _ = make()
    parameters = list(classifier.parameters())
    plain = [nn.Parameter(torch.zeros(each.shape)) for each in parameters]
    for number, (each, same) in enumerate(zip(parameters, plain, strict=True)):
        same.grad = torch.full(same.shape, 0.01 * (number + 1))
        each.grad = spread_like(same.grad.clone(), each)
    gradients = ShardedGradients(classifier, dict(classifier.named_parameters()))
    optimizer = torch.optim.AdamW(parameters)
    norm = gradients.clip(max_norm, optimizer)
    expected = nn.utils.clip_grad_norm_(plain, max_norm)
    assert norm.item() == pytest.approx(expected.item(), rel=1e-5)
    for each, same in zip(parameters, plain, strict=True):
        torch.testing.assert_close(whole(each.grad), same.grad, rtol=1e-4, atol=1e-7)
    gradients.update(optimizer)
    assert all(each.grad is None for each in parameters)


def test_a_checkpoint_keeps_the_state_that_it_was_given():
    """What goes to the disk beside the training is a copy, step counts among it."""
    _, classifier, _ = make()
    parameters = dict(classifier.named_parameters())
    for each in parameters.values():
        each.grad = torch.ones_like(each)
    gradients = ShardedGradients(classifier, parameters)
    optimizer = torch.optim.AdamW(parameters.values(), lr=0.1)
    optimizer.step()
    found = gradients.state_of(optimizer)
    before = {key: each.clone() for key, each in found.items()}
    optimizer.step()
    assert all(torch.equal(found[key], each) for key, each in before.items())
    gradients.load_state(optimizer, found)
    again = gradients.state_of(optimizer)
    assert found.keys() == again.keys()
    assert all(torch.equal(again[key], each) for key, each in before.items())
