"""Losses and halting of training against the official code."""

import numpy as np
import pytest
import torch
from support.hrm import OTTER, random_network, reference, small_config, small_trm, training_figures

from assay.model.hrm.files import read_hrm
from assay.model.hrm.halting import Draws, Puzzles, empty_places, supervised_step
from assay.model.hrm.losses import cell_losses, log_stablemax

NEVER = Draws(uniform_B=torch.ones(8), min_steps_B=torch.full((8,), 2, dtype=torch.int32))


def batch_of(given: dict[str, np.ndarray], number: int) -> Puzzles:
    """What the official loader fed."""
    return Puzzles(
        inputs_BS=torch.from_numpy(given[f"batch{number}_inputs"]),
        labels_BS=torch.from_numpy(given[f"batch{number}_labels"]),
        identifiers_B=torch.from_numpy(given[f"batch{number}_puzzle_identifiers"]),
    )


def test_the_loss_function_is_the_official_one():
    """Zeros, large values of both signs and ignored labels; float64."""
    given = reference("stablemax_unit")
    logits, labels = torch.from_numpy(given["logits"]), torch.from_numpy(given["labels"])
    np.testing.assert_allclose(log_stablemax(logits.double()).numpy(), given["log_stablemax"], rtol=1e-12)
    for kind, name, tolerance in (("stablemax", "ce", 1e-12), ("softmax", "softmax_ce", 1e-6)):
        found = cell_losses(logits, labels, loss_type=f"{kind}_cross_entropy")
        np.testing.assert_allclose(found.numpy(), given[name], rtol=tolerance)
    assert (labels == -100).any()


def test_six_steps_of_training_are_those_of_the_official_code():
    """Losses, targets, gradients, who halts and what runs next, with puzzles that come and go."""
    given, figures = reference("train_otter_step300"), training_figures()["steps"]
    network = read_hrm(OTTER).network().requires_grad_()
    places = empty_places(network, 8, 81, torch.float32)
    for number, wanted in enumerate(figures):
        network.zero_grad()
        found = supervised_step(network, places, batch_of(given, number), NEVER)
        (found.losses.total / 8).backward()
        places = found.places
        assert torch.equal(places.puzzles.inputs_BS, torch.from_numpy(given[f"current{number}_inputs"]))
        assert torch.equal(places.puzzles.labels_BS, torch.from_numpy(given[f"current{number}_labels"]))
        assert places.halted_B.int().tolist() == wanted["halted"]
        assert places.steps_B.tolist() == wanted["steps"]
        assert found.losses.total.item() == pytest.approx(wanted["loss_sum"], rel=1e-5)
        metrics = wanted["metrics"]
        assert found.losses.cells.item() == pytest.approx(metrics["lm_loss"], rel=1e-5)
        assert found.losses.halt.item() == pytest.approx(metrics["q_halt_loss"], rel=1e-5)
        assert found.losses.go_on.item() == pytest.approx(metrics["q_continue_loss"], rel=1e-5)
        counted = found.losses.counts_B & places.halted_B
        assert counted.sum().item() == metrics["count"]
        assert found.losses.right_cells_B[counted].sum().item() == pytest.approx(
            metrics["accuracy"], rel=1e-5
        )
        norms = {f"model.inner.{name}": each.grad.norm().item() for name, each in network.named_parameters()}
        assert norms == pytest.approx(wanted["grad_norms"], rel=1e-4)
        assert found.puzzle_vectors_BW.grad.norm().item() == pytest.approx(
            wanted["puzzle_emb_local_grad_norm"], rel=1e-4
        )
        for ours, theirs in (
            (found.outputs.q_halt_B, "q_halt_logits"),
            (found.outputs.q_continue_B, "q_continue_logits"),
            (found.target_q_continue_B, "target_q_continue"),
        ):
            np.testing.assert_allclose(ours.detach().numpy(), given[f"out{number}_{theirs}"], atol=1e-4)
        if number == 0:
            for name, each in network.named_parameters():
                if f"grad0_model.inner.{name}" in given:
                    np.testing.assert_allclose(each.grad, given[f"grad0_model.inner.{name}"], atol=1e-5)


def puzzles(number: int, *, seed: int = 0) -> Puzzles:
    """Random grids of 16 cells with labels."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randint(1, 6, (2, number, 16), generator=generator, dtype=torch.int32)
    return Puzzles(
        inputs_BS=cells[0], labels_BS=cells[1], identifiers_B=torch.zeros(number, dtype=torch.int32)
    )


def drawn(uniform: float, min_steps: int, number: int) -> Draws:
    """The same draws for every place."""
    return Draws(
        uniform_B=torch.full((number,), uniform),
        min_steps_B=torch.full((number,), min_steps, dtype=torch.int32),
    )


def eager_to_halt(config):
    """A model that would halt after every step."""
    network = random_network(config)
    with torch.no_grad():
        network.q_head.weight.zero_()
        network.q_head.bias.copy_(torch.tensor([1.0, -1.0]))
    return network


@pytest.mark.parametrize("config", [small_config(), small_trm()], ids=["hrm", "trm"])
def test_exploration_keeps_a_puzzle_for_the_steps_drawn(config):
    """A model that would halt at once does, unless a draw below the share makes it go on; never past the last."""
    network = eager_to_halt(config)
    places = empty_places(network, 3, 16, torch.float32)
    assert supervised_step(network, places, puzzles(3), drawn(0.5, 4, 3)).places.halted_B.all()
    for step in range(1, 5):
        places = supervised_step(network, places, puzzles(3, seed=step), drawn(0.05, 4, 3)).places
        assert places.halted_B.tolist() == [step == 4] * 3
        assert torch.equal(places.puzzles.inputs_BS, puzzles(3, seed=1).inputs_BS)


def test_draws_are_whole_numbers_from_two_to_the_last_step():
    """Both numbers are drawn from the one generator, whatever becomes of them."""
    generator = torch.Generator().manual_seed(1)
    found = Draws.draw(4000, 4, generator)
    assert set(found.min_steps_B.tolist()) == {2, 3, 4}
    assert found.uniform_B.min() >= 0
    assert found.uniform_B.max() < 1
    after = torch.Generator().manual_seed(1)
    Draws.draw(4000, 4, after)
    assert torch.equal(torch.rand(3, generator=generator), torch.rand(3, generator=after))


def test_a_trm_needs_no_second_forward():
    """With no head for going on there is no target and no loss of it."""
    network = random_network(small_trm())
    runs = []
    network.register_forward_hook(lambda *_: runs.append(1))
    found = supervised_step(
        network, empty_places(network, 2, 16, torch.float32), puzzles(2), drawn(0.5, 2, 2)
    )
    assert len(runs) == 1
    assert found.target_q_continue_B is None
    assert found.losses.go_on == 0
    assert found.losses.total.item() == pytest.approx((found.losses.cells + found.losses.halt / 2).item())
