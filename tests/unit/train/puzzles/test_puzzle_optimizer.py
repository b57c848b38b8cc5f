"""Updates of puzzle models against the official code and against torch."""

import numpy as np
import pytest
import torch
from support.hrm import OTTER, reference, small_config, training_figures
from torch import nn

from assay.model.hrm.files import read_hrm
from assay.model.hrm.halting import Draws, Puzzles, empty_places, supervised_step
from assay.model.hrm.network import Network
from assay.train.puzzles.optimizer import Updates, rate_share, sign_step


def test_six_updates_are_those_of_the_official_code():
    """AdamATan2 for the weights and SignSGD for the puzzle embedding: losses, learning rates, norms of the weights."""
    given, figures = reference("train_otter_step300"), training_figures()["optim"]
    network = read_hrm(OTTER).network().requires_grad_()
    updates = Updates(network, kind="adam_atan2", betas=(0.9, 0.95), weight_decay=0.1)
    places = empty_places(network, 8, 81, torch.float32)
    never = Draws(uniform_B=torch.ones(8), min_steps_B=torch.full((8,), 2, dtype=torch.int32))
    for number, wanted in enumerate(figures["steps"]):
        batch = {
            name: torch.from_numpy(given[f"batch{number}_{name}"])
            for name in ("inputs", "labels", "puzzle_identifiers")
        }
        puzzles = Puzzles(
            inputs_BS=batch["inputs"], labels_BS=batch["labels"], identifiers_B=batch["puzzle_identifiers"]
        )
        found = supervised_step(network, places, puzzles, never)
        (found.losses.total / 8).backward()
        share = rate_share(number + 1, warmup_steps=2, num_steps=figures["total_steps"], min_ratio=1.0)
        assert 1e-3 * share == pytest.approx(wanted["lr"])
        updates.step(1e-3 * share)
        sign_step(
            network.puzzle_emb.weights,
            found.places.puzzles.identifiers_B,
            found.puzzle_vectors_BW.grad,
            learning_rate=1e-2 * share,
            weight_decay=0.1,
        )
        places = found.places
        assert found.losses.total.item() == pytest.approx(wanted["loss_sum"], rel=1e-3)
        assert places.halted_B.int().tolist() == wanted["halted"]
        norms = {f"model.inner.{name}": each.norm().item() for name, each in network.named_parameters()}
        assert norms == pytest.approx(wanted["param_norms"], rel=1e-4)
        assert network.puzzle_emb.weights.norm().item() == pytest.approx(wanted["puzzle_emb_norm"], rel=1e-4)
    for name, each in network.named_parameters():
        if f"optim_final_model.inner.{name}" in given:
            np.testing.assert_allclose(
                each.detach(), given[f"optim_final_model.inner.{name}"], atol=1e-3, rtol=1e-3
            )
    np.testing.assert_allclose(network.puzzle_emb.weights, given["optim_final_puzzle_emb"], atol=1e-5)


def linear() -> nn.Linear:
    """A layer whose weights need padding in the one tensor."""
    torch.manual_seed(3)
    return nn.Linear(5, 3)


def backward(module: nn.Module, step: int) -> None:
    """Gradients of a batch of that step."""
    inputs = torch.randn((4, 5), generator=torch.Generator().manual_seed(step))
    module(inputs).square().sum().backward()


def test_adamw_is_that_of_torch():
    """Decoupled decay of every weight, biases too."""
    ours, theirs = linear(), linear()
    updates = Updates(ours, kind="adamw", betas=(0.9, 0.95), weight_decay=0.1)
    reference_optimizer = torch.optim.AdamW(theirs.parameters(), lr=0.01, betas=(0.9, 0.95), weight_decay=0.1)
    for step in range(5):
        backward(ours, step)
        backward(theirs, step)
        updates.step(0.01)
        reference_optimizer.step()
        reference_optimizer.zero_grad()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other)


def test_the_running_mean_stands_in_within_and_is_gone_afterwards():
    """0.9 of the mean stays at each step; the weights themselves go on unchanged."""
    module = linear()
    updates = Updates(module, kind="adamw", betas=(0.9, 0.95), weight_decay=0.0, ema=0.9)
    wanted = module.weight.detach().clone()
    for step in range(3):
        backward(module, step)
        updates.step(0.1)
        wanted = 0.9 * wanted + 0.1 * module.weight.detach()
    own = module.weight.detach().clone()
    with updates.averaged():
        torch.testing.assert_close(module.weight.detach(), wanted)
    assert torch.equal(module.weight, own)


@pytest.mark.parametrize("ema", [None, 0.9])
def test_state_goes_on_exactly(ema):
    """An optimizer that takes over another's state makes the same next update."""
    first, second = linear(), linear()
    options = {"kind": "adam_atan2", "betas": (0.9, 0.95), "weight_decay": 0.1, "ema": ema}
    updates = Updates(first, **options)
    for step in range(3):
        backward(first, step)
        updates.step(0.1)
    second.load_state_dict(first.state_dict())
    taken = Updates(second, **options)
    taken.load_state({name: each.clone() for name, each in updates.state().items()})
    for module, optimizer in ((first, updates), (second, taken)):
        backward(module, 3)
        optimizer.step(0.1)
    with updates.averaged(), taken.averaged():
        assert torch.equal(first.weight, second.weight)


def test_rows_of_a_table_move_by_the_sign_of_their_summed_gradients():
    """Each distinct row once, its gradients summed first; rows that no puzzle used do not even decay."""
    table = torch.ones(4, 2)
    gradients = torch.tensor([[1.0, -3.0], [-2.0, 1.0], [5.0, 0.0]])
    sign_step(table, torch.tensor([1, 1, 3]), gradients, learning_rate=0.1, weight_decay=0.5)
    assert torch.equal(table[[0, 2]], torch.ones(2, 2))
    torch.testing.assert_close(table[1], torch.tensor([0.95 + 0.1, 0.95 + 0.1]))
    torch.testing.assert_close(table[3], torch.tensor([0.95 - 0.1, 0.95]))


def test_every_weight_decays_and_starts_where_it_was():
    """Becoming views of one tensor changes no weight, and a step without gradient is the decay alone."""
    torch.manual_seed(0)
    network = Network(small_config())
    before = {name: each.detach().clone() for name, each in network.named_parameters()}
    updates = Updates(network, kind="adam_atan2", betas=(0.9, 0.95), weight_decay=0.5)
    assert all(torch.equal(each, before[name]) for name, each in network.named_parameters())
    updates.step(0.1)
    for name, each in network.named_parameters():
        torch.testing.assert_close(each.detach(), before[name] * 0.95)


def test_the_learning_rate_rises_and_falls():
    """From 0 in a line, then a half cosine to the share that stays."""
    options = {"warmup_steps": 10, "num_steps": 110, "min_ratio": 0.1}
    assert rate_share(5, **options) == 0.5
    assert rate_share(10, **options) == 1
    assert rate_share(60, **options) == pytest.approx(0.55)
    assert rate_share(110, **options) == pytest.approx(0.1)
    assert rate_share(1, warmup_steps=0, num_steps=5, min_ratio=1.0) == 1
