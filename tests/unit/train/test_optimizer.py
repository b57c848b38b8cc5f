"""Who decays, who learns how fast, and who does not learn at all."""

import pytest
import torch
from support.configs import PACKED_CONFIGS, PADDED_CONFIGS
from support.training import settings
from transformers import AutoModelForSequenceClassification, Trainer

from assay.errors import UsageError
from assay.train.optimizer import (
    add_lora,
    freeze,
    layer_stack,
    make_optimizer,
    parameter_groups,
    set_learning_rate,
)

CONFIGS = {
    **{name: PACKED_CONFIGS[name] for name in ("bert", "roberta", "distilbert", "electra", "modernbert")},
    "deberta-v2": PADDED_CONFIGS["deberta-v2"],
    "gpt2": PADDED_CONFIGS["gpt2"],
}
CHOSEN = settings("base", "out")
CPU = torch.device("cpu")


def make(name):
    """A random classifier of the family."""
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(CONFIGS[name])


def names_by_group(model, groups):
    """(weight decay, share of the learning rate) by name of parameter."""
    found = {}
    for group in groups:
        for each in group["params"]:
            assert id(each) not in found
            found[id(each)] = (group["weight_decay"], group["lr_share"])
    return {name: found.get(id(each)) for name, each in model.named_parameters()}


@pytest.mark.parametrize("name", CONFIGS)
def test_what_decays_is_what_decays_under_the_trainer_of_transformers(name):
    """Each parameter is in one group; biases and norms do not decay, matrices and embeddings do."""
    model = make(name)
    decaying = set(Trainer.get_decay_parameter_names(None, model))
    found = names_by_group(model, parameter_groups(model, CHOSEN))
    matrices = {key for key, each in model.named_parameters() if each.ndim > 1}
    assert {key for key, (decay, _) in found.items() if decay > 0} == matrices
    assert decaying <= matrices
    assert all(share == 1.0 for _, share in found.values())


@pytest.mark.parametrize("name", CONFIGS)
def test_layers_learn_slower_the_lower_they_are(name):
    """The head at the full rate, the top layer at 0.5 of it, each lower one at half of that, embeddings last."""
    model = make(name)
    groups = parameter_groups(model, settings("base", "out", layer_decay=0.5))
    shares = {key: share for key, (_, share) in names_by_group(model, groups).items()}
    stack, embeddings = layer_stack(model)
    by_id = {id(each): key for key, each in model.named_parameters()}
    depth = len(stack)
    for number, layer in enumerate(stack):
        assert {shares[by_id[id(each)]] for each in layer.parameters()} == {0.5 ** (depth - number)}
    assert {shares[by_id[id(each)]] for each in embeddings.parameters()} == {0.5 ** (depth + 1)}
    head = "score" if name == "gpt2" else "classifier"
    assert {share for key, share in shares.items() if key.startswith(head)} == {1.0}


def test_the_learning_rate_reaches_each_group_as_its_share():
    """As numbers, and as tensors where a recorded update reads them."""
    for can_record in (False, True):
        model = make("bert")
        chosen = settings("base", "out", layer_decay=0.5)
        optimizer = make_optimizer(parameter_groups(model, chosen), lambda own: own, CPU, can_record=False)
        if can_record:
            for group in optimizer.param_groups:
                group["lr"] = torch.zeros(())
        held = [group["lr"] for group in optimizer.param_groups]
        set_learning_rate(optimizer, 0.1)
        rates = sorted({round(float(group["lr"]), 6) for group in optimizer.param_groups})
        assert rates == [0.0125, 0.025, 0.05, 0.1]
        if can_record:
            assert all(a is group["lr"] for a, group in zip(held, optimizer.param_groups, strict=True))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_frozen_encoder_leaves_the_head(name):
    """Only parameters outside the encoder learn, and only they are in a group."""
    model = make(name)
    freeze(model, settings("base", "out", freeze_encoder=True))
    found = names_by_group(model, parameter_groups(model, CHOSEN))
    inside = {id(each) for each in model.base_model.parameters()}
    learning = {key for key, each in model.named_parameters() if each.requires_grad}
    assert learning == {key for key, each in model.named_parameters() if id(each) not in inside}
    assert learning == {key for key, value in found.items() if value is not None}
    assert learning


def test_frozen_layers_and_embeddings_are_in_no_group():
    """One of two layers frozen: the other, the pooler and the head learn."""
    model = make("bert")
    freeze(model, settings("base", "out", num_frozen_layers=1))
    found = names_by_group(model, parameter_groups(model, CHOSEN))
    still = {key for key, value in found.items() if value is None}
    assert still == {key for key in found if "embeddings" in key or "layer.0" in key}


def test_lora_beside_every_linear_layer_of_the_encoder():
    """The encoder's own weights stay; updates of rank 2 and the head learn; the rank decides their size."""
    model = make("bert")
    add_lora(model, rank=2, alpha=16)
    freeze(model, settings("base", "out", lora_rank=2))
    learning = {key: each for key, each in model.named_parameters() if each.requires_grad}
    updated = {key.split(".lora_")[0].rpartition(".layer.")[2] for key in learning if ".lora_" in key}
    for part in ("attention.self.query", "attention.self.value", "intermediate.dense", "output.dense"):
        assert {f"0.{part}", f"1.{part}"} <= updated
    assert all(2 in each.shape for key, each in learning.items() if "lora_" in key)
    assert {key for key in learning if ".lora_" not in key} == {"classifier.weight", "classifier.bias"}


def test_more_frozen_layers_than_there_are_is_refused():
    """With the number that there are."""
    with pytest.raises(UsageError, match="num_frozen_layers=9; this modernbert has 4 layers"):
        freeze(make("modernbert"), settings("base", "out", num_frozen_layers=9))
