"""The forward pass of HRM and TRM against the official code's outputs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from support.hrm import GIVEN, LARGER, OTTER, needs_larger, random_network, reference, small_config, small_trm

from assay.model.hrm.files import read_hrm
from assay.model.hrm.network import Network, truncated_normal

CLOSE = 1e-4
GAP = 2e-4
"""Between the two best logits, above which the best must be the same."""
HERON = Path("checkpoints/Sudoku-tiny ACT-torch/HierarchicalReasoningModel_ACTV1 brisk-heron")


def compare(path: Path, name: str, root: Path) -> None:
    """Every step's logits and halting scores are the official ones, and so is each cell that is not a tie."""
    network, wanted = read_hrm(path).network(), reference(name, root=root)
    vectors = network.puzzle_vectors(torch.from_numpy(wanted["puzzle_identifiers"]))
    carry = network.first_carry(8, 81, torch.float32)
    for step, logits in enumerate(wanted["logits"]):
        with torch.no_grad():
            carry, outputs = network(carry, torch.from_numpy(wanted["inputs"]), vectors)
        np.testing.assert_allclose(outputs.logits_BSV.numpy(), logits, atol=CLOSE, rtol=0)
        np.testing.assert_allclose(outputs.q_halt_B.numpy(), wanted["q_halt"][step], atol=CLOSE, rtol=0)
        np.testing.assert_allclose(
            outputs.q_continue_B.numpy(), wanted["q_continue"][step], atol=CLOSE, rtol=0
        )
        best = np.sort(logits, -1)
        clear = best[..., -1] - best[..., -2] > GAP
        assert clear.mean() > 0.99
        assert (outputs.logits_BSV.argmax(-1).numpy() == wanted["predictions"][step])[clear].all()
    np.testing.assert_allclose(carry.z_H[:, 0].numpy(), wanted["z_H_last_pos0"], atol=CLOSE)
    np.testing.assert_allclose(carry.z_L[:, 0].numpy(), wanted["z_L_last_pos0"], atol=CLOSE)


def test_four_steps_are_those_of_the_official_code():
    """In float32, with a checkpoint in the official layout."""
    compare(OTTER, "eval_otter_step300", GIVEN)


@needs_larger
@pytest.mark.parametrize(("file", "name"), [("step_9", "eval_heron_step9"), (".", "eval_heron_step10")])
def test_other_checkpoints_are_those_of_the_official_code(file, name):
    """One with keys of a model that was not compiled, and a folder that means its largest step."""
    compare(Path(str(LARGER)) / HERON / file, name, Path(str(LARGER)))


def test_bfloat16_rounds_where_the_official_code_does():
    """The mean difference stays far below that of a forward that rounds elsewhere."""
    network, wanted = read_hrm(OTTER).network(), reference("eval_otter_step300")
    vectors = network.puzzle_vectors(torch.zeros(8, dtype=torch.int64))
    carry = network.first_carry(8, 81, torch.bfloat16)
    for step in range(4):
        with torch.no_grad():
            carry, outputs = network(carry, torch.from_numpy(wanted["inputs"]), vectors)
        assert carry.z_H.dtype == outputs.logits_BSV.dtype == torch.bfloat16
        found = outputs.logits_BSV.float().numpy()
        assert np.abs(found - wanted["bf16_logits"][step]).mean() < (0.01 if step == 0 else 0.1)
        assert np.abs(found - wanted["logits"][step]).max() > 0, "float32 in disguise"


def test_a_step_can_be_split_in_two():
    """The carry holds all that the next step needs, so a step is the same after a break."""
    network = random_network(small_config())
    inputs = torch.randint(0, 6, (3, 16))
    vectors = network.puzzle_vectors(torch.zeros(3, dtype=torch.int64))
    carry = network.first_carry(3, 16, torch.float32)
    first, _ = network(carry, inputs, vectors)
    again, _ = network(network.first_carry(3, 16, torch.float32), inputs, vectors)
    assert torch.equal(first.z_H, again.z_H)
    assert not first.z_H.requires_grad


CASES = {
    "hrm": small_config(),
    "hrm with learned positions": small_config(pos_encodings="learned"),
    "hrm without puzzle embedding": small_config(puzzle_emb_ndim=0, puzzle_emb_len=0),
    "trm": small_trm(),
    "trm over positions": small_trm(mlp_t=True),
    "trm without positions": small_trm(pos_encodings="none"),
}


@pytest.mark.parametrize("config", CASES.values(), ids=CASES.keys())
def test_tensors_are_named_and_shaped_as_the_configuration_says(config):
    """What files are checked against is what the module has."""
    network = Network(config)
    assert {name: tuple(each.shape) for name, each in network.state_dict().items()} == config.shapes()


@pytest.mark.parametrize("config", CASES.values(), ids=CASES.keys())
def test_a_puzzle_does_not_depend_on_its_neighbours(config):
    """The same puzzle beside others, at the same batch size."""
    network = random_network(config)
    inputs = torch.randint(0, 6, (4, 16))
    other = inputs.clone()
    other[1:] = torch.randint(0, 6, (3, 16))
    results = []
    for batch in (inputs, other):
        carry = network.first_carry(4, 16, torch.float32)
        for _ in range(2):
            carry, outputs = network(carry, batch, network.puzzle_vectors(torch.zeros(4, dtype=torch.int64)))
        results.append(outputs.logits_BSV[0])
    assert torch.equal(*results)
    assert results[0].shape == (16, 6)


def reached(network: Network) -> set[str]:
    """Parameters that a step's logits send gradients to."""
    inputs = torch.randint(0, 6, (2, 16))
    carry = network.first_carry(2, 16, torch.float32)
    _, outputs = network(carry, inputs, network.puzzle_vectors(torch.zeros(2, dtype=torch.int64)))
    (outputs.logits_BSV.sum() + outputs.q_halt_B.sum()).backward()
    return {name for name, each in network.named_parameters() if each.grad is not None and each.grad.any()}


@pytest.mark.parametrize("config", [small_config(), small_trm(mlp_t=True)], ids=["hrm", "trm"])
def test_every_parameter_learns(config):
    """A step's gradients reach all of the model."""
    network = random_network(config)
    assert reached(network) == {name for name, _ in network.named_parameters()}


@pytest.mark.parametrize(
    ("config", "wanted"), [(small_config(), [0, 0, 0, 0, 1, 1]), (small_trm(), [0, 0, 0, 0, 1, 1, 1, 1])]
)
def test_gradients_flow_through_the_last_updates_alone(config, wanted):
    """HRM: one fast and one slow update; TRM: all updates of the last cycle."""
    network = random_network(config)
    seen = []
    for level in {network.L_level, network.slow_level}:
        level.register_forward_hook(lambda _module, _given, out: seen.append(int(out.requires_grad)))
    inputs, vectors = torch.zeros((1, 16), dtype=torch.int32), torch.zeros((1, 32))
    network(network.first_carry(1, 16, torch.float32), inputs, vectors)
    assert seen == wanted


def test_weights_start_with_the_deviation_asked_for():
    """A normal cut at two deviations is widened; the halting heads begin at -5, the puzzle embedding at 0."""
    torch.manual_seed(0)
    drawn = truncated_normal((400, 400), std=0.5)
    assert abs(drawn.std() - 0.5) < 0.005
    assert drawn.abs().max() <= 2 * 1.13685 * 0.5 + 1e-4
    network = Network(small_config())
    assert network.q_head.bias.tolist() == [-5, -5]
    assert not network.q_head.weight.any()
    assert not network.puzzle_emb.weights.any()


def test_default_sudoku_model_has_the_official_number_of_parameters():
    """27,275,266 for HRM's published configuration."""
    config = small_config(
        vocab_size=11,
        seq_len=81,
        hidden_size=512,
        num_heads=8,
        expansion=4.0,
        H_layers=4,
        L_layers=4,
        puzzle_emb_ndim=512,
    )
    shapes = config.shapes()
    buffers = {"H_init", "L_init", "puzzle_emb.weights"}
    assert sum(int(np.prod(shape)) for name, shape in shapes.items() if name not in buffers) == 27_275_266
